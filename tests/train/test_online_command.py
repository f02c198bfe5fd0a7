"""`preceptor train grpo`, `rloo` and `online-dpo` as a person calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.cli.train import app
from preceptor.cli.train_online import run_values
from preceptor.constitution.errors import UserError
from preceptor.judge.errors import BudgetReached
from preceptor.run.config import checked
from preceptor.train.settings import GrpoSettings, RlooSettings
from tests.servers.vllm import serving
from tests.train.test_ppo_command import PROMPTS, REWARD, SOURCES

pytestmark = pytest.mark.slow

SETTINGS = {"grpo": GrpoSettings, "rloo": RlooSettings}
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


def preceptor(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in `folder`."""
    call = [sys.executable, "-c", "from preceptor.cli.app import main; main()", "train", *words.split()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        call, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=240
    )


def test_grpo_trains_once_and_says_so_the_second_time(tiny: Path, place: Path) -> None:
    words = f"grpo prompts.jsonl --reward rewarding:short --model {tiny} --out out {SMALL} --json"
    runs = [preceptor(place, words) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    result = json.loads(runs[0].stdout)
    assert result["steps"] == 2
    assert result["metrics"]["reward"] <= 0
    assert "4 prompts in, 4 trained on" in runs[0].stderr
    assert "KL" in runs[0].stderr
    assert (place / "out/adapter_model.safetensors").is_file()
    assert json.loads(runs[1].stdout)["finished_before"]


@pytest.mark.parametrize("kind", ["rloo", "ppo"])
def test_the_judge_rewards_and_at_its_budget_the_exit_code_is_3(
    kind: str, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a cap of 0 nothing leaves, so that nobody needs to listen."""
    monkeypatch.chdir(place)
    words = f"{kind} prompts.jsonl --reward judge -c short.yaml --judge-mode score {SMALL} --model {tiny}"
    words += " --minibatches 2" if kind == "ppo" else ""
    app(f"{words} --judge scripted/judge.jsonl --out out --json".split(), standalone_mode=False)
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["reward"] == pytest.approx((7 - 1) / 9 * 2 - 1)
    assert result["metrics"]["masked"] == 0
    assert (place / ".preceptor/ledger.db").is_file()
    priced = f"{words} --judge openai/gpt-4o --judge-base-url http://127.0.0.1:9 --max-cost 0 --out stopped"
    with pytest.raises(BudgetReached) as caught:
        app(priced.split(), standalone_mode=False)
    assert caught.value.exit_code == 3
    assert not (place / "stopped/manifest.json").exists()


def test_ppo_and_grpo_draw_at_a_server(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    with serving(tiny) as server:
        where = f"--rollouts vllm --base-url {server.url}/v1 --reward rewarding:short --model {tiny}"
        app(f"ppo prompts.jsonl {where} --minibatches 2 --out ppo {SMALL}".split(), standalone_mode=False)
        asked = len(server.seen)
        app(f"grpo prompts.jsonl {where} --out grpo {SMALL}".split(), standalone_mode=False)
        assert len(server.seen) > asked > 0
    rows = [json.loads(line) for line in Path("ppo/metrics.jsonl").read_text().splitlines()]
    assert all(abs(row["sampler_gap_nats"]) < 1e-3 for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--reward judge", "--reward judge needs --judge"),
        ("--reward judge --judge embedded", "--reward judge needs --constitution"),
        (
            "--reward judge --judge checks -c short.yaml",
            "--judge checks: machine checks alone give no reward",
        ),
        (
            "--reward rewarding:short --judge embedded --max-cost 1",
            "--judge and --max-cost: no effect without",
        ),
        ("--reward rewarding:short --rollouts vllm", "--rollouts vllm needs --base-url"),
        ("--reward rewarding:short --base-url http://x", "--base-url has no effect without --rollouts vllm"),
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


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_flags_and_settings_agree(kind: str) -> None:
    """The defaults shown are the settings' own, and every setting that changes the result has a flag."""
    from typer.main import get_command

    fields = SETTINGS[kind].model_fields
    options = get_command(app).commands[kind].params  # type: ignore[attr-defined]
    apart = {"model", "pass_tokens", "rollout_tokens", "gradient_checkpointing"}
    for option in options:
        shown = getattr(option, "show_default", None)
        if isinstance(shown, str) and option.name not in apart:
            assert shown == str(fields[option.name].default), option.name
    flags = {"compile" if option.name == "compile_model" else option.name for option in options}
    assert set(fields) - {"warmup"} == flags - {"prompts", "reward", "out", "json"} - SOURCES


def test_online_dpo_is_a_run_with_rounds(tmp_path: Path) -> None:
    """What is said by flags is what a run file would say; what is not said is the run's own default."""
    from typer.main import get_command

    command = get_command(app).commands["online-dpo"]  # type: ignore[attr-defined]
    words = "prompts.jsonl --judge checks -c front-desk --out here --samples 4 --rounds 3 --beta 0.2 --seed 5"
    flags = command.make_context("online-dpo", words.split()).params
    config = checked(run_values(flags), "flags")
    assert (config.rounds, config.round_prompts, config.reference) == (3, "split", "first")
    assert (config.respond.samples, config.pairs, config.dpo.beta, config.seed) == (4, "all", 0.2, 5)
    assert config.sft is None
    assert config.revise is None
    assert config.reward is None
    with pytest.raises(UserError, match=r"the flags do not describe a run:\n  dpo.beta: 0.0 came"):
        app(
            f"online-dpo p --judge checks -c front-desk --out {tmp_path} --beta 0".split(),
            standalone_mode=False,
        )
