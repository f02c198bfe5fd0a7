"""Replies -> rewards of a reward model, and the pairs on which its members disagree most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby, islice
from typing import Literal, NamedTuple

from pydantic import Field

from preceptor.judge.pairs import Candidate, slotted
from preceptor.judge.records import Pair
from preceptor.judge.score import ReplyToScore
from preceptor.prompts.records import Message, Prompt, Record
from preceptor.train.errors import TrainDataError
from preceptor.train.evaluation.calibration import sigmoid
from preceptor.train.forward.reward_model import RewardModel

SLAB = 512
"""Replies sorted by length and scored together."""


class Rated(Record):
    """A reply and its reward; `parts` are the scores that the reward is made of, where there are several."""

    id: str
    prompt: Prompt
    text: str
    status: Literal["ok", "too_long"]
    reward: float | None = None
    """In nats: a difference of two is the log-odds that the first reply is the better. None unless ok."""
    spread: float | None = None
    """Standard deviation over an ensemble's members."""
    parts: dict[str, float] = Field(default_factory=dict)
    reward_model: str
    """The folder, and a hash of what lies in it."""


class Doubt(NamedTuple):
    """A pair, and how far the members of an ensemble differ about it."""

    pair: Pair
    deviation: float
    """Standard deviation over the members of the probability that a is the better."""


def rated(model: RewardModel, replies: Iterable[ReplyToScore], name: str, batch_size: int) -> Iterator[Rated]:
    """Every reply with its reward, in the order in which they come; one that is too long is told, not dropped."""
    rest = iter(replies)
    while slab := list(islice(rest, SLAB)):
        turns = [[*one.prompt.messages, Message(role="assistant", content=one.text)] for one in slab]
        rows = [model.taken(conversation) for conversation in turns]
        scored = {at: row for at, row in enumerate(rows) if row is not None}
        tags = [slab[at].prompt.tags for at in scored]
        made = dict(zip(scored, model.rate_rows(list(scored.values()), tags, batch_size), strict=True))
        for at, one in enumerate(slab):
            found = made.get(at)
            yield Rated(
                id=one.id,
                prompt=one.prompt,
                text=one.text,
                status="too_long" if found is None else "ok",
                reward=None if found is None else found.reward,
                spread=found.spread if found is not None and model.heads.kind == "ensemble" else None,
                parts={} if found is None else found.parts,
                reward_model=name,
            )


def doubts(rows: Sequence[Rated], most: int) -> list[Doubt]:
    """For each prompt the two replies on which the members differ most, and of these pairs the `most` doubtful.

    By the members' spread of the probability, as Christiano et al. 2017 (arXiv 1706.03741, section 2.2.4) choose
    what people are asked next. Equal replies make no pair.
    """
    found: list[Doubt] = []
    for _, group in groupby(sorted(rows, key=lambda row: row.prompt.id), key=lambda row: row.prompt.id):
        usable = [row for row in group if row.status == "ok"]
        pairs = [(one, other) for one, other in combinations(usable, 2) if one.text != other.text]
        if pairs:
            one, other = max(pairs, key=lambda pair: deviation(*pair))
            pair = slotted(one.prompt, Candidate(one.id, one.text), Candidate(other.id, other.text))
            found.append(Doubt(pair, deviation(one, other)))
    return sorted(found, key=lambda doubt: (-doubt.deviation, doubt.pair.id))[:most]


def deviation(one: Rated, other: Rated) -> float:
    """Standard deviation over the members of the probability that `one` is the better."""
    shares = [sigmoid(one.parts[member] - other.parts[member]) for member in one.parts]
    mean = sum(shares) / len(shares)
    return float((sum((share - mean) ** 2 for share in shares) / len(shares)) ** 0.5)


def check_ensemble(model: RewardModel, folder: str) -> None:
    """Raises TrainDataError for a reward model whose members could not disagree."""
    if model.heads.kind != "ensemble":
        raise TrainDataError(
            f"{folder} is no ensemble, so nothing in it can disagree: train one with --ensemble 5"
        )
