"""Switching by a list of layers: the same as PEFT's own switching, and gradients where they are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from preceptor.train.models.adapters import POLICY, adapt, add_fresh_adapter
from preceptor.train.models.base import load_base
from preceptor.train.models.switchboard import BASE, Switchboard

IDS = torch.arange(5, 25)[None]


@pytest.fixture
def two(tiny: Path) -> PeftModel:
    """The adapters POLICY and `other`, both of which do something."""
    model = adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0)
    add_fresh_adapter(model, 2, 2, "other", seed=1)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_a_switch_does_what_pefts_does(two: PeftModel, tiny: Path) -> None:
    wanted = {}
    for name in (POLICY, "other"):
        two.set_adapter(name)
        wanted[name] = logits(two)
    wanted[BASE] = logits(load_base(str(tiny)).model)
    board = Switchboard(two, frozenset({POLICY}))
    for name in ("other", BASE, POLICY, BASE, "other", POLICY):
        board.switch(name)
        assert torch.equal(logits(two), wanted[name]), name
    assert len({round(float(found.sum()), 3) for found in wanted.values()}) == 3


def test_after_every_switch_what_acts_is_trained_if_it_may_be_and_nothing_else(two: PeftModel) -> None:
    board = Switchboard(two, frozenset({POLICY}))
    assert trained(two) == set()
    for name in (POLICY, BASE, "other", POLICY, POLICY, "other"):
        board.switch(name)
        assert all(f".{POLICY}." in each for each in trained(two))
        assert len(trained(two)) == (28 if name == POLICY else 0)


def test_a_role_ends_with_its_block_even_when_that_fails(two: PeftModel) -> None:
    board = Switchboard(two, frozenset({POLICY}))
    board.switch(POLICY)
    with pytest.raises(KeyError), board.as_role("other"):
        board.switch("nobody")
    assert board.active == POLICY
    assert len(trained(two)) == 28
    with board.as_role("other"):
        assert board.active == "other"
        assert trained(two) == set()
