"""Python's collection of cyclic garbage, less often while models are asked."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 10_000
"""New objects between two collections of the young; Python's own is 700."""


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """A call makes some hundred objects that live as long as it is in flight, so that Python at its own pace looks for
    garbage several times a call and finds little: an eighth of a call's CPU time (docs/labelling.md).
    """
    before = gc.get_threshold()
    gc.set_threshold(max(NEW_OBJECTS, before[0]) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
