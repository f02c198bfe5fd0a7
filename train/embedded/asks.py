"""What the tiny model is asked, in the words of the shipped templates and the shipped constitution.

Training and measuring read the very files that a run reads, so a change of wording cannot part them.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from types import SimpleNamespace
from typing import Any

from ruamel.yaml import YAML

from preceptor.prompts import template

VERDICT = "Verdict:"  # what the judge forces before it reads the letter
LETTERS = (" A", " B")

Messages = Sequence[Mapping[str, str]]  # role and content of each


@cache
def principles() -> Mapping[str, Any]:
    """The front desk's principles by id, with the attributes that templates read."""
    path = resources.files("preceptor.constitution") / "library" / "front-desk.yaml"
    loaded = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return {row["id"]: SimpleNamespace(**row) for row in loaded["principles"]}


def _render(kind: str, **slots: Any) -> Messages:
    rendered = template.load(kind, dialect="embedded").render(**slots)
    return [{"role": message.role, "content": message.content} for message in rendered]


def compare(messages: Messages, response_a: str, response_b: str, principle: str) -> Messages:
    """Which of the two follows the principle better?"""
    return _render(
        "compare",
        messages=messages,
        response_a=response_a,
        response_b=response_b,
        principles=[principles()[principle]],
    )


def critique(messages: Messages, response: str, principle: str) -> Messages:
    """What is at fault in the reply?"""
    return _render("critique", messages=messages, response=response, principle=principles()[principle])


def revise(messages: Messages, response: str, critique_text: str, principle: str) -> Messages:
    """What would the reply be, put right?"""
    return _render(
        "revise",
        messages=messages,
        response=response,
        critique=critique_text,
        principle=principles()[principle],
    )
