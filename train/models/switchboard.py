"""Which adapter of a model is active, switched by a list of its LoRA layers that is made once.

PEFT walks over all modules at every switch, and over all of them again to report their state; here a switch is
one assignment a layer. PEFT also leaves `requires_grad` as it thinks best; here every switch says anew which
parameters are trained, and no others are. Layers compute their product in one step (`train.models.lora_forward`).

Gradient checkpointing computes activations a second time in the backward pass, with the adapter that acts
then: run backward before the next switch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from preceptor.train.models.lora_forward import join

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

BASE = ""
"""Names no adapter: the base as it was loaded."""


class Switchboard:
    """The adapters of one model; those named `trained` have gradients while they act, the others never."""

    def __init__(self, adapted: PeftModel, trained: frozenset[str]) -> None:
        from peft.tuners.lora import LoraLayer

        self.trained = trained
        self.active = BASE
        self._layers: list[LoraLayer] = [
            module for module in adapted.modules() if isinstance(module, LoraLayer)
        ]
        self._parameters: dict[str, list[nn.Parameter]] = {
            name: [weight for key, weight in adapted.named_parameters() if f".{name}." in key]
            for name in adapted.peft_config
        }
        adapted.requires_grad_(False)
        for layer in self._layers:
            join(layer)
        self.switch(BASE)

    def switch(self, name: str) -> None:
        """Make `name` the active adapter; BASE: no adapter."""
        if name != BASE and name not in self._parameters:
            raise KeyError(f"no adapter {name!r} among {sorted(self._parameters)}")
        for layer in self._layers:
            layer._disable_adapters = name == BASE
            if name != BASE:
                layer._active_adapter = [name]
        for other in self.trained:
            for weight in self._parameters[other]:
                weight.requires_grad_(other == name)
        self.active = name

    @contextlib.contextmanager
    def as_role(self, name: str) -> Iterator[None]:
        """`name` is the active adapter inside the block; afterwards the one before it is."""
        before = self.active
        self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def parameters(self, name: str) -> list[nn.Parameter]:
        """An adapter's weights, in an order that does not change."""
        return self._parameters[name]
