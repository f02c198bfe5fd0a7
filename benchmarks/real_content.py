"""Whether a run that taught form has spoilt content, by a judge that took no part: a reward model of GPT-4's labels.

    python benchmarks/real_content.py RUN DATA            # RUN: a finished quickstart of the real model

The reward model is that of benchmarks/real_labels.py, trained on DATA's recorded preferences. Such a judge likes length
for its own sake, and a run that teaches brevity would lose by that alone; so wins are also told at equal length: by a
logistic regression on the logarithm of the two replies' ratio in words, its prediction where the ratio is 1. Beside it
stands the perplexity of plain text that no tuning was about, before and after.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from preceptor.evaluation.probes import general
from preceptor.judge.models.registry import weights_of
from preceptor.judge.statistics import Z95, logistic, wilson
from preceptor.prompts.rows import read_records
from preceptor.records import HeldOut
from preceptor.run.files import HELD_OUT, POLICY, PPO_HELD_OUT, PPO_POLICY
from preceptor.train.evaluation.perplexity import passage_nats

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.real_labels import SETS, Compared, accuracy, test_sets, trained, training_pool

POLICIES = {"DPO": (POLICY, HELD_OUT), "PPO": (PPO_POLICY, PPO_HELD_OUT)}
"""Each with its folder and its comparisons with the model as it came."""


def main(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    data: Annotated[Path, typer.Argument(help="The folder of the recordings.")],
    labels: Annotated[int, typer.Option(help="Recorded labels that the judge is trained on.")] = 1000,
    model: Annotated[str, typer.Option(help="Base of the judge.")] = "smollm2",
    epochs: Annotated[float, typer.Option(help="Passes over the labels.")] = 2.0,
    max_length: Annotated[int, typer.Option(help="Tokens of prompt and reply; a reply has half.")] = 768,
    most: Annotated[int | None, typer.Option(help="Pairs of each test set, at most.")] = 100,
) -> None:
    """Train the judge, say how good it is, and print how each policy fares."""
    warnings.simplefilter("ignore")
    base = perplexity(json.loads((run / "manifest.json").read_text(encoding="utf-8"))["settings"]["model"])
    typer.echo(f"perplexity of plain text: {base:.2f}")
    pool = training_pool(data)
    rows = random.Random(0).sample(pool, min(labels, len(pool)))
    rewards = trained(rows, "soft", 0, model, epochs, max_length)
    for name in ("gpt4", "pandalm"):
        typer.echo(
            f"the judge is right on {SETS[name]}: {accuracy(rewards(test_sets(data)[name][:most])):.1%}"
        )
    for policy, (folder, file) in POLICIES.items():
        if (run / file).is_file():
            pairs = [compared(row) for row in read_records(run / file, HeldOut)]
            after = perplexity(f"hf/{run.absolute() / folder}")
            typer.echo(
                f"{policy}: {told(pairs, rewards(pairs))}; perplexity {after:.2f} ({after / base - 1:+.1%})"
            )


def perplexity(name: str) -> float:
    """Of a model on the plain passages that runs are probed with."""
    source = weights_of(name)
    parts = passage_nats(name, source, general().passages)
    return math.exp(sum(part.over for part in parts) / sum(part.under for part in parts))


def compared(row: HeldOut) -> Compared:
    """The reply after training as the better one, the reply before as the worse one."""
    turns = tuple((message.role, message.content) for message in row.prompt.messages)
    return Compared(turns, row.after, row.before)


def told(pairs: Sequence[Compared], rewards: Sequence[tuple[float, float]]) -> str:
    """Wins as they are, and at equal length."""
    import numpy as np

    won = [float(after > before) for after, before in rewards]
    plain = wilson(sum(won), len(won))
    ratios = [math.log((len(pair.better.split()) + 1) / (len(pair.worse.split()) + 1)) for pair in pairs]
    words = statistics.fmean(len(pair.better.split()) for pair in pairs)
    shown = f"wins {plain.share:.1%} ({plain.low:.1%} to {plain.high:.1%}) with {words:.0f} words; at equal length "
    fit = logistic(np.array([[1.0, ratio] for ratio in ratios]), np.array(won))
    if fit is None:
        return f"{shown}unknown: the regression has no finite maximum"
    middle, error = fit[0].coefficient, fit[0].stderr
    low, mid, high = (
        1 / (1 + math.exp(-value)) for value in (middle - Z95 * error, middle, middle + Z95 * error)
    )
    return f"{shown}{mid:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    typer.run(main)
