"""Log-probabilities of replies against the plain definition."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from preceptor.train.data.pairs import encode_pairs
from preceptor.train.forward.reply_logprobs import Policy, pair_logprobs, row_logprobs
from tests.train.architectures import tiny_model
from tests.train.tiny import preference, tiny_tokenizer

TOKENS = encode_pairs([preference(number) for number in range(9)], tiny_tokenizer(), 512).rows


def plainly(model: PreTrainedModel, prompt: list[int], reply: list[int]) -> float:
    """Sum of log softmax(logits) at each reply token, one row, nothing padded."""
    ids = torch.tensor([prompt + reply])
    with torch.no_grad():
        logps = model(input_ids=ids).logits.float().log_softmax(-1)
    at = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
    return sum(logps[0, place, ids[0, place + 1]].item() for place in at)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pass_tokens", [1, 300])
def test_equals_the_definition_whatever_the_batch(name: str, shared: bool, pass_tokens: int) -> None:
    model = tiny_model(name)
    found = pair_logprobs(Policy(model), TOKENS, 0, pass_tokens, shared)
    chosen = [plainly(model, row.prompt, row.chosen) for row in TOKENS]
    rejected = [plainly(model, row.prompt, row.rejected) for row in TOKENS]
    torch.testing.assert_close(found.total, torch.tensor(chosen + rejected), rtol=1e-5, atol=1e-4)
    shorter = [min(len(row.chosen), len(row.rejected)) for row in TOKENS]
    common = [
        plainly(model, row.prompt, reply[:n])
        for side in ("chosen", "rejected")
        for row, n in zip(TOKENS, shorter, strict=True)
        for reply in [getattr(row, side)]
    ]
    torch.testing.assert_close(found.common, torch.tensor(common), rtol=1e-5, atol=1e-4)
    assert found.lengths.tolist() == [len(row.chosen) for row in TOKENS] + [
        len(row.rejected) for row in TOKENS
    ]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_rows_equal_the_definition_in_their_order(name: str, batch_size: int) -> None:
    model = tiny_model(name)
    rows = [(row.prompt, row.chosen) for row in TOKENS]
    wanted = torch.tensor([plainly(model, *row) for row in rows])
    torch.testing.assert_close(row_logprobs(model, rows, 0, batch_size), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        row_logprobs(model, rows[::-1], 0, batch_size), wanted.flip(0), rtol=1e-5, atol=1e-4
    )
