"""Judgements of one pair -> what they add up to. Pure arithmetic, the same for labels and for the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from preceptor.constitution.principle import Principle, outranking
from preceptor.judge.compare import JOINT
from preceptor.judge.records import Judgement, Label, Letter, Opinion, Order, Status

EVEN = 1e-9
"""Probabilities nearer to 0.5 than this are 0.5: rounding decides no preference."""

GRAVITY: tuple[Status, ...] = ("failed", "refused", "unparsed", "inconsistent")


class Sum(NamedTuple):
    """What a pair's judgements add up to."""

    status: Status
    probability: float | None
    """That response a is the better."""
    incomplete: tuple[str, ...]
    """Subjects (principle ids, or `joint`) that have no part in it, for want of a verdict in some order."""


class Weights(dict[str, float]):
    """Weight by subject of a Judgement, and which subjects outrank which."""

    above: Mapping[str, frozenset[str]] = MappingProxyType({})
    """Subject -> all that outrank it."""


def weights(principles: Iterable[Principle]) -> Weights:
    """`joint` weighs what its principles weigh together: those without a check. It outranks nothing."""
    principles = tuple(principles)
    joint = sum(principle.weight for principle in principles if not principle.check)
    found = Weights({JOINT: joint, **{principle.id: principle.weight for principle in principles}})
    found.above = outranking(principles)
    return found


def sum_up(judgements: Sequence[Judgement], weight: Mapping[str, float]) -> Sum:
    """The label that the judgements of one pair add up to.

    - A subject counts if it has a verdict in every order in which it was asked; else it is `incomplete`. A machine
      check that cannot tell the replies apart abstains; a model's tie counts as 0.5.
    - A subject that is outranked by one that decides is silent: it does not count. One decides if its own judgements
      alone add up to a winner; silent or not, it still outranks.
    - In each order, the probability is the mean over the subjects that count, by weight; a machine check, which
      knows no order, counts in both. The label's probability is the mean of the orders; of replies that were read side
      by side there is the one.
    - If the orders fall on opposite sides of 0.5, the label is `inconsistent`, and keeps its probability only if
      token probabilities gave it: of letters alone nothing but the order would be left.
    - At 0.5 it is a `tie`, and so it is if all there is are checks that abstain.
    - If no subject counts, it has the gravest status among the judgements (failed, refused, unparsed) and no
      probability; `failed` too if nothing was judged at all.
    """
    asked: dict[str, bool] = {}
    for judgement in judgements:
        if judgement.call is not None:
            complete = judgement.probability is not None
            asked[judgement.principle] = asked.get(judgement.principle, True) and complete
    incomplete = tuple(name for name, complete in asked.items() if not complete)
    silent = silenced(judgements, weight)
    counted = [one for one in judgements if asked.get(one.principle, True) and one.principle not in silent]
    means = order_means(counted, weight)
    if not means:
        missing = {judgement.status for judgement in judgements if judgement.probability is None}
        if missing or not judgements:
            return Sum(gravest(missing), None, incomplete)
        return Sum("tie", 0.5, incomplete)
    probability = sum(means.values()) / len(means)
    winners = {winner(mean) for mean in means.values()}
    if {"a", "b"} <= winners:
        certain = not any(judgement.sampled for judgement in counted)
        return Sum("inconsistent", probability if certain else None, incomplete)
    if winner(probability) == "tie":
        return Sum("tie", 0.5, incomplete)
    return Sum("ok", probability, incomplete)


def silenced(judgements: Sequence[Judgement], weight: Mapping[str, float]) -> frozenset[str]:
    """The subjects that are outranked by one that decides."""
    above = weight.above if isinstance(weight, Weights) else {}
    own: dict[str, list[Judgement]] = {name: [] for ups in above.values() for name in ups}
    for one in judgements:
        if one.principle in own:
            own[one.principle].append(one)
    decided = {name for name, some in own.items() if some and sum_up(some, {name: 1.0}).status == "ok"}
    return frozenset(name for name, ups in above.items() if ups & decided)


def order_means(judgements: Sequence[Judgement], weight: Mapping[str, float]) -> dict[Order, float]:
    """The mean probability of a in each order that was asked and has a verdict; in both for machine checks
    alone.
    """
    asked = {judgement.order for judgement in judgements if judgement.call is not None}
    means: dict[Order, float] = {}
    orders: tuple[Order, ...] = ("original", "swapped", "none")
    for order in orders:
        if order not in (asked or orders[:2]):
            continue
        votes = [
            (weight[judgement.principle], judgement.probability)
            for judgement in judgements
            if judgement.probability is not None
            and (judgement.order == order if judgement.call is not None else judgement.letter != "tie")
        ]
        if votes:
            means[order] = sum(share * p for share, p in votes) / sum(share for share, _ in votes)
    return means


def opinions(label: Label) -> tuple[Opinion, ...]:
    """What each principle on its own says, of response a: the mean over orders and judges that made the label.

    Principles asked about together have none, nor have those without a complete verdict and checks that abstain.
    """
    found: dict[str, list[float]] = {}
    for one in deciding(label):
        abstains = one.call is None and one.letter == "tie"
        if one.probability is None or abstains or one.principle in (JOINT, *label.unjudged):
            continue
        found.setdefault(one.principle, []).append(one.probability)
    return tuple(Opinion(principle=name, probability=sum(some) / len(some)) for name, some in found.items())


def winner(probability: float) -> Letter:
    """The better reply at this probability of a."""
    if abs(probability - 0.5) < EVEN:
        return "tie"
    return "a" if probability > 0.5 else "b"


def majority(letters: Iterable[Letter]) -> Letter | None:
    """What most say; None where no letter is ahead of the others."""
    counts = Counter(letters).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return None
    return counts[0][0]


def gravest(statuses: Iterable[Status]) -> Status:
    """Of statuses without a probability the one that counts most; `failed` where there is none at all."""
    found = set(statuses)
    return next((status for status in GRAVITY if status in found), "failed")


def deciding(label: Label) -> tuple[Judgement, ...]:
    """The judgements that made the label: all of them, or those of the last step's judges and the machine
    checks.
    """
    if not label.votes:
        return label.judgements
    last = max(vote.step for vote in label.votes)
    judges = {vote.judge for vote in label.votes if vote.step == last}
    return tuple(one for one in label.judgements if one.call is None or one.model in judges)
