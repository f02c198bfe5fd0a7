"""DPO: starts at its reference, moves towards the judge and not beyond, keeps to the right reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.tiny import preference
from train.dpo import train_dpo
from train.evaluate import reply_logprobs
from train.rows import Demonstration
from train.settings import DpoSettings, SftSettings
from train.sft import train_sft


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("with_sft", [False, True])
def test_starts_at_the_reference_and_learns(tiny: Path, tmp_path: Path, with_sft: bool) -> None:
    """The first loss is log 2 to the last digit, with and without an SFT adapter: policy and reference are one."""
    pairs = [preference(number) for number in range(40)]
    adapter = None
    if with_sft:
        rows = [Demonstration(id=p.id, prompt=p.prompt, completion=p.chosen[0].content) for p in pairs]
        settings = SftSettings(model=str(tiny), learning_rate=5e-3, rank=4, batch_size=8)
        adapter = str(train_sft(rows, settings, tmp_path / "sft").folder)
    dpo = DpoSettings(model=str(tiny), adapter=adapter, epochs=4, learning_rate=5e-3, batch_size=8, rank=4)
    rows = metrics(train_dpo(pairs, dpo, tmp_path / "dpo").folder)
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
        margins.append(metrics(train_dpo(pairs, settings, tmp_path / str(probability)).folder)[-1]["margin"])
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
