"""DPO: starts at its reference, moves towards the judge and not beyond, keeps to the right reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.train.data.readers import Demonstration
from preceptor.train.dpo import train_dpo
from preceptor.train.evaluation.compare import reply_logprobs
from preceptor.train.settings import DpoSettings, SftSettings
from preceptor.train.sft import train_sft
from tests.jsonl import metrics_of
from tests.train.tiny import preference


@pytest.mark.parametrize("start", ["base", "continued", "on top"])
def test_starts_at_the_reference_and_learns(tiny: Path, tmp_path: Path, start: str) -> None:
    """The first loss is log 2 to the last digit, with and without an SFT adapter: policy and reference are one."""
    pairs = [preference(number) for number in range(40)]
    adapter = None
    if start != "base":
        rows = [Demonstration(id=p.id, prompt=p.prompt, completion=p.chosen[0].content) for p in pairs]
        settings = SftSettings(model=str(tiny), learning_rate=5e-3, rank=4, batch_size=8)
        adapter = str(train_sft(rows, settings, tmp_path / "sft").folder)
    dpo = DpoSettings(
        model=str(tiny),
        adapter=adapter,
        stack_adapter=start == "on top",
        epochs=4,
        learning_rate=5e-3,
        batch_size=8,
        rank=4,
    )
    out = train_dpo(pairs, dpo, tmp_path / "dpo").folder
    prompts, replies = [pair.prompt for pair in pairs], [pair.chosen[0].content for pair in pairs]
    before, after = (
        reply_logprobs(prompts, replies, str(tiny), folder)
        for folder in (None if adapter is None else Path(adapter), out)
    )
    rows = metrics_of(out)
    gained = dpo.beta * sum(b - a for a, b in zip(before, after, strict=True)) / len(pairs)
    assert rows[-1]["chosen_reward"] == pytest.approx(gained, abs=0.15)  # against the SFT model, not the base
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert rows[0]["kl_nats"] == pytest.approx(0, abs=1e-2)
    assert rows[-1]["loss"] < 0.4
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["margin"] == pytest.approx(
        rows[-1]["chosen_reward"] - rows[-1]["rejected_reward"], abs=1e-4
    )


def test_soft_labels_keep_the_policy_near_what_the_judge_said(tiny: Path, tmp_path: Path) -> None:
    """At p = 0.6 the margin settles near log(0.6 / 0.4) = 0.41; at p = 1 it goes on growing."""
    margins = []
    for probability in (0.6, 1.0):
        pairs = [preference(number, probability) for number in range(16)]
        settings = DpoSettings(model=str(tiny), epochs=20, learning_rate=5e-3, batch_size=16, rank=4)
        margins.append(
            metrics_of(train_dpo(pairs, settings, tmp_path / str(probability)).folder)[-1]["margin"]
        )
    assert margins[0] == pytest.approx(0.405, abs=0.2)
    assert margins[1] > 2 * margins[0]


def test_the_saved_policy_is_the_trained_one(tiny: Path, tmp_path: Path) -> None:
    """Chosen replies became more probable than rejected ones, measured on the loaded folder."""
    pairs = [preference(number) for number in range(16)]
    settings = DpoSettings(model=str(tiny), epochs=8, learning_rate=5e-3, batch_size=16, rank=4)
    out = train_dpo(pairs, settings, tmp_path / "dpo").folder

    def gap(adapter: Path | None) -> torch.Tensor:
        prompts = [pair.prompt for pair in pairs]
        sides = [[pair.chosen[0].content for pair in pairs], [pair.rejected[0].content for pair in pairs]]
        chosen, rejected = (torch.tensor(reply_logprobs(prompts, side, str(tiny), adapter)) for side in sides)
        return chosen - rejected

    assert (gap(out) - gap(None)).mean() > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ipo", "beta": 0.5},
        {"loss": "hinge"},
        {"loss": "robust", "label_smoothing": 0.1},
        {"loss": "simpo", "beta": 2.0},
        {"loss": "dpo-norm", "beta": 3.0},
        {"loss": "ld-dpo"},
        {"rpo_alpha": 0.5, "margin": 0.5},
    ],
)
def test_every_loss_learns(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    pairs = [preference(number) for number in range(32)]
    settings = DpoSettings.model_validate(
        {"model": str(tiny), "epochs": 3, "learning_rate": 5e-3, "batch_size": 8, "rank": 4, **changes}
    )
    rows = metrics_of(train_dpo(pairs, settings, tmp_path / "dpo").folder)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["accuracy"] == 1.0
    assert ("kl_nats" in rows[0]) == (changes.get("loss") != "simpo")
    assert ("chosen_nll" in rows[0]) == ("rpo_alpha" in changes)


def test_an_anchor_keeps_the_chosen_replies_from_falling(tiny: Path, tmp_path: Path) -> None:
    """Their log-probability ends higher than without."""
    pairs = [preference(number) for number in range(32)]
    ends = []
    for anchor in (0.0, 2.0):
        settings = DpoSettings(
            model=str(tiny), epochs=3, learning_rate=5e-3, batch_size=8, rank=4, rpo_alpha=anchor
        )
        ends.append(
            metrics_of(train_dpo(pairs, settings, tmp_path / str(anchor)).folder)[-1]["chosen_reward"]
        )
    assert ends[1] > ends[0] + 0.5


@pytest.mark.parametrize("start", ["base", "continued"])
def test_in_half_precision_policy_and_reference_are_computed_alike(
    tiny: Path, tmp_path: Path, start: str
) -> None:
    """Or the policy would begin away from its reference by rounding alone."""
    pairs = [preference(number) for number in range(16)]
    adapter = None
    if start == "continued":
        rows = [Demonstration(id=p.id, prompt=p.prompt, completion=p.chosen[0].content) for p in pairs]
        sft = SftSettings(model=str(tiny), learning_rate=5e-3, rank=4, batch_size=8)
        adapter = str(train_sft(rows, sft, tmp_path / "sft").folder)
    dpo = DpoSettings(model=str(tiny), adapter=adapter, batch_size=8, rank=4, precision="bf16", warmup=0.5)
    first = metrics_of(train_dpo(pairs, dpo, tmp_path / "dpo").folder)[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert first["kl_nats"] == pytest.approx(0, abs=2e-2)
