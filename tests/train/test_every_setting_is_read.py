"""No training forgets a setting: each field of its Settings is read by it, or refused where it is given."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from preceptor.judge.records import Opinion, Pair
from preceptor.prompts.records import Message, Prompt
from preceptor.train import settings as settings_module
from preceptor.train.data.judged_pairs import judged_pairs
from preceptor.train.data.readers import Demonstration
from preceptor.train.data.unpaired import UnpairedExample
from preceptor.train.dpo import train_dpo
from preceptor.train.errors import CheckpointError
from preceptor.train.estimate import dry_run, plan, schedule, timing
from preceptor.train.grpo.train import train_grpo, train_rloo
from preceptor.train.judge import train_judge
from preceptor.train.kto import train_kto
from preceptor.train.loop.metrics import (
    DpoMetrics,
    GroupMetrics,
    HeldOutMetrics,
    JudgeMetrics,
    KtoMetrics,
    PpoUpdateFigures,
    RewardMetrics,
    SftMetrics,
)
from preceptor.train.ppo.train import train_ppo
from preceptor.train.reward import train_reward
from preceptor.train.settings import (
    DpoSettings,
    GrpoSettings,
    JudgeSettings,
    KtoSettings,
    LoopSettings,
    PpoSettings,
    RewardModelSettings,
    RlooSettings,
    SftSettings,
)
from preceptor.train.sft import train_sft
from tests.declared import faults
from tests.judge.canned import BOTH
from tests.train.rewards import vowels
from tests.train.tiny import preference
from tests.train.watchman import Watchman

PAIRS = [
    preference(number).model_copy(update={"principles": (Opinion(principle="polite", probability=0.9),)})
    for number in range(8)
]
DEMONSTRATIONS = [
    Demonstration(id=row.id, prompt=row.prompt, completion=row.chosen[0].content) for row in PAIRS
]
VERDICTS = [
    UnpairedExample(id=row.id, prompt=row.prompt, completion=row.completion, good=number % 2 == 0)
    for number, row in enumerate(DEMONSTRATIONS)
]
JUDGED = list(
    judged_pairs(
        [
            Pair(
                id=str(number),
                prompt=Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number}?"),)),
                response_a=f"Kind reply {number}.",
                response_b="No.",
                preferred="a",
            )
            for number in range(8)
        ],
        BOTH,
    )
)
PROMPTS = [
    Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number}?"),)) for number in range(2)
]
SMALL = {"epochs": 1, "batch_size": 4, "rank": 2}
DRAWN = {**SMALL, "samples": 2, "max_new_tokens": 3, "max_length": 32}
REWARDED: dict[str, Any] = {"reward": vowels}
GUARDED: dict[str, Any] = {**REWARDED, "guard": Watchman({})}


class PpoRow(PpoUpdateFigures):
    """A row as the file has it."""

    step: int


Runs = list[tuple[dict[str, Any], dict[str, Any]]]
STAGES: dict[str, tuple[Callable[..., Any], type[LoopSettings], list[Any], Runs]] = {
    "sft": (train_sft, SftSettings, DEMONSTRATIONS, [(SMALL, {})]),
    "kto": (train_kto, KtoSettings, VERDICTS, [(SMALL, {})]),
    "dpo": (
        train_dpo,
        DpoSettings,
        PAIRS,
        [({**SMALL, "loss": loss}, {}) for loss in ("dpo", "simpo", "ld-dpo")],
    ),
    "reward": (
        train_reward,
        RewardModelSettings,
        PAIRS,
        [
            ({**SMALL, "held_out": 0.0, **more}, {})
            for more in ({"held_out": 0.4}, {"ensemble": 2}, {"per_principle": True})
        ],
    ),
    "judge": (
        train_judge,
        JudgeSettings,
        JUDGED,
        [({**SMALL, "max_length": 4096, "held_out": 0.3}, {"constitution": BOTH})],
    ),
    "ppo": (
        train_ppo,
        PpoSettings,
        PROMPTS,
        [
            ({**DRAWN, "minibatches": 1}, GUARDED),  # whose checkpoints are all kept
            ({**DRAWN, "minibatches": 1, "checkpoint_every": 1}, REWARDED),
        ],
    ),
    "grpo": (train_grpo, GrpoSettings, PROMPTS, [(DRAWN, REWARDED)]),
    "rloo": (train_rloo, RlooSettings, PROMPTS, [(DRAWN, REWARDED)]),
}
"""The training, its settings, rows, and the runs that between them read every setting: settings of each, and what else
it is given."""

METRICS: dict[str, Any] = {
    "sft": SftMetrics,
    "kto": KtoMetrics,
    "dpo": DpoMetrics,
    "reward": RewardMetrics | HeldOutMetrics,
    "judge": JudgeMetrics | HeldOutMetrics,
    "ppo": PpoRow,
    "grpo": GroupMetrics,
    "rloo": GroupMetrics,
}
APART = {module.__name__ for module in (plan, dry_run, timing, schedule, settings_module)}
"""Modules that read settings to foretell a training or to check them: that alone has no effect."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the settings that a training has read."""
    found: set[str] = set()

    def recording(self: LoopSettings, name: str) -> Any:
        if name in type(self).model_fields:
            callers = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(sys._getframe(1))}
            if not callers & APART:
                found.add(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(LoopSettings, "__getattribute__", recording, raising=False)
    return found


def concrete(kind: type[LoopSettings]) -> set[type[LoopSettings]]:
    """Settings from which no others are made."""
    # those that a run file makes of them are no trainings of their own
    below = [each for each in kind.__subclasses__() if each.__module__ == settings_module.__name__]
    return set().union(*(concrete(each) for each in below)) if below else {kind}


def test_every_training_is_here() -> None:
    assert {stage[1] for stage in STAGES.values()} == concrete(LoopSettings)


@pytest.mark.parametrize("name", STAGES)
def test_every_setting_is_read_by_its_training(name: str, tiny: Path, tmp_path: Path, read: set[str]) -> None:
    """And its metrics are what their types say."""
    train, kind, rows, runs = STAGES[name]
    for number, (changes, given) in enumerate(runs):
        settings = kind.model_validate({"model": str(tiny), **changes})
        train(rows, settings, tmp_path / str(number), **given)
        lines = (tmp_path / str(number) / "metrics.jsonl").read_text().splitlines()
        assert [said for line in lines for said in faults(json.loads(line), METRICS[name])] == []
    assert set(kind.model_fields) - read == kind.without_effect


@pytest.mark.parametrize("name", STAGES)
def test_a_setting_that_is_not_read_is_refused(name: str) -> None:
    kind = STAGES[name][1]
    given = {"pass_tokens": 64, "compile": True, "report_to": ("wandb",)}
    assert kind.without_effect <= given.keys()
    for field in kind.without_effect:
        with pytest.raises(ValidationError, match=f"{field} has no effect in {name.upper()}: leave it out"):
            kind.model_validate({field: given[field]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can hold a base in nf4")
@pytest.mark.parametrize("name", STAGES)
def test_a_base_in_four_bits_is_had_or_refused_but_never_forgotten(
    name: str, tiny: Path, tmp_path: Path
) -> None:
    train, kind, rows, runs = STAGES[name]
    changes, given = runs[0]
    settings = kind.model_validate({"model": str(tiny), **changes, "four_bit": True})
    with pytest.raises(CheckpointError, match="four_bit needs a CUDA GPU and the package bitsandbytes"):
        train(rows, settings, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
