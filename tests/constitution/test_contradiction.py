"""Two checks that contradict each other are passed by no reply, whichever of them is named first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.checks import Exchange, passes
from preceptor.constitution.contradiction import contradictions

CHECKS = st.fixed_dictionaries(
    {},
    optional={
        "min_words": st.integers(1, 6),
        "max_words": st.integers(1, 6),
        "min_sentences": st.integers(1, 4),
        "max_sentences": st.integers(1, 4),
        "refusal": st.booleans(),
        "format": st.sampled_from(
            ["json", "json-object", "json-array", "markdown-list", "table", "one-line"]
        ),
        "require": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True),
        "forbid": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True),
    },
).filter(bool)
HI = Exchange(system="", user="Hi")
REPLIES = (
    *(
        "",
        "a",
        "b",
        "a b. A b. C d!",
        "One two three four five six seven. Eight.",
        "I cannot help with that.",
    ),
    *(
        json.dumps({"a": "b"}),
        json.dumps(["b"]),
        "7",
        "- a\n- b",
        "1. c\n2. d",
        "| c | d |\n|---|---|\n| 1 | 2 |",
    ),
)


@settings(deadline=None, max_examples=100)
@given(CHECKS, CHECKS)
def test_a_contradiction_is_one_and_has_no_order(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = list(contradictions(one, other))
    assert len(found) == len(list(contradictions(other, one)))
    if found:
        for reply in REPLIES:
            assert not (passes(one, reply, HI) and passes(other, reply, HI)), (found, reply)


@settings(deadline=None, max_examples=40)
@given(CHECKS)
def test_a_check_that_some_reply_passes_does_not_contradict_itself(check: dict[str, Any]) -> None:
    if any(passes(check, reply, HI) for reply in REPLIES):
        assert list(contradictions(check, check)) == []


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"min_words": 9}, {"max_words": 3}, "min_words 9 is above max_words 3"),
        ({"min_sentences": 4}, {"max_words": 3}, "min_sentences 4 is above max_words 3"),
        ({"language": "de"}, {"language": "en"}, "language en against language de"),
        ({"format": "json"}, {"format": "table"}, "format table against format json"),
        ({"pii": "absent"}, {"pii": "present"}, "pii present against pii absent"),
        ({"require": ["x"]}, {"forbid": ["x"]}, "the pattern 'x' is required and forbidden"),
    ],
)
def test_a_contradiction_is_told_in_words(one: dict[str, Any], other: dict[str, Any], said: str) -> None:
    assert list(contradictions(one, other)) == [said]
