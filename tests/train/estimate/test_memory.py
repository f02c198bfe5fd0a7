"""Memory is counted to the byte, and a step that does not fit is done again in smaller parts, the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from preceptor.train.errors import MemoryShortError
from preceptor.train.estimate.memory import Alive, available_bytes, held_bytes, is_out_of_memory
from preceptor.train.loop.oom_retry import in_parts, retry_on_oom
from preceptor.train.loop.output_folder import Trained
from tests.jsonl import metrics_of
from tests.train.test_training import STAGES, StoppedError, run, settings_of, stop_at

ROOM = 300
"""Tokens that fit into what the tests' device has of memory, as it were."""


@contextmanager
def room_for(tokens: int, said: Exception) -> Iterator[list[int]]:
    """A device on which a layer runs out of memory above so many tokens; how many every training pass had."""
    seen: list[int] = []

    def refuse(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, LlamaMLP) and torch.is_grad_enabled() and type(inputs[0]) is torch.Tensor:
            places = inputs[0].shape[0] * inputs[0].shape[1]
            if places > tokens:
                raise said
            seen.append(places)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield seen
    finally:
        handle.remove()


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return load_file(trained.folder / "adapter_model.safetensors")


def test_what_is_alive_is_counted_once_and_uncounted_when_it_goes() -> None:
    with Alive() as alive:
        whole = torch.zeros(1000)
        view, copy = whole[10:], whole.clone()
        assert alive.bytes == 8000
        del copy
        assert alive.bytes == 4000
        del whole
        assert alive.bytes == 4000  # the view holds it
        del view
    assert (alive.bytes, alive.peak_bytes) == (0, 8000)
    tied = torch.nn.Parameter(torch.zeros(10))
    assert held_bytes([tied, tied.view(2, 5), torch.zeros(3)]) == 52


def test_the_memory_to_be_had_is_asked_of_the_system() -> None:
    found = available_bytes(torch.device("cpu"))
    if Path("/proc/meminfo").exists():
        assert found is not None
        assert 2**20 < found < 2**50


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("cannot allocate memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_faults(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_real_refusal_of_the_allocator_is_recognised() -> None:
    """More than any address space holds, so that nothing is taken."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**57, dtype=torch.int8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_passes_that_do_not_fit_are_halved_and_the_result_is_that_of_small_ones(
    tiny: Path, tmp_path: Path, stage: str
) -> None:
    settings = settings_of(stage, tiny, batch_size=8, pass_tokens=1000)
    told: list[tuple[str, ...]] = []
    with room_for(ROOM, torch.OutOfMemoryError("CUDA out of memory.")) as seen:
        halved = run(stage, settings, tmp_path / "halved", watch=lambda now: told.append(now.notes))
    assert max(seen) <= ROOM
    assert [note.split(", in")[0] for note in halved.notes] == [
        "memory ran out in step 1 with 1000 tokens a pass: from there on 500",
        "memory ran out in step 1 with 500 tokens a pass: from there on 250",
    ]
    assert told[0] == halved.notes
    assert json.loads((halved.folder / "manifest.json").read_text())["notes"] == list(halved.notes)
    small = run(stage, settings.model_copy(update={"pass_tokens": 250}), tmp_path / "small")
    assert small.notes == ()
    ours, theirs = weights(halved), weights(small)
    if stage == "reward":  # the very same cuts: to the bit; DPO's reference was computed in larger ones
        assert metrics_of(halved.folder) == metrics_of(small.folder)
        assert all(ours[key].equal(theirs[key]) for key in theirs)
    whole = run(stage, settings, tmp_path / "whole")
    assert all(torch.allclose(ours[key], theirs[key], atol=2e-4) for key in theirs)
    for other in (small, whole):
        for mine, its in zip(metrics_of(halved.folder), metrics_of(other.folder), strict=True):
            assert mine.get("loss") == pytest.approx(its.get("loss"), abs=1e-5)


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_a_step_of_trl_that_does_not_fit_goes_through_in_parts(
    tiny: Path, tmp_path: Path, stage: str
) -> None:
    settings = settings_of(stage, tiny, batch_size=8, epochs=1)
    with room_for(ROOM, RuntimeError("DefaultCPUAllocator: not enough memory")) as seen:
        halved = run(stage, settings, tmp_path / "halved")
    assert max(seen) <= ROOM
    assert "memory ran out in step 1: from there on" in halved.notes[0]
    assert "and the step stays 8 rows" in halved.notes[-1]
    whole = run(stage, settings, tmp_path / "whole")
    assert halved.steps == whole.steps == 3
    pairs = list(zip(metrics_of(halved.folder), metrics_of(whole.folder), strict=True))
    if stage == "kto":  # its z is of fewer rows, and it begins at 0: the first step is the same
        pairs = pairs[:1]
    else:
        ours, theirs = weights(halved), weights(whole)
        assert all(torch.allclose(ours[key], theirs[key], atol=2e-4) for key in theirs)
    for mine, other in pairs:
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_that_was_cut_smaller_resumes_to_the_bit(tiny: Path, tmp_path: Path, stage: str) -> None:
    """With memory to spare by then: the steps go on as they were cut."""
    passes = {} if stage in ("sft", "kto") else {"pass_tokens": 1000}  # the library's trainers cut by rows
    settings = settings_of(stage, tiny, batch_size=8, checkpoint_every=1, **passes)
    refusal = torch.OutOfMemoryError("CUDA out of memory.")
    with room_for(ROOM, refusal):
        whole = run(stage, settings, tmp_path / "whole")
    with room_for(ROOM, refusal), pytest.raises(StoppedError):
        run(stage, settings, tmp_path / "broken", watch=stop_at(3))
    resumed = run(stage, settings, tmp_path / "broken")
    assert resumed.notes == whole.notes
    assert metrics_of(resumed.folder) == metrics_of(whole.folder)
    ours, theirs = weights(resumed), weights(whole)
    assert all(ours[key].equal(theirs[key]) for key in theirs)


@pytest.mark.parametrize("stage", STAGES)
def test_a_row_that_does_not_fit_alone_is_an_error_with_advice(
    tiny: Path, tmp_path: Path, stage: str
) -> None:
    with (
        room_for(10, torch.OutOfMemoryError("CUDA out of memory.")),
        pytest.raises(
            MemoryShortError, match=r"a single (pair|row) of \d+ tokens does not fit .*--max-length"
        ),
    ):
        run(stage, settings_of(stage, tiny), tmp_path / "out")


@pytest.mark.parametrize("processes", [1, 2])
def test_other_faults_and_several_processes_are_not_tried_again(processes: int) -> None:
    tried: list[int] = []

    def failing(error: Exception) -> Callable[[], torch.Tensor]:
        def step() -> torch.Tensor:
            tried.append(0)
            raise error

        return step

    def nothing() -> None:
        """Nothing to forget, and nothing to halve."""

    with pytest.raises(RuntimeError, match="shapes"):
        retry_on_oom(failing(RuntimeError("shapes")), nothing, nothing, processes)
    if processes > 1:
        with pytest.raises(MemoryShortError, match="2 processes cannot cut it"):
            retry_on_oom(failing(MemoryError()), nothing, nothing, processes)
    assert len(tried) == processes


def test_parts_hold_every_row_once() -> None:
    batch = {"input_ids": torch.arange(15).view(5, 3), "label": [1, 2, 3, 4, 5], "scale": torch.tensor(2.0)}
    for parts in (1, 2, 3, 5):
        cut = in_parts(batch, parts)
        assert len(cut) <= parts
        assert torch.cat([part["input_ids"] for part in cut]).equal(batch["input_ids"])  # type: ignore[arg-type]
        assert [label for part in cut for label in part["label"]] == batch["label"]
        assert all(part["scale"] is batch["scale"] for part in cut)
