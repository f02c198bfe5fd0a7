"""The shapes that losses and collators state are checked while tests run: what is of another shape is refused."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from preceptor.train.data.collate_pairs import PairBatch, collate_pairs
from preceptor.train.data.collate_replies import ReplyBatch, lay_out
from preceptor.train.data.pairs import PairTokens
from preceptor.train.losses import soft_bradley_terry
from preceptor.train.ppo.objective import Clipped, gae, policy_losses
from tests.shapes import check_fields, shapes_of

PAIRS = [PairTokens([1, 2], [3], [4, 5, 6], 0.8, "a"), PairTokens([1], [3, 7], [4], 0.6, "b")]


def test_rewards_and_labels_of_different_numbers_of_pairs_are_refused() -> None:
    """Three and one would be broadcast in silence, and one label trained on three times."""
    three = torch.zeros(3)
    soft_bradley_terry(three, three, torch.ones(3))
    with pytest.raises(TypeCheckError):
        soft_bradley_terry(three, torch.zeros(1), torch.ones(3))
    with pytest.raises(TypeCheckError):
        soft_bradley_terry(three, three, torch.ones(2))


def test_a_mask_of_numbers_and_values_of_another_width_are_refused() -> None:
    numbers, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    gae(numbers, numbers, mask, 1.0, 0.95)
    with pytest.raises(TypeCheckError):
        gae(numbers, numbers, numbers, 1.0, 0.95)  # type: ignore[arg-type]
    with pytest.raises(TypeCheckError):
        gae(numbers, torch.zeros(2, 4), mask, 1.0, 0.95)
    with pytest.raises(TypeCheckError):
        policy_losses(numbers, numbers, torch.zeros(2, 1), 0.2)


@pytest.mark.parametrize("shared", [True, False])
def test_every_field_of_a_batch_is_checked(shared: bool) -> None:
    batch = collate_pairs(PAIRS, range(2), 0, shared)
    assert set(shapes_of(PairBatch)) == set(PairBatch._fields)
    assert set(shapes_of(ReplyBatch)) == set(ReplyBatch._fields)
    assert set(shapes_of(Clipped)) == {"losses", "clipped"}
    assert batch.lengths.tolist() == [1, 2, 3, 1]
    for wrong in (
        batch._replace(last=batch.last[:3]),
        batch._replace(weight=batch.weight[:1]),
        batch._replace(probability=batch.probability.double()),
        batch._replace(positions=batch.positions[:, 1:]),
        batch._replace(target=batch.target[1:]),
    ):
        with pytest.raises(TypeCheckError):
            _ = wrong.lengths


def test_a_batch_of_replies_states_its_shapes() -> None:
    batch = lay_out([([1, 2], [3]), ([1, 2], [4, 5])], [[0, 1]])
    with pytest.raises(AssertionError, match="last is"):
        check_fields({"the batch": batch._replace(last=batch.last[None])})
