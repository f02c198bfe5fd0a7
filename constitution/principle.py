"""Principle and Constitution: frozen values with a content identity.

A constitution's identity is `name@version#<12 hex>`, where the hex digits are the SHA-256 of its canonical JSON.
Every row made under a constitution carries it, so that two files with the same name can never be mistaken for
one another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Frozen):
    """A worked comparison: a few-shot for the judge and a test of the principle."""

    prompt: str
    better: str
    worse: str
    because: str = ""


class Principle(_Frozen):
    """One rule by which replies are compared, criticised and repaired."""

    id: str = Field(pattern=SLUG)
    text: str = Field(min_length=1)
    """How two replies are compared: "Choose the reply that ..."."""
    critique: str = ""
    """How one reply is criticised; empty: this principle is not used for critiques."""
    revision: str = ""
    """How a criticised reply is repaired."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    tags: tuple[str, ...] = ()
    applies_to: tuple[str, ...] = ()
    """Prompt tags to which the principle is limited; empty: it applies to every prompt."""
    over: tuple[str, ...] = ()
    """Ids of principles that are silent where this one decides."""
    check: dict[str, Any] = Field(default_factory=dict)
    """Machine check, by the names in `constitution.checks`; empty: there is none."""
    examples: tuple[Example, ...] = ()

    def applies(self, tags: Iterable[str]) -> bool:
        """Whether the principle speaks about a prompt with these tags."""
        return not self.applies_to or not set(self.applies_to).isdisjoint(tags)


class Constitution(_Frozen):
    """Principles in the order of the file, those of `extends` first."""

    name: str = Field(pattern=SLUG)
    version: str = "1.0.0"
    description: str = ""
    extends: tuple[str, ...] = ()
    principles: tuple[Principle, ...] = Field(min_length=1)

    @cached_property
    def identity(self) -> str:
        """`name@version#<12 hex of the content hash>`."""
        content = self.model_dump(mode="json")
        for principle in content["principles"]:
            if not principle["over"]:  # so that constitutions from before there were priorities keep theirs
                del principle["over"]
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return f"{self.name}@{self.version}#{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

    def without(self, ids: Collection[str]) -> Self:
        """The constitution less some principles; those left outrank none of them."""
        kept = tuple(
            one.model_copy(update={"over": tuple(name for name in one.over if name not in ids)})
            for one in self.principles
            if one.id not in ids
        )
        return self.model_copy(update={"principles": kept})

    def for_prompt(self, tags: Iterable[str]) -> tuple[Principle, ...]:
        """The principles that apply to a prompt with these tags."""
        tags = set(tags)
        return tuple(principle for principle in self.principles if principle.applies(tags))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which has an identity of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("identity", None)
        return copied


def outranking(principles: Iterable[Principle]) -> dict[str, frozenset[str]]:
    """Id -> ids of the principles that outrank it, those above them among them; no key where there are none.

    An id that is none of theirs counts for nothing. Raises graphlib.CycleError where some outrank one another.
    """
    principles = tuple(principles)
    above: dict[str, set[str]] = {one.id: set() for one in principles}
    for one in principles:
        for below in one.over:
            if below in above:
                above[below].add(one.id)
    found: dict[str, frozenset[str]] = {}
    for name in TopologicalSorter(above).static_order():
        found[name] = frozenset(above[name]).union(*(found[up] for up in above[name]))
    return {name: ups for name, ups in found.items() if ups}
