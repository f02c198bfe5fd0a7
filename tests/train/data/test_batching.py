"""Steps and passes: every pair once, of like length, within the budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.train.data.batching import grouped_batches, passes


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (37, 4), (64, 16), (200, 7)])
def test_batches_hold_every_row_once_in_every_epoch(rows: int, batch_size: int) -> None:
    lengths = [(number * 7919) % 101 for number in range(rows)]
    for epoch in range(3):
        batches = grouped_batches(lengths, batch_size, seed=1, epoch=epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(rows))
        assert len(batches) == -(-rows // batch_size)
        assert all(len(batch) <= batch_size for batch in batches)


def test_batches_depend_on_seed_and_epoch_and_hold_rows_of_like_length() -> None:
    lengths = [(number * 7919) % 101 for number in range(256)]
    first = grouped_batches(lengths, 8, seed=1, epoch=0)
    assert first == grouped_batches(lengths, 8, seed=1, epoch=0)
    assert first != grouped_batches(lengths, 8, seed=1, epoch=1)
    assert first != grouped_batches(lengths, 8, seed=2, epoch=0)
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in first)
    unsorted = [list(range(at, at + 8)) for at in range(0, 256, 8)]
    assert padded < 0.7 * sum(max(lengths[row] for row in batch) * len(batch) for batch in unsorted)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_passes_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    """With its padding; a row longer than the budget goes alone, and no two neighbours could have been one."""
    found = passes(lengths, budget)
    assert sorted(row for part in found for row in part) == list(range(len(lengths)))
    padded = [max(lengths[row] for row in part) * len(part) for part in found]
    assert all(tokens <= budget or len(part) == 1 for tokens, part in zip(padded, found, strict=True))
    for part, following in pairwise(found):
        assert max(lengths[row] for row in part) * (len(part) + 1) > budget
        assert lengths[part[-1]] >= lengths[following[0]]
