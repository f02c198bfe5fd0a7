"""One pass for many questions: the same logits as one prompt for each, whatever the architecture."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.models.local.branch_mask import PackedRow, batches, rows_of
from preceptor.judge.models.local.prefix_passes import Passes
from tests.train.architectures import APART, SHARED, tiny_model

PROMPTS = st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=12).map(tuple), min_size=1, max_size=12)
BUDGET = 512


def questions(pairs: int = 3, each: int = 4) -> list[tuple[int, ...]]:
    """Prompts as a judge asks them: two orders of some pairs, several questions about each; lengths differ, and every
    row is longer than the sliding windows."""
    drawn = torch.Generator().manual_seed(1)

    def words(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, 300, (n,), generator=drawn).tolist())

    ends = [words(3 + number) for number in range(each)]
    return [trunk + end for trunk in [words(25 + 9 * number) for number in range(2 * pairs)] for end in ends]


def plain(model: torch.nn.Module, prompts: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Logits after each prompt, one prompt at a time, by the model's own forward."""
    with torch.inference_mode():
        return torch.stack([model(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in prompts])


@pytest.mark.parametrize("name", SHARED)
def test_packed_equals_one_prompt_at_a_time(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """To 1e-4, in the order of the prompts; and nothing had to fall back."""
    model, prompts = tiny_model(name), questions()
    with caplog.at_level(logging.WARNING):
        found = Passes(name, model, BUDGET).ends(prompts, [1] * len(prompts), lambda _, logits: logits[-1])
    torch.testing.assert_close(torch.stack(found), plain(model, prompts), rtol=0, atol=1e-4)
    assert not caplog.records


@pytest.mark.parametrize("name", APART)
def test_a_model_that_cannot_take_the_mask_is_never_silently_wrong(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read one prompt to a row, and the log says so, once."""
    model, prompts = tiny_model(name), questions()
    passes = Passes(name, model, BUDGET)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = passes.ends(prompts, [1] * len(prompts), lambda _, logits: logits[-1])
            torch.testing.assert_close(torch.stack(found), plain(model, prompts), rtol=0, atol=1e-4)
    assert sum("in a prompt of its own" in record.message for record in caplog.records) == 1


def test_several_last_tokens_may_reach_into_the_trunk() -> None:
    model = tiny_model("llama")
    prompts = [(5, 6, 7, 8, 9), (5, 6, 7, 8, 10, 11), (5, 6, 7, 8, 12)]
    found = Passes("m", model, BUDGET).ends(prompts, [3, 2, 4], lambda _, logits: logits)
    for prompt, keep, logits in zip(prompts, (3, 2, 4), found, strict=True):
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([prompt])).logits[0, -keep:]
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-4)


@given(PROMPTS, st.booleans())
def test_rows_hold_every_prompt_once_and_whole(prompts: list[tuple[int, ...]], apart: bool) -> None:
    rows = rows_of(prompts, apart)
    seen = {
        number: row.trunk + branch
        for row in rows
        for number, branch in zip(row.prompts, row.branches, strict=True)
    }
    assert [seen[number] for number in range(len(prompts))] == prompts
    assert sum(len(row.prompts) for row in rows) == len(prompts)
    assert all(branch for row in rows for branch in row.branches)
    assert [row.size for row in rows] == sorted((row.size for row in rows), reverse=True)
    assert not apart or all(len(row.branches) == 1 for row in rows)


@given(PROMPTS, st.integers(1, 60))
def test_batches_keep_to_the_budget(prompts: list[tuple[int, ...]], budget: int) -> None:
    rows = rows_of(prompts)
    made = list(batches(rows, budget))
    assert [row for batch in made for row in batch] == rows
    assert all(len(batch) == 1 or batch[0].size * len(batch) <= budget for batch in made)


def test_a_pair_is_read_once_for_all_its_questions() -> None:
    prompts = questions(pairs=2, each=8)
    rows = rows_of(prompts)
    assert len(rows) == 4
    assert sum(row.size for row in rows) < 0.45 * sum(map(len, prompts))


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_company_changes_nothing(drawn: object) -> None:
    """Whoever else is in the batch, a prompt's logits are the same to rounding."""
    prompts = questions(pairs=2)
    shuffled = list(range(len(prompts)))
    drawn.shuffle(shuffled)  # type: ignore[attr-defined]
    some = [prompts[i] for i in shuffled[:9]]
    passes = Passes("m", MODEL, BUDGET)
    found = passes.ends(some, [1] * len(some), lambda _, logits: logits[-1])
    torch.testing.assert_close(torch.stack(found), plain(MODEL, some), rtol=0, atol=1e-4)


MODEL = tiny_model("qwen3")


class Small(torch.nn.Module):
    """A model on a machine whose memory holds `room` tokens."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.inner = tiny_model("llama")
        self.config, self.dtype, self.device = self.inner.config, self.inner.dtype, self.inner.device
        self.room, self.widths = room, list[int]()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.inner.get_output_embeddings()

    def forward(self, **inputs: torch.Tensor) -> object:
        return self.inner(**inputs)

    @property
    def base_model(self) -> object:
        def run(input_ids: torch.Tensor, **inputs: torch.Tensor) -> object:
            if input_ids.numel() > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            self.widths.append(input_ids.numel())
            return self.inner.base_model(input_ids=input_ids, **inputs)

        return run


def test_where_memory_runs_out_the_batch_halves_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model, prompts = Small(room=200), questions()
    passes = Passes("m", model, 10_000)
    with caplog.at_level(logging.WARNING):
        found = passes.ends(prompts, [1] * len(prompts), lambda _, logits: logits[-1])
    torch.testing.assert_close(torch.stack(found), plain(model.inner, prompts), rtol=0, atol=1e-4)
    assert any("memory did not suffice" in record.message for record in caplog.records)
    assert max(model.widths) <= 200
    said = len(caplog.records)
    passes.ends(prompts, [1] * len(prompts), lambda _, logits: logits[-1])
    assert len(caplog.records) == said  # it has learnt


def test_one_row_that_does_not_fit_is_an_error() -> None:
    row: list[PackedRow] = rows_of(questions(pairs=1))
    assert row
    with pytest.raises(torch.OutOfMemoryError):
        Passes("m", Small(room=10), 10_000).ends(
            questions(), [1] * len(questions()), lambda _, logits: logits
        )
