"""Prose in sentences: no word is lost or told twice, and each sentence knows its line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.forms.prose import demands, is_list, marker, read_list, read_prose, sentences

WORDS = st.sampled_from(
    ["Be", "kind", "to", "them", "e.g.", "Dr.", "A.", "it.", "now!", "why?", "the", "end.", "(so)"]
)
LINES = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
PAGES = st.lists(
    st.one_of(
        LINES, LINES.map("- {}".format), LINES.map("12. {}".format), LINES.map("# {}".format), st.just("")
    ),
    max_size=8,
).map("\n".join)


@settings(deadline=None, max_examples=100)
@given(PAGES)
def test_no_word_is_lost_and_each_sentence_stands_on_its_line(page: str) -> None:
    lines = page.splitlines()
    said = [line[len(marker(line)) :].split() for line in lines if not line.startswith("#")]
    found = list(sentences(page))
    assert [word for one in found for word in one.text.split()] == [word for words in said for word in words]
    for one in found:
        assert one.text.split()[0] in lines[one.line - 1]
        above = [line.strip("# ") for line in lines[: one.line] if line.startswith("#")]
        assert one.heading == (above[-1] if above else "")


@settings(deadline=None, max_examples=60)
@given(PAGES)
def test_every_sentence_is_a_principle_or_counted(page: str) -> None:
    found = read_prose(page)
    assert len(found.drafts) + sum(found.set_aside.values()) == len(list(sentences(page)))
    assert all(demands(draft.text) for draft in found.drafts)


def test_what_ends_a_sentence() -> None:
    text = "Ask Dr. Who, e.g. politely. J. Doe said so! Is it (true?) No. Yes"
    assert [one.text for one in sentences(text)] == [
        "Ask Dr. Who, e.g. politely.",
        "J. Doe said so!",
        "Is it (true?)",
        "No. Yes",
    ]
    assert [one.text for one in sentences("```\nnot read.\n```\nRead this. ")] == ["Read this."]


@pytest.mark.parametrize(
    ("sentence", "does"),
    [
        ("Replies should be short.", True),
        ("Never tell a lie to anybody.", True),
        ("Should replies be short?", False),
        ("The sky was blue yesterday.", False),
        ("Be kind.", False),  # fewer words than tell anything
    ],
)
def test_what_ought_to_be_is_told_from_what_is(sentence: str, does: bool) -> None:
    assert demands(sentence) is does


def test_a_list_gives_a_principle_an_item_with_its_name() -> None:
    page = (
        "# Manners\n\nSome words.\n\n- **Kind**: Be kind to everybody who asks.\n- Say what you do not know."
    )
    assert is_list(page)
    assert not is_list("Some words.\n\n- one")
    found = read_list(page)
    assert [(one.id, one.text, one.tags, one.line) for one in found.drafts] == [
        ("Kind", "Be kind to everybody who asks.", ("manners",), 5),
        ("", "Say what you do not know.", ("manners",), 6),
    ]
    assert found.set_aside == {"paragraphs beside the list": 1}
