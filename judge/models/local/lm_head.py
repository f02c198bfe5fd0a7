"""A language model's output layer, by itself: so that logits are made where they are wanted and nowhere else."""

from __future__ import annotations

from typing import Any, NamedTuple

MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
DIVISORS = ("logits_scaling",)
SOFTCAP = "final_logit_softcapping"
UNKNOWN_SCALES = ("output_multiplier",)
"""Config fields that change the logits in ways not known here."""


class Head(NamedTuple):
    """The output layer, and what the model does to its logits: softcap * tanh(scale * logits / softcap)."""

    layer: Any
    """An `nn.Module` from (N, H) to (N, V)."""
    scale: float
    softcap: float | None

    def logits(self, hidden: Any) -> Any:
        """Hidden states (N, H) after the last norm -> logits (N, V) in float32."""
        found = self.layer(hidden).float()
        if self.scale != 1.0:
            found = found * self.scale
        return found if self.softcap is None else self.softcap * (found / self.softcap).tanh()


def head_of(causal: Any) -> Head | None:
    """The head of a transformers language model; None where its config speaks of more than is known here."""
    config = causal.config.get_text_config()
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in UNKNOWN_SCALES):
        return None
    scale = 1.0
    for name in MULTIPLIERS:
        scale *= float(getattr(config, name, None) or 1.0)
    for name in DIVISORS:
        scale /= float(getattr(config, name, None) or 1.0)
    return Head(causal.get_output_embeddings(), scale, getattr(config, SOFTCAP, None))
