"""A fault of all rows is not told row by row: a run whose first rows all fail alike stops and says why.

So is one that ends without a single usable row. A row counts as usable where there is anything in it to go on with: a
verdict, a tie, a reply, even one that was cut off at its length. Rows for which no model was asked are not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.records import Judgement, Label, Response, Revision, Score

FIRST = 20
"""Rows that must all have failed alike for the run to stop."""
SHOWN = 300
"""Characters of a reason that are shown."""

READABLE = ("ok", "truncated")

ADVICE = {
    "empty": "raise --max-tokens, or ask another model",
    "truncated": "raise --max-tokens, or look at the server where it broke them off",
    "off-topic": "look at a reply with `preceptor ledger show`; try --reasoning, --structured or another model",
    "refused": "ask another model, or leave these rows out",
    "failed": "check the model's name, its server and what it takes",
}


class Unusable(NamedTuple):
    """Why a row holds nothing to go on with."""

    kind: str
    """A key of `ADVICE`."""
    reason: str
    """In words."""

    @property
    def alike(self) -> tuple[str, str]:
        """Equal for two rows that failed for the same reason: what models wrote is their own each time, and numbers in
        what servers say are."""
        said = self.reason if self.kind in ("failed", "refused") else ""
        return self.kind, re.sub(r"\d+", "#", said)


class NothingUsable(ProviderStopped):
    """The run has no usable row."""


class FirstRows:
    """Looks at every row of a run as it is written."""

    def __init__(self) -> None:
        self._seen = 0
        self._bad: list[Unusable] = []
        self._usable = False

    def see(self, row: Any) -> None:
        """Take one more row into account. Raises NothingUsable where the first rows all failed alike."""
        if self._usable:
            return
        for found in faults_of(row):
            if found is None:
                self._usable = True
                self._bad.clear()
                return
            self._bad.append(found)
        if len(self._bad) >= FIRST and len({one.alike for one in self._bad}) == 1:
            first = self._bad[0]
            raise NothingUsable(
                f"the first {len(self._bad)} rows all ended alike, with nothing usable in any: {_said(first)}; nothing "
                f"more is asked: {ADVICE[first.kind]}, and run the same command again"
            )

    def end(self) -> NothingUsable | None:
        """Why a run that has ended was in vain; None: it was not."""
        if self._usable or not self._bad:
            return None
        (kind, count), *rest = Counter(one.kind for one in self._bad).most_common()
        first = next(one for one in self._bad if one.kind == kind)
        others = f" ({', '.join(f'{count} {kind}' for kind, count in rest)} besides)" if rest else ""
        return NothingUsable(f"no row is usable: {count} ended with: {_said(first)}{others}; {ADVICE[kind]}")


def faults_of(row: Any) -> Iterator[Unusable | None]:
    """For each reply or verdict in a row that a model was asked for: why it is not usable; None: it is."""
    if isinstance(row, tuple) and not isinstance(row, Response | Revision | Label | Score):
        for one in row:
            yield from faults_of(one)
    elif isinstance(row, Response) or (
        isinstance(row, Revision)
        and (row.calls or row.critiques or row.response.status in ("ok", "truncated"))
    ):
        yield None if row.status in READABLE else Unusable(row.status, row.problem)
    elif isinstance(row, Label) and any(one.call for one in row.judgements):
        yield None if row.status in ("ok", "tie", "inconsistent") else _of(row.judgements)
    elif isinstance(row, Score) and row.grades:
        if row.status == "ok":
            yield None
        else:
            grade = row.grades[0]
            kind = "off-topic" if grade.status == "unparsed" else grade.status
            yield Unusable(kind, grade.reason)


def _of(judgements: tuple[Judgement, ...]) -> Unusable:
    first = next((one for one in judgements if one.fault), judgements[0])
    return Unusable(first.fault or "failed", first.reason)


def _said(one: Unusable) -> str:
    words = " ".join(one.reason.split())[:SHOWN]
    return f"no verdict in {words!r}" if one.kind == "off-topic" else words or one.kind
