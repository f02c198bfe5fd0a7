"""What a provider declares about its models, so that every command can work with them before one is opened.

A package adds a provider by an entry point of the group `preceptor.models` that names a `Provider`, or just a function
that opens a model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from preceptor.judge.models.batch_protocol import BatchProvider
from preceptor.judge.models.effort import Profile
from preceptor.judge.models.protocol import Model, Request
from preceptor.judge.settings import Price

Opener = Callable[..., Model]
"""name, base_url=…, timeout_s=… -> the model, ready for requests; a model in this process takes its placement instead
(dtype, device_map, four_bit). Options that the function has no parameter for are refused with a message."""


WorldOracle = Callable[[Mapping[str, Any], str], dict[str, bool]]
"""(a prompt's row, reply) -> principle -> satisfied; a principle that does not apply is absent."""


def as_asked(request: Request) -> int:
    """A reply as long as the request allows."""
    return request.max_tokens


@dataclass(frozen=True, kw_only=True)
class Provider:
    """All that is known of a provider without opening a model."""

    open_model: Opener | str
    """The function, or `module:function`, which is imported when a model is opened."""
    open_batches: Callable[..., BatchProvider] | str | None = None
    """Model -> the same through the provider's batch API; None: it has none."""
    naming: Literal["model", "alone", "either"] = "model"
    """What follows the provider's name: `/model`, nothing, or either."""
    example: str = ""
    """A model's name, shown where a name is wanted and something else came."""
    takes_address: bool = False
    """Its models are reached over a network: they take base_url and timeout_s."""
    weights: Callable[[str], str] | str | None = None
    """Model's name -> folder, GGUF file or hub id of its weights; None: its models do not run in this process. Those
    that do take a placement and no address, change with the files they lie in, and can be trained."""
    person: bool = False
    """Its models are people."""
    free: bool = False
    """Nobody is paid for an answer."""
    key: str = ""
    """Environment variable that holds the key; empty: none is needed."""
    libraries: tuple[str, ...] = ()
    """Distributions that its models need."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """By the model's name without the provider's."""
    batch_discount: float = 0.0
    """Share by which the batch API is cheaper."""
    flex: bool = False
    """Whether `open_model` takes `flex`: its models can be asked at a cheaper and slower tier of service."""
    planned: bool = False
    """Whether `open_model` takes `planned`: its models can be opened where their key is not set, for a plan, which asks
    nobody."""
    profile_of: Callable[[str], Profile | None] = lambda _: None
    """`provider/model` -> what it does at its provider's own address, by the documentation; None: nobody knows."""
    heeds_effort: bool | None = None
    """Whether its models heed how much a request wants them to think; None: those behind an address do."""
    reply_tokens: Callable[[Request], int] = as_asked
    """The most tokens that a reply's own text may have."""
    hidden_tokens: Callable[[Request], int] = lambda _: 0
    """The most tokens that are billed on top of the reply's own: what a model thinks before it answers."""

    oracle: WorldOracle | str | None = None
    """What is true in the generated world that its models live in, or `module:function` of it; None: nobody knows."""
    probes: Callable[[int], Any] | str | None = None
    """Likewise: so many of each kind -> probes of that world, a `train.evaluation.probes.ProbeSet`."""

    @property
    def loads_weights(self) -> bool:
        """Whether its models run in this process."""
        return self.weights is not None

    @property
    def takes_effort(self) -> bool:
        """Whether `--effort` can have an effect on one of its models."""
        return self.takes_address if self.heeds_effort is None else self.heeds_effort

    def weights_of(self, name: str) -> str | None:
        """Where the weights of one of its models lie."""
        if self.weights is None:
            return None
        place: str = resolved(self.weights)(name)
        return place

    def oracle_of(self) -> WorldOracle | None:
        """What is true in the world of its models; None where nobody knows."""
        oracle: WorldOracle | None = resolved(self.oracle)
        return oracle

    def probes_of(self, size: int) -> Any:
        """So many probes of each kind of its models' world; None where there is none."""
        return None if self.probes is None else resolved(self.probes)(size)

    @property
    def opener(self) -> Opener:
        """The function that opens a model."""
        opener: Opener = resolved(self.open_model)
        return opener

    def batches_of(self, model: Model) -> BatchProvider | None:
        """The model through the batch API; None where it has none."""
        if self.open_batches is None or not model.capabilities.batches:
            return None
        made: BatchProvider = resolved(self.open_batches)(model)
        return made


def resolved(place: Any) -> Any:
    """What stands at `module:name`; anything but a text is what it is."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
