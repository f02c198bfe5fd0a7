"""What is questionable about a constitution that loads: contradictions, repetitions, gaps.

An error is something that cannot be meant (two checks that no reply passes, an example that fails its own
check); a warning is worth a look.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from itertools import combinations
from typing import Literal, NamedTuple

from rapidfuzz import fuzz

from preceptor.constitution.checks import Exchange, run
from preceptor.constitution.contradiction import contradictions
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle

NEAR = 75.0
"""Likeness of two texts, 0 to 100, from which on they are near-duplicates. Of all shipped principles no two
reach 61, and "helpful" and "harmful" make 70, while a word put in or left out of a sentence makes 77 to
90."""
SHORTEST_TEXT = 4
"""Words below which a text says too little to compare two replies by."""
_OPENING = ("choose the reply that", "choose the response that", "choose the reply", "choose the response")


NEGATIVE = frozenset(
    ("no", "not", "never", "without", "avoid", "avoids", "least", "less", "nor", "neither", "none")
)
"""Words of a principle that says what a reply is to lack."""
TRAITS = frozenset(
    (
        *(
            "ethical",
            "good",
            "harmless",
            "helpful",
            "honest",
            "kind",
            "moral",
            "nice",
            "polite",
            "respectful",
        ),
        *("responsible", "safe", "thoughtful", "trustworthy", "wise"),
    )
)
"""Words that praise a reply and do not say what it does."""
SHORT_OF_A_DEED = 9
"""Words up to which a text with a trait in it is taken to name the trait alone."""


class Remark(NamedTuple):
    """One thing to mend; `principle` is empty where it concerns the whole constitution."""

    severity: Literal["error", "warning"]
    principle: str
    what: str
    todo: str

    def __str__(self) -> str:
        whose = f"{self.principle}: " if self.principle else ""
        return f"{self.severity}: {whose}{self.what}; {self.todo}"


def lint(
    constitution: Constitution, *, revising: bool = False, known_tags: Collection[str] | None = None
) -> tuple[Remark, ...]:
    """Remarks in the order of the principles, errors and warnings mixed.

    `revising`: critique wording is missed where there is none. `known_tags`: the tags that the prompts have;
    without them only tags that look like a slip of another one are remarked on.
    """
    principles = constitution.principles
    return (
        *_likenesses(principles),
        *_unknown_tags(principles, known_tags),
        *(remark for principle in principles for remark in _wording(principle, revising)),
        *_no_critique(principles, revising),
        *_contradictions(principles),
        *(remark for principle in principles for remark in _examples(principle)),
    )


def wording(constitution: Constitution) -> tuple[Remark, ...]:
    """What C3AI (Kyrychenko et al. 2025, arXiv:2502.15861) found of wordings: people's choices are reproduced better by
    positive principles about what a reply does; tuned models keep to negative ones better. So `text`, by which replies
    are judged, is best positive, and `critique`, by which they are taught, names what a reply must not do.
    """
    remarks = []
    for principle in constitution.principles:
        words = [word.strip(".,;:!?()") for word in _content(principle.text).split()]
        if not NEGATIVE.isdisjoint(words):
            what = "the text is negative, and judges agree with people more by positive ones (C3AI)"
            remarks.append(Remark("warning", principle.id, what, "say what the better reply does"))
        if len(words) <= SHORT_OF_A_DEED and not TRAITS.isdisjoint(words):
            what = "the text names a trait, and judges agree with people more by what a reply does (C3AI)"
            remarks.append(Remark("warning", principle.id, what, "say by what deed the trait shows"))
    return tuple(remarks)


def likeness(one: str, other: str) -> float:
    """0 to 100: how much of the words two texts share, whatever their order, without the stock opening."""
    return fuzz.token_sort_ratio(_content(one), _content(other))


def _content(text: str) -> str:
    plain = " ".join(text.lower().strip(" .").split())
    return next((plain[len(opening) :].strip() for opening in _OPENING if plain.startswith(opening)), plain)


def _likenesses(principles: tuple[Principle, ...]) -> Iterator[Remark]:
    for one, other in combinations(principles, 2):
        if _content(one.text) == _content(other.text):
            yield Remark("error", other.id, f"says the same as {one.id!r}", "remove one of the two")
        elif (alike := likeness(one.text, other.text)) >= NEAR:
            what = f"says nearly the same as {one.id!r} (likeness {alike:.0f} of 100)"
            yield Remark("warning", other.id, what, "join the two, or say what sets them apart")


def _unknown_tags(principles: tuple[Principle, ...], known: Collection[str] | None) -> Iterator[Remark]:
    used = [tag for principle in principles for tag in (*principle.tags, *principle.applies_to)]
    for principle in principles:
        for tag in principle.applies_to:
            if known is not None and tag not in known:
                what = f"applies to prompts tagged {tag!r}, and there are none"
                yield Remark(
                    "warning", principle.id, what, f"use one of {', '.join(sorted(known)) or 'your own tags'}"
                )
        for tag in dict.fromkeys((*principle.tags, *principle.applies_to)):
            others = sorted({other for other in used if other != tag and used.count(other) > used.count(tag)})
            near = difflib.get_close_matches(tag, others, n=1, cutoff=0.8)
            if near:
                what = f"the tag {tag!r} is nearly {near[0]!r}, which is used more often"
                yield Remark("warning", principle.id, what, f"write {near[0]!r} if that is meant")


def _wording(principle: Principle, revising: bool) -> Iterator[Remark]:
    if len(principle.text.split()) < SHORTEST_TEXT:
        todo = 'say which of two replies is the better one: "Choose the reply that ..."'
        yield Remark("warning", principle.id, f"the text is vague: {principle.text!r}", todo)
    if principle.critique and not principle.revision:
        yield Remark(
            "warning", principle.id, "critique without revision", "say how a criticised reply is repaired"
        )
    elif principle.revision and not principle.critique:
        yield Remark("warning", principle.id, "revision without critique", "say how a reply is criticised")
    elif revising and not principle.critique:
        what = "no critique wording, so that no revision is made by it"
        yield Remark("warning", principle.id, what, "add critique and revision")


def _no_critique(principles: tuple[Principle, ...], revising: bool) -> Iterator[Remark]:
    if revising and not any(principle.critique for principle in principles):
        yield Remark(
            "error", "", "no principle has critique wording, so that nothing can be revised", "add some"
        )


def _contradictions(principles: tuple[Principle, ...]) -> Iterator[Remark]:
    for principle in principles:
        for what in contradictions(principle.check, principle.check):
            yield Remark(
                "error", principle.id, f"{what}: no reply passes both", "drop or change one of the two"
            )
    for one, other in combinations(principles, 2):
        if _meet(one, other):
            for what in contradictions(one.check, other.check):
                words = f"{what}, with {one.id!r}: no reply to the same prompt passes both"
                yield Remark(
                    "error", other.id, words, "change one, or limit them by applies_to to different prompts"
                )


def _meet(one: Principle, other: Principle) -> bool:
    """Whether some prompt tag brings both; principles with different tags only are taken to stay apart."""
    return not one.applies_to or not other.applies_to or not set(one.applies_to).isdisjoint(other.applies_to)


def _examples(principle: Principle) -> Iterator[Remark]:
    for number, example in enumerate(principle.examples, start=1):
        if example.better == example.worse:
            what = f"example {number}: better and worse are the same text"
            yield Remark("error", principle.id, what, "make them differ in what the principle is about")
        if not principle.check:
            continue
        exchange = Exchange(system="", user=example.prompt)
        try:
            better = run(principle.check, example.better, exchange)
            worse = run(principle.check, example.worse, exchange)
        except UserError as error:
            yield Remark("error", principle.id, f"example {number}: {error}", "change the check")
            continue
        for finding in better:
            if not finding.passed:
                what = (
                    f"example {number}: better fails {finding.check} ({finding.measured}; {finding.wanted})"
                )
                yield Remark("error", principle.id, what, "change the example or the check")
        if all(finding.passed for finding in worse):
            what = f"example {number}: worse passes the check {', '.join(principle.check)}"
            yield Remark("error", principle.id, what, "change the example or the check")
