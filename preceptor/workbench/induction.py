"""Preferences -> principles: proposed from pairs, joined where they say the same, voted on, chosen by what they add.

The idea is inverse constitutional AI (Findeis et al. 2024, arXiv:2406.06560). Here each candidate judges every pair by
itself, in both orders and with ties; the set is chosen greedily by the learning pairs that it reconstructs; and what it
is worth is said on pairs at which no choice has looked, by each way of carrying it out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

from preceptor.constitution.errors import UserError
from preceptor.constitution.forms.draft import DraftPrinciple, named, one_line
from preceptor.constitution.lint import NEAR, likeness
from preceptor.constitution.principle import Constitution, Example, Principle
from preceptor.judge.aggregate import sum_up, weights, winner
from preceptor.judge.dataset.clashes import choices
from preceptor.judge.records import Label, Letter, Pair, Response
from preceptor.judge.statistics import wilson
from preceptor.prompts.recipes import objects_in
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.workbench.settings import InductionSettings

LONGEST_SHOWN = 1200
"""Characters of a prompt or reply that a proposal is shown."""
LONGEST_EXAMPLE = 400
"""Characters of each text of an example, so that the file can be read."""
Executor = Literal["vote", "each", "joint"]
ASK = """\
Below are requests to an assistant, each with two replies. In every one, the first reply was preferred to the second. \
Find what the preferred replies have in common that the others lack, in what they do and not in what they are about.

Write one to three principles that would make the same choice. Give one JSON object a line and nothing else, in the form
{"principle": "Choose the reply that ..."}
"""


class SplitPairs(NamedTuple):
    """Pairs with a preference."""

    learn: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


class ProposedPrinciple(NamedTuple):
    """A principle that was proposed."""

    text: str
    proposed: int
    """How often, in these words or nearly these."""


class Tally(NamedTuple):
    """What one candidate says of pairs, alone."""

    right: int
    wrong: int
    silent: int
    """No verdict, a tie, or the orders against one another."""


class ReconstructionFigures(TypedDict):
    """How well a constitution, carried out in one way, reconstructs preferences."""

    executor: Executor
    """vote: most principles' choices; each: the label of principles judged each by itself; joint: of one ask."""
    n: int
    right: int
    undecided: int
    share: float
    """Right among all; the undecided are not right."""
    ci95: list[float]


def split_pairs(pairs: Iterable[Pair], settings: InductionSettings) -> SplitPairs:
    """By a hash of each id. Raises UserError where a side would be empty."""
    learn: list[Pair] = []
    apart: list[Pair] = []
    for pair in pairs:
        if pair.preferred in ("a", "b") and pair.response_a != pair.response_b:
            drawn = (
                int(hashlib.sha256(f"{settings.seed}:induce:{pair.id}".encode()).hexdigest()[:12], 16)
                / 16**12
            )
            (apart if drawn < settings.held_out else learn).append(pair)
    if not learn or not apart:
        raise UserError(
            f"{len(learn)} pairs to learn from and {len(apart)} held out; wanted some of each, with `preferred`: a or b"
        )
    return SplitPairs(tuple(learn), tuple(apart))


def proposing(pairs: Sequence[Pair], settings: InductionSettings) -> list[Prompt]:
    """The asks for principles, each from several pairs."""
    asks = []
    for start in list(range(0, len(pairs), settings.shown))[: settings.proposals]:
        shown = "\n\n".join(_shown(pair) for pair in pairs[start : start + settings.shown])
        text = f"{ASK}\n{shown}"
        asks.append(Prompt(id=content_id("propose", text), messages=(Message(role="user", content=text),)))
    return asks


def _shown(pair: Pair) -> str:
    better, worse = _sides(pair)
    parts = (("Request", pair.prompt.messages[-1].content), ("Preferred", better), ("Not preferred", worse))
    return "\n".join(f"{name}: {text[:LONGEST_SHOWN]}" for name, text in parts)


def _sides(pair: Pair) -> tuple[str, str]:
    texts = (pair.response_a, pair.response_b)
    return texts if pair.preferred == "a" else (texts[1], texts[0])


def candidates_in(replies: Iterable[Response], most: int) -> list[ProposedPrinciple]:
    """The principles that replies propose, near ones as the first of them, the oftenest first."""
    found: dict[str, int] = {}
    for reply in replies:
        if reply.status not in ("ok", "truncated"):
            continue
        for one in objects_in(reply.text):
            text = one_line(str(one.get("principle") or ""))
            if text:
                near = next((known for known in found if likeness(known, text) >= NEAR), text)
                found[near] = found.get(near, 0) + 1
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return [ProposedPrinciple(text, count) for text, count in ordered[:most]]


def constitution_of(candidates: Sequence[ProposedPrinciple], name: str = "candidates") -> Constitution:
    """Each as a principle."""
    drafts = named(DraftPrinciple(one.text) for one in candidates)
    return Constitution(
        name=name, principles=tuple(Principle(id=identity, text=draft.text) for identity, draft in drafts)
    )


Choices = Mapping[str, Mapping[str, Letter]]
"""Pair -> principle -> its choice; only where it decides."""


def choices_of(labels: Iterable[Label]) -> dict[str, dict[str, Letter]]:
    """By pair."""
    return {label.id: choices(label) for label in labels}


def tally(principle: str, pairs: Sequence[Pair], chosen: Choices) -> Tally:
    """What it says of these pairs."""
    said = [
        chosen.get(pair.id, {}).get(principle) == pair.preferred
        for pair in pairs
        if principle in chosen.get(pair.id, {})
    ]
    return Tally(sum(said), len(said) - sum(said), len(pairs) - len(said))


def voted(pair: Pair, principles: Sequence[str], chosen: Choices) -> Letter | None:
    """The choice of most of them; None where there is none."""
    said = [letter for name, letter in chosen.get(pair.id, {}).items() if name in principles]
    a, b = said.count("a"), said.count("b")
    return None if a == b else "a" if a > b else "b"


def worth(pairs: Sequence[Pair], principles: Sequence[str], chosen: Choices) -> float:
    """Share of pairs that their vote reconstructs; one without a majority counts half."""
    points = 0.0
    for pair in pairs:
        said = voted(pair, principles, chosen)
        points += 0.5 if said is None else said == pair.preferred
    return points / len(pairs)


def chosen_set(
    names: Sequence[str], pairs: Sequence[Pair], chosen: Choices, settings: InductionSettings
) -> list[str]:
    """Greedily, each time the one that adds most to what the vote is worth; none that adds too little."""
    taken: list[str] = []
    value = 0.5
    while len(taken) < settings.most:
        rest = [name for name in names if name not in taken]
        worths = {name: worth(pairs, [*taken, name], chosen) for name in rest}
        best = max(worths, key=lambda name: worths[name], default=None)
        if best is None or worths[best] <= value + settings.least_gain:
            break
        taken.append(best)
        value = worths[best]
    return taken


def reconstructed(
    executor: Executor, pairs: Sequence[Pair], said: Mapping[str, Letter | None]
) -> ReconstructionFigures:
    """Figures of one executor over pairs."""
    found = [said.get(pair.id) for pair in pairs]
    right = sum(letter == pair.preferred for letter, pair in zip(found, pairs, strict=True))
    interval = wilson(right, len(pairs))
    return {
        "executor": executor,
        "n": len(pairs),
        "right": right,
        "undecided": found.count(None),
        "share": right / len(pairs),
        "ci95": [interval.low, interval.high],
    }


def by_each(labels: Iterable[Label], rules: Constitution) -> dict[str, Letter | None]:
    """The labels of some principles alone, from the judgements about all."""
    kept = {one.id for one in rules.principles}
    found: dict[str, Letter | None] = {}
    for label in labels:
        added = sum_up([one for one in label.judgements if one.principle in kept], weights(rules.principles))
        decided = added.status == "ok" and added.probability is not None
        found[label.id] = winner(added.probability or 0.0) if decided else None
    return found


def by_label(labels: Iterable[Label]) -> dict[str, Letter | None]:
    """As they are."""
    return {
        one.id: winner(one.probability) if one.status == "ok" and one.probability is not None else None
        for one in labels
    }


def drafts_of(
    candidates: Sequence[ProposedPrinciple],
    names: Sequence[str],
    taken: Sequence[str],
    pairs: Sequence[Pair],
    chosen: Choices,
) -> tuple[DraftPrinciple, ...]:
    """The chosen principles with their evidence and an example, in the order in which they were chosen."""
    drafts = []
    for name in taken:
        one = candidates[names.index(name)]
        found = tally(name, pairs, chosen)
        evidence = (
            f"proposed {one.proposed} times; alone on {len(pairs)} learning pairs: {found.right} right, "
            f"{found.wrong} wrong, {found.silent} undecided"
        )
        drafts.append(
            DraftPrinciple(one.text, id=name, origin=evidence, examples=_example(name, pairs, chosen))
        )
    return tuple(drafts)


def _example(name: str, pairs: Sequence[Pair], chosen: Choices) -> tuple[Example, ...]:
    """The first pair that it decides rightly and that is short enough to stand in the file."""
    for pair in pairs:
        better, worse = _sides(pair)
        texts = (pair.prompt.messages[-1].content, better, worse)
        right = chosen.get(pair.id, {}).get(name) == pair.preferred and len(pair.prompt.messages) == 1
        if right and all(0 < len(text.strip()) <= LONGEST_EXAMPLE for text in texts):
            return (Example(prompt=texts[0].strip(), better=better.strip(), worse=worse.strip()),)
    return ()
