"""Log-probabilities of replies against the plain definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM, PreTrainedModel

from tests.train.tiny import preference, tiny_tokenizer
from train.logprobs import pair_logprobs, row_logprobs
from train.pairs import encode_pairs

TOKENS = encode_pairs([preference(number) for number in range(9)], tiny_tokenizer(), 512).rows


def plainly(model: PreTrainedModel, prompt: list[int], reply: list[int]) -> float:
    """Sum of log softmax(logits) at each reply token, one row, nothing padded."""
    ids = torch.tensor([prompt + reply])
    with torch.no_grad():
        logps = model(input_ids=ids).logits.float().log_softmax(-1)
    at = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
    return sum(logps[0, place, ids[0, place + 1]].item() for place in at)


def softcapped() -> PreTrainedModel:
    """An architecture that changes its logits after the output layer."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
        final_logit_softcapping=0.5,
        initializer_range=0.5,
        pad_token_id=0,
    )
    return Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_equals_the_definition_whatever_the_batch(tiny: Path, architecture: str, batch_size: int) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny).eval() if architecture == "llama" else softcapped()
    chosen, rejected = pair_logprobs(model, TOKENS, 0, batch_size)
    wanted = torch.tensor([plainly(model, row.prompt, row.chosen) for row in TOKENS])
    torch.testing.assert_close(chosen, wanted, rtol=1e-5, atol=1e-4)
    wanted = torch.tensor([plainly(model, row.prompt, row.rejected) for row in TOKENS])
    torch.testing.assert_close(rejected, wanted, rtol=1e-5, atol=1e-4)


def test_keeps_the_order_of_the_rows(tiny: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny).eval()
    rows = [(row.prompt, row.chosen) for row in TOKENS]
    forward = row_logprobs(model, rows, 0, 3)
    backward = row_logprobs(model, rows[::-1], 0, 3)
    torch.testing.assert_close(forward, backward.flip(0), rtol=1e-6, atol=1e-5)
    assert len({round(value, 3) for value in forward.tolist()}) > 5
