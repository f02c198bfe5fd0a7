"""A request's identity."""

from __future__ import annotations

from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message


def test_the_key_that_is_kept_changes_nothing_else() -> None:
    """A request that was asked for its key is equal to one that was not, is written alike, and its copies have keys of
    their own."""
    one, other = (
        Request(model="x/y", messages=(Message(role="user", content="hello"),), max_tokens=8)
        for _ in range(2)
    )
    key = one.key
    assert one == other
    assert one.model_dump_json() == other.model_dump_json()
    assert "key" not in one.model_dump()
    assert one.model_copy(update={"sample": 1}).key != key
    assert one.model_copy(update={"stage": "label"}).key == key == other.key
