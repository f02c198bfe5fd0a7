"""Model names -> providers and models. A provider's code is imported only when one of its models is opened."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from preceptor.constitution.added import REMEDY, loaded, named
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.batch_protocol import BatchProvider
from preceptor.judge.models.protocol import Model, ModelName
from preceptor.judge.models.provider import Provider, resolved
from preceptor.judge.settings import CHECKS
from preceptor.prompts.secrets import watch

GROUP = "preceptor.models"
"""Entry-point group by which other packages add providers: name -> `Provider`, or a function that opens a model."""

OURS: Mapping[str, Provider | str] = MappingProxyType(
    {
        "openai": "preceptor.judge.models.openai.provider:PROVIDER",
        "anthropic": "preceptor.judge.models.anthropic.provider:PROVIDER",
        "hf": Provider(
            open_model="preceptor.judge.models.local.model:open_model",
            example="hf/Qwen/Qwen3-0.6B",
            weights="preceptor.judge.models.local.model:weights_of",
            free=True,
        ),
        "human": Provider(open_model="preceptor.judge.models.human:open_model", naming="either", person=True),
        "scripted": Provider(
            open_model="preceptor.judge.models.scripted:open_model", example="scripted/FILE", free=True
        ),
    }
)
"""Providers that ship with this package, or `module:name` of them."""


class BrokenProvider(UnknownModel):
    """A package's provider that cannot be loaded."""


def open_model(
    name: str,
    *,
    base_url: str | None = None,
    timeout_s: float | None = None,
    planned: bool = False,
    **local: Any,
) -> Model:
    """The model that `name` names, ready for requests; nothing is asked or loaded yet.

    base_url and timeout_s are for providers behind a network, `local` for models in this process (device, dtype,
    device_map, four_bit); an option that was not given is not passed on, one that the provider does not know is an
    UnknownModel error.
    Raises ProviderStopped where the provider's key is missing; not so where the model is `planned` with alone, and not
    asked.
    """
    parts = ModelName.of(name)
    if parts.provider == CHECKS:
        raise UnknownModel(
            "checks is not a model: it can only be a judge, as in `preceptor label --judge checks`"
        )
    provider = find(name)
    if provider is None:
        raise _unknown(name)
    if provider.naming == "model" and not parts.model:
        raise UnknownModel(f"{name!r} names no model of {parts.provider}; wanted a name like {forms()}")
    if provider.naming == "alone" and name != parts.provider:
        raise UnknownModel(
            f"{name!r}: there is one {parts.provider} model, and its name is just {parts.provider}"
        )
    options = {"base_url": base_url, "timeout_s": timeout_s, **local}
    if planned and provider.planned:
        options["planned"] = True
    given = {key: value for key, value in options.items() if value is not None}
    watch(provider.key)
    opener = provider.opener
    if strange := sorted(given.keys() - _parameters(opener, given)):
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in strange)
        raise UnknownModel(f"{name} does not take {flags}; leave out what is not for it")
    return opener(name, **given)


def open_batches(model: Model) -> BatchProvider | None:
    """The model through its provider's batch API; None where it has none."""
    return declared(model.name).batches_of(model)


def find(name: str) -> Provider | None:
    """The provider of a model's name; None: nobody answers to it. Raises BrokenProvider where a package's cannot be
    loaded."""
    return _provider(ModelName.of(name).provider)


def declared(name: str) -> Provider:
    """The provider of a model's name; where nobody answers to it, as with a model that a program brings itself, one
    that declares nothing."""
    return find(name) or UNDECLARED


def providers() -> list[str]:
    """Names of all providers, ours and those that packages add."""
    return sorted({*OURS, *_added()})


def package_of(name: str) -> str:
    """The package, with its version, that adds a provider; empty: it is ours, or there is none."""
    entry = _added().get(name)
    dist = entry.dist if entry else None
    return "" if dist is None or dist.name == "preceptor" else f"{dist.name} {dist.version}"


def forms() -> str:
    """Examples of names, one for each provider that gives one."""
    ours = [example for name in OURS if (example := declared(name).example)]
    return ", ".join([*ours, "hf/./runs/a/7-policy", "hf/./model.gguf", *packaged()])


def packaged() -> tuple[str, ...]:
    """Models that packages carry whole: each is a provider of one model, whose name is its name."""
    alone = (
        name for name in providers() if declared(name).naming == "alone" and declared(name).loads_weights
    )
    return tuple(alone)


def weights_of(name: str) -> str:
    """Where the weights lie that a model name stands for, to judge with or to train: a folder, a GGUF file or a hub
    id. A path alone is taken as `hf/` and the path.

    Raises UnknownModel for a name that is none, and for a model whose weights are not in this process.
    """
    if name and find(name) is None and Path(name).expanduser().exists():
        return name
    open_model(name)  # which says what is wrong with a name
    source = declared(name).weights_of(name)
    if source is None:
        raise UnknownModel(f"{name} has no weights here; wanted hf/ and a hub id, a folder or a GGUF file")
    return source


def _nobody(name: str) -> Model:
    raise _unknown(name)


UNDECLARED = Provider(open_model=_nobody)


@cache
def _added() -> dict[str, EntryPoint]:
    """Other packages' providers, which cannot displace ours."""
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in OURS}


@cache
def _provider(name: str) -> Provider | None:
    if name in OURS:
        ours: Provider = resolved(OURS[name])
        return ours
    entry = _added().get(name)
    if entry is None:
        return None
    said = named("provider", entry)
    found = loaded(entry, said, BrokenProvider)
    if isinstance(found, Provider):
        return found
    if callable(found):
        return Provider(open_model=found)
    raise BrokenProvider(
        f"{said} is {type(found).__name__}; wanted a preceptor.judge.models.provider.Provider or a function that opens "
        f"a model: {REMEDY}"
    )


def _parameters(opener: Any, given: Mapping[str, Any]) -> set[str]:
    """Those of the given options that a function has parameters for."""
    parameters = inspect.signature(opener).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set(given)
    return {parameter.name for parameter in parameters}


def _unknown(name: str) -> UnknownModel:
    known = providers()
    near = difflib.get_close_matches(ModelName.of(name).provider.lower(), known, n=1)
    hint = f"did you mean {near[0]}{_rest(near[0])}? " if near else ""
    return UnknownModel(
        f"no provider answers to {name!r}; {hint}wanted provider/model with one of {', '.join(known)}, "
        f"as in {forms()}"
    )


def _rest(provider: str) -> str:
    return "" if declared(provider).naming == "alone" else "/…"
