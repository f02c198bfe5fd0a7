"""Statistics of the outcome, on cases whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.records import Label, Status
from preceptor.prompts.records import Message, Prompt
from preceptor.train.evaluation.compare import distinct_n, kl_nats, reply_logprobs, satisfied, win_rate
from preceptor.train.models.base import load_base
from tests.train.tiny import save_tiny

PROMPT = Prompt(id="p", messages=(Message(role="user", content="Hi?"),))
MIXED = st.lists(st.tuples(st.sampled_from(get_args(Status)), st.floats(0, 1)), max_size=30)


def label(status: Status, probability: float | None) -> Label:
    return Label(
        id="l",
        status=status,
        probability=probability if status == "ok" else None,
        prompt=PROMPT,
        response_a="a",
        response_b="b",
        judgements=(),
        constitution="c",
        judge="j",
    )


def test_ties_and_disagreeing_orders_are_half_a_win_and_silence_is_none() -> None:
    """(3 + (1 + 2) / 2) / 8 of eight judged; refused, unparsed and failed are counted apart."""
    labels = (
        [label("ok", 0.9)] * 3
        + [label("ok", 0.2)] * 2
        + [label("tie", None)]
        + [label("inconsistent", None)] * 2
    )
    labels += [label("refused", None)] * 4 + [label("failed", None)]
    result = win_rate(labels)
    assert (result.wins, result.losses, result.ties, result.inconsistent) == (3, 2, 3, 2)
    assert result.rate == pytest.approx(4.5 / 8)
    assert result.judged == 8
    assert result.unjudged == {"refused": 4, "failed": 1}
    assert result.low < result.rate < result.high


@given(MIXED)
def test_every_label_is_counted_once_and_the_sides_are_alike(rows: list[tuple[Status, float]]) -> None:
    """Exchanging policy and baseline turns the rate into one minus the rate."""
    result = win_rate([label(*row) for row in rows])
    assert result.judged + sum(result.unjudged.values()) == len(rows)
    turned = win_rate([label(status, 1 - probability) for status, probability in rows])
    if result.judged:
        assert turned.rate == pytest.approx(1 - result.rate)
        assert (turned.low, turned.high) == pytest.approx((1 - result.high, 1 - result.low))
    else:
        assert math.isnan(result.rate)


def test_shares_count_only_replies_to_which_a_principle_applies() -> None:
    shares = satisfied([{"polite": True, "format": True}, {"polite": True}, {"polite": False}, {}])
    assert (shares["polite"].share, shares["polite"].n) == (pytest.approx(2 / 3), 3)
    assert (shares["format"].share, shares["format"].n) == (1.0, 1)
    assert (shares["overall"].share, shares["overall"].n) == (0.75, 4)
    assert shares["format"].low < 0.5  # one reply proves little


def test_distinct_n_counts_over_all_texts() -> None:
    assert distinct_n(["a b c", "a b d"], 2) == 3 / 4
    assert distinct_n(["A b", "a B"], 1) == 2 / 4
    assert distinct_n(["a", ""], 2) == 0.0


def test_kl_of_a_model_from_itself_is_zero_and_its_interval_narrows() -> None:
    same = kl_nats([-3.0, -9.0], [-3.0, -9.0])
    assert (same.nats, same.low, same.high) == (0, 0, 0)
    gaps = [1.0, 3.0] * 50
    few, many = kl_nats(gaps[:10], [0.0] * 10), kl_nats(gaps, [0.0] * 100)
    assert few.nats == many.nats == 2
    assert many.high - many.low < few.high - few.low
    assert math.isnan(kl_nats([], []).nats)


def test_kl_estimate_meets_the_true_divergence() -> None:
    """Over samples of a known categorical pair, the interval holds the sum of p log(p / q)."""
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    draws = torch.multinomial(p, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    estimate = kl_nats(p.log()[draws].tolist(), q.log()[draws].tolist())
    assert estimate.low < (p * (p / q).log()).sum().item() < estimate.high
    assert estimate.high - estimate.low < 0.1


def test_reply_logprobs_are_those_of_the_whole_reply_and_its_end(tiny: Path, tmp_path: Path) -> None:
    (value,) = reply_logprobs([PROMPT.messages], ["ok"], str(tiny))
    base = load_base(str(tiny))
    prompt = base.tokenizer("<|user|>Hi?<|assistant|>")["input_ids"]
    ids = torch.tensor([[*prompt, *base.tokenizer("ok</s>")["input_ids"]]])
    with torch.no_grad():
        logps = base.model(input_ids=ids).logits.log_softmax(-1)
    wanted = sum(logps[0, at - 1, ids[0, at]].item() for at in range(len(prompt), ids.shape[1]))
    assert value == pytest.approx(wanted, abs=1e-4)
    assert reply_logprobs([PROMPT.messages], ["ok"], str(save_tiny(tmp_path / "o", seed=1))) != [value]
