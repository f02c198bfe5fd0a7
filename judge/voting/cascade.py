"""Pair -> Label by several judges: panels that decide together, and steps to which the doubtful pairs go on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import Sum, gravest, winner
from preceptor.judge.conditions import check, gate
from preceptor.judge.errors import PairsError
from preceptor.judge.label import label
from preceptor.judge.models.protocol import Dialogue, Model, Outcome, Request, RowT
from preceptor.judge.records import Judgement, Label, Pair, Vote
from preceptor.judge.settings import CHECKS, LabelSettings
from preceptor.judge.voting.confidence import confidence, reachable
from preceptor.prompts.template import Template

VotingRule = Literal["mean", "majority"]
FACTS = ("status", "probability", "margin", "confidence")
"""What `when` can ask about the label so far."""
JOINED = " + "


class Judge(NamedTuple):
    """A model with the template by which it is asked; no model for machine checks alone."""

    model: Model | None
    template: Template | None

    @property
    def name(self) -> str:
        """As rows name it."""
        return self.model.name if self.model else CHECKS


class Step(NamedTuple):
    """Judges who decide together."""

    judges: tuple[Judge, ...]
    when: str = ""
    """Which pairs come here, over `FACTS` of the label so far; the first step gets every pair."""
    one_order: bool = False
    """Its judges are asked in one order alone, drawn by the pair's id."""
    keep_from: float | None = None
    """The confidence from which its labels are kept: the second order is not asked where that cannot be reached; None:
    both orders go out at once."""


def require_steps(steps: Sequence[Step]) -> None:
    """Raises PairsError for steps that cannot be told apart, UserError for a condition that cannot be read."""
    require_panels([([judge.name for judge in step.judges], step.when) for step in steps])


def require_panels(panels: Sequence[tuple[Sequence[str], str]]) -> None:
    """The same of judges who are not opened yet: (names, when) for each step."""
    names = [name for step, _ in panels for name in step]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PairsError(f"{', '.join(twice)} judges twice; name every judge once")
    for _, when in panels[1:]:
        check(when, FACTS, texts=("status",))


def together(dialogues: Sequence[Dialogue[RowT]]) -> Dialogue[tuple[RowT, ...]]:
    """Several dialogues as one: what all of them want to ask next goes out at once."""
    rows: dict[int, RowT] = {}
    asking: dict[int, tuple[Request, ...]] = {}
    outcomes: dict[int, Sequence[Outcome] | None] = dict.fromkeys(range(len(dialogues)))
    while outcomes:
        for number, came in outcomes.items():
            try:
                dialogue = dialogues[number]
                asking[number] = tuple(next(dialogue) if came is None else dialogue.send(came))
            except StopIteration as end:
                rows[number] = end.value
        if not asking:
            break
        answers = iter((yield tuple(request for requests in asking.values() for request in requests)))
        outcomes = {number: [next(answers) for _ in requests] for number, requests in asking.items()}
        asking = {}
    return tuple(rows[number] for number in range(len(dialogues)))


def label_by_steps(
    pair: Pair, constitution: Constitution, steps: Sequence[Step], settings: LabelSettings, rule: VotingRule
) -> Dialogue[Label]:
    """The label that the last step reached gives, with every judgement and vote of the steps before it.

    A step's panel is asked at once and combined by `combined`. A pair goes on to the next step where that
    step's `when` holds for it; a pair without a probability has margin 0 there.
    """
    made: Label | None = None
    votes: list[Vote] = []
    judgements: list[Judgement] = []
    for number, step in enumerate(steps):
        if made is not None and not gate(step.when, facts(made.model_copy(update={"votes": tuple(votes)}))):
            break
        again = None if step.keep_from is None else partial(_can_reach, step.keep_from)
        ones = yield from together(
            [
                label(pair, constitution, judge.model, judge.template, _settings_of(step, settings), again)
                for judge in step.judges
            ]
        )
        fresh = [
            Vote(judge=one.judge, step=number, status=one.status, probability=one.probability) for one in ones
        ]
        votes += fresh
        # every judge's label holds the machine checks; they are the same, and stand in the row once
        judgements += [
            judgement
            for one in ones
            for judgement in one.judgements
            if judgement.call is not None or (made is None and one is ones[0])
        ]
        added = combined(fresh, rule)
        made = ones[0].model_copy(
            update={
                "status": added.status,
                "probability": added.probability,
                "judge": JOINED.join(one.judge for one in ones),
                "judgements": tuple(judgements),
                "unjudged": tuple(dict.fromkeys(name for one in ones for name in one.unjudged)),
            }
        )
    if made is None:
        raise PairsError("nobody judges; name at least one judge")
    return made.model_copy(update={"votes": tuple(votes) if len(votes) > 1 else ()})


def _settings_of(step: Step, settings: LabelSettings) -> LabelSettings:
    return settings.model_copy(update={"orders": "one"}) if step.one_order else settings


def _can_reach(threshold: float, so_far: Label) -> bool:
    return reachable(so_far) >= threshold


def facts(made: Label) -> dict[str, float | str]:
    """What a `when` sees of a label, which has the votes so far; one without a winner has confidence 0."""
    probability = 0.5 if made.probability is None else made.probability
    return {
        "status": made.status,
        "probability": probability,
        "margin": abs(2 * probability - 1),
        "confidence": confidence(made) or 0.0,
    }


def combined(votes: Sequence[Vote], rule: VotingRule) -> Sum:
    """What the votes of one panel add up to.

    A vote without a probability abstains, and with `majority` so does an inconsistent one. `mean`: the mean of
    the probabilities. `majority`: the share of votes for a, ties counted half. Where all abstain, the gravest
    of their statuses; a single vote stands as it is.
    """
    if len(votes) == 1:
        return Sum(votes[0].status, votes[0].probability, ())
    usable = [
        vote.probability
        for vote in votes
        if vote.probability is not None and (rule == "mean" or vote.status in ("ok", "tie"))
    ]
    if not usable:
        return Sum(gravest(vote.status for vote in votes), None, ())
    if rule == "majority":
        usable = [{"a": 1.0, "b": 0.0, "tie": 0.5}[winner(probability)] for probability in usable]
    probability = sum(usable) / len(usable)
    return Sum("tie", 0.5, ()) if winner(probability) == "tie" else Sum("ok", probability, ())
