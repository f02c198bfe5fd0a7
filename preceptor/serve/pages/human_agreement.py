"""Verdicts of people on a sample of labels -> how far they agree with one another and with the judge."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preceptor.judge.aggregate import majority, opinions, winner
from preceptor.judge.records import Label, Letter
from preceptor.judge.statistics import Interval, bootstrap, kappa, wilson
from preceptor.judge.voting.panel import Ballot, agreement
from preceptor.serve.pages.opinion_store import HumanVerdict

LETTERS: tuple[Letter, ...] = ("a", "b", "tie")


class AgreementRow(NamedTuple):
    """How often two agree, with the 95 % interval."""

    name: str
    agree: Interval
    without: int = 0
    """Items on which one of them has no verdict."""


class AgreementDay(NamedTuple):
    """How often the verdicts of one day are those of the judge, and of each principle on its own."""

    day: str
    judge: Interval
    principles: dict[str, Interval]
    """Principle -> interval; absent where no verdict of the day was about what it says."""


class HumanAgreement(NamedTuple):
    """All figures of a check."""

    people: list[AgreementRow]
    """Each person with the judge."""
    judge: AgreementRow
    """The judge with the people's majority."""
    kappa: float | None
    """Of the judge with the majority, beyond chance."""
    kappa_ci95: list[float] | None
    pairs: list[AgreementRow]
    """Each two people with each other."""
    alpha: float | None
    """Krippendorff's, of all people."""
    principles: list[AgreementRow]
    """What each principle on its own says, with the majority."""
    against: list[int]
    """Places of the items on which the majority is against the judge."""
    undecided: int
    """Items with verdicts and no majority."""
    days: list[AgreementDay]
    """By the day of the verdict, in UTC."""


def judge_says(label: Label) -> Letter | None:
    """The label's winner; None where it has none: a label that contradicts itself is no verdict."""
    if label.probability is None or label.status not in ("ok", "tie"):
        return None
    return winner(label.probability)


def agreements(items: Sequence[Label], verdicts: Sequence[HumanVerdict]) -> HumanAgreement:
    """The figures. items: by place, from 1. Skips are no verdicts."""
    said: dict[str, dict[int, Letter]] = {}
    for one in verdicts:
        if one.letter is not None:
            said.setdefault(one.person, {})[one.place] = one.letter
    judged = {place: judge_says(label) for place, label in enumerate(items, start=1)}
    by_place: dict[int, list[Letter]] = {}
    for letters in said.values():
        for place, letter in letters.items():
            by_place.setdefault(place, []).append(letter)
    most = {place: majority(letters) for place, letters in by_place.items()}
    sides = [(most[place], judged[place]) for place in sorted(most)]
    both = [(one, other) for one, other in sides if one is not None and other is not None]
    table = [[sum(1 for pair in both if pair == (row, column)) for column in LETTERS] for row in LETTERS]
    cast = [
        Ballot(str(place), person, letter)
        for person, letters in said.items()
        for place, letter in letters.items()
    ]
    among = agreement(cast)
    return HumanAgreement(
        people=[_row(person, letters, judged) for person, letters in sorted(said.items())],
        judge=AgreementRow(
            "the judge", _interval([one == other for one, other in both]), len(sides) - len(both)
        ),
        kappa=kappa(table),
        kappa_ci95=_kappa_interval(both),
        pairs=[
            AgreementRow(f"{one} and {other}", wilson(round((met["share"] or 0.0) * met["n"]), met["n"]))
            for one, others in among["matrix"].items()
            for other, met in others.items()
            if one < other and met["n"]
        ],
        alpha=among["alpha"],
        principles=_by_principle(items, most),
        against=[
            place
            for place in sorted(most)
            if None not in (most[place], judged[place]) and most[place] != judged[place]
        ],
        undecided=sum(letter is None for letter in most.values()),
        days=_by_day(items, verdicts, judged),
    )


def with_judge(items: Sequence[Label], verdicts: Sequence[HumanVerdict]) -> Interval:
    """How often the judge agrees with the people's majority."""
    said: dict[int, list[Letter]] = {}
    for one in verdicts:
        if one.letter is not None:
            said.setdefault(one.place, []).append(one.letter)
    sides = [(majority(letters), judge_says(items[place - 1])) for place, letters in said.items()]
    return _interval([one == other for one, other in sides if one is not None and other is not None])


def _row(person: str, letters: Mapping[int, Letter], judged: Mapping[int, Letter | None]) -> AgreementRow:
    met = [letter == judged[place] for place, letter in letters.items() if judged[place] is not None]
    return AgreementRow(person, _interval(met), len(letters) - len(met))


def _by_principle(items: Sequence[Label], most: Mapping[int, Letter | None]) -> list[AgreementRow]:
    met: dict[str, list[bool]] = {}
    for place, letter in most.items():
        if letter is None:
            continue
        for one in opinions(items[place - 1]):
            met.setdefault(one.principle, []).append(winner(one.probability) == letter)
    return [AgreementRow(name, _interval(found)) for name, found in met.items()]


def _by_day(
    items: Sequence[Label], verdicts: Sequence[HumanVerdict], judged: Mapping[int, Letter | None]
) -> list[AgreementDay]:
    met: dict[str, dict[str, list[bool]]] = {}
    for one in verdicts:
        if one.letter is None:
            continue
        day = met.setdefault(time.strftime("%Y-%m-%d", time.gmtime(one.at)), {"": []})
        if (letter := judged[one.place]) is not None:
            day[""].append(letter == one.letter)
        for opinion in opinions(items[one.place - 1]):
            day.setdefault(opinion.principle, []).append(winner(opinion.probability) == one.letter)
    return [
        AgreementDay(day, _interval(found.pop("")), {name: _interval(some) for name, some in found.items()})
        for day, found in sorted(met.items())
    ]


def _interval(met: Sequence[bool]) -> Interval:
    return wilson(sum(met), len(met))


def _kappa_interval(both: Sequence[tuple[Letter, Letter]]) -> list[float] | None:
    def drawn(times: Sequence[int]) -> float | None:
        cells = Counter[tuple[Letter, Letter]]()
        for pair, count in zip(both, times, strict=True):
            cells[pair] += int(count)
        return kappa([[cells[row, column] for column in LETTERS] for row in LETTERS])

    return bootstrap(len(both), drawn)
