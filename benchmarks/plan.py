"""What trainings were planned to take beside what they took, as ratios: memory, disk, time.

    OMP_NUM_THREADS=1 python benchmarks/plan.py          # about four minutes on an idle core

Every stage on the embedded model, on a random Llama four times as wide, and DPO on a random MPT, which takes no
mask of ours. A ratio above 1 is a plan that was too large. The time is by the clock: only on a machine that does
nothing else does it say anything. Ends with 1 where a figure is off by more than 15 %, and names it.
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
    "time",
    "took, s",
    "limits, %",
    "plan, s",
)


def main(
    pairs: Annotated[
        int, typer.Option(help="Of hh-rlhf, in batches of 8; half as many rows for SFT and KTO.")
    ] = 96,
    width: Annotated[int, typer.Option(help="Of the random model.")] = 768,
    layers: Annotated[int, typer.Option(help="Of the random model.")] = 4,
) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    from preceptor.train.data.readers import read_preferences

    folder = Path(tempfile.mkdtemp(prefix="plan-"))
    make_model(folder / "random", width, layers)
    rows = read_preferences(ROWS, "hh").rows[:pairs]
    typer.echo("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    make_mpt(folder / "mpt", folder / "random")
    missed = []
    for model in ("embedded", str(folder / "random"), str(folder / "mpt")):
        for stage in ("sft", "reward", "dpo", "kto") if not model.endswith("mpt") else ("dpo",):
            row, off = measured(stage, model, rows, folder)
            typer.echo("| " + " | ".join(row) + " |")
            missed += [f"{row[0]} {stage}: {name} {ratio:.2f}" for name, ratio in off.items()]
    typer.echo("\nmore than 15 % off: " + (", ".join(missed) or "none"))
    if missed:
        raise typer.Exit(1)


def make_mpt(folder: Path, llama: Path) -> None:
    """A random MPT with the other model's tokenizer."""
    from transformers import AutoTokenizer, MptConfig, MptForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(llama)
    config = MptConfig(d_model=256, n_heads=8, n_layers=4, max_seq_len=2048, vocab_size=len(tokenizer))
    MptForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measured(stage: str, model: str, pairs: list[Any], folder: Path) -> tuple[list[str], dict[str, float]]:
    """One row of the table, and the ratios that are off."""
    from preceptor.train import dpo, kto, reward, sft
    from preceptor.train.data.readers import Demonstration
    from preceptor.train.data.unpaired import UnpairedExample
    from preceptor.train.settings import DpoSettings, KtoSettings, RewardModelSettings, SftSettings

    texts = [(row.id, row.prompt, row.chosen[-1].content) for row in pairs[::2]]
    shown = [Demonstration(id=number, prompt=prompt, completion=text) for number, prompt, text in texts]
    judged = [
        UnpairedExample(id=number, prompt=prompt, completion=text, good=at % 2 == 0)
        for at, (number, prompt, text) in enumerate(texts)
    ]
    stages: dict[str, tuple[Any, Any, Any, list[Any]]] = {
        "sft": (sft.plan_sft, sft.train_sft, SftSettings, shown),
        "reward": (reward.plan_reward, reward.train_reward, RewardModelSettings, pairs),
        "dpo": (dpo.plan_dpo, dpo.train_dpo, DpoSettings, pairs),
        "kto": (kto.plan_kto, kto.train_kto, KtoSettings, judged),
    }
    plan_of, train, kind, rows = stages[stage]
    settings = kind(model=model, batch_size=8, max_length=512)
    plan_of(rows, settings)  # the libraries' first calls are not the plan's
    begin_s = time.monotonic()
    plan = plan_of(rows, settings)
    plan_s = time.monotonic() - begin_s
    trained = train(rows, settings, folder / f"{stage}-{Path(model).name}")
    found = trained.measured
    ratios = {
        name: getattr(plan, key) / found[key]
        for name, key in (("memory", "memory_bytes"), ("disk", "disk_bytes"), ("time", "time_s"))
    }
    low, high = plan.time_range_s or (float("nan"), float("nan"))
    row = [
        Path(model).name,
        stage,
        f"{plan.steps} of {trained.steps}",
        f"{ratios['memory']:.3f}",
        f"{plan.memory_bytes / 2**20:.0f}",
        f"{ratios['disk']:.3f}",
        f"{ratios['time']:.2f}",
        f"{found['time_s']:.1f}",
        f"{100 * (low / plan.time_s - 1):+.0f} to {100 * (high / plan.time_s - 1):+.0f}",
        f"{plan_s:.2f}",
    ]
    return row, {name: ratio for name, ratio in ratios.items() if not 0.85 <= ratio <= 1.15}


if __name__ == "__main__":
    typer.run(main)
