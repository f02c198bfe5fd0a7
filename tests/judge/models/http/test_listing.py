"""Lists of models that servers send, whatever they hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.http.listing import page_of

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "data",
                    "has_more",
                    "capabilities",
                    "effort",
                    "low",
                    "supported",
                    "thinking",
                    "types",
                    "retires_at",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_a_list_is_read_or_refused_in_words(value: object) -> None:
    for body in (value, {"data": [value, {"id": "m"}]}):
        try:
            page = page_of(json.dumps(body).encode(), "openai")
        except ProviderStopped:
            continue
        assert all(one.name for one in page.models)


@pytest.mark.parametrize("raw", [b"{}", b"<html>", b'{"data": "x"}', b"[" * 100_000])
def test_what_is_no_list(raw: bytes) -> None:
    with pytest.raises(ProviderStopped, match="anthropic gave no list of models"):
        page_of(raw, "anthropic")
