"""Where people are against the judge: which principle caused it, and how its text could be mended.

What is proposed is never anybody's invention: the pairs themselves, as examples of the principle with the reply that
people prefer. What else the words should say is for whoever reads the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from preceptor.constitution.edit import with_examples
from preceptor.constitution.principle import Constitution, Example
from preceptor.judge.aggregate import deciding, majority, opinions, winner
from preceptor.judge.audit.audit import decisive
from preceptor.judge.records import Label, Letter
from preceptor.serve.pages.human_agreement import judge_says
from preceptor.serve.pages.opinion_store import HumanVerdict

MOST_EXAMPLES = 3
"""Examples that one proposal adds."""


class PairAgainst(NamedTuple):
    """One pair on which a principle led the judge away from the people."""

    place: int
    label: Label
    people: Letter
    """What most of them say."""
    judge: Letter
    said: str
    """The judge's words about this principle."""
    reasons: tuple[str, ...]
    """The people's."""


class Proposal(NamedTuple):
    """A principle, and what speaks against it as it stands."""

    principle: str
    evidence: tuple[PairAgainst, ...]


def proposals(
    items: Sequence[Label], verdicts: Sequence[HumanVerdict], constitution: Constitution | None
) -> list[Proposal]:
    """The principles that caused disagreements, those with the most first.

    Of a label against which people are, it is those that say what the judge says and without which it would not have
    won; where none is alone in that, or the constitution is not known, all that say so.
    """
    found: dict[str, list[PairAgainst]] = {}
    for place, label in enumerate(items, start=1):
        mine = [one for one in verdicts if one.place == place and one.letter is not None]
        people, judge = majority(one.letter for one in mine if one.letter is not None), judge_says(label)
        if people is None or judge is None or people == judge:
            continue
        reasons = tuple(one.reason for one in mine if one.reason)
        for principle in _causes(label, judge, constitution):
            words = [one.reason for one in deciding(label) if one.principle == principle and one.reason]
            said = " / ".join(dict.fromkeys(words))
            found.setdefault(principle, []).append(PairAgainst(place, label, people, judge, said, reasons))
    ordered = sorted(found.items(), key=lambda each: -len(each[1]))
    return [Proposal(principle, tuple(some)) for principle, some in ordered]


def _causes(label: Label, judge: Letter, constitution: Constitution | None) -> list[str]:
    siding = [one.principle for one in opinions(label) if winner(one.probability) == judge]
    if constitution is None or constitution.identity != label.constitution:
        return siding
    try:
        alone = [name for name in decisive(label, deciding(label), constitution) if name in siding]
    except KeyError:  # a principle that this constitution does not hold
        return siding
    return alone or siding


def examples_of(proposal: Proposal) -> list[Example]:
    """Of the evidence, the pairs that have a better reply, as examples: those with reasons first."""
    told = sorted(proposal.evidence, key=lambda one: not one.reasons)
    return [
        Example(
            prompt=one.label.prompt.messages[-1].content,
            better=one.label.response_a if one.people == "a" else one.label.response_b,
            worse=one.label.response_b if one.people == "a" else one.label.response_a,
            because="; ".join(dict.fromkeys(one.reasons)),
        )
        for one in told
        if one.people != "tie" and len(one.label.prompt.messages) == 1
    ][:MOST_EXAMPLES]


def mended(text: str, proposal: Proposal) -> str:
    """A constitution's text with the proposal's examples; the same where none of the evidence makes one.

    Raises UserError where the text has no such principle of its own.
    """
    examples = examples_of(proposal)
    return with_examples(text, proposal.principle, examples) if examples else text
