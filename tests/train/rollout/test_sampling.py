"""Sampling with a cache: equal seeds, no matter the batch; probabilities as a plain forward pass gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from preceptor.train.models.adapters import adapt
from preceptor.train.models.base import load_base
from preceptor.train.rollout.sampling import Rollout, Sampling, sample
from tests.train.architectures import SHARED, tiny_model

PROMPTS = [[7, 8, 9, 10, 11], [5, 6], [20, 21, 22], [40, 41, 42, 43, 44, 45, 46, 47]]
FREE = Sampling(1.0, 1.0, 12, frozenset({1, 30, 31, 32, 33, 34}), 10_000)


@pytest.fixture(scope="module")
def model(tiny: Path) -> PeftModel:
    """With an adapter that does something."""
    made = adapt(load_base(str(tiny)), rank=4, alpha=8, seed=0)
    for name, weight in made.named_parameters():
        if "lora_" in name:
            weight.data += 0.05 * torch.randn_like(weight)
    return made.eval()


def replies(rollouts: list[Rollout]) -> list[list[int]]:
    return [rollout.reply for rollout in rollouts]


def plain_logprobs(model: torch.nn.Module, rollout: Rollout) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([rollout.prompt + rollout.reply])).logits[0]
    before = logits[len(rollout.prompt) - 1 : -1].log_softmax(-1)
    return before.gather(1, torch.tensor(rollout.reply)[:, None])[:, 0]


def test_equal_seeds_give_equal_replies_however_the_batch_is_cut(model: PeftModel) -> None:
    once = replies(sample(model, PROMPTS, 3, FREE, seed=1))
    assert once == replies(sample(model, PROMPTS, 3, FREE, seed=1))
    assert once == replies(sample(model, PROMPTS, 3, FREE._replace(batch_tokens=1), seed=1))
    assert once != replies(sample(model, PROMPTS, 3, FREE, seed=2))
    assert len({tuple(reply) for reply in once}) > 6


def test_the_log_probabilities_are_those_of_a_plain_forward_pass(model: PeftModel) -> None:
    for how in (FREE, FREE._replace(temperature=0.5), FREE._replace(top_p=0.7)):
        for rollout in sample(model, PROMPTS, 2, how, seed=3):
            torch.testing.assert_close(rollout.logprobs, plain_logprobs(model, rollout), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt-neox", "gemma2", "qwen2-sliding"])
def test_other_architectures_with_windows_and_softcaps(name: str) -> None:
    assert name in SHARED
    other = tiny_model(name)
    how = FREE._replace(max_new_tokens=24)
    for rollout in sample(other, [[*range(5, 25)], [5, 6]], 2, how, seed=0):
        torch.testing.assert_close(rollout.logprobs, plain_logprobs(other, rollout), rtol=1e-4, atol=1e-4)


def test_a_reply_ends_with_its_stop_token_or_at_the_limit(model: PeftModel) -> None:
    found = sample(model, PROMPTS, 16, FREE, seed=0)
    assert {rollout.ended for rollout in found} == {True, False}
    for rollout in found:
        assert len(rollout.logprobs) == len(rollout.entropies) == len(rollout.reply)
        assert not set(rollout.reply[:-1]) & FREE.stops
        assert rollout.ended == (rollout.reply[-1] in FREE.stops)
        assert rollout.ended or len(rollout.reply) == FREE.max_new_tokens
    assert [rollout.prompt for rollout in found[::16]] == PROMPTS


def test_tokens_come_as_often_as_the_model_says(model: PeftModel) -> None:
    """4000 first tokens against their probabilities, and only the likeliest ones under a small nucleus."""
    one = FREE._replace(max_new_tokens=1)
    found = sample(model, [PROMPTS[0]], 4000, one, seed=0)
    with torch.no_grad():
        shares = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([rollout.reply[0] for rollout in found]), minlength=len(shares))
    assert float((counts / 4000 - shares).abs().max()) < 0.03
    entropy = float(-(shares * shares.log()).sum())
    assert float(found[0].entropies[0]) == pytest.approx(entropy, rel=1e-4)
    nucleus = sample(model, [PROMPTS[0]], 200, one._replace(top_p=0.05), seed=0)
    ordered = shares.sort(descending=True)
    size = int((ordered.values.cumsum(0) - ordered.values < 0.05).sum())
    assert {rollout.reply[0] for rollout in nucleus} <= set(ordered.indices[:size].tolist())
