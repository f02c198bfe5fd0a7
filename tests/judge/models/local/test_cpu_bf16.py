"""A CPU's bfloat16 units are used where they are there and right, and the decision is the same each time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from preceptor.judge.models.local import cpu_bf16, loading
from preceptor.judge.models.local.cpu_bf16 import TOLERANCE, CpuBf16, decided, difference, gain, units
from preceptor.judge.models.local.loading import Placement
from preceptor.train.models import devices

THERE = ("amx_bf16", "avx512_bf16")


def test_units_that_agree_are_used_and_their_gain_is_only_told() -> None:
    assert decided(THERE, 0.008, 3.14) == CpuBf16(
        True, "used (amx_bf16, avx512_bf16): results agree with float32 to 8.0e-03, 3.1 times as fast there"
    )
    assert all(decided(THERE[1:], TOLERANCE, faster).used for faster in (None, 0.5, 9.0))


@pytest.mark.parametrize("apart", [TOLERANCE * 1.01, 1.0, math.inf, math.nan])
def test_units_that_differ_are_not_used(apart: float) -> None:
    found = decided(THERE, apart, 8.0)
    assert not found.used
    assert "gives other results than float32" in found.why


def test_without_units_or_a_test_of_them_there_is_nothing_to_use() -> None:
    assert not decided((), 0.0, 8.0).used
    assert "no bf16 units" in decided((), None).why
    assert not decided(THERE, None).used


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", ("amx_bf16", "avx512_bf16")),
        ("fpu avx512_bf16", ("avx512_bf16",)),
        ("fpu avx2 avx512_bf16x", ()),
        ("", ()),
    ],
)
def test_units_are_read_where_linux_names_them(tmp_path: Path, flags: str, found: tuple[str, ...]) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(
        f"processor\t: 0\nmodel name\t: amx_bf16 of a name\nflags\t\t: {flags}\nbugs\t: amx_bf16\n"
    )
    assert units(told) == found
    assert units(tmp_path / "absent") == ()


def test_the_self_test_passes_where_bfloat16_is_computed_right_and_fails_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any CPU computes it, slowly where it has no units."""
    right = difference()
    assert 0 < right < TOLERANCE
    assert right == difference(), "or a resumed training could go on in another precision"
    assert gain() > 0
    passed = cpu_bf16._passed

    def wrong(weights: list[torch.Tensor], inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, gradient = passed(weights, inputs)
        if inputs.dtype == torch.bfloat16:
            gradient[-1] *= 1.1
        return states, gradient

    monkeypatch.setattr(cpu_bf16, "_passed", wrong)
    assert difference() > TOLERANCE

    def lacking(*_numbers: object) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(cpu_bf16, "_passed", lacking)
    assert difference() == math.inf
    assert gain() == 0


def test_the_switch_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_bf16.SWITCH, "off")
    assert cpu_bf16.cpu_bf16.__wrapped__() == CpuBf16(False, "not used: PRECEPTOR_CPU_BF16=off")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a GPU is what counts")
@pytest.mark.parametrize("used", [True, False])
def test_judging_sampling_and_training_go_by_the_one_decision(
    monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    for module in (loading, devices):
        monkeypatch.setattr(module, "cpu_bf16", lambda: CpuBf16(used, ""))
    monkeypatch.setattr(devices, "training_device", lambda: torch.device("cpu"))
    assert devices.load_dtype("auto") == (torch.bfloat16 if used else torch.float32)
    assert (devices.load_dtype("fp32"), devices.load_dtype("bf16")) == (torch.float32, torch.bfloat16)
    assert loading._settled(Placement()).dtype == ("bfloat16" if used else "float32")
    assert loading._settled(Placement(dtype="float32")).dtype == "float32"
    # the ledger's answers in one precision are none in the other
    assert Placement().mark == (":bfloat16" if used else "")
    assert Placement(dtype="float32").mark == ":float32"
    monkeypatch.setattr(devices, "training_device", lambda: torch.device("mps"))
    assert devices.load_dtype("auto") == torch.float32
