"""What the providers' own lists say of the models that a user names: there or not, until when, and what each can do."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.asking import prices as table
from preceptor.judge.asking.prices import Prices
from preceptor.judge.errors import ModelError
from preceptor.judge.models import registry
from preceptor.judge.models.effort import Profile
from preceptor.judge.models.protocol import ListedModel, ListsModels, Model, ModelName
from preceptor.judge.settings import CHECKS
from preceptor.settings import AskSettings, over_a_network

SAME = re.compile(r"(:latest|-(\d{8}|\d{4}-\d{2}-\d{2}))?")
"""What a list may have behind a name that is an alias: a snapshot's day, Ollama's tag."""


class ModelReport(NamedTuple):
    """What is known of one model."""

    model: str
    found: str
    """In words."""
    ok: bool
    """Whether it can be asked, as far as anybody says."""
    facts: Mapping[str, Any]
    """The same for a program; what is not known is null."""


def examine_models(names: Iterable[str], access: AskSettings, day: date) -> list[ModelReport]:
    """Ask the server of each model for its list; nothing that is paid for is asked. Raises UserError for a name that
    nobody answers to."""
    return asyncio.run(_examined(list(dict.fromkeys(names)), access, day))


async def _examined(names: Sequence[str], access: AskSettings, day: date) -> list[ModelReport]:
    prices = access.price_table
    return [await _report(name, access, prices, day) for name in names]


async def _report(name: str, access: AskSettings, prices: Prices, day: date) -> ModelReport:
    if name == CHECKS or not over_a_network(name):
        here = "the constitution's machine checks" if name == CHECKS else _here(name)
        return ModelReport(name, here, True, {"there": True})
    try:
        model = access.open(name)
    except ModelError as exc:  # no key
        return ModelReport(name, str(exc), False, {"there": None, "problem": str(exc)})
    try:
        if not isinstance(model, ListsModels):
            return ModelReport(name, "its provider gives no list of models", True, {"there": None})
        return _told(model, await model.listed(), prices, day)
    except ModelError as exc:
        return ModelReport(name, f"no list: {exc}", False, {"there": None, "problem": str(exc)})
    finally:
        await model.close()


def _here(name: str) -> str:
    if registry.find(name) is None:
        registry.open_model(name)  # which says what is wrong with the name
    provider = registry.declared(name)
    return "a person" if provider.person else "in this process; no list to ask"


def _told(model: Model, listed: Sequence[ListedModel], prices: Prices, day: date) -> ModelReport:
    own = ModelName.of(model.name).model
    found = next((one for one in listed if one.name == own), None) or next(
        (one for one in listed if one.name.startswith(own) and SAME.fullmatch(one.name[len(own) :])), None
    )
    price = None if model.endpoint else prices.entry(model.name)
    gone_on = (found.gone_on if found else "") or (price.shutdown if price else "")
    successor = table.heir(model.name, price) if price is not None and price.successor else None
    retired = found.retired if found else bool(gone_on) and gone_on <= str(day)
    profile = None if model.endpoint else registry.declared(model.name).profile_of(model.name)
    facts = {
        "there": found is not None,
        "gone_on": gone_on or None,
        "retired": retired,
        "successor": successor,
        **_abilities(model, found, profile),
    }
    words = [_presence(own, found, listed, retired), *_future(gone_on, retired, successor, day)]
    if found is not None and not retired:
        words += _skills(facts)
    return ModelReport(model.name, "; ".join(words), found is not None and not retired, facts)


def _presence(own: str, found: ListedModel | None, listed: Sequence[ListedModel], retired: bool) -> str:
    if found is not None:
        return "in the list, and retired" if retired else "there"
    names = [one.name for one in listed]
    near = difflib.get_close_matches(own, names, n=3)
    hint = (
        f"; near it: {', '.join(near)}"
        if near
        else f"; it has {', '.join(names)}"
        if 0 < len(names) <= 5
        else ""
    )
    return f"not in the list of {len(listed)} models{hint}"


def _future(gone_on: str, retired: bool, successor: str | None, day: date) -> list[str]:
    words = []
    if gone_on:
        past = "shut down on" if retired else "was to be shut down on"
        words.append(f"{past if gone_on <= str(day) else 'there until'} {gone_on}")
    if successor and (gone_on or retired):
        words.append(f"its successor is {successor}")
    return words


def _abilities(model: Model, found: ListedModel | None, profile: Profile | None) -> dict[str, Any]:
    """What the list says goes before the documentation; None: neither says."""
    efforts = (found.efforts if found else None) or (profile.efforts if profile else None)
    logprobs: str | None = "never"
    if model.capabilities.logprobs:
        logprobs = None if efforts is None else "with effort none" if "none" in efforts else "never"
    structured = found.structured if found else None
    if structured is None and profile is not None:
        structured = model.capabilities.structured
    return {
        "efforts": None if efforts is None else list(efforts),
        "logprobs": logprobs,
        "structured": structured,
    }


def _skills(facts: Mapping[str, Any]) -> list[str]:
    levels = facts["efforts"]
    words = [f"--effort {', '.join(levels)}" if levels else "nothing is known of --effort"]
    words.append(
        f"token probabilities {facts['logprobs']}" if facts["logprobs"] else "perhaps token probabilities"
    )
    if facts["structured"] is not None:
        words.append("--structured" if facts["structured"] else "no --structured")
    return words


def require_names(names: Sequence[str]) -> Sequence[str]:
    """Raises UserError where there is none."""
    if not names:
        raise UserError(
            "--models asks about models that are named; name a run file, or one with --judge or --policy"
        )
    return names
