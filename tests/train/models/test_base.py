"""A base model: whatever cannot be loaded whole is refused by name, and nothing in it is left to chance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from preceptor.train.errors import CheckpointError
from preceptor.train.models.base import load_base, resolve_model
from tests.train.tiny import save_tiny

IDS = torch.arange(5, 25)[None]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=IDS).logits
    return out


def test_no_dropout_is_left_in_the_base(tmp_path: Path) -> None:
    """Not in modules, and not in attention layers that keep their rate as a number: reference and policy would
    differ by chance."""
    folder = save_tiny(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    model = load_base(str(folder)).model.train()
    assert torch.equal(logits(model), logits(model))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "embeded",
            "no model 'embeded': wanted `embedded`, `smollm2`, `hf/` and a hub id, or the path of a model folder or "
            "GGUF file; did you mean 'embedded'",
        ),
        ("./nowhere", "no model './nowhere'"),
        ("hf/./nowhere", "no model 'hf/./nowhere'"),
        ("hf/", "no model 'hf/'"),
    ],
)
def test_a_misspelt_model_is_named(name: str, words: str) -> None:
    with pytest.raises(CheckpointError, match="^" + words.replace(".", r"\.").replace("(", r"\(")):
        resolve_model(name)


def test_a_hub_id_is_left_to_the_hub() -> None:
    assert resolve_model("hf/owner/name") == "owner/name"


def test_missing_weights_are_refused_and_not_made_up(tmp_path: Path) -> None:
    """transformers fills them in at random and goes on."""
    folder = save_tiny(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.1.mlp" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 3 of the model.s weights.*layers\.1\.mlp\.down_proj"):
        load_base(str(folder))


def test_weights_cut_short_are_one_clear_message(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"m cannot be loaded: "):
        load_base(str(folder))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no weights in safetensors form"):
        load_base(str(folder))
