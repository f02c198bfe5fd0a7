"""Labels -> figures about the judge: agreement with gold, and habits that need no gold to be seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from constitution.principle import Constitution
from judge.errors import PairsError
from judge.records import Judgement, Label, Letter, Order, Pair
from judge.weigh import Sum, order_means, sum_up, weights, winner

BINS = 10
"""Bins of equal width for the calibration error."""

ORDERS: tuple[Order, Order] = ("original", "swapped")


class _Case(NamedTuple):
    """What the audit keeps of a label."""

    gold: Letter | None
    winners: Mapping[Order, Letter]
    """The better reply in each order that has a verdict."""
    asked: frozenset[Order]
    probability: float | None
    longer: Letter
    """The longer reply in characters."""
    missing: tuple[str, ...]
    """Statuses of the judgements without a verdict."""


def audit(
    labels: Iterable[Label], constitution: Constitution, cost_usd: float | None = None
) -> dict[str, Any]:
    """Figures of a judge on labels, under the names that `preceptor audit --json` gives.

    `n` counts the labels with gold. Where no gold is, the figures that need it are None; flip_rate,
    first_share and longer_share are over all labels. A missing verdict is not a correct one. Every share is
    of verdicts that exist:

    - `accuracy`: correct verdicts among all that were asked for, both orders averaged; `ci95` is its Wilson
      interval
      over labels, not verdicts, because the two orders of a pair are not independent
    - `correct_original`, `correct_swapped`, `correct_both`, `orders_agree`: counts; None for orders not asked
    - `flip_rate`: labels whose two orders name different winners, among those with a verdict in both
    - `first_share`: verdicts for the reply shown first, ties aside; `longer_share`: for the longer reply
    - `kappa`: Cohen's, of verdicts against gold, both orders pooled; `ece`: expected calibration error of the
      label's
      probability, ten bins of equal width
    - `verdicts`: verdicts that exist; `unparsed`, `refused`, `failed`: asks without one
    - `by_tag`, `by_principle`: the same for the labels with a tag, and for one principle's judgements alone
    """
    labels = tuple(labels)
    figures = _figures([_case(label, label.judgements, constitution) for label in labels])
    figures["cost_usd"] = cost_usd
    tags = sorted({tag for label in labels for tag in label.prompt.tags})
    figures["by_tag"] = {
        tag: _figures(
            [_case(label, label.judgements, constitution) for label in labels if tag in label.prompt.tags]
        )
        for tag in tags
    }
    principles = dict.fromkeys(judgement.principle for label in labels for judgement in label.judgements)
    figures["by_principle"] = {
        principle: _figures(
            [
                _case(label, own, constitution)
                for label in labels
                if (own := tuple(item for item in label.judgements if item.principle == principle))
            ]
        )
        for principle in principles
    }
    return figures


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
    winners = {order: winner(mean) for order, mean in order_means(judgements, weight).items()}
    a, b = len(label.response_a), len(label.response_b)
    return _Case(
        gold=label.preferred,
        winners=winners or (dict.fromkeys(ORDERS, "tie") if added.status == "tie" else {}),
        asked=frozenset(item.order for item in judgements if item.call is not None) or frozenset(ORDERS),
        probability=added.probability,
        longer="tie" if a == b else "a" if a > b else "b",
        missing=tuple(item.status for item in judgements if item.probability is None),
    )


def _figures(cases: Sequence[_Case]) -> dict[str, Any]:
    gold = [case for case in cases if case.gold is not None]
    verdicts = [(order, case, letter) for case in cases for order, letter in case.winners.items()]
    both = [case for case in cases if len(case.winners) == 2]
    agreeing = sum(case.winners["original"] == case.winners["swapped"] for case in both)
    decided = [(order, case, letter) for order, case, letter in verdicts if letter != "tie"]
    first = [letter == ("a" if order == "original" else "b") for order, _, letter in decided]
    longer = [letter == case.longer for _, case, letter in decided if case.longer != "tie"]
    missing = [status for case in cases for status in case.missing]
    return {
        "n": len(gold),
        "verdicts": len(verdicts),
        **_correct(gold),
        "orders_agree": agreeing if any(len(case.asked) == 2 for case in cases) else None,
        "flip_rate": _share(len(both) - agreeing, len(both)),
        "first_share": _share(sum(first), len(first)),
        "longer_share": _share(sum(longer), len(longer)),
        "kappa": _kappa(gold),
        "ece": _calibration_error(gold),
        **{status: missing.count(status) for status in ("unparsed", "refused", "failed")},
    }


def _correct(gold: Sequence[_Case]) -> dict[str, Any]:
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


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _wilson(accuracy: float | None, n: int) -> list[float] | None:
    """95 % Wilson score interval; half a correct label widens it to both neighbours."""
    if accuracy is None:
        return None
    from scipy.stats import binomtest

    low, high = math.floor(round(accuracy * n, 6)), math.ceil(round(accuracy * n, 6))
    return [
        float(binomtest(low, n).proportion_ci(0.95, "wilson").low),
        float(binomtest(high, n).proportion_ci(0.95, "wilson").high),
    ]


def _kappa(gold: Sequence[_Case]) -> float | None:
    """None where it is not defined: no verdicts, or everything in one class."""
    pairs = [(str(case.gold), letter) for case in gold for letter in case.winners.values()]
    if len({name for pair in pairs for name in pair}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    truths, verdicts = zip(*pairs, strict=True)
    return float(cohen_kappa_score(truths, verdicts))


def _calibration_error(gold: Sequence[_Case]) -> float | None:
    """Mean distance of confidence from the share that is right, by bins of max(p, 1 - p) (Guo et al. 2017,
    eq. 3).
    """
    rows = [
        (max(case.probability, 1 - case.probability), winner(case.probability) == case.gold)
        for case in gold
        if case.probability is not None and case.gold != "tie"
    ]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in rows:
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right))
    gaps = [
        abs(sum(confidence for confidence, _ in part) - sum(right for _, right in part))
        for part in bins.values()
    ]
    return sum(gaps) / len(rows) if rows else None
