"""Wordings of one principle, compared by how far a judge who goes by them agrees with gold.

The winner is chosen on the learning pairs. What it is worth beside the original is said on the held-out ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import yaml_text
from preceptor.constitution.forms.draft import one_line
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.records import Letter, Pair, Response
from preceptor.prompts.recipes import objects_in
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.workbench.induction import ReconstructionFigures, SplitPairs, reconstructed

ASK = """\
Here is a principle by which a judge compares two replies to the same request:

{text}

Write {count} other wordings that mean the same and could be judged more surely: name what the better reply does, and \
leave no word that two people would read differently. Give one JSON object a line and nothing else, in the form
{{"principle": "Choose the reply that ..."}}
"""


class WordingFigures(TypedDict):
    """What one wording is worth."""

    text: str
    original: bool
    learn: ReconstructionFigures
    held_out: ReconstructionFigures
    flips: int
    """Held-out pairs with another winner than by the original."""
    cost_usd: float


class Wording(NamedTuple):
    """One wording and what a judge says by it."""

    text: str
    said: Mapping[str, Letter | None]
    """Pair -> the better reply; None: there is none."""
    cost_usd: float


def tuned(constitution: Constitution, principle_id: str) -> Principle:
    """The principle whose wordings are tried. Raises UserError for one that is not there, or that a check decides."""
    found = next((one for one in constitution.principles if one.id == principle_id), None)
    if found is None:
        ids = ", ".join(one.id for one in constitution.principles)
        raise UserError(f"{constitution.identity} has no principle {principle_id!r}; wanted one of {ids}")
    if found.check:
        raise UserError(
            f"a machine check decides {principle_id!r}, whatever its words; tune one that a judge decides"
        )
    return found


def alone(constitution: Constitution, principle: Principle, text: str) -> Constitution:
    """A constitution of this wording and nothing else."""
    worded = principle.model_copy(update={"text": text, "over": ()})
    return constitution.model_copy(update={"principles": (worded,)})


def rewording(principle: Principle, count: int) -> Prompt:
    """The ask for other wordings."""
    text = ASK.format(text=principle.text, count=count)
    return Prompt(id=content_id("reword", text), messages=(Message(role="user", content=text),))


def wordings_in(
    replies: Iterable[Response], principle: Principle, given: Sequence[str], most: int
) -> list[str]:
    """The original, those given, and those of the replies, each once."""
    proposed = [
        one_line(str(one.get("principle") or "")) for reply in replies for one in objects_in(reply.text)
    ]
    proposed = [text for text in proposed if text][:most]
    return list(
        dict.fromkeys([principle.text, *(one_line(text) for text in given if text.strip()), *proposed])
    )


def compared(split: SplitPairs, wordings: Sequence[Wording]) -> list[WordingFigures]:
    """The figures of each; the first is the original."""
    original = wordings[0].said
    return [
        {
            "text": one.text,
            "original": one is wordings[0],
            "learn": reconstructed("each", split.learn, one.said),
            "held_out": reconstructed("each", split.held_out, one.said),
            "flips": sum(one.said.get(pair.id) != original.get(pair.id) for pair in split.held_out),
            "cost_usd": one.cost_usd,
        }
        for one in wordings
    ]


def best(found: Sequence[WordingFigures]) -> WordingFigures:
    """By the learning pairs alone; the original where none is better."""
    return max(found, key=lambda one: (one["learn"]["share"], one["original"]))


def proposal(principle: Principle, text: str) -> str:
    """The change as a diff of the principle's lines in the file."""
    before, after = (
        yaml_text([one.model_dump(mode="json", exclude_defaults=True, exclude={"examples"})]).splitlines()
        for one in (principle, principle.model_copy(update={"text": text}))
    )
    return "\n".join(
        difflib.unified_diff(before, after, principle.id, f"{principle.id} (tuned)", lineterm="")
    )


def applicable(pairs: Iterable[Pair], principle: Principle) -> list[Pair]:
    """Those about whose prompts the principle speaks."""
    return [pair for pair in pairs if principle.applies(pair.prompt.tags)]
