"""A label once more, from the judgements that it holds: nobody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import Sum
from preceptor.judge.conditions import gate
from preceptor.judge.label import summed
from preceptor.judge.records import Label, Vote
from preceptor.judge.settings import CHECKS
from preceptor.judge.voting.cascade import JOINED, VotingRule, combined, facts


class Derived(NamedTuple):
    """What a label's judgements add up to, step by step."""

    sum: Sum
    votes: tuple[Vote, ...]
    """None where one judge alone had a say."""
    judge: str
    """Those of the last step, as a label names them."""
    steps: int
    """How many the pair came to."""


def stepwise(
    label: Label, constitution: Constitution, panels: Sequence[tuple[Sequence[str], str]], rule: VotingRule
) -> Derived:
    """As `judge.voting.cascade.label_by_steps` makes it. panels: names and condition of each step.

    Raises KeyError for a judgement about a principle that does not apply to the pair.
    """
    votes: list[Vote] = []
    made = Sum("failed", None, ())
    judge, steps = "", 0
    for number, (names, when) in enumerate(panels):
        if number and not gate(when, _facts_so_far(label, made, votes)):
            break
        sums = [_of_judge(label, name, constitution) for name in names]
        fresh = [
            Vote(judge=name, step=number, status=one.status, probability=one.probability)
            for name, one in zip(names, sums, strict=True)
        ]
        votes += fresh
        incomplete = tuple(dict.fromkeys(name for one in sums for name in one.incomplete))
        made = combined(fresh, rule)._replace(incomplete=incomplete)
        judge, steps = JOINED.join(names), number + 1
    return Derived(made, tuple(votes) if len(votes) > 1 else (), judge, steps)


def _facts_so_far(label: Label, made: Sum, votes: Sequence[Vote]) -> dict[str, float | str]:
    so_far = {"status": made.status, "probability": made.probability, "votes": tuple(votes)}
    return facts(label.model_copy(update=so_far))


def _of_judge(label: Label, name: str, constitution: Constitution) -> Sum:
    own = [one for one in label.judgements if one.call is None or one.model == name]
    return summed(label, own, constitution, by_checks=name == CHECKS)
