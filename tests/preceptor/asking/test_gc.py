"""Garbage is collected less often while models are asked, and as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from preceptor.asking.gc import NEW_OBJECTS, seldom_collecting


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_it_holds_inside_and_ends_with_the_block_however_that_ends() -> None:
    gc.set_threshold(700, 10, 10)
    with suppress(KeyError), seldom_collecting():
        assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
        raise KeyError
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [0, 10 * NEW_OBJECTS])
def test_whoever_collects_never_or_more_seldom_keeps_to_that(chosen: int) -> None:
    gc.set_threshold(chosen, 10, 10)
    with seldom_collecting():
        assert gc.get_threshold()[0] == chosen
