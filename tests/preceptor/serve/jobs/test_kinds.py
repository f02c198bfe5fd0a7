"""Kinds of jobs that train: each ends with what its command writes, and the next job takes it by the job's id."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from preceptor.prompts.pool import prompts_from
from tests.command_line import Preceptor
from tests.preceptor.serve.jobs.conftest import Served
from tests.preceptor.serve.jobs.serving import Server

pytestmark = pytest.mark.slow
PAIRS = "".join(
    json.dumps(
        {
            "prompt": f"Where is room {n}?",
            "chosen": f"Room {n} is on floor {n}.",
            "rejected": f"Well, well. It is room {n}, I think, or perhaps it is not.",
        }
    )
    + "\n"
    for n in range(1, 7)
)
PROMPTS = "".join(prompt.model_dump_json() + "\n" for prompt in islice(prompts_from("front-desk"), 4))
REWARD = {"epochs": 1, "batch_size": 3, "rank": 2}
ONLINE = {"epochs": 1, "rank": 2, "max_new_tokens": 8}


SAME = ("adapter_model.safetensors", "metrics.jsonl")
"""Of a training, the files that hold no time and no place."""


def flags(settings: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())


def succeeded(server: Server, **body: Any) -> dict[str, Any]:
    job = server.ended(server.create(body)["id"])
    assert job["status"] == "succeeded", job["error"]
    return job


def by_name(server: Server, job: dict[str, Any]) -> dict[str, bytes]:
    """What a job wrote, by the name of each file without its folders."""
    return {Path(name).name: content for name, content in server.results(job).items()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def rewarding(served: Served) -> dict[str, Any]:
    """A job that trained a reward model on the embedded one."""
    server = served.server
    return succeeded(server, kind="reward", input=server.upload(PAIRS), model="embedded", settings=REWARD)


@pytest.fixture
def reward_model(preceptor: Preceptor) -> Path:
    """The same by the command."""
    Path("rows.jsonl").write_text(PAIRS)
    ended = preceptor("train", "reward", "rows.jsonl", "--model=embedded", *flags(REWARD), "--out=reward")
    assert ended.code == 0, ended.err
    return Path("reward")


def test_a_reward_model_is_the_commands_and_grades(
    served: Served, rewarding: dict[str, Any], reward_model: Path, preceptor: Preceptor
) -> None:
    server = served.server
    made = by_name(server, rewarding)
    for name in SAME:
        assert made[name] == (reward_model / name).read_bytes(), name
    # its header names what it is for in no order
    head, other = (load(one["score_head.safetensors"]) for one in (made, files_of(reward_model)))
    assert {name: value.tolist() for name, value in head.items()} == {n: v.tolist() for n, v in other.items()}
    graded = succeeded(server, kind="score", input=server.upload(PAIRS), reward=rewarding["id"])
    ended = preceptor("score", "rows.jsonl", f"--reward-model={reward_model}", "--out=scores.jsonl")
    assert ended.code == 0, ended.err
    grades = [
        [(row["id"], row["reward"]) for row in map(json.loads, text.splitlines())]
        for text in (by_name(server, graded)["scores.jsonl"], Path("scores.jsonl").read_bytes())
    ]
    assert grades[0] == grades[1]
    assert len({grade for _, grade in grades[0]}) > 1


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_policy_learns_from_the_reward_model_of_a_job_and_is_exported(
    kind: str, served: Served, rewarding: dict[str, Any], reward_model: Path, preceptor: Preceptor
) -> None:
    server = served.server
    policy = succeeded(
        server,
        kind=kind,
        input=server.upload(PROMPTS),
        model="embedded",
        reward=rewarding["id"],
        settings=ONLINE,
    )
    Path("prompts.jsonl").write_text(PROMPTS)
    words = ("prompts.jsonl", "--model=embedded", f"--reward={reward_model}", *flags(ONLINE), "--out=policy")
    ended = preceptor("train", kind, *words)
    assert ended.code == 0, ended.err
    made = by_name(server, policy)
    assert made[SAME[0]] == Path("policy", SAME[0]).read_bytes()
    exported = succeeded(server, kind="export", input=policy["id"], settings={"format": "merged"})
    ended = preceptor("export", "policy", "--format=merged", "--out=exported")
    assert ended.code == 0, ended.err
    weights = by_name(server, exported)["model.safetensors"]
    assert weights == Path("exported/model.safetensors").read_bytes()


def test_a_run_is_the_command_of_its_run_file(served: Served, preceptor: Preceptor) -> None:
    """Every stage of it; what it made is there by name, and its folder holds where it stands."""
    server = served.server
    settings = {
        "prompts": {"limit": 4, "held_out_share": 0.5},
        "respond": {"samples": 2, "max_tokens": 16},
        "revise": {"rounds": 1, "max_tokens": 16},
        "label": {"principles": "each"},
        "reward": {"epochs": 1},
        "dpo": {"epochs": 1},
    }
    who = {"model": "embedded", "judge": "embedded", "constitution": "front-desk"}
    job = succeeded(server, kind="run", input="front-desk", **who, settings=settings)
    file = who | settings | {"out": "run", "prompts": {"file": "front-desk", **settings["prompts"]}}
    Path("run.yaml").write_text(json.dumps(file))
    ended = preceptor("run", "run.yaml")
    assert ended.code == 0, ended.err
    made = server.results(job)
    for name in ("1-prompts.jsonl", "4-labels.jsonl", "5-preferences.jsonl"):
        assert made[name] == Path("run", name).read_bytes(), name
    assert (
        json.loads(made["summary.json"])["labels"]
        == json.loads(Path("run/summary.json").read_text())["labels"]
    )
    assert b"<html" in made["9-report.html"]
