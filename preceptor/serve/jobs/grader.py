"""OpenAI's graders -> our judge: a `score_model` grader is a judge of the configuration's under one principle.

The principle is the grader's own instruction. The judge is shown the conversation and the reply by its own templates,
so that the grader's `{{…}}` for them are words of the principle; any other is refused: the judge would not see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preceptor.constitution.principle import Constitution, Principle
from preceptor.serve.problems import Problem

INVALID_GRADER = "invalid_grader"
KNOWN = ("score_model", "label_model", "string_check", "text_similarity", "python", "multi")
"""Kinds of OpenAI's."""
SHOWN: Mapping[str, str] = MappingProxyType(
    {
        "sample.output_text": "the reply",
        "item.messages": "the conversation",
        "item.prompt": "the conversation",
    }
)
"""What a grader may name -> what it is called to the judge, who is shown it in any case."""
_TEMPLATE = re.compile(r"\{\{([^{}]{0,200})\}\}")
MOST_CHARS = 20_000
"""Of a grader's instruction."""


class GraderText(BaseModel):
    """A part of a grader's message; texts alone are read."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input_text", "output_text", "text"]
    text: str


class GraderMessage(BaseModel):
    """A message of a grader's."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | GraderText | list[str | GraderText]
    type: Literal["message"] = "message"

    def text(self) -> str:
        """Its texts together."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return "".join(part if isinstance(part, str) else part.text for part in parts)


class ScoreModelGrader(BaseModel):
    """A model that grades each reply."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["score_model"]
    name: str = Field(min_length=1, max_length=64)
    model: str = Field(max_length=200)
    """A name of the configuration's `models`."""
    input: list[GraderMessage] = Field(min_length=1)
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Read and passed over: the training looks at how far rewards lie from one another, and not at their scale."""


class GraderJudge(NamedTuple):
    """What a grader is here."""

    judge: str
    """A name of the configuration's."""
    constitution: Constitution


def judge_of(given: Any) -> GraderJudge:
    """The judge that a grader is. Raises Problem, which says what of it is not served."""
    kind = given.get("type") if isinstance(given, dict) else None
    if kind in KNOWN and kind != "score_model":
        said = (
            f"grader.type {kind} is not served; wanted score_model, whose model is one of the server's judges"
        )
        raise Problem(400, "unsupported_grader", said)
    try:
        grader = ScoreModelGrader.model_validate(given)
    except ValidationError as error:
        faults = [
            f"{'.'.join(['grader', *map(str, fault['loc'])])}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise Problem(400, INVALID_GRADER, "; ".join(faults[:5])) from None
    if grader.range is not None and not grader.range[0] < grader.range[1]:
        raise Problem(400, INVALID_GRADER, f"grader.range: {grader.range}; wanted the lower number first")
    texts = [text for message in grader.input if (text := _instruction(message.text()))]
    if not texts:
        said = "grader.input: it says nothing of what a good reply is; wanted an instruction for the judge"
        raise Problem(400, INVALID_GRADER, said)
    text = "\n\n".join(texts)
    if len(text) > MOST_CHARS:
        said = f"grader.input: {len(text)} characters; wanted at most {MOST_CHARS}"
        raise Problem(400, INVALID_GRADER, said)
    principle = Principle(id="grader", text=text)
    slug = re.sub(r"[^a-z0-9]+", "-", grader.name.lower()).strip("-") or "grader"
    return GraderJudge(grader.model, Constitution(name=slug, principles=(principle,)))


def _instruction(text: str) -> str:
    """A message's text as a part of a principle; empty where it is nothing but templates."""
    for name in _templates(text):
        if name not in SHOWN:
            said = (
                f"grader.input: {{{{{name}}}}} is not shown to a judge here; "
                f"wanted {' or '.join(f'{{{{{one}}}}}' for one in SHOWN)}, or none"
            )
            raise Problem(400, INVALID_GRADER, said)
    if not re.search(r"\w", _TEMPLATE.sub("", text)):
        return ""
    return _TEMPLATE.sub(lambda found: SHOWN[found[1].strip()], text).strip()


def _templates(text: str) -> Iterator[str]:
    for found in _TEMPLATE.finditer(text):
        yield found[1].strip()
