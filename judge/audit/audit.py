"""Labels -> figures about the judge: agreement with gold, and habits that need no gold to be seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import Sum, deciding, order_means, silenced, sum_up, weights, winner
from preceptor.judge.audit.biases import VerdictTraits, habits, traits
from preceptor.judge.audit.length_control import doublings, length_controlled
from preceptor.judge.errors import PairsError
from preceptor.judge.figures import (
    AuditFigures,
    Bounds,
    DriftFigures,
    GoldFigures,
    VerdictFigures,
    VoteFigures,
    WholeFigures,
)
from preceptor.judge.records import Judgement, Label, Letter, Order, Pair
from preceptor.judge.statistics import BINS, bootstrap, calibration_error, kappa, reliability, wilson
from preceptor.judge.voting.choice import effective
from preceptor.judge.voting.panel import agreement, ballots

ORDERS: tuple[Order, Order] = ("original", "swapped")


LETTERS: tuple[Letter, ...] = ("a", "b", "tie")

AGREEMENT = (
    "accuracy",
    "agreement_lc",
    "correct_original",
    "correct_swapped",
    "correct_both",
    "kappa",
    "ece",
)
"""Figures that only gold gives."""
FIGURES = (
    *("n", "verdicts", *AGREEMENT, "orders_agree", "flip_rate", "first_share", "longer_share", "list_share"),
    *("self_share", "length_coefficient", "length_stderr", "unparsed", "refused", "failed", "cost_usd"),
)
"""Those of every audit that are one number, which a gate can name."""


class _Case(NamedTuple):
    """What the audit keeps of a label."""

    gold: Letter | None
    winners: Mapping[Order, Letter]
    """The better reply in each order that has a verdict."""
    asked: frozenset[Order]
    probability: float | None
    own: tuple[tuple[Order, VerdictTraits], ...]
    """What each judge says in each order, without the machine checks."""
    missing: tuple[tuple[str, str], ...]
    """(status, fault) of the judgements without a verdict."""


def audit(labels: Iterable[Label], constitution: Constitution, cost_usd: float | None = None) -> AuditFigures:
    """Figures of a judge on labels, under the names that `preceptor audit --json` gives.

    `n` counts the labels with gold. Where no gold is, the figures that need it are None; habits are over all
    labels. A missing verdict is not a correct one. Where several judges have a say, the figures are about those who
    made the label. Every share is of verdicts that exist:

    - `accuracy`: correct verdicts among all that were asked for, both orders averaged; `ci95` is its Wilson
      interval over labels, not verdicts, because the two orders of a pair are not independent
    - `correct_original`, `correct_swapped`, `correct_both`, `orders_agree`: counts; None for orders not asked
    - `flip_rate`: labels whose two orders name different winners, among those with a verdict in both. What was read
      side by side (`--orders none`) stands for both orders: exchanging the replies exchanges the probabilities
    - `first_share`: verdicts for the reply shown first, ties and replies side by side aside; `longer_share`,
      `list_share`, `self_share`, `length_coefficient`, `length_stderr`: `judge.audit.biases`. These are habits of the
      judges: each judge's own verdicts count, and no machine check's, while the figures above are of what judges and
      checks together decide
    - `kappa`: Cohen's, of verdicts against gold, both orders pooled; `ece`: expected calibration error of the
      label's probability, ten bins of equal width, which `reliability` lists; `kappa_ci95`, `ece_ci95`: bootstrap
      intervals over labels
    - `agreement_lc`: agreement of the labels with gold, were the replies of one length, and `length_controlled` the
      model behind it (`judge.audit.length_control`)
    - `verdicts`: verdicts that exist; `unparsed`, `refused`, `failed`: asks without one, by `faults` in more detail
    - `by_tag`, `by_principle`: the same for the labels with a tag, and for one principle's judgements alone, with
      `decided`: how many labels would have another winner, or none, without the principle
    - `votes`, where there were several judges: agreement `matrix` and Krippendorff's `alpha` (also at the top)
    """
    every: list[_Case] = []
    by_tag: dict[str, list[_Case]] = {}
    by_principle: dict[str, list[_Case]] = {}
    decided: Counter[str] = Counter()
    voted: list[Label] = []
    hits: list[tuple[bool, float]] = []
    for label in labels:
        judgements = deciding(label)
        case = _case(label, judgements, constitution)
        every.append(case)
        for tag in label.prompt.tags:
            by_tag.setdefault(tag, []).append(case)
        for principle in dict.fromkeys(judgement.principle for judgement in judgements):
            own = tuple(item for item in judgements if item.principle == principle)
            by_principle.setdefault(principle, []).append(_case(label, own, constitution))
        decided.update(decisive(label, judgements, constitution))
        hits += _hit(label)
        if label.votes:
            voted.append(label.model_copy(update={"judgements": ()}))
    kappa_ci95, ece_ci95 = _intervals([case for case in every if case.gold is not None])
    controlled = length_controlled([hit for hit, _ in hits], [longer for _, longer in hits])
    whole: WholeFigures = {
        **_figures(every),
        "kappa_ci95": kappa_ci95,
        "ece_ci95": ece_ci95,
        "agreement_lc": controlled["share"] if controlled else None,
        "cost_usd": cost_usd,
        "by_tag": {tag: _figures(cases) for tag, cases in sorted(by_tag.items())},
        "by_principle": {
            name: {**_figures(cases), "decided": decided[name]} for name, cases in by_principle.items()
        },
    }
    figures = cast("AuditFigures", whole)
    if controlled is not None:
        figures["length_controlled"] = controlled
    if voted:
        correlation, votes = effective(voted)
        together: VoteFigures = {
            "error_correlation": correlation,
            "effective_votes": votes,
            **agreement(ballots(voted)),
        }
        figures["votes"] = together
        figures["alpha"] = figures["votes"]["alpha"]
    return figures


def _hit(label: Label) -> Iterator[tuple[bool, float]]:
    """Whether the label's winner is the gold one, and by how much that one is the longer; none without both."""
    if label.status != "ok" or label.probability is None or label.preferred not in ("a", "b"):
        return
    sides = (label.response_a, label.response_b)
    gold, other = sides if label.preferred == "a" else sides[::-1]
    yield winner(label.probability) == label.preferred, doublings(gold, other)


def drift(first: Iterable[Label], again: Iterable[Label]) -> DriftFigures:
    """How far the same judges, asked the same once more, say something else: `n` pairs with a probability both times,
    `changed` (share whose winner is another) with its Wilson interval, `mean_shift` of the probability.
    """
    later = {label.id: label.probability for label in again}
    both = [
        (label.probability, now)
        for label in first
        if label.probability is not None and (now := later.get(label.id)) is not None
    ]
    changed = _share(sum(winner(one) != winner(other) for one, other in both), len(both))
    return {
        "n": len(both),
        "changed": changed,
        "ci95": _wilson(changed, len(both)),
        "mean_shift": _share(sum(abs(one - other) for one, other in both), len(both)),
    }


def decisive(label: Label, judgements: Sequence[Judgement], constitution: Constitution) -> Iterator[str]:
    """The principles without whose judgements the label would have another winner, or none."""
    subjects = dict.fromkeys(judgement.principle for judgement in judgements)
    weight = weights(constitution.for_prompt(label.prompt.tags))
    with_all = sum_up(judgements, weight)
    if with_all.probability is None or with_all.status != "ok":
        return
    for subject in subjects:
        rest = sum_up([item for item in judgements if item.principle != subject], weight)
        # an inconsistent label may have a probability, and has no winner
        same = rest.status == "ok" and rest.probability is not None
        if not same or winner(rest.probability or 0.0) != winner(with_all.probability):
            yield subject


def require_gold(rows: Sequence[Label | Pair]) -> None:
    """Raises PairsError where there is nothing to audit against."""
    if not any(row.preferred for row in rows):
        raise PairsError(
            "no row has `preferred`; an audit wants pairs whose better reply is known: a, b or tie"
        )


def _case(label: Label, judgements: Sequence[Judgement], constitution: Constitution) -> _Case:
    """What the figures need of these judgements of the label: all of them, or those of one principle."""
    weight = weights(constitution.for_prompt(label.prompt.tags))
    if unknown := {judgement.principle for judgement in judgements} - set(weight):
        raise PairsError(
            f"label {label.id} was judged by {', '.join(sorted(unknown))}, which {constitution.identity} "
            "does not hold for its tags; audit it with the constitution that made it"
        )
    added = sum_up(judgements, weight) if judgements else Sum(label.status, label.probability, ())
    silent = silenced(judgements, weight)
    means = order_means([one for one in judgements if one.principle not in silent], weight)
    winners = {order: winner(mean) for name, mean in means.items() for order in _stands_for(name)}
    return _Case(
        gold=label.preferred,
        winners=winners or (dict.fromkeys(ORDERS, "tie") if added.status == "tie" else {}),
        asked=frozenset(
            order for item in judgements if item.call is not None for order in _stands_for(item.order)
        )
        or frozenset(ORDERS),
        probability=added.probability,
        own=tuple(_own(label, judgements, weight)),
        missing=tuple((item.status, item.fault) for item in judgements if item.probability is None),
    )


def _stands_for(order: Order) -> tuple[Order, ...]:
    """Side by side, the verdict in either order is the same."""
    return ORDERS if order == "none" else (order,)


def _own(
    label: Label, judgements: Sequence[Judgement], weight: Mapping[str, float]
) -> Iterator[tuple[Order, VerdictTraits]]:
    for judge in dict.fromkeys(one.model for one in judgements if one.call is not None):
        said = [one for one in judgements if one.call is not None and one.model == judge]
        for order, mean in order_means(said, weight).items():
            yield order, VerdictTraits(winner(mean), label.preferred, traits(label, judge))


def _figures(cases: Sequence[_Case]) -> VerdictFigures:
    gold = [case for case in cases if case.gold is not None]
    own = [verdict for case in cases for verdict in case.own]
    both = [case for case in cases if len(case.winners) == 2]
    agreeing = sum(case.winners["original"] == case.winners["swapped"] for case in both)
    first = [
        one.letter == ("a" if order == "original" else "b")
        for order, one in own
        if one.letter != "tie" and order in ORDERS
    ]
    missing = [status for case in cases for status, _ in case.missing]
    faults = Counter(fault for case in cases for _, fault in case.missing if fault)
    bins = reliability(_confidences(gold))
    return {
        "n": len(gold),
        "verdicts": sum(len(case.winners) for case in cases),
        **_correct(gold),
        "orders_agree": agreeing if any(len(case.asked) == 2 for case in cases) else None,
        "flip_rate": _share(len(both) - agreeing, len(both)),
        "first_share": _share(sum(first), len(first)),
        **habits([verdict for _, verdict in own]),
        "kappa": _kappa([sum(cell) for cell in zip(*map(_table, gold), strict=True)] or [0] * 9),
        "ece": calibration_error(bins),
        "reliability": [
            {"low": one.low, "high": one.high, "n": one.n, "confidence": one.confidence, "right": one.found}
            for one in bins
        ],
        "unparsed": missing.count("unparsed"),
        "refused": missing.count("refused"),
        "failed": missing.count("failed"),
        "faults": dict(sorted(faults.items())),
    }


def _intervals(gold: Sequence[_Case]) -> tuple[Bounds | None, Bounds | None]:
    """The middle 95 % of kappa and ece over samples of the labels with replacement (Efron 1979), from a fixed seed."""
    import numpy as np

    tables = np.array([_table(case) for case in gold]).reshape(len(gold), 9)
    rows = [_confidences([case]) for case in gold]
    bins = np.array([min(int(row[0][0] * BINS), BINS - 1) if row else BINS for row in rows], int)
    gaps = np.array([row[0][0] - row[0][1] if row else 0.0 for row in rows])

    def error(times: np.ndarray[Any, Any]) -> float | None:
        n = int(times[bins < BINS].sum())
        return float(np.abs(np.bincount(bins, times * gaps, BINS + 1)[:BINS]).sum()) / n if n else None

    kappas = bootstrap(len(gold), lambda times: _kappa((times @ tables).tolist()))
    return kappas, bootstrap(len(gold), error)


def _correct(gold: Sequence[_Case]) -> GoldFigures:
    right = {order: [case.winners.get(order) == case.gold for case in gold] for order in ORDERS}
    asked = {order: any(order in case.asked for case in gold) for order in ORDERS}
    counts = {order: sum(right[order]) if asked[order] else None for order in ORDERS}
    verdicts = sum(len(case.asked) for case in gold)
    accuracy = _share(sum(count or 0 for count in counts.values()), verdicts)
    return {
        "accuracy": accuracy,
        "correct_original": counts["original"],
        "correct_swapped": counts["swapped"],
        "correct_both": sum(map(all, zip(*right.values(), strict=True))) if all(asked.values()) else None,
        "ci95": _wilson(accuracy, len(gold)),
    }


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _wilson(accuracy: float | None, n: int) -> list[float] | None:
    """95 % Wilson score interval; half a correct label widens it to both neighbours."""
    if accuracy is None:
        return None
    low, high = math.floor(round(accuracy * n, 6)), math.ceil(round(accuracy * n, 6))
    return [wilson(low, n).low, wilson(high, n).high]


def _table(case: _Case) -> list[int]:
    """How often each verdict (a, b, tie) stands beside each gold: row by row, nine counts."""
    return [
        sum(letter == verdict for letter in case.winners.values()) if case.gold == gold else 0
        for gold in LETTERS
        for verdict in LETTERS
    ]


def _kappa(counts: Sequence[float]) -> float | None:
    return kappa([counts[at : at + 3] for at in (0, 3, 6)])


def _confidences(gold: Sequence[_Case]) -> list[tuple[float, bool]]:
    """(max(p, 1 - p), whether the winner is the gold one) of the labels whose gold is no tie."""
    return [
        (max(case.probability, 1 - case.probability), winner(case.probability) == case.gold)
        for case in gold
        if case.probability is not None and case.gold != "tie"
    ]
