"""PPO where memory runs out: half as much at a time, the same training, and sizes that outlive a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from preceptor.train.errors import MemoryShortError
from preceptor.train.loop.run import TrainingProgress
from preceptor.train.ppo.pass_sizes import PassSizes
from preceptor.train.ppo.roles import Roles
from tests.jsonl import metrics_of
from tests.train.ppo.test_train import StoppedError, settings_of, train, weights_of

NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"


def fits_under(limit: int, size: Callable[[], int]) -> Callable[[], int]:
    """Work that has the memory for `limit` only."""

    def work() -> int:
        if size() > limit:
            raise RuntimeError(NO_MEMORY)
        return size()

    return work


def test_passes_are_halved_until_they_differ_and_fit() -> None:
    room = PassSizes(1024, 8192)
    assert room.reading(fits_under(100, lambda: room.pass_tokens), [60, 50, 40, 30]) == 64
    assert room.notes == [
        "memory ran out with 1024 tokens a pass: from there on 128, in more passes",
        "memory ran out with 128 tokens a pass: from there on 64, in more passes",
    ]
    with pytest.raises(MemoryShortError, match="a single row of 60 tokens does not fit"):
        room.reading(fits_under(1, lambda: room.pass_tokens), [60, 50])


def test_a_half_made_gradient_is_forgotten() -> None:
    room, weight = PassSizes(8, 8), nn.Parameter(torch.ones(2))

    def work() -> None:
        (weight * 3).sum().backward()
        if room.pass_tokens == 8:
            raise torch.OutOfMemoryError(NO_MEMORY)

    room.reading(work, [4, 4], [weight])
    assert weight.grad is not None
    assert weight.grad.tolist() == [3, 3]


def test_drawing_is_halved_down_to_a_single_prompt() -> None:
    room = PassSizes(8, 1000)
    assert room.drawing(lambda tokens: fits_under(300, lambda: tokens)(), 200) == 250
    with pytest.raises(MemoryShortError, match="the replies to a single prompt, 200 tokens"):
        room.drawing(lambda tokens: fits_under(10, lambda: tokens)(), 200)


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    def work() -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        PassSizes(8, 8).reading(work, [4, 4])


def test_a_training_that_runs_out_goes_on_in_smaller_passes_and_resumes_in_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's memory is what is made up here: passes of more than 40 tokens do not fit, from step 2 on."""
    settings = settings_of(tiny, checkpoint_every=1)
    whole = train(settings, tmp_path / "whole")
    done = 0
    true_batches = Roles.batches

    def batches(self: Roles, *args: Any) -> Any:
        for batch in true_batches(self, *args):
            if done >= 1 and batch.input_ids.numel() > 50:
                raise RuntimeError(NO_MEMORY)
            yield batch

    monkeypatch.setattr(Roles, "batches", batches)

    def until(stop: int | None) -> Callable[[TrainingProgress], None]:
        def watch(now: TrainingProgress) -> None:
            nonlocal done
            done = now.step
            if now.step == stop:
                raise StoppedError

        return watch

    short = train(settings, tmp_path / "short", watch=until(None))
    assert any("memory ran out with 1024 tokens a pass" in note for note in short.notes)
    assert len(metrics_of(whole.folder)) == len(metrics_of(short.folder)) == 6
    for key, weight in weights_of(whole.folder).items():
        torch.testing.assert_close(weights_of(short.folder)[key], weight, rtol=1e-2, atol=1e-3)

    done = 0
    with pytest.raises(StoppedError):
        train(settings, tmp_path / "cut", watch=until(4))
    resumed = train(settings, tmp_path / "cut", watch=until(None))
    assert metrics_of(resumed.folder) == metrics_of(short.folder)
    assert resumed.notes == short.notes
