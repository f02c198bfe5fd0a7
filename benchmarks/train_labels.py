"""What soft labels buy: one reward model from a judge's probabilities, one from its verdicts, one from coins.

    python benchmarks/train_labels.py           # about three minutes on two cores

The embedded world knows which principles a reply keeps, and its annotators prefer by that: with u the number
of principles kept, they take a with probability sigmoid(u_a - u_b) (Bradley and Terry). The judge is noisy: it
knows that probability but for a normal error of 1 in log-odds. Of the same pairs, the three trainings get

    soft    the judge's probability
    hard    the reply that the judge gives more than 1/2, as certain
    coin    a reply drawn with the judge's probability, as certain: one verdict sampled, as most rivals store it

and are held against the annotators' own probability on pairs about other prompts.
"""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

KINDS = ("soft", "hard", "coin")


class Judged(NamedTuple):
    """Two replies, what the annotators think of the first, and what the judge says of it."""

    prompt: Any
    a: str
    b: str
    truth: float
    judge: float


def main(
    pairs: Annotated[int, typer.Option(help="Pairs to train on.")] = 500,
    held_out: Annotated[int, typer.Option(help="Pairs to measure on.")] = 500,
    seeds: Annotated[int, typer.Option(help="Repetitions, each with its own world and weights.")] = 3,
    epochs: Annotated[float, typer.Option(help="Passes over the pairs.")] = 3.0,
) -> None:
    """Train all three in turn and print the table."""
    warnings.simplefilter("ignore")
    cards: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for seed in range(seeds):
        train, test = draw(pairs, seed, "train"), draw(held_out, seed, "held-out")
        for kind in KINDS:
            began_s = time.monotonic()
            cards[kind].append(card(train, test, kind, seed, epochs))
            typer.echo(f"{kind} {seed}: {time.monotonic() - began_s:.0f} s {cards[kind][-1]}", err=True)
    typer.echo(table(cards, pairs, held_out, epochs))


def draw(count: int, seed: int, split: Any) -> list[Judged]:
    """Pairs of replies to prompts of the embedded world."""
    from preceptor.train.embedded.world import draw_prompt, draw_reply, draw_virtues
    from preceptor.train.evaluation.calibration import sigmoid

    rng = random.Random(f"{split}:{seed}")
    found: list[Judged] = []
    while len(found) < count:
        prompt = draw_prompt(rng, split)
        virtues = [draw_virtues(rng, prompt) for _ in range(2)]
        a, b = (draw_reply(rng, prompt, virtue) for virtue in virtues)
        if a != b:
            odds = float(sum(virtues[0].values()) - sum(virtues[1].values()))
            found.append(Judged(prompt, a, b, sigmoid(odds), sigmoid(odds + rng.gauss(0, 1))))
    return found


def preference(number: int, row: Judged, probability: float) -> Any:
    """The pair as a row, with the probability of reply a."""
    from preceptor.judge.records import Preference
    from preceptor.prompts.pool import messages_of
    from preceptor.prompts.records import Message

    chosen, rejected = (row.a, row.b) if probability >= 0.5 else (row.b, row.a)
    likely = max(probability, 1 - probability)
    return Preference(
        id=f"pair-{number}",
        prompt=messages_of(row.prompt),
        chosen=(Message(role="assistant", content=chosen),),
        rejected=(Message(role="assistant", content=rejected),),
        probability=likely,
        margin=2 * likely - 1,
        constitution="embedded",
        judge="noisy",
    )


def label(row: Judged, kind: str, rng: random.Random) -> float:
    """The probability of reply a that a training of this kind is told."""
    if kind == "soft":
        return row.judge
    if kind == "hard":
        return float(row.judge >= 0.5)
    return float(rng.random() < row.judge)


def card(
    train: Sequence[Judged], test: Sequence[Judged], kind: str, seed: int, epochs: float
) -> dict[str, Any]:
    """Figures of the reward model on the held-out pairs, against the annotators' probabilities."""
    from preceptor.train.data.pairs import encode_pairs
    from preceptor.train.evaluation.calibration import report_card
    from preceptor.train.forward.reward_model import RewardModel
    from preceptor.train.reward import train_reward
    from preceptor.train.settings import RewardModelSettings

    rng = random.Random(f"coin:{seed}")
    rows = [preference(number, row, label(row, kind, rng)) for number, row in enumerate(train)]
    settings = RewardModelSettings(
        seed=seed, epochs=epochs, held_out=0.0, learning_rate=1e-3, checkpoint_every=10**6
    )
    with tempfile.TemporaryDirectory() as folder:
        model = RewardModel.load(train_reward(rows, settings, Path(folder) / "rm").folder)
    wanted = [preference(number, row, row.truth) for number, row in enumerate(test)]
    pairs = encode_pairs(wanted, model.base.tokenizer, settings.max_length).rows
    chosen, rejected = model.pair_rewards(pairs, model.pair_features(pairs, 2048, shared=True))  # (P,) each
    margins = (chosen - rejected).tolist()
    decided = [margin for margin, pair in zip(margins, pairs, strict=True) if pair.probability > 0.5]
    figures = report_card(margins, [pair.probability for pair in pairs])
    return {
        "accuracy": sum(margin > 0 for margin in decided) / len(decided),
        **{name: figures[name] for name in ("nll", "nll_floor", "brier", "ece")},
    }


def table(cards: dict[str, list[dict[str, Any]]], pairs: int, held_out: int, epochs: float) -> str:
    """Means over the seeds, with the standard error of the mean."""

    def cell(kind: str, name: str) -> str:
        values = [card[name] for card in cards[kind]]
        spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.3f} ± {spread:.3f}"

    floor = statistics.mean(card["nll_floor"] for card in cards["soft"])
    lines = [
        f"{pairs} pairs, {epochs:g} passes, {held_out} held out, {len(cards['soft'])} seeds; NLL is at least "
        f"{floor:.3f}, the annotators' own entropy; ± is the standard error",
        "",
        "| labels | accuracy | NLL, nats | Brier | ECE |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        cells = " | ".join(cell(kind, name) for name in ("accuracy", "nll", "brier", "ece"))
        lines.append(f"| {kind} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
