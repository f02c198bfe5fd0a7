"""Prose is asked about in parts that lose no sentence, and a principle must quote the part that it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.forms.prose import sentences
from preceptor.judge.settings import RespondSettings
from preceptor.settings import Access
from preceptor.workbench.proposing import (
    WORDS_OF_A_PART,
    drafted,
    parts_of,
    proposed,
    questions,
    reading_job,
)
from tests.judge.canned import response

PARAGRAPHS = st.lists(
    st.tuples(st.sampled_from(["", "# One\n\n", "# Two\n\n"]), st.integers(1, 400)), min_size=1, max_size=6
)
SAID = "Replies should be kind to whoever asks."


@settings(deadline=None, max_examples=40)
@given(PARAGRAPHS)
def test_parts_hold_every_sentence_once_under_one_heading_and_are_not_too_long(
    paragraphs: list[tuple[str, int]],
) -> None:
    text = "\n\n".join(f"{heading}{'word ' * count}end." for heading, count in paragraphs)
    parts = parts_of(text)
    assert [one for part in parts for one in part] == list(sentences(text))
    for part in parts:
        assert len({one.heading for one in part}) == 1
        assert len(part) == 1 or sum(len(one.text.split()) for one in part) <= WORDS_OF_A_PART
    said = {(part[0].heading, *(one.text for one in part)) for part in parts}
    assert len({prompt.id for prompt in questions(parts)}) == len(said)


def test_a_principle_stands_by_its_quote_and_every_other_is_counted() -> None:
    parts = parts_of(f"# Manners\n\n{SAID} Never lie to a friend.")
    lines = [
        {"principle": "Choose the kind reply.", "quote": "Replies should be kind"},
        {"principle": "choose the  kind reply.", "quote": SAID},
        {"principle": "Choose the true reply.", "quote": "Never lie to a stranger."},
        {"principle": "Choose the short reply.", "quote": "be kind"},  # two words quote anything
        {"principle": " ", "quote": SAID},
    ]
    found = proposed(parts, [response("\n".join(map(json.dumps, lines)))])
    assert [(one.text, one.line) for one in found.drafts] == [("Choose the kind reply.", 3)]
    assert found.set_aside == {
        "proposals that came twice": 1,
        "proposals whose quote is not in the text": 2,
        "proposals without a principle": 1,
    }
    refused = proposed(parts, [response("", status="refused")])
    assert (refused.drafts, refused.set_aside) == ((), {"parts whose reply is refused": 1})


def test_a_text_is_read_and_drafted_or_it_is_said_why_not(tmp_path: Path) -> None:
    file = tmp_path / "manners.txt"
    file.write_text(f"{SAID}\n")
    reading = reading_job(file, "openai/m", Access(), RespondSettings(samples=4, temperature=1.0))
    assert len(reading.job.rows) == len(reading.parts) == 1
    reply = json.dumps({"principle": "Choose the kind reply.", "quote": SAID})
    made = drafted(reading, [response(reply)], "manners")
    assert [one.text for one in made.constitution.principles] == ["Choose the kind reply."]
    assert "From manners.txt, in the words of openai/m" in made.text
    with pytest.raises(UserError, match=r"openai/m proposed no principle \(1 parts whose reply is empty\)"):
        drafted(reading, [response("", status="empty")], "manners")
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no sentence"):
        reading_job(file, "openai/m", Access(), RespondSettings())
