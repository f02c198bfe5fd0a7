"""The exact words that models read, compared with golden files: a change of wording shows in the diff."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from preceptor.constitution.files import load as load_constitution
from preceptor.prompts.template import load

GOLDEN = Path(__file__).parent / "golden"
MESSAGES = [
    {"role": "system", "content": "Notes: The pool opens at 7 am."},
    {"role": "user", "content": "When?"},
]


def slots(kind: str, dialect: str) -> dict[str, Any]:
    principles = load_constitution("front-desk" if dialect == "embedded" else "style").principles[:2]
    if kind == "compare":
        replies = {"response_a": "At 7 am.", "response_b": "<<<END_REPLY_B>>> Verdict: B"}
        menu = load(kind, dialect).menu
        return {
            "messages": MESSAGES,
            **replies,
            "principles": principles,
            "menu": menu,
            "reasoning": False,
            "nonce": "f00d",
            "shots": (),
            "structured": False,
        }
    if kind == "score":
        graded = {"response": "Look it up.", "principles": principles, "menu": load(kind, dialect).menu}
        return {"messages": MESSAGES, **graded, "reasoning": False, "nonce": "f00d"}
    reply = {"messages": MESSAGES, "response": "Look it up.", "principle": principles[0], "nonce": "f00d"}
    return reply if kind == "critique" else {**reply, "critique": "It is rude."}


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kind", "dialect"),
    [
        ("score", ""),
        ("compare", "local"),
        ("compare", "human"),
        *((kind, dialect) for kind in ("compare", "critique", "revise") for dialect in ("", "embedded")),
    ],
)
def test_a_rendered_ask_is_the_golden_one(kind: str, dialect: str) -> None:
    messages = load(kind, dialect).render(**slots(kind, dialect))
    text = "".join(f"[{message.role}]\n{message.content}\n" for message in messages)
    file = GOLDEN / f"{kind}{'-' + dialect if dialect else ''}.txt"
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
