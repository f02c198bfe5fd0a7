"""The shared layout against two plain rows, architecture by architecture; and the choice between them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from preceptor.train.data import collate_pairs as module
from preceptor.train.data.collate_pairs import PROMPT, PairBatch, collate_pairs, set_attention
from preceptor.train.data.pairs import encode_pairs
from preceptor.train.dpo import train_dpo
from preceptor.train.errors import CheckpointError
from preceptor.train.forward.layout_check import choose_layout
from preceptor.train.forward.reply_logprobs import Policy, batch_hidden
from preceptor.train.reward import train_reward
from preceptor.train.settings import DpoSettings, RewardModelSettings
from tests.train.architectures import APART, SHARED, tiny_model
from tests.train.tiny import preference, tiny_tokenizer

PAIRS = encode_pairs([preference(number) for number in range(9)], tiny_tokenizer(), 512).rows
LONGEST = max(pair.length for pair in PAIRS)


@pytest.mark.parametrize("name", SHARED)
def test_scores_and_log_probabilities_equal_those_of_two_rows(name: str) -> None:
    """To 1e-5 of their size in float32, gradients too, against the model's own forward on plain padded rows."""
    assert LONGEST > 2 * 16  # twice the sliding windows
    model = tiny_model(name)
    layout = choose_layout(model, PAIRS, 0, with_logits=True)
    assert layout == (True, False, ())
    results = []
    for shared in (True, False):
        batch = collate_pairs(PAIRS, range(len(PAIRS)), 0, shared)
        model.zero_grad()
        states = batch_hidden(model, batch)[batch.last]  # (2B, H), what scores are made of
        logps = Policy(model, whole_logits=not shared)(batch)
        (logps.total.sigmoid().sum() + logps.total.sum() / 100).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((states.detach(), logps.total.detach(), logps.common.detach(), gradient))
    for found, wanted in zip(*results, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of torch, at what transformers 5.23 imports and calls
@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "gemma2", "gemma3", "mistral", "granite"])
@torch.no_grad()
def test_flex_attention_sees_the_same(name: str) -> None:
    """To 1e-5 of SDPA (eager with gemma 2, which SDPA cannot cap), forward: on a CPU it has no backward pass."""
    assert LONGEST > 2 * 16
    batch = collate_pairs(PAIRS, range(len(PAIRS)), 0)
    model = tiny_model(name)
    wanted, logps = batch_hidden(model, batch)[batch.last], Policy(model)(batch).total
    set_attention(model, "flex")
    with torch.compiler.set_stance("force_eager"):
        assert choose_layout(model, PAIRS, 0, with_logits=True) == (True, False, ())
        assert model.config.get_text_config()._attn_implementation == "flex_attention"
        found = batch_hidden(model, batch)[batch.last]
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert (Policy(model)(batch).total - logps).abs().max() <= 1e-5 * logps.abs().max()


def test_flex_attention_is_refused_where_it_could_not_be_trained(tiny: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    pairs = [preference(number) for number in range(4)]
    for train, settings in (
        (train_reward, RewardModelSettings(model=str(tiny), attention="flex")),
        (train_dpo, DpoSettings(model=str(tiny), attention="flex")),
    ):
        with pytest.raises(CheckpointError, match=r"flex needs a CUDA GPU: on a CPU .* no backward pass"):
            train(pairs, settings, tmp_path / "out")  # type: ignore[operator]
    assert "attention" not in DpoSettings().model_dump()  # trainings from before it are still themselves
    with pytest.raises(CheckpointError, match="BloomForCausalLM cannot take attention flex"):
        set_attention(tiny_model("bloom"), "flex")


@pytest.mark.parametrize("name", APART)
def test_a_model_that_cannot_take_the_mask_gets_two_rows_and_says_so(name: str) -> None:
    layout = choose_layout(tiny_model(name), PAIRS, 0, with_logits=True)
    assert not layout.shared
    assert not layout.whole_logits
    assert len(layout.reasons) == 1
    assert layout.reasons[0].startswith(
        "each reply is in a row of its own, at about twice the cost or more: "
    )
    assert type(tiny_model(name)).__name__ in layout.reasons[0]


def leaking(batch: PairBatch, _config: object, dtype: torch.dtype) -> Tensor:
    """A mask under which the rejected reply sees the chosen one."""
    width = batch.part.shape[1]
    seen = torch.ones((width, width), dtype=torch.bool).tril() & (batch.part[:, None] != 3)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def blind(batch: PairBatch, _config: object, dtype: torch.dtype) -> Tensor:
    """A mask that lets every token see the prompt alone, and itself."""
    width = batch.part.shape[1]
    seen = torch.eye(width, dtype=torch.bool) | (batch.part[:, None] == PROMPT)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


@pytest.mark.parametrize("wrong", [leaking, blind])
def test_a_wrong_mask_is_noticed(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an architecture to treat the mask in such a way, it would not be used."""
    monkeypatch.setattr("preceptor.train.forward.reply_logprobs.attention_of", wrong)
    layout = choose_layout(tiny_model("llama"), PAIRS, 0, with_logits=False)
    assert not layout.shared
    assert "computes something else under the shared prompt's mask" in layout.reasons[0]


def test_an_ignored_window_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows longer than the window tell, so the longest pair is among those asked."""
    model = tiny_model("mistral")
    right = module.attention_of

    def unbounded(batch: PairBatch, _config: object, dtype: torch.dtype) -> object:
        from transformers import LlamaConfig

        plain = LlamaConfig(sliding_window=None)
        plain._attn_implementation = "sdpa"
        return right(batch, plain, dtype)

    monkeypatch.setattr("preceptor.train.forward.reply_logprobs.attention_of", unbounded)
    assert not choose_layout(model, PAIRS, 0, with_logits=False).shared


def test_an_output_layer_of_unknown_form_keeps_to_the_models_own_forward() -> None:
    """Something between the output layer and the logits that no config field tells of."""
    model = tiny_model("llama")
    forward = model.forward

    def doubled(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    model.forward = doubled  # type: ignore[method-assign]
    layout = choose_layout(model, PAIRS, 0, with_logits=True)
    assert (layout.shared, layout.whole_logits) == (False, True)
    assert "all logits are kept in memory" in layout.reasons[0]
    assert choose_layout(model, PAIRS, 0, with_logits=False).shared
