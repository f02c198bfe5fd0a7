"""`preceptor train grpo`, `rloo` and `online-dpo` as a person calls them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from preceptor.cli import runs
from preceptor.cli.train.app import app
from preceptor.constitution.errors import UserError
from preceptor.judge.errors import BudgetReached
from preceptor.run.config import RunConfig
from tests.command_line import Preceptor
from tests.servers.vllm import serving
from tests.train.test_ppo_command import PROMPTS, REWARD

pytestmark = pytest.mark.slow

SMALL = "--batch-size 4 --samples 2 --max-new-tokens 6 --max-length 64 --rank 4"
CONSTITUTION = (
    "name: short\nversion: 1.0.0\nprinciples:\n  - id: short\n    text: Choose the shorter reply.\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with prompts, a reward function, a judge and its constitution."""
    (tmp_path / "prompts.jsonl").write_text(PROMPTS)
    (tmp_path / "rewarding.py").write_text(REWARD)
    (tmp_path / "short.yaml").write_text(CONSTITUTION)
    (tmp_path / "judge.jsonl").write_text(json.dumps({"match": ".", "text": "Score: 7"}) + "\n")
    return tmp_path


def test_grpo_trains_once_and_says_so_the_second_time(
    preceptor: Preceptor, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    words = f"train grpo prompts.jsonl --reward rewarding:short --model {tiny} --out out {SMALL} --json"
    runs = [preceptor(*words.split()) for _ in range(2)]
    assert runs[0].code == 0, runs[0].err
    result = json.loads(runs[0].out)
    assert result["steps"] == 2
    assert result["metrics"]["reward"] <= 0
    assert "4 prompts in, 4 trained on" in runs[0].err
    assert "KL" in runs[0].err
    assert (place / "out/adapter_model.safetensors").is_file()
    assert json.loads(runs[1].out)["finished_before"]


@pytest.mark.parametrize("kind", ["rloo", "ppo"])
def test_the_judge_rewards_and_at_its_budget_the_exit_code_is_3(
    kind: str, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a cap of 0 nothing leaves, so that nobody needs to listen."""
    monkeypatch.chdir(place)
    words = f"{kind} prompts.jsonl -c short.yaml --judge-mode score {SMALL} --model {tiny}"
    words += " --minibatches 2" if kind == "ppo" else ""
    app(f"{words} --judge scripted/judge.jsonl --out out --json".split(), standalone_mode=False)
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["reward"] == pytest.approx((7 - 1) / 9 * 2 - 1)
    assert result["metrics"]["masked"] == 0
    assert (place / ".preceptor/ledger.db").is_file()
    priced = f"{words} --judge openai/gpt-4o --base-url http://127.0.0.1:9 --max-cost 0 --out stopped"
    with pytest.raises(BudgetReached) as caught:
        app(priced.split(), standalone_mode=False)
    assert caught.value.exit_code == 3
    assert not (place / "stopped/manifest.json").exists()


def test_ppo_and_grpo_draw_at_a_server(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    with serving(tiny) as server:
        where = f"--vllm {server.url}/v1 --reward rewarding:short --model {tiny}"
        app(f"ppo prompts.jsonl {where} --minibatches 2 --out ppo {SMALL}".split(), standalone_mode=False)
        asked = len(server.seen)
        former = where.replace("--vllm", "--rollouts vllm --base-url")
        app(f"grpo prompts.jsonl {former} --out grpo {SMALL}".split(), standalone_mode=False)
        assert len(server.seen) > asked > 0
    assert "warning: --rollouts vllm --base-url URL is now --vllm URL" in capsys.readouterr().err
    rows = [json.loads(line) for line in Path("ppo/metrics.jsonl").read_text().splitlines()]
    assert all(abs(row["sampler_gap_nats"]) < 1e-3 for row in rows)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_plan_counts_the_steps_and_former_spellings_say_their_new_ones(
    kind: str, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = (
        f"{kind} prompts.jsonl --reward judge --judge scripted/judge.jsonl -c short.yaml --judge-mode score"
    )
    app(f"{words} {SMALL} --model {tiny} --out out --plan --json".split(), standalone_mode=False)
    said = capsys.readouterr()
    plan = json.loads(said.out)
    assert (plan["stage"], plan["steps"], plan["rows"], plan["memory_bytes"]) == (kind, 2, 4, None)
    assert "warning: --reward judge is now --judge alone" in said.err
    assert f"so say hf/{tiny}" in said.err
    assert not Path("out").exists()


@pytest.mark.parametrize("kind", ["grpo", "rloo", "ppo"])
def test_prompts_may_stand_in_columns_of_other_names(
    kind: str, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan is that of the same prompts under our names."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    rows = [json.loads(line) for line in PROMPTS.splitlines()]
    named = [{"id": row.get("id"), "question": row["prompt"], "prompt": 1} for row in rows]
    Path("named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    plans = []
    for source in ("prompts.jsonl", "named.jsonl --map prompt=question"):
        words = f"{kind} {source} --reward rewarding:short --model hf/{tiny} --batch-size 4 --samples 2"
        more = "--max-new-tokens 6 --max-length 64 --rank 4 --out out --plan --json"
        more += " --minibatches 1" if kind == "ppo" else ""
        app(f"{words} {more}".split(), standalone_mode=False)
        plan = json.loads(capsys.readouterr().out)
        plans.append((plan["stage"], plan["steps"], plan["rows"]))
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--reward judge", "--reward judge needs --judge"),
        ("", "nobody rewards; name a reward model or a function with --reward, or a judge with --judge"),
        ("--judge embedded", "--judge needs --constitution"),
        ("--judge embedded -c short.yaml --base-url http://x", "embedded does not take --base-url"),
        (
            "--judge checks -c short.yaml",
            "--judge checks: machine checks alone give no reward",
        ),
        (
            "--reward rewarding:short --judge embedded --max-cost 1",
            "--judge and --max-cost: no effect with --reward",
        ),
        ("--reward rewarding:short --rollouts vllm", "--rollouts vllm needs --base-url"),
        ("--reward rewarding:short --base-url http://x", "--base-url: no effect with --reward"),
        (
            "--reward rewarding:short --batch-size 6 --samples 4",
            "batch_size 6 is not a multiple of samples 4",
        ),
        ("--reward rewarding:short --samples 1", "--samples is 1: input should be greater than 1"),
        ("--reward rewarding:long", "no reward function rewarding:long"),
        ("--reward nowhere", "no reward 'nowhere'"),
        ("--reward .", "it has no score_head.safetensors"),
        ("--reward rewarding:short --adapter bare", "no adapter folder"),
    ],
)
@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_bad_input_is_told_and_leaves_nothing_behind(
    kind: str, tiny: Path, place: Path, words: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    model = "" if "--adapter" in words else f" --model {tiny}"
    with pytest.raises(UserError) as caught:
        app(f"{kind} prompts.jsonl {words}{model} --out out".split(), standalone_mode=False)
    assert message in str(caught.value)
    assert not Path("out").exists()


def test_online_dpo_is_a_run_with_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said by flags is what a run file would say; what is not said is the run's own default."""
    described: list[RunConfig] = []
    monkeypatch.setattr(runs, "run_or_plan", lambda config, *_: described.append(config))
    words = (
        "online-dpo prompts.jsonl --judge checks -c front-desk --out here --samples 4 --rounds 3 --beta 0.2"
    )
    words += " --seed 5 --rpm 30 --timeout 9 --price 0.25,2 --batch --held-out-limit 7"
    app(words.split(), standalone_mode=False)
    (config,) = described
    assert (config.rounds, config.round_prompts, config.reference) == (3, "split", "first")
    assert (config.respond.samples, config.pairs, config.dpo.beta, config.seed) == (4, "all", 0.2, 5)
    assert (config.prompts.file, config.prompts.held_out_limit) == ("prompts.jsonl", 7)
    assert (config.rpm, config.timeout_s, config.batch) == (30, 9, True)
    assert (config.prices[""].input, config.concurrency) == (
        0.25,
        RunConfig.model_fields["concurrency"].default,
    )
    assert config.sft is None
    assert config.revise is None
    assert config.reward is None


def test_online_dpo_names_the_flag_that_cannot_be(tmp_path: Path) -> None:
    words = f"online-dpo p --judge checks -c front-desk --out {tmp_path} --beta 0"
    with pytest.raises(UserError, match=r"--beta is 0.0: input should be greater than 0"):
        app(words.split(), standalone_mode=False)
