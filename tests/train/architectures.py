"""Tiny random models of many architectures, with sliding windows shorter than the rows they are given."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

SIZE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}
GROUPED = {"num_key_value_heads": 2}
SLIDING = {**GROUPED, "sliding_window": 16}
MIXED = {**SLIDING, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}
SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "qwen2": ("Qwen2", GROUPED),
    "qwen2-sliding": ("Qwen2", {**SLIDING, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2", {**MIXED, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 20.0}),
    "gemma3": ("Gemma3", MIXED),
    "mistral": ("Mistral", SLIDING),
    "gpt-neox": ("GPTNeoX", {}),
    "granite": ("Granite", {**GROUPED, "logits_scaling": 4.0}),
    "cohere2": ("Cohere2", {**MIXED, "logit_scale": 0.3}),
}
"""Architectures that take the shared layout."""
APART: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("Bloom", {}),  # makes a bias of its own out of a (R, T) mask
    "mpt": ("Mpt", {}),  # takes the mask and adds its own positions
    "mamba": ("Mamba", {}),  # has no attention to mask
}
"""Architectures that do not."""


def tiny_model(name: str) -> PreTrainedModel:
    """A model of one of SHARED or APART, in evaluation mode, the same each time."""
    kind, values = {**SHARED, **APART}[name]
    library: Any = transformers
    config = getattr(library, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")(
        **{**SIZE, **values}
    )
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(library, f"{kind}ForCausalLM")(config)
    return model.eval()
