"""What changed: win rate, shares of satisfied principles, diversity, distance from the reference.

Statistics alone, without a model, but for `reply_logprobs`, which reads the numbers that `kl_nats` needs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from preceptor.judge.records import Label, Status
from preceptor.judge.statistics import Z95, Interval, wilson
from preceptor.prompts.records import Message

OVERALL = "overall"
JUDGED: frozenset[Status] = frozenset({"ok", "tie", "inconsistent"})
UNJUDGED: frozenset[Status] = frozenset(get_args(Status)) - JUDGED


class WinRate(NamedTuple):
    """How often the policy's reply is the better one."""

    rate: float
    """(wins + ties / 2) / judged; NaN where nothing was judged."""
    low: float
    high: float
    """95 % interval of `rate`."""
    judged: int
    """wins + losses + ties."""
    wins: int
    losses: int
    ties: int
    """Ties and comparisons in which the two orders disagree: half a win each."""
    inconsistent: int
    """Part of `ties`: the orders disagree."""
    unjudged: dict[Status, int]
    """Status -> comparisons that say nothing: of any status that is not in `JUDGED`."""


class KlEstimate(NamedTuple):
    """KL(policy || reference) per reply."""

    nats: float
    low: float
    high: float
    """95 % interval of `nats`."""
    n: int


def win_rate(labels: Sequence[Label]) -> WinRate:
    """Win rate of the policy, whose reply is `response_a` of every label, against the baseline's
    `response_b`.

    The interval is Wilson's on halves, a little too wide where ties are many. Nothing is left out in silence:
    a label is a win, a loss, a tie, or counted in `unjudged`.
    """
    said: Counter[Status] = Counter(label.status for label in labels)
    decided = [
        label.probability for label in labels if label.status == "ok" and label.probability is not None
    ]
    wins = sum(probability > 0.5 for probability in decided)
    losses = sum(probability < 0.5 for probability in decided)
    ties = said["tie"] + said["inconsistent"] + said["ok"] - wins - losses
    interval = wilson(wins + ties / 2, wins + losses + ties)
    unjudged = {status: count for status, count in said.items() if status in UNJUDGED}
    return WinRate(
        rate=interval.share,
        low=interval.low,
        high=interval.high,
        judged=interval.n,
        wins=wins,
        losses=losses,
        ties=ties,
        inconsistent=said["inconsistent"],
        unjudged=unjudged,
    )


def satisfied(replies: Sequence[Mapping[str, bool]]) -> dict[str, Interval]:
    """Share of replies that satisfy each principle, with Wilson's 95 % interval, and all of theirs under
    OVERALL.

    `replies`: for each reply, principle -> whether it is satisfied, for the principles that apply to its
    prompt.
    """
    names = sorted({name for reply in replies for name in reply})
    shares = {}
    for name in names:
        values = [reply[name] for reply in replies if name in reply]
        shares[name] = wilson(sum(values), len(values))
    shares[OVERALL] = wilson(sum(all(reply.values()) for reply in replies), len(replies))
    return shares


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all word n-grams of the texts together; 0 where there is none.

    Li et al. 2016 (arXiv 1510.03055), section 5.2. It falls with the amount of text: compare equal numbers of
    replies.
    """
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.lower().split()
        grams.update(zip(*(words[start:] for start in range(n)), strict=False))
    total = grams.total()
    return len(grams) / total if total else 0.0


def kl_nats(policy_logps: Sequence[float], reference_logps: Sequence[float]) -> KlEstimate:
    """Mean of log pi - log pi_ref over replies that the policy sampled at temperature 1, an unbiased
    estimate.

    The log-probabilities are of whole replies, in nats. At another temperature the samples are not the
    policy's own, and the figure says how much more probable the replies became.
    """
    gaps = [a - b for a, b in zip(policy_logps, reference_logps, strict=True)]
    n = len(gaps)
    if n == 0:
        return KlEstimate(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(gaps) / n
    spread = math.fsum((gap - mean) ** 2 for gap in gaps) / max(n - 1, 1)
    half = Z95 * math.sqrt(spread / n)
    return KlEstimate(mean, mean - half, mean + half, n)


def reply_logprobs(
    prompts: Sequence[Sequence[Message]],
    replies: Sequence[str],
    model: str,
    adapter: str | Path | None = None,
    batch_size: int = 32,
) -> list[float]:
    """Log-probability in nats of each whole reply, its end of turn included, under a model with or without an
    adapter.

    Raises CheckpointError where model or adapter cannot be loaded.
    """
    from preceptor.train.data.pairs import encode_messages, encode_reply, turn_ends
    from preceptor.train.forward.reply_logprobs import row_logprobs
    from preceptor.train.models.adapters import adapt_from
    from preceptor.train.models.base import load_base
    from preceptor.train.models.devices import training_device

    base = load_base(model)
    ends = turn_ends(base.tokenizer, base.generation_eos)
    rows = []
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = encode_messages(base.tokenizer, prompt, generation_prompt=True)
        message = Message(role="assistant", content=reply)
        rows.append((ids, encode_reply(base.tokenizer, prompt, ids, [message], ends)))
    subject: Any = base.model if adapter is None else adapt_from(base, Path(adapter), frozen_reference=False)
    subject.to(training_device())
    return [float(value) for value in row_logprobs(subject, rows, base.pad_id, batch_size)]
