"""Ids in little memory."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from preceptor.prompts.seen import SeenIds


@given(st.lists(st.text(max_size=3)))
def test_it_answers_as_a_dict_does(names: list[str]) -> None:
    seen, plain = SeenIds(), dict[str, int]()
    for number, name in enumerate(names):
        assert seen.add(name, number) == plain.get(name)
        plain.setdefault(name, number)
    assert len(seen) == len(plain)


def test_it_grows_and_stays_small() -> None:
    seen = SeenIds()
    for number in range(20_000):
        assert seen.add(f"a-rather-long-id-of-a-row-{number}", number) is None
    assert all(seen.add(f"a-rather-long-id-of-a-row-{number}", 7) == number for number in range(20_000))
    assert sys.getsizeof(seen._hashes) + sys.getsizeof(seen._numbers) < 50 * 20_000
