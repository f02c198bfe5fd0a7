"""`preceptor train ppo` as a person calls it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.cli.train.app import app
from preceptor.constitution.errors import UserError
from preceptor.train.reward import train_reward
from preceptor.train.settings import RewardModelSettings
from tests.command_line import Preceptor
from tests.servers.llm import LLMServer
from tests.train.tiny import preference

pytestmark = pytest.mark.slow

PROMPTS = "\n".join(json.dumps({"prompt": f"{number}: where is the pool?"}) for number in range(4))
REWARD = (
    "def short(prompts, completions, **columns):\n    return [-float(len(text)) for text in completions]\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with prompts and a reward function."""
    (tmp_path / "prompts.jsonl").write_text(PROMPTS)
    (tmp_path / "rewarding.py").write_text(REWARD)
    return tmp_path


def test_ppo_trains_once_and_says_so_the_second_time(
    preceptor: Preceptor, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    words = f"train ppo prompts.jsonl --reward rewarding:short --model {tiny} --out out --batch-size 4 --samples 2"
    words += " --minibatches 2 --max-new-tokens 6 --max-length 64 --rank 4 --kl-target 5 --json"
    runs = [preceptor(*words.split()) for _ in range(2)]
    assert runs[0].code == 0, runs[0].err
    result = json.loads(runs[0].out)
    assert result["steps"] == 2
    assert result["metrics"]["final"]["reward"] <= 0
    assert "4 prompts in, 4 trained on" in runs[0].err
    assert "handed back: the policy of step 2" in runs[0].err
    assert (place / "out/adapter_model.safetensors").is_file()
    assert json.loads(runs[1].out)["finished_before"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--reward nowhere",
            "no reward 'nowhere': wanted the folder of a reward model, or `module:function`",
        ),
        ("--reward rewarding:long", "no reward function rewarding:long"),
        (
            "--reward rewarding:short --batch-size 6 --samples 4",
            "batch_size 6 is not a multiple of samples 4",
        ),
        ("--reward rewarding:short --minibatches 99", "minibatches 99 is more than a step's 16 prompts"),
        ("--reward rewarding:short --kl-beta 0 --kl-target 2", "kl_target steers kl_beta by factors"),
        ("--reward rewarding:short --max-length 100", "max_new_tokens 128 leaves no room for a prompt"),
        (
            "--reward rewarding:short --overlong-buffer 200",
            "overlong_buffer 200 is more than max_new_tokens 128",
        ),
        ("--reward rewarding:short --kl-estimator k2", "--kl-estimator is 'k2'"),
        ("--reward rewarding:short --adapter bare", "no adapter folder"),
        ("--reward .", "it has no score_head.safetensors"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing_behind(
    tiny: Path, place: Path, words: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "rewarding", raising=False)
    model = "" if "--adapter" in words else f" --model {tiny}"
    with pytest.raises(UserError) as caught:
        app(f"ppo prompts.jsonl {words}{model} --out out".split(), standalone_mode=False)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert not Path("out").exists()


LAW = """\
name: short
version: 1.0.0
principles:
  - {id: short, text: Choose the shorter reply., check: {max_words: 3}}
"""


@pytest.mark.parametrize(
    ("judge", "meaning"), [("openai/judge", "start's reply"), ("checks", "every principle")]
)
def test_a_guard_beside_a_reward_model(
    judge: str,
    meaning: str,
    tiny: Path,
    place: Path,
    start_server: Callable[..., LLMServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As docs/over-optimisation.md shows it: the constitution, the address and the cap are the guard's."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    (place / "law.yaml").write_text(LAW)
    rows = [preference(number) for number in range(8)]
    train_reward(rows, RewardModelSettings(model=str(tiny), rank=4, held_out=0.0), place / "reward")
    words = f"ppo prompts.jsonl --reward reward --model {tiny} --out out --batch-size 4 --samples 2 --rank 4"
    words += (
        " --minibatches 2 --max-new-tokens 6 --max-length 64 --guard-prompts prompts.jsonl --guard-every 1"
    )
    words += f" --guard-judge {judge} -c law.yaml"
    if judge != "checks":
        words += f" --base-url {start_server().url} --max-cost 3"
    app(words.split(), standalone_mode=False)
    looks = [json.loads(line) for line in Path("out/guard.jsonl").read_text().splitlines()]
    assert [look["step"] for look in looks] == [0, 1, 2]
    assert all(look["judged"] == 4 for look in looks)
    assert meaning in json.loads(Path("out/guard.json").read_text())["meaning"]


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("--guard-judge oracle/embedded -c law.yaml", "--constitution"),
        ("--guard-judge checks -c law.yaml --max-cost 1", "--max-cost"),
        ("--guard-judge openai/judge -c law.yaml --judge openai/other", "--judge"),
        ("-c law.yaml", "--constitution"),
    ],
)
def test_what_no_judge_goes_by_is_refused(
    words: str, idle: str, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "law.yaml").write_text(LAW)
    guard = " --guard-prompts prompts.jsonl" if "--guard-judge" in words else ""
    with pytest.raises(UserError, match=f"^{idle}: no effect with --reward"):
        app(
            f"ppo prompts.jsonl --reward rewarding:short --model {tiny} --out out {words}{guard}".split(),
            standalone_mode=False,
        )
