"""Model names -> models. A provider's module is imported only when one of its models is opened."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.protocol import Model

GROUP = "preceptor.models"
"""Entry-point group by which other packages add providers: name -> callable(name, **options) -> Model."""

OURS: Mapping[str, str] = MappingProxyType(
    {
        "openai": "preceptor.judge.models.openai.model:open_model",
        "anthropic": "preceptor.judge.models.anthropic.model:open_model",
        "hf": "preceptor.judge.models.local.model:open_model",
        "human": "preceptor.judge.models.human:open_model",
        "scripted": "preceptor.judge.models.scripted:open_model",
        "embedded": "preceptor.train.embedded.provider:open_model",
    }
)
"""Providers that ship, as `module:function`. `embedded` stands here as well as in the entry points, so that a
source tree that was never installed has it too; the name keeps `judge` from importing `train`."""

ALONE = ("embedded", "human")
"""Providers whose name is a model's name by itself."""

FORMS = (
    "openai/gpt-5-mini, anthropic/claude-sonnet-4-5, hf/Qwen/Qwen3-0.6B, hf/./runs/a/7-policy, embedded, "
    "scripted/FILE"
)


def open_model(
    name: str,
    *,
    base_url: str | None = None,
    timeout_s: float | None = None,
    **local: Any,
) -> Model:
    """The model that `name` names, ready for requests; nothing is asked or loaded yet.

    base_url and timeout_s are for providers behind a network, `local` for models in this process (device, dtype,
    device_map, four_bit); an option that was not given is not passed on, one that the provider does not know is an
    UnknownModel error.
    Raises ProviderStopped where the provider's key is missing.
    """
    provider, slash, rest = name.partition("/")
    if provider == "checks":
        raise UnknownModel(
            "checks is not a model: it can only be a judge, as in `preceptor label --judge checks`"
        )
    opener = _opener(provider, name)
    if provider in OURS and provider not in ALONE and not rest:
        raise UnknownModel(f"{name!r} names no model of {provider}; wanted a name like {FORMS}")
    if provider == "embedded" and slash:
        raise UnknownModel(f"{name!r}: there is one embedded model, and its name is just embedded")
    options = {"base_url": base_url, "timeout_s": timeout_s, **local}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return opener(name, **given)
    except TypeError as exc:
        if "unexpected keyword argument" not in str(exc):
            raise
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise UnknownModel(f"{name} does not take all of {flags}; leave out what is not for it") from exc


def _opener(provider: str, name: str) -> Callable[..., Model]:
    """The function that opens this provider's models; added providers cannot displace ours."""
    if provider in OURS:
        module, _, function = OURS[provider].partition(":")
        found: Any = getattr(importlib.import_module(module), function)
        return found  # type: ignore[no-any-return]
    added = {entry.name: entry for entry in entry_points(group=GROUP)}
    if provider in added:
        loaded: Callable[..., Model] = added[provider].load()
        return loaded
    known = sorted({*OURS, *added})
    near = difflib.get_close_matches(provider.lower(), known, n=1)
    hint = f"did you mean {near[0]}{'' if near[0] == 'embedded' else '/…'}? " if near else ""
    raise UnknownModel(
        f"no provider answers to {name!r}; {hint}wanted provider/model with one of {', '.join(known)}, "
        f"as in {FORMS}"
    )
