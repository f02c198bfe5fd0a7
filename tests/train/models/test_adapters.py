"""Adapters on one base, and what the reference is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from preceptor.train.errors import CheckpointError
from preceptor.train.models.adapters import (
    POLICY,
    REFERENCE,
    STACKED,
    adapt,
    adapt_from,
    adapt_on_top,
    add_fresh_adapter,
    as_reference,
    base_of_adapter,
    hold_reference,
    reference_of,
    restore_adapter,
    save_adapter,
    save_part,
    train_only,
)
from preceptor.train.models.base import load_base, resolve_model
from tests.train.tiny import save_tiny

IDS = torch.arange(5, 25)[None]


def shaken(model: PeftModel, adapter: str = POLICY) -> PeftModel:
    """The model with an adapter that changes something: B is zero in a fresh one."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=IDS).logits
    return out


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained(tiny: Path) -> None:
    before = logits(load_base(str(tiny)).model)
    model = adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0)
    assert torch.equal(logits(model), before)
    names = trained(model)
    assert names
    assert all("lora_" in name for name in names)
    assert len(names) == 2 * 7 * 2  # A and B of seven linear layers in two blocks, none on the output layer


def test_the_reference_without_sft_adapter_is_the_base(tiny: Path) -> None:
    before = logits(load_base(str(tiny)).model)
    model = shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0))
    policy = logits(model)
    with as_reference(model):
        assert torch.equal(logits(model), before)
    assert not torch.equal(policy, before)
    assert torch.equal(logits(model), policy)


def test_the_reference_of_an_sft_adapter_is_that_adapter_and_not_the_base(tiny: Path, tmp_path: Path) -> None:
    """Rivals take the base here, and so train against a model that the policy never was."""
    first = shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0))
    tuned = logits(first)
    save_adapter(first, tmp_path / "sft")
    model = adapt_from(load_base(str(tiny)), tmp_path / "sft", frozen_reference=True)
    assert torch.equal(logits(model), tuned)
    shaken(model)
    with as_reference(model):
        assert torch.equal(logits(model), tuned)
    assert not torch.equal(logits(model), tuned)


def test_the_reference_of_an_adapter_on_top_is_the_one_beneath(tiny: Path, tmp_path: Path) -> None:
    """A fresh one on top changes nothing at first; what it learns leaves the reference where it was."""
    first = shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0))
    tuned = logits(first)
    save_adapter(first, tmp_path / "sft")
    model = adapt_on_top(load_base(str(tiny)), tmp_path / "sft", rank=2, alpha=2, seed=1)
    torch.testing.assert_close(logits(model), tuned, rtol=0, atol=0)
    names = trained(model)
    assert len(names) == 2 * 7 * 2
    assert all(f".{POLICY}." in name for name in names)
    shaken(model)
    with as_reference(model):
        torch.testing.assert_close(logits(model), tuned, rtol=0, atol=0)
    assert trained(model) == names
    assert (logits(model) - tuned).abs().max() > 0.1


@pytest.mark.parametrize("on_top", [False, True])
@pytest.mark.parametrize("reference", ["another", "bare"])
def test_the_reference_can_be_another_than_the_start(
    tiny: Path, tmp_path: Path, on_top: bool, reference: str
) -> None:
    """Another adapter, or none at all, is what it is when loaded alone; the policy is as it was before and after."""
    base = logits(load_base(str(tiny)).model)
    first = shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0))
    save_adapter(first, tmp_path / "first")
    last = shaken(shaken(adapt(load_base(str(tiny)), rank=2, alpha=8, seed=1)))
    save_adapter(last, tmp_path / "last")
    loaded = load_base(str(tiny))
    model = (
        adapt_on_top(loaded, tmp_path / "last", rank=2, alpha=2, seed=1)
        if on_top
        else adapt_from(loaded, tmp_path / "last", frozen_reference=False)
    )
    policy = logits(model)
    torch.testing.assert_close(policy, logits(last), rtol=0, atol=0)
    names = trained(model)
    if reference == "another":
        hold_reference(model, loaded, tmp_path / "first")
    assert trained(model) == names
    wanted = logits(first) if reference == "another" else base
    for _ in range(2):
        with as_reference(model, bare=reference == "bare"):
            torch.testing.assert_close(logits(model), wanted, rtol=0, atol=0)
        torch.testing.assert_close(logits(model), policy, rtol=0, atol=0)
        assert trained(model) == names
    assert reference_of(model, bare=reference == "bare") == (REFERENCE if reference == "another" else None)


def test_an_adapter_on_top_is_saved_as_one_with_the_one_beneath(tiny: Path, tmp_path: Path) -> None:
    """Plain PEFT gives the policy as it was trained, and training can go on from it; a checkpoint holds its part."""
    save_adapter(shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0)), tmp_path / "sft")
    model = shaken(adapt_on_top(load_base(str(tiny)), tmp_path / "sft", rank=2, alpha=2, seed=1))
    policy, names = logits(model), trained(model)
    save_adapter(model, tmp_path / "policy")
    assert torch.equal(logits(model), policy)
    assert trained(model) == names
    assert sorted(model.peft_config) == sorted([STACKED, POLICY])
    again = adapt_from(load_base(str(tiny)), tmp_path / "policy", frozen_reference=False)
    torch.testing.assert_close(logits(again), policy, rtol=1e-5, atol=1e-4)
    assert again.peft_config[POLICY].r == 6
    save_part(model, tmp_path / "part")
    shaken(model)
    restore_adapter(model, tmp_path / "part")
    assert torch.equal(logits(model), policy)


def test_the_reference_on_a_merged_base_is_the_merged_base(tiny: Path, tmp_path: Path) -> None:
    """An SFT adapter that was merged into the weights is part of the reference."""
    first = shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0))
    tuned = logits(first)
    first.merge_and_unload().save_pretrained(tmp_path / "merged")
    load_base(str(tiny)).tokenizer.save_pretrained(tmp_path / "merged")
    model = shaken(adapt(load_base(str(tmp_path / "merged")), rank=4, alpha=8, seed=1))
    assert (logits(model) - tuned).abs().max() > 0.1
    with as_reference(model):
        torch.testing.assert_close(logits(model), tuned, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("with_sft", [False, True])
def test_only_the_policy_is_trained_after_every_switch(tiny: Path, tmp_path: Path, with_sft: bool) -> None:
    """PEFT's own switches make the frozen adapter trainable, or freeze the policy."""
    model = adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0)
    if with_sft:
        save_adapter(model, tmp_path / "sft")
        model = adapt_from(load_base(str(tiny)), tmp_path / "sft", frozen_reference=True)
    wanted = {name for name, _ in model.named_parameters() if f".{POLICY}." in name}
    assert trained(model) == wanted
    with as_reference(model):
        assert not logits(model).requires_grad
    assert trained(model) == wanted
    if with_sft:
        assert any(f".{REFERENCE}." in name for name, _ in model.named_parameters())
        train_only(model, REFERENCE)
        assert trained(model).isdisjoint(wanted)


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated"
)  # peft 0.21 asks by the old name
def test_the_saved_policy_loads_with_plain_peft_alone(tiny: Path, tmp_path: Path) -> None:
    """The frozen reference is not in the folder, and nothing of ours is needed to use it."""
    save_adapter(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0), tmp_path / "sft")
    model = shaken(adapt_from(load_base(str(tiny)), tmp_path / "sft", frozen_reference=True))
    save_adapter(model, tmp_path / "policy")
    assert not (tmp_path / "policy" / REFERENCE).exists()
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "policy")
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=0)
    assert base_of_adapter(tmp_path / "policy") == str(tiny)


def test_restoring_gives_back_the_weights_to_the_bit(tiny: Path, tmp_path: Path) -> None:
    model = shaken(adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0))
    saved = logits(model)
    save_adapter(model, tmp_path)
    shaken(model)
    assert not torch.equal(logits(model), saved)
    restore_adapter(model, tmp_path)
    assert torch.equal(logits(model), saved)


def test_broken_adapter_folders_are_refused_by_what_they_lack(tiny: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny))
    with pytest.raises(CheckpointError, match=r"^no adapter folder "):
        adapt_from(base, tmp_path / "none", frozen_reference=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"it has no adapter_config\.json"):
        adapt_from(base, tmp_path / "empty", frozen_reference=False)
    save_adapter(adapt(base, 4, 8, 0), tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks its weights: wanted adapter_model\.safetensors"):
        adapt_from(load_base(str(tiny)), tmp_path / "a", frozen_reference=False)
    with pytest.raises(CheckpointError, match="is an adapter, not a model"):
        resolve_model(str(tmp_path / "a"))


def test_an_adapter_of_another_base_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Equal shapes would load without a word; an equal copy of the base elsewhere is taken."""
    save_adapter(adapt(load_base(str(tiny)), 4, 8, 0), tmp_path / "a")
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="was trained on"):
        adapt_from(load_base(str(other)), tmp_path / "a", frozen_reference=False)
    elsewhere = load_base(str(other))
    with pytest.raises(CheckpointError, match="was trained on"):
        hold_reference(adapt(elsewhere, 4, 8, 0), elsewhere, tmp_path / "a")
    shutil.copytree(tiny, tmp_path / "copy")
    adapt_from(load_base(str(tmp_path / "copy")), tmp_path / "a", frozen_reference=False)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny)


def test_a_fresh_adapter_hangs_on_its_seed_alone_and_leaves_other_draws_alone(tiny: Path) -> None:
    """Whoever draws after it draws what would have been drawn without it."""
    weights = []
    for before in (1, 2):
        torch.manual_seed(before)
        state = torch.random.get_rng_state()
        model = adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0)
        add_fresh_adapter(model, 4, 8, "value", seed=1)
        assert torch.equal(torch.random.get_rng_state(), state)
        weights.append({name: value.clone() for name, value in model.named_parameters() if "lora_A" in name})
    one, other = weights
    assert all(torch.equal(one[name], other[name]) for name in one)
    first = next(name for name in one if ".default." in name)
    assert not torch.equal(one[first], one[first.replace(".default.", ".value.")])
