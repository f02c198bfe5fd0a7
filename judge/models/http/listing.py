"""A server's own list of its models, in the forms of both protocols: what it has, until when, and what each can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models import door
from preceptor.judge.models.effort import LEVELS
from preceptor.judge.models.protocol import ListedModel

OFF = ("disabled", "between_tools")
"""Anthropic's kinds of thinking that are none."""
DAY = len("2026-11-30")


class Page(NamedTuple):
    """A part of a list."""

    models: list[ListedModel]
    after: str
    """What to ask for the next part with; empty: this was the last."""


def page_of(raw: bytes, provider: str) -> Page:
    """Raises ProviderStopped where the body is no list of models."""
    try:
        body = door.json_of(raw)
    except ValueError as exc:
        raise ProviderStopped(
            f"{provider} gave no list of models but a body that is not JSON ({exc})"
        ) from exc
    rows = body.get("data") if isinstance(body, Mapping) else body
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ProviderStopped(f"{provider} gave no list of models: its body has no `data`")
    models = [
        _listed(row)
        for row in rows
        if isinstance(row, Mapping) and isinstance(row.get("id"), str) and row["id"]
    ]
    more = isinstance(body, Mapping) and body.get("has_more") is True
    return Page(models, models[-1].name if more and models else "")


def _listed(row: Mapping[str, Any]) -> ListedModel:
    can = row.get("capabilities")
    can = can if isinstance(can, Mapping) else {}
    gone = next(
        (day for name in ("shutdown_date", "retires_at") if isinstance(day := row.get(name), str)), ""
    )
    return ListedModel(
        name=door.sound(row["id"])[: door.LONGEST_NAME],
        gone_on=door.sound(gone)[:DAY],
        retired=row.get("lifecycle") == "retired",
        efforts=_efforts(can),
        structured=_supported(can.get("structured_outputs")),
    )


def _efforts(can: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The levels that a table of capabilities names, `none` where the model can be told not to think."""
    effort, thinking = can.get("effort"), can.get("thinking")
    if not isinstance(effort, Mapping):
        return None
    kinds = thinking.get("types") if isinstance(thinking, Mapping) else None
    off = isinstance(kinds, Mapping) and any(_supported(kinds.get(kind)) for kind in OFF)
    levels = {level for level in LEVELS if _supported(effort.get(level))} | ({"none"} if off else set())
    return tuple(level for level in LEVELS if level in levels)


def _supported(one: object) -> bool | None:
    told = one.get("supported") if isinstance(one, Mapping) else None
    return told if isinstance(told, bool) else None
