"""GRPO and RLOO: what they find where the answer is known, what a missing reward does, and that a broken run is
the unbroken one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preceptor.judge.errors import BudgetReached, Rejected
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.reward import JudgeReward
from preceptor.judge.reward import RewardSettings as JudgeSettings
from preceptor.prompts.records import Message, Prompt
from preceptor.train.data.pairs import encode_messages
from preceptor.train.errors import RunFolderError, TrainDataError
from preceptor.train.grpo.train import rows_in_a_pass, train_grpo, train_rloo
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.run import TrainingProgress
from preceptor.train.models.adapters import adapt_from
from preceptor.train.models.base import load_base
from preceptor.train.reward import train_reward
from preceptor.train.settings import GroupSettings, GrpoSettings, RewardModelSettings, RlooSettings
from tests.jsonl import metrics_of
from tests.judge.canned import BOTH, says
from tests.train.rewards import vowels
from tests.train.tiny import preference

KINDS = ["grpo", "rloo"]
PROMPTS = [
    Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number} " + "ab" * (number % 3)),))
    for number in range(6)
]
HELLO = [Prompt(id="hello", messages=(Message(role="user", content="hello"),))]


class StoppedError(Exception):
    """What a signal would do."""


def settings_of(kind: str, tiny: Path, **changes: Any) -> GroupSettings:
    values = {
        "model": str(tiny),
        "rank": 4,
        "alpha": 8,
        "batch_size": 8,
        "samples": 4,
        "max_new_tokens": 6,
        "max_length": 64,
        "epochs": 2,
        "learning_rate": 3e-3,
        "checkpoint_every": 2,
        "kl_beta": 0.05,
    }
    chosen: type[GroupSettings] = GrpoSettings if kind == "grpo" else RlooSettings
    return chosen.model_validate({**values, **changes})


def train(settings: GroupSettings, out: Path, reward: Any = vowels, **more: Any) -> Trained:
    prompts = more.pop("prompts", PROMPTS)
    if isinstance(settings, GrpoSettings):
        return train_grpo(prompts, settings, out, reward=reward, **more)
    assert isinstance(settings, RlooSettings)
    return train_rloo(prompts, settings, out, reward=reward, **more)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def moved(folder: Path) -> bool:
    """A fresh adapter has changed something."""
    return any(bool(value.any()) for name, value in weights_of(folder).items() if "lora_B" in name)


def first_token(model: torch.nn.Module, tokenizer: Any) -> torch.Tensor:
    ids = encode_messages(tokenizer, HELLO[0].messages, generation_prompt=True)
    with torch.no_grad():
        shares: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    return shares


@pytest.mark.parametrize("kind", KINDS)
def test_the_rewarded_letter_of_a_bandit_is_found(kind: str, tiny: Path, tmp_path: Path) -> None:
    """One prompt, replies of one token, a reward for the likeliest letter."""
    base = load_base(str(tiny))
    before = first_token(base.model, base.tokenizer)
    letters = {chr(code): base.tokenizer.convert_tokens_to_ids(chr(code)) for code in range(97, 123)}
    letter = max(letters, key=lambda each: float(before[letters[each]]))

    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:  # noqa: ARG001
        return [float(text == letter) for text in completions]

    settings = settings_of(
        kind, tiny, batch_size=64, samples=64, max_new_tokens=1, epochs=40, kl_beta=0.0, learning_rate=1e-2
    )
    trained = train(settings, tmp_path / "out", reward, prompts=HELLO)
    after = first_token(adapt_from(load_base(str(tiny)), trained.folder, False).eval(), base.tokenizer)
    assert float(before[letters[letter]]) < 0.2
    assert float(after[letters[letter]]) > 0.5
    assert metrics_of(trained.folder)[-1]["reward"] > 0.5
    assert train(settings, tmp_path / "out", reward, prompts=HELLO).finished_before


# Rewards


def given(function: Callable[[int, str], float | None]) -> Callable[..., list[float | None]]:
    """A reward by the number of a reply in its step, and its text."""

    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float | None]:  # noqa: ARG001
        return [function(number, text) for number, text in enumerate(completions)]

    return reward


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_step_without_any_reward_moves_no_weight(
    kind: str, beta: float, tiny: Path, tmp_path: Path
) -> None:
    """Neither by what the optimiser remembers of earlier steps nor towards the reference; KL is still told."""
    calls = 0

    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float | None]:
        nonlocal calls
        calls += 1
        return [*vowels(prompts, completions, **columns)] if calls <= 2 else [None] * len(completions)

    settings = settings_of(kind, tiny, kl_beta=beta)
    whole = train(settings, tmp_path / "out", reward)
    rows = metrics_of(whole.folder)
    assert [row["masked"] for row in rows] == [0, 0, 8, 8, 8, 8][: len(rows)]
    assert len(rows) == 6
    assert rows[-1]["reward"] is None
    assert all(isinstance(row["kl_nats"], float) for row in rows)
    assert moved(whole.folder)
    nothing = train(settings, tmp_path / "nothing", given(lambda _, __: None))
    assert not moved(nothing.folder)
    stopped = interrupted(settings, tmp_path / "stopped", vowels, 2)
    assert all(
        torch.equal(value, weights_of(whole.folder)[name]) for name, value in weights_of(stopped).items()
    )


def interrupted(settings: GroupSettings, out: Path, reward: Any, step: int) -> Path:
    """The checkpoint of a training that ended after some steps."""

    def watch(now: TrainingProgress) -> None:
        if now.step > step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(settings, out, reward, watch=watch)
    return out / "checkpoints" / f"checkpoint-{step}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_reward_is_never_a_zero(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Were it one, a shift of all the others would change what is learned."""

    def part(shift: float) -> Callable[..., list[float | None]]:
        return given(lambda number, text: None if number % 4 == 1 else len(text) + shift)

    settings = settings_of(kind, tiny, epochs=1)
    first = train(settings, tmp_path / "first", part(0.0))
    shifted = train(settings, tmp_path / "shifted", part(1024.0))
    rows, others = metrics_of(first.folder), metrics_of(shifted.folder)
    assert [row["masked"] for row in rows] == [2, 2, 2]
    assert [row["reward"] for row in others] == pytest.approx(
        [row["reward"] + 1024 for row in rows], abs=1e-3
    )
    assert [row["grad_norm"] for row in others] == pytest.approx([row["grad_norm"] for row in rows], rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *(("grpo", {"loss": loss, "scale_rewards": "none"}) for loss in ("grpo", "dapo", "dr-grpo")),
        ("rloo", {}),
    ],
)
def test_masked_replies_have_no_say(kind: str, more: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    """The first step's gradient is the same whatever the replies without reward are: those to the second prompt
    have none, and a step of the first prompt alone has the same gradient."""
    adapter = train(settings_of("grpo", tiny, kl_beta=0.0), tmp_path / "start").folder
    changes = {"adapter": str(adapter), "kl_beta": 0.0, "epochs": 1, **more}
    prompts = PROMPTS[:2]
    both = settings_of(kind, tiny, **changes)
    order = []

    def first_only(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float | None]:  # noqa: ARG001
        order.extend(turns[0]["content"] for turns in prompts)
        return [
            float(len(text)) if turns == prompts[0] else None
            for turns, text in zip(prompts, completions, strict=True)
        ]

    masked = metrics_of(train(both, tmp_path / "both", first_only, prompts=prompts).folder)[0]
    alone = [prompt for prompt in prompts if prompt.messages[0].content == order[0]]
    one = settings_of(kind, tiny, **changes, batch_size=4)
    single = metrics_of(train(one, tmp_path / "one", first_only, prompts=alone).folder)[0]
    assert masked["masked"] == 4
    assert single["masked"] == 0
    assert masked["reward"] == pytest.approx(single["reward"])
    assert masked["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-3)


def test_the_judge_rewards_through_a_ledger_and_what_it_cannot_judge_is_masked(
    tiny: Path, tmp_path: Path
) -> None:
    said = iter(["Score: 5", "no grade at all", "Score: 9"] * 200)
    model = ScriptedModel(lambda _: next(said))
    judge = JudgeReward(model, BOTH, JudgeSettings(mode="score", ledger=str(tmp_path / "ledger.db")))
    trained = train(settings_of("grpo", tiny, epochs=1), tmp_path / "out", judge)
    masked = [row["masked"] for row in metrics_of(trained.folder)]
    assert len(masked) == 3
    assert all(0 < each < 8 for each in masked)
    asked = len(model.requests)
    again = JudgeReward(model, BOTH, JudgeSettings(mode="score", ledger=str(tmp_path / "ledger.db")))
    repeated = train(settings_of("grpo", tiny, epochs=1), tmp_path / "again", again)
    assert len(model.requests) == asked, "equal replies, judged before, are read from the ledger"
    assert same(trained.folder, repeated.folder)
    other = JudgeReward(model, BOTH, JudgeSettings(mode="group", ledger=str(tmp_path / "ledger.db")))
    with pytest.raises(RunFolderError, match="reward was"):
        train(settings_of("grpo", tiny, epochs=1), tmp_path / "out", other)


def test_a_judge_that_fails_always_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    judge = JudgeReward(
        ScriptedModel(lambda _: Rejected("no")), BOTH, JudgeSettings(ledger=str(tmp_path / "ledger.db"))
    )
    assert not moved(train(settings_of("rloo", tiny, epochs=1), tmp_path / "out", judge).folder)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_budget_it_stops_and_goes_on_with_more(kind: str, tiny: Path, tmp_path: Path) -> None:
    def judge(name: str, cap: float | None) -> JudgeReward:
        def graded(request: Request) -> Completion:
            grade = 1 + len(request.messages[-1].content) % 9
            return says(f"Score: {grade}", tokens_in=100, tokens_out=100)

        model = ScriptedModel(graded, name="openai/gpt-4o")
        ledger = str(tmp_path / name)
        return JudgeReward(model, BOTH, JudgeSettings(mode="score", ledger=ledger, max_cost_usd=cap))

    settings = settings_of(kind, tiny, epochs=4, checkpoint_every=1)
    with pytest.raises(BudgetReached, match="stopped at the budget"):
        train(settings, tmp_path / "out", judge("ledger.db", 0.04))
    done = len(metrics_of(tmp_path / "out"))
    assert 0 < done < 12
    trained = train(settings, tmp_path / "out", judge("ledger.db", None))
    unbroken = train(settings, tmp_path / "unbroken", judge("other.db", None))
    assert trained.steps == 12
    assert same(trained.folder, unbroken.folder)


def test_a_reward_model_serves(tiny: Path, tmp_path: Path) -> None:
    rows = [preference(number) for number in range(12)]
    model = train_reward(
        rows, RewardModelSettings(model=str(tiny), rank=4, held_out=0.0), tmp_path / "reward"
    ).folder
    trained = train(settings_of("grpo", tiny, epochs=1), tmp_path / "out", model)
    assert all(row["masked"] == 0 for row in metrics_of(trained.folder))


def test_a_function_that_is_wrong_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainDataError, match="gave 0 rewards for 8 replies"):
        train(settings_of("grpo", tiny), tmp_path / "out", lambda prompts, completions, **_: [])  # noqa: ARG005


# Runs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("updates", "every"), [(1, 2), (2, 1)])
def test_a_resumed_training_equals_an_unbroken_one_to_the_bit(
    kind: str, updates: int, every: int, tiny: Path, tmp_path: Path
) -> None:
    """Also where a checkpoint would lie between two updates from the same replies: it is put off."""
    settings = settings_of(kind, tiny, updates=updates, checkpoint_every=every, pass_tokens=60)
    whole = train(settings, tmp_path / "whole")
    interrupted(settings, tmp_path / "broken", vowels, 2)
    resumed = train(settings, tmp_path / "broken")
    assert resumed.steps == whole.steps == 6 * updates
    assert metrics_of(resumed.folder) == metrics_of(whole.folder)
    assert same(resumed.folder, whole.folder)


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_told_at_beta_0_and_is_that_of_the_policy(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Against an SFT adapter too, which is then the reference: its KL to itself is 0 at the start."""
    settings = settings_of(kind, tiny, kl_beta=0.0, epochs=4)
    trained = train(settings, tmp_path / "first")
    told = [row["kl_nats"] for row in metrics_of(trained.folder)]
    assert told[0] == pytest.approx(0, abs=1e-4)
    assert max(map(abs, told)) > 0.01
    onward = train(settings_of(kind, tiny, kl_beta=0.0, adapter=str(trained.folder)), tmp_path / "second")
    again = [row["kl_nats"] for row in metrics_of(onward.folder)]
    assert again[0] == pytest.approx(0, abs=1e-4)
    assert moved(onward.folder)
    assert not same(onward.folder, trained.folder)


@pytest.mark.parametrize("kind", KINDS)
def test_in_parts_a_step_is_the_same(kind: str, tiny: Path, tmp_path: Path) -> None:
    whole = train(settings_of(kind, tiny, epochs=1), tmp_path / "whole")
    parts = train(settings_of(kind, tiny, epochs=1, pass_tokens=40), tmp_path / "parts")
    for one, other in zip(metrics_of(whole.folder), metrics_of(parts.folder), strict=True):
        for name in ("reward", "kl_nats", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-2, abs=1e-3)


def test_a_pass_holds_a_divisor_of_the_step() -> None:
    assert [rows_in_a_pass(24, 100, budget) for budget in (50, 100, 799, 800, 2399, 10**6)] == [
        1,
        1,
        6,
        8,
        12,
        24,
    ]
