"""What a client asks for becomes a command that there is, with flags that it has, and no path of the client's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from preceptor.cli.app import app
from preceptor.cli.lazy import Deferred
from preceptor.constitution.files import dump, load
from preceptor.judge.ledger.owner import new_owner
from preceptor.prompts.pool import shipped_pools
from preceptor.run.config import load as load_run
from preceptor.serve.config import ModelEntry, ServeConfig
from preceptor.serve.jobs.commands import NEVER, RECIPES, UNPLANNED, AskedJob, flags_of, work_of
from preceptor.serve.jobs.store import JobStore, Work
from preceptor.serve.problems import Problem
from preceptor.spelling import spellings_of

CONFIG = ServeConfig(
    models={
        "judge": ModelEntry(model="openai/gpt-4o-mini", base_url="http://127.0.0.1:1/v1"),
        "embedded": ModelEntry(model="embedded"),
    },
    constitutions={"style": "style", "house": "house.yaml"},
)


@pytest.fixture
def store() -> Iterator[JobStore]:
    made = JobStore("jobs.db", Path("data").absolute())
    yield made
    made.close()


def command_of(words: tuple[str, ...]) -> Any:
    """The command that these words begin with."""
    command: Any = typer.main.get_command(app)
    for word in words:
        found = command.commands[word]
        command = found.load() if isinstance(found, Deferred) else found
    return command


def flags_there(words: tuple[str, ...]) -> set[str]:
    return {flag for one in command_of(words).params for flag in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("kind", RECIPES)
def test_every_setting_that_a_job_takes_is_a_flag_of_its_command(kind: str) -> None:
    recipe = RECIPES[kind]
    known = {name for one in recipe.settings for name in one.model_fields} - NEVER - {*recipe.omit}
    there = flags_there(recipe.words)
    assert sorted({spellings_of(name)[0] for name in known} - there) == []
    switches = {
        name
        for one in recipe.settings
        for name, info in one.model_fields.items()
        if name in known and info.annotation is bool
    }
    assert not {f"--no-{spellings_of(name)[0].removeprefix('--')}" for name in switches} - there
    assert "--json" in there
    assert not recipe.spends or "--max-cost" in there
    assert not recipe.out or "--out" in there
    assert (kind in UNPLANNED) == ("--plan" not in there)


def trained(store: JobStore, kind: str) -> str:
    """The id of a training that has succeeded."""
    worker = new_owner()
    with store.creation("me", None, {}) as creation:
        made = creation.make("job", kind, {}, Work(("train",), {}, {}, "model"), "job-")
    claimed = store.claim(worker)
    assert claimed is not None
    store.finish(claimed, worker, 0, None, {}, {})
    return made.id


def test_the_words_of_each_kind(store: JobStore) -> None:
    Path("house.yaml").write_text(dump(load("style")).replace("name: style", "name: house"))
    config = CONFIG.model_copy(update={"constitutions": {"house": str(Path("house.yaml").absolute())}})
    file = store.add_file("me", "user_data", "../../x.csv", iter([b"prompt\nx\n"])).id
    policy, rewards = trained(store, "dpo"), trained(store, "reward")

    def work(**body: Any) -> Work:
        return work_of(AskedJob.model_validate(body), config, store, "me")

    made = work(kind="respond", input=file, model=policy, settings={"samples": 2})
    assert made.words == (
        *("respond", "prompts.csv", f"--model=hf/../{policy}/model", "--samples=2", "--out=responses.jsonl"),
    )
    assert made.files == {"prompts.csv": file}
    made = work(kind="revise", input=file, model="judge", constitution="house", max_cost_usd=0.5)
    assert made.words == (
        *("revise", "responses.csv", "--model=openai/gpt-4o-mini", "--constitution=constitution.yaml"),
        "--base-url=openai/gpt-4o-mini=http://127.0.0.1:1/v1",
        *("--max-cost=0.5", "--out=revisions.jsonl"),
    )
    Path("there.yaml").write_text(made.texts["constitution.yaml"])
    assert load("there.yaml").identity == load("house.yaml").identity
    assert work(kind="score", input=file, reward=rewards).words[2:] == (
        f"--reward-model=../{rewards}/model",
        "--out=scores.jsonl",
    )
    assert work(kind="audit", input=file, judge="checks", constitution="style").out == ""
    made = work(kind="grpo", input=file, model="embedded", reward=rewards, settings={"samples": 4})
    assert made.words[:2] == ("train", "grpo")
    assert f"--reward=../{rewards}/model" in made.words
    made = work(kind="export", input=policy, settings={"format": "merged"})
    assert made.words == ("export", f"../{policy}/model", "--format=merged", "--out=export")
    with pytest.raises(Problem, match="is no job that has succeeded, of kind reward"):
        work(kind="grpo", input=file, model="embedded", reward=policy)
    with pytest.raises(Problem, match="there is no file"):
        work_of(AskedJob(kind="sft", input=file, model="embedded"), config, store, "you")


def test_the_words_of_the_workbench(store: JobStore) -> None:
    file = store.add_file("me", "user_data", "x.jsonl", iter([b'{"prompt": "x"}\n'])).id
    labels = trained(store, "label")

    def work(**body: Any) -> Work:
        return work_of(AskedJob.model_validate(body), CONFIG, store, "me")

    place = "--base-url=openai/gpt-4o-mini=http://127.0.0.1:1/v1"
    made = work(
        kind="synthesize",
        input=shipped_pools()[0],
        model="judge",
        constitution="style",
        labels=labels,
        held_out=file,
        settings={"fill": True, "count": 3, "tag": ["x"]},
    )
    assert made.words[:2] == ("prompts", "synthesize")
    assert made.words[3:] == (
        *("--model=openai/gpt-4o-mini", "--constitution=style", f"--labels=../{labels}/labels"),
        *("--held-out=held_out.jsonl", place, "--fill", "--count=3", "--tag=x", "--out=new-prompts.jsonl"),
    )
    assert made.files == {"held_out.jsonl": file}
    made = work(kind="coverage", input=file, constitution="style", labels=labels)
    assert made.words == (
        *("prompts", "coverage", "prompts.jsonl", "--constitution=style", f"--labels=../{labels}/labels"),
    )
    made = work(kind="dedupe", input=file, held_out=file, settings={"leakage": "drop"})
    assert made.words[2:] == (
        "prompts.jsonl",
        *("--held-out=held_out.jsonl", "--leakage=drop", "--out=kept.jsonl"),
    )
    made = work(kind="amend", labels=labels, overrides=file, model="judge", judge="judge", max_cost_usd=1)
    assert made.words[:3] == ("constitution", "induce", f"../{labels}/labels")
    assert "--from-overrides=overrides.jsonl" in made.words
    body = {"kind": "tune", "input": file, "judge": "judge", "constitution": "style", "principle": "brevity"}
    made = work(**body, settings={"wording": ["-x"], "tie": False})
    assert made.words[:5] == ("constitution", "tune", "style", "brevity", "gold.jsonl")
    assert {"--wording=-x", "--no-tie"} <= {*made.words}
    made = work(kind="test", constitution="style", judge="checks")
    assert made.words == ("constitution", "test", "style", "--judge=checks")
    assert work(
        kind="replay", labels=labels, settings={"without": ["brevity"], "weights": ["a=2"]}
    ).words == (
        *(
            "constitution",
            "replay",
            f"../{labels}/labels",
            "--without=brevity",
            "--weights=a=2",
            "--out=labels",
        ),
    )
    for wrong, pointer in (
        ({**body, "principle": "--out=/etc"}, "/principle"),
        ({**body, "labels": labels}, "/labels"),
        ({"kind": "replay", "labels": trained(store, "dpo")}, "/labels"),
        ({"kind": "dedupe", "input": file, "held_out": "../../x"}, "/held_out"),
        ({"kind": "coverage", "input": file, "constitution": "style", "max_cost_usd": 1}, "/max_cost_usd"),
    ):
        with pytest.raises(Problem) as refused:
            work(**wrong)
        assert [one["pointer"] for one in refused.value.more["errors"]] == [pointer]


def test_a_run_is_a_run_file_that_can_be_read(store: JobStore) -> None:
    file = store.add_file("me", "user_data", "x.jsonl", iter([b'{"prompt": "x"}\n'])).id
    asked = AskedJob(
        kind="run",
        input=file,
        model="embedded",
        judge="judge",
        constitution="style",
        settings={"dpo": {"beta": 0.3}, "seed": 4, "prompts": {"limit": 2}, "respond": {"samples": 2}},
        max_cost_usd=0.25,
    )
    work = work_of(asked, CONFIG, store, "me")
    assert work.words == ("run", "run.yaml")
    Path("run.yaml").write_text(work.texts["run.yaml"])
    run = load_run(Path("run.yaml"))
    assert (run.dpo.beta, run.seed, run.prompts.limit, run.max_cost_usd) == (0.3, 4, 2, 0.25)
    assert run.prompts.file == "prompts.jsonl"
    assert run.base_url == {"openai/gpt-4o-mini": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize("value", ["--out=/etc", "a b", '"; rm -rf /', "-c", "\n--out=x"])
def test_no_value_becomes_a_flag_of_its_own(value: str) -> None:
    words = list(flags_of({"system": value}, RECIPES["respond"].settings))
    assert words == [f"--system={value}"]


def test_every_fault_is_told_with_its_place() -> None:
    with pytest.raises(Problem) as caught:
        list(flags_of({"samples": 0, "top_p": 2, "adapter": "/"}, RECIPES["respond"].settings))
    places = {fault["pointer"] for fault in caught.value.more["errors"]}
    assert places == {"/settings/samples", "/settings/top_p", "/settings/adapter"}
    assert json.dumps(caught.value.more)
