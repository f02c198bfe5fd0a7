"""What trainings were planned to take beside what they took, as ratios: memory, disk, time.

    OMP_NUM_THREADS=1 python benchmarks/plan.py          # about a minute on an idle core

Every stage on the embedded model, and on a random Llama four times as wide. A ratio above 1 is a plan that was
too large. The time is that of the clock and, beside it, of the processor, which other programs on the machine
do not lengthen; the latter compares with the plan only where one thread computes.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from train_pairs import ROWS, make_model

COLUMNS = (
    "model",
    "stage",
    "steps",
    "memory",
    "planned MiB",
    "disk",
    "time, clock",
    "time, processor",
    "plan, s",
)


def main(
    pairs: Annotated[int, typer.Option(help="Of hh-rlhf, trained on in batches of 8.")] = 48,
    width: Annotated[int, typer.Option(help="Of the random model.")] = 768,
    layers: Annotated[int, typer.Option(help="Of the random model.")] = 4,
) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    from train.rows import read_preferences

    folder = Path(tempfile.mkdtemp(prefix="plan-"))
    make_model(folder / "random", width, layers)
    rows = read_preferences(ROWS, "hh").rows[:pairs]
    typer.echo("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for model in ("embedded", str(folder / "random")):
        for stage in ("sft", "reward", "dpo", "kto"):
            typer.echo("| " + " | ".join(measured(stage, model, rows, folder)) + " |")


def measured(stage: str, model: str, pairs: list[Any], folder: Path) -> list[str]:
    """One row of the table."""
    from train import dpo, kto, reward, sft
    from train.rows import Demonstration
    from train.settings import DpoSettings, KtoSettings, RewardSettings, SftSettings
    from train.unpaired import Verdict

    texts = [(row.id, row.prompt, row.chosen[-1].content) for row in pairs]
    shown = [Demonstration(id=number, prompt=prompt, completion=text) for number, prompt, text in texts]
    judged = [
        Verdict(id=number, prompt=prompt, completion=text, good=at % 2 == 0)
        for at, (number, prompt, text) in enumerate(texts)
    ]
    stages: dict[str, tuple[Any, Any, Any, list[Any]]] = {
        "sft": (sft.plan_sft, sft.train_sft, SftSettings, shown),
        "reward": (reward.plan_reward, reward.train_reward, RewardSettings, pairs),
        "dpo": (dpo.plan_dpo, dpo.train_dpo, DpoSettings, pairs),
        "kto": (kto.plan_kto, kto.train_kto, KtoSettings, judged),
    }
    plan_of, train, kind, rows = stages[stage]
    settings = kind(model=model, batch_size=8, max_length=512)
    plan_of(rows, settings)  # the libraries' first calls are not the plan's
    begin_s = time.process_time()
    plan = plan_of(rows, settings)
    plan_s = time.process_time() - begin_s
    begin_s = time.process_time()
    trained = train(rows, settings, folder / f"{stage}-{Path(model).name}")
    processor_s = time.process_time() - begin_s - plan_s  # it plans once more
    found = trained.measured
    return [
        Path(model).name,
        stage,
        f"{plan.steps} of {trained.steps}",
        f"{plan.memory_bytes / found['memory_bytes']:.3f}",
        f"{plan.memory_bytes / 2**20:.0f}",
        f"{plan.disk_bytes / found['disk_bytes']:.3f}",
        f"{plan.time_s / found['time_s']:.2f}",
        f"{plan.time_s / processor_s:.2f}",
        f"{plan_s:.2f}",
    ]


if __name__ == "__main__":
    typer.run(main)
