"""`preceptor score --reward-model`: rewards of a trained model, where `score` else asks a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from preceptor.cli import console
from preceptor.constitution.errors import UserError
from preceptor.constitution.outputs import refuse_output_in
from preceptor.doctor import need_training
from preceptor.prompts.records import Settings

if TYPE_CHECKING:
    from preceptor.judge.score import ReplyToScore
    from preceptor.train.evaluation.rating import Rated


class RatingOptions(Settings):
    """Scoring by a reward model."""

    reward_model: Path | None = None
    """Instead of a judge: the folder of a trained reward model."""
    weight: tuple[str, ...] = ()
    """With --reward-model per principle: PRINCIPLE=NUMBER, another weight."""
    disagreement: Path | None = None
    """With an ensemble: write the pairs most worth a label here, for `label`."""
    most: int = Field(default=100, gt=0)
    """Pairs in --disagreement."""
    batch_size: int = Field(default=16, gt=0)
    """Replies through a reward model at a time; no score depends on it."""

    def require_none(self) -> None:
        """Raise UserError for what has no effect on a judge."""
        if self.weight or self.disagreement:
            raise UserError("--weight and --disagreement are for --reward-model")


def rate(
    replies: Callable[[], Iterable[ReplyToScore]],
    out: Path,
    rating: RatingOptions,
    limit: int | None,
    as_json: bool,
) -> None:
    """Score every reply of a file in batches, and write the pairs that are worth a label next where asked to."""
    from preceptor.prompts.rows import write_rows, writing

    need_training()
    folder, disagreement = rating.reward_model, rating.disagreement
    assert folder is not None
    refuse_output_in(folder)
    rows = list(islice(replies(), limit))
    from preceptor.judge.models.local.weights_hash import weights_hash
    from preceptor.train.evaluation.rating import check_ensemble, doubts, rated
    from preceptor.train.forward.reward_model import RewardModel

    model = RewardModel.load(folder)
    if rating.weight:
        model.heads = _reweighted(model.heads, rating.weight)
    if disagreement is not None:
        check_ensemble(model, str(folder))
    made: list[Rated] = []
    counts: Counter[str] = Counter()
    name = f"{folder}#{weights_hash(str(folder))[:12]}"
    with writing(out) as write, console.counting("score", len(rows)) as step:
        for row in rated(model, rows, name, rating.batch_size):
            write(row)
            counts[row.status] += 1
            step(1)
            if disagreement is not None:
                made.append(row)
    rewards = f"{counts['ok']} scored, {counts['too_long']} too long to be scored"
    result: dict[str, Any] = {"out": str(out), "replies": len(rows), **counts}
    if disagreement is not None:
        found = doubts(made, rating.most)
        write_rows(disagreement, (doubt.pair for doubt in found))
        result |= {"disagreement": str(disagreement), "pairs": len(found)}
        rewards += f"; {len(found)} pairs to label next in {disagreement}"
    console.say(f"{out}: {len(rows)} replies, {rewards}")
    if as_json:
        console.result(result)
    else:
        console.show(str(out))


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
