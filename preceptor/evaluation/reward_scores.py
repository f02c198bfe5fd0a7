"""A file of replies scored by a trained reward model, and the pairs on which the members of an ensemble differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.constitution.outputs import refuse_output_in
from preceptor.judge.models.local.weights_hash import weights_name
from preceptor.judge.score import ReplyToScore
from preceptor.prompts.rows import write_rows, writing
from preceptor.settings import RatingOptions
from preceptor.train.evaluation.rating import Rated, check_ensemble, doubts, rated
from preceptor.train.forward.reward_model import RewardModel

OpenCountingBar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar for what it is told, of so many rows; the function that it gives is told of rows done."""


class ScoredReplies(NamedTuple):
    """What became of the replies."""

    replies: int
    by_status: Counter[str]
    pairs: int | None
    """Written as most worth a label; None where nobody asked for them."""


def score_replies(
    replies: Callable[[], Iterable[ReplyToScore]],
    folder: Path,
    out: Path,
    rating: RatingOptions,
    limit: int | None,
    bar: OpenCountingBar,
) -> ScoredReplies:
    """Score every reply by the reward model of a folder, each to the file, and write the pairs that are worth a label
    next where the options name a file for them. limit: replies that are read.

    Raises UserError for options that do not go with the model.
    """
    refuse_output_in(folder)
    rows = list(islice(replies(), limit))
    model = RewardModel.load(folder)
    if rating.weight:
        model.heads = _reweighted(model.heads, rating.weight)
    if rating.disagreement is not None:
        check_ensemble(model, str(folder))
    made: list[Rated] = []
    counts: Counter[str] = Counter()
    with writing(out) as write, bar("score", len(rows)) as step:
        for row in rated(model, rows, weights_name(folder), rating.batch_size):
            write(row)
            counts[row.status] += 1
            step(1)
            if rating.disagreement is not None:
                made.append(row)
    if rating.disagreement is None:
        return ScoredReplies(len(rows), counts, None)
    found = doubts(made, rating.most)
    write_rows(rating.disagreement, (doubt.pair for doubt in found))
    return ScoredReplies(len(rows), counts, len(found))


def _reweighted(heads: Any, weights: Sequence[str]) -> Any:
    """The heads with weights given as PRINCIPLE=NUMBER. Raises UserError."""
    given: dict[str, float] = {}
    for text in weights:
        name, _, number = text.partition("=")
        try:
            given[name] = float(number)
        except ValueError:
            raise UserError(f"--weight is {text!r}; wanted PRINCIPLE=NUMBER, such as concise=2") from None
    try:
        return heads.reweighted(given)
    except ValueError as error:
        raise UserError(f"--weight: {error}") from None
