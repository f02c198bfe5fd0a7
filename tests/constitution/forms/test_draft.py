"""Whatever a principle is called elsewhere, here it has an id of its own, made of letters, digits and hyphens."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.forms.draft import WORDS_OF_AN_ID, DraftPrinciple, fields, named, slug
from preceptor.constitution.principle import Principle

TEXTS = st.one_of(st.text(max_size=30), st.text("aB the-Ä1.?", max_size=30))
DRAFTS = st.builds(
    DraftPrinciple, text=TEXTS.filter(str.strip), id=TEXTS, critique=TEXTS, weight=st.floats(0.1, 10)
)


@settings(deadline=None, max_examples=100)
@given(st.lists(DRAFTS, max_size=6))
def test_every_draft_has_an_id_of_its_own(drafts: list[DraftPrinciple]) -> None:
    found = named([*drafts, *drafts])
    names = [name for name, _ in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-+[a-z0-9]+)*", name) for name in names)
    assert [draft for _, draft in found] == [*drafts, *drafts]


@settings(deadline=None, max_examples=100)
@given(TEXTS)
def test_a_slug_is_made_of_the_first_telling_words(text: str) -> None:
    words = slug(text).split("-")
    assert 1 <= len(words) <= WORDS_OF_AN_ID
    assert words == ["principle"] or all(word in text.lower() for word in words)
    assert slug(slug(text)) == slug(text)


def test_words_that_tell_nothing_are_left_out_unless_there_are_no_others() -> None:
    assert slug("Choose the reply that gives its sources.") == "gives-its-sources"
    assert slug("The reply") == "the-reply"
    assert slug("…") == "principle"


@settings(deadline=None, max_examples=50)
@given(DRAFTS)
def test_the_fields_make_the_principle(draft: DraftPrinciple) -> None:
    made = Principle.model_validate(fields("x", draft))
    assert (made.id, made.text, made.critique) == ("x", draft.text.strip(), draft.critique.strip())
    assert made.weight == draft.weight
