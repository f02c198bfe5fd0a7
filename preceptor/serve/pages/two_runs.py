"""Two runs beside each other: what differs in their settings, and what became of the same held-out prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.constitution.foreign import json_in
from preceptor.judge.aggregate import winner
from preceptor.judge.statistics import Difference, Interval, newcombe, phi, wilson
from preceptor.prompts.errors import RowsError
from preceptor.prompts.rows import read_records
from preceptor.records import HeldOut
from preceptor.run.files import HELD_OUT, MANIFEST

ALL = "all that can be decided"
"""Row of the replies that satisfy every principle which the oracle decides about them."""
JUDGE = "the judge prefers it to the run's start"
ABSENT = "–"
"""A setting that one of the runs has not."""


class PairedShare(NamedTuple):
    """How often the replies of each run have something, on prompts for which it is known of both."""

    name: str
    one: Interval
    other: Interval
    difference: Difference | None
    """Other less one, with its 95 % interval for paired shares (Newcombe 1998); None: no prompt."""
    only_one: int
    """Prompts on which only the first run's reply has it."""
    only_other: int
    p: float | None
    """Of the exact sign test on those (McNemar 1947); None: there are none."""


class ChangedSample(NamedTuple):
    """A held-out prompt to which the runs reply differently."""

    one: HeldOut
    other: HeldOut
    turned: tuple[str, ...]
    """Principles that one of the replies satisfies and the other does not."""


class TwoRuns(NamedTuple):
    """What differs between two runs."""

    settings: list[tuple[str, str, str]]
    """(name, of the one, of the other) where they differ."""
    known_settings: bool
    """Whether both have a manifest, which is written last of all."""
    shares: list[PairedShare]
    both: int
    """Held-out prompts that both have; only these are compared."""
    only_one: int
    only_other: int
    changed: list[ChangedSample]
    """Those with a principle that turned first."""


def compared(one: Path, other: Path) -> TwoRuns:
    """Two run folders, as far as each has come."""
    manifests = [_manifest(folder) for folder in (one, other)]
    rows = [{row.prompt.messages: row for row in _held_out(folder)} for folder in (one, other)]
    both = [(rows[0][asked], rows[1][asked]) for asked in rows[0] if asked in rows[1]]
    return TwoRuns(
        list(_settings(*manifests)),
        all(manifests),
        list(_shares(both)),
        len(both),
        len(rows[0]) - len(both),
        len(rows[1]) - len(both),
        sorted(_changed(both), key=lambda each: -len(each.turned)),
    )


def sign_test(fewer: int, more: int) -> float | None:
    """Two-sided exact p that two kinds of outcomes are equally likely (McNemar's test where few pairs differ); None
    where there are none."""
    from scipy.stats import binomtest

    return float(binomtest(fewer, fewer + more).pvalue) if fewer + more else None


def _manifest(folder: Path) -> Mapping[str, Any]:
    try:
        found = json_in(folder / MANIFEST)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("settings"), dict) else {}


def _held_out(folder: Path) -> list[HeldOut]:
    """None where the run has not come so far, or cannot be read."""
    try:
        return list(read_records(folder / HELD_OUT, HeldOut))
    except (OSError, RowsError):
        return []


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if not (one and other):
        return
    flat = [
        dict(_flat({"constitution": each.get("constitution"), **each["settings"]})) for each in (one, other)
    ]
    for name in sorted({**flat[0], **flat[1]}):
        values = [each.get(name, ABSENT) for each in flat]
        if values[0] != values[1]:
            yield name, values[0], values[1]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)


def _shares(both: Sequence[tuple[HeldOut, HeldOut]]) -> Iterator[PairedShare]:
    outcomes = [(_outcomes(one), _outcomes(other)) for one, other in both]
    names = dict.fromkeys(name for one, other in outcomes for name in (*one, *other))
    for name in sorted(names, key=lambda each: (each == JUDGE, each == ALL, each)):
        known = [(one[name], other[name]) for one, other in outcomes if name in one and name in other]
        firsts, seconds = [first for first, _ in known], [second for _, second in known]
        shares = wilson(sum(firsts), len(known)), wilson(sum(seconds), len(known))
        alone = sum(first and not second for first, second in known)
        other_alone = sum(second and not first for first, second in known)
        yield PairedShare(
            name,
            *shares,
            newcombe(*shares, phi(firsts, seconds)) if known else None,
            alone,
            other_alone,
            sign_test(alone, other_alone),
        )


def _outcomes(row: HeldOut) -> dict[str, bool]:
    found = dict(row.satisfied_after)
    if found:
        found[ALL] = all(row.satisfied_after.values())
    label = row.label
    if label.status in ("ok", "tie") and label.probability is not None:
        found[JUDGE] = winner(label.probability) == "a"
    return found


def _changed(both: Sequence[tuple[HeldOut, HeldOut]]) -> Iterator[ChangedSample]:
    for one, other in both:
        if one.after != other.after:
            known = one.satisfied_after.keys() & other.satisfied_after.keys()
            turned = sorted(
                name for name in known if one.satisfied_after[name] != other.satisfied_after[name]
            )
            yield ChangedSample(one, other, tuple(turned))
