"""Prose -> principles in a model's words, each with the sentence from which it came and which the prose must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from preceptor.asking import stages
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load_text
from preceptor.constitution.forms.carry import ImportedConstitution, file_text, text_of
from preceptor.constitution.forms.draft import DraftPrinciple, FoundPrinciples, one_line
from preceptor.constitution.forms.prose import Sentence, sentences
from preceptor.judge.records import Response
from preceptor.judge.settings import RespondSettings
from preceptor.prompts.recipes import objects_in
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.settings import Access

WORDS_OF_A_PART = 600
"""A longer text is asked about part by part, each at most so long."""
ASK = """\
Below is a part of a document that says how an assistant should behave. Write down the principles in it by which one \
could tell which of two replies to the same request is the better one.

Give one JSON object a line and nothing else, in this form:
{"principle": "Choose the reply that ...", "quote": "the sentence of the document that says so, word for word"}

Leave out what no reply could show. Write no principle twice. If the part holds none, write nothing but: none

The part:
"""


def parts_of(text: str) -> list[list[Sentence]]:
    """The sentences in parts, each of one heading and not too long."""
    parts: list[list[Sentence]] = []
    words = 0
    for sentence in sentences(text):
        length = len(sentence.text.split())
        if not parts or words + length > WORDS_OF_A_PART or parts[-1][-1].heading != sentence.heading:
            parts.append([])
            words = 0
        parts[-1].append(sentence)
        words += length
    return parts


def questions(parts: Sequence[Sequence[Sentence]]) -> list[Prompt]:
    """One for each part."""
    asks = (f"{ASK}{_said(part)}" for part in parts)
    return [Prompt(id=content_id("part", ask), messages=(Message(role="user", content=ask),)) for ask in asks]


def _said(part: Sequence[Sentence]) -> str:
    heading = f"{part[0].heading}\n\n" if part[0].heading else ""
    return heading + " ".join(sentence.text for sentence in part)


def asking_of(
    prompts: Sequence[Prompt], model: str, access: Access, settings: RespondSettings
) -> stages.AskJob:
    """The work of asking one reply to each."""
    return stages.AskJob(prompts, partial(stages.to_respond, model, access, settings))


class ReadingJob(NamedTuple):
    """A text that a model reads for principles."""

    file: Path
    model: str
    parts: list[list[Sentence]]
    job: stages.AskJob


def reading_job(file: Path, model: str, access: Access, settings: RespondSettings) -> ReadingJob:
    """How a file is read. Raises UserError for one without a sentence."""
    parts = parts_of(text_of(file))
    if not parts:
        raise UserError(f"{file} holds no sentence; wanted prose")
    once = settings.model_copy(update={"samples": 1, "temperature": 0.0})
    return ReadingJob(file, model, parts, asking_of(questions(parts), model, access, once))


def drafted(reading: ReadingJob, replies: Sequence[Response], name: str) -> ImportedConstitution:
    """The constitution of this name that the replies propose. Raises UserError where they propose none."""
    found = proposed(reading.parts, replies)
    if not found.drafts:
        left = ", ".join(f"{count} {reason}" for reason, count in found.set_aside.items())
        raise UserError(
            f"{reading.model} proposed no principle{f' ({left})' if left else ''}; ask another, or leave --model out"
        )
    text = file_text(name, f"From {reading.file.name}, in the words of {reading.model}", found.drafts)
    return ImportedConstitution("prose", text, load_text(text, Path(f"{name}.yaml")), found.set_aside)


def proposed(parts: Sequence[Sequence[Sentence]], replies: Sequence[Response]) -> FoundPrinciples:
    """What the replies say of their parts. A principle whose quote does not stand in its part is set aside."""
    drafts: list[DraftPrinciple] = []
    aside: Counter[str] = Counter()
    seen: set[str] = set()
    for part, reply in zip(parts, replies, strict=True):
        if reply.status not in ("ok", "truncated"):
            aside[f"parts whose reply is {reply.status}"] += 1
            continue
        for one in objects_in(reply.text):
            text, quote = (one_line(str(one.get(name) or "")) for name in ("principle", "quote"))
            origin = _stands(part, quote)
            if not text:
                aside["proposals without a principle"] += 1
            elif origin is None:
                aside["proposals whose quote is not in the text"] += 1
            elif text.casefold() in seen:
                aside["proposals that came twice"] += 1
            else:
                seen.add(text.casefold())
                drafts.append(DraftPrinciple(text, origin=quote, line=origin.line))
    return FoundPrinciples(tuple(drafts), dict(aside))


def _stands(part: Sequence[Sentence], quote: str) -> Sentence | None:
    """The sentence in which a quote begins; None: it is nowhere in the part."""
    whole = " ".join(sentence.text for sentence in part)
    place = whole.find(quote) if len(quote.split()) > 2 else -1
    end = 0
    for sentence in part:
        end += len(sentence.text) + 1
        if 0 <= place < end:
            return sentence
    return None
