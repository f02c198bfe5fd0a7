"""Two constitutions -> what is different, principle by principle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from preceptor.constitution.principle import Constitution, Principle

ASKED = frozenset({"text", "applies_to", "check", "weight", "examples"})
"""Fields that can change what a judge is asked: the weight where several principles stand in one ask, the examples
where they are shown."""
REVISED = frozenset({"critique", "revision", "applies_to"})
"""Fields that can change what a critic or reviser is asked."""


class PrincipleChange(NamedTuple):
    """What became of one principle, or of the constitution itself (`principle` is empty)."""

    principle: str
    kind: Literal["added", "removed", "changed", "moved"]
    fields: dict[str, tuple[Any, Any]]
    """Field -> its old and new value; empty but for `changed`."""

    @property
    def asks_again(self) -> bool:
        """Whether a judge may have to be asked again about some pair; the order counts where one ask holds several."""
        return self.kind != "changed" or bool(self.principle and ASKED & set(self.fields))

    @property
    def revises_again(self) -> bool:
        """Whether replies may have to be criticised or revised again."""
        return self.kind in ("added", "removed") or bool(self.principle and REVISED & set(self.fields))


def compare(old: Constitution, new: Constitution) -> list[PrincipleChange]:
    """The changes in the order of the new constitution, removed principles last; none for equal ones."""
    return [*_itself(old, new), *_principles(old, new)]


def _itself(old: Constitution, new: Constitution) -> Iterator[PrincipleChange]:
    fields = _different(old.model_dump(exclude={"principles"}), new.model_dump(exclude={"principles"}))
    if fields:
        yield PrincipleChange("", "changed", fields)


def _principles(old: Constitution, new: Constitution) -> Iterator[PrincipleChange]:
    before = {principle.id: principle for principle in old.principles}
    after = {principle.id for principle in new.principles}
    kept = [principle.id for principle in old.principles if principle.id in after]
    order = [principle.id for principle in new.principles if principle.id in before]
    for principle in new.principles:
        was = before.get(principle.id)
        if was is None:
            yield PrincipleChange(principle.id, "added", {})
        elif fields := _different(_fields(was), _fields(principle)):
            yield PrincipleChange(principle.id, "changed", fields)
        elif kept.index(principle.id) != order.index(principle.id):
            yield PrincipleChange(principle.id, "moved", {})
    for principle in old.principles:
        if principle.id not in after:
            yield PrincipleChange(principle.id, "removed", {})


def _fields(principle: Principle) -> dict[str, Any]:
    return principle.model_dump(mode="json", exclude={"id"})


def _different(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}
