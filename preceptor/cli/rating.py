"""`preceptor score --reward-model`: rewards of a trained model, where `score` else asks a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from preceptor.cli import console
from preceptor.constitution.errors import UserError
from preceptor.doctor import need_training

if TYPE_CHECKING:
    from preceptor.train.evaluation.rating import Rated


def rate(
    replies: str,
    folder: Path,
    out: Path,
    *,
    weights: Sequence[str],
    disagreement: Path | None,
    most: int,
    batch_size: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Score every reply of a file in batches, and write the pairs that are worth a label next where asked to."""
    from preceptor.asking import stages
    from preceptor.prompts.rows import write_rows, writing

    need_training()
    rows = list(islice(stages.replies_from(replies), limit))
    from preceptor.judge.models.local.weights_hash import weights_hash
    from preceptor.train.evaluation.rating import check_ensemble, doubts, rated
    from preceptor.train.forward.reward_model import RewardModel

    model = RewardModel.load(folder)
    if weights:
        model.heads = _reweighted(model.heads, weights)
    if disagreement is not None:
        check_ensemble(model, str(folder))
    made: list[Rated] = []
    counts: Counter[str] = Counter()
    name = f"{folder}#{weights_hash(str(folder))[:12]}"
    with writing(out) as write, console.counting("score", len(rows)) as step:
        for row in rated(model, rows, name, batch_size):
            write(row)
            counts[row.status] += 1
            step(1)
            if disagreement is not None:
                made.append(row)
    rewards = f"{counts['ok']} scored, {counts['too_long']} too long to be scored"
    result: dict[str, Any] = {"out": str(out), "replies": len(rows), **counts}
    if disagreement is not None:
        found = doubts(made, most)
        write_rows(disagreement, (doubt.pair for doubt in found))
        result |= {"disagreement": str(disagreement), "pairs": len(found)}
        rewards += f"; {len(found)} pairs to label next in {disagreement}"
    console.say(f"{out}: {len(rows)} replies, {rewards}")
    if as_json:
        console.result(result)
    else:
        typer.echo(str(out))


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
