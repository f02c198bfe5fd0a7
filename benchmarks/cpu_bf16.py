"""What a CPU's bfloat16 units gain on a real model, and how far results move: the same commands with and without them.

    python benchmarks/cpu_bf16.py [--model smollm2] [--rounds 3]     # about ten minutes on two cores with such units

`respond`, `label` and `train dpo` run as commands, in processes of their own, in turn without the units
(PRECEPTOR_CPU_BF16=off) and with them. Times are CPU seconds of the whole process, start and loading included; the
ratio is taken round by round, and the median is told. Beside it stands what came out: replies that are equal to the
letter at temperature 0, the distance of P(a is the better), statuses that are the same, the distance of DPO's losses.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PAIRS = HERE / "data" / "hh-rlhf" / "pairs.jsonl.gz"
PROMPTS = HERE.parent / "prompts" / "pools" / "everyday.jsonl"
UNITS = {"float32": "off", "bf16": "on"}
"""What each side sets PRECEPTOR_CPU_BF16 to; `off` alone has a meaning."""


class Job(NamedTuple):
    """A command that is measured."""

    name: str
    words: tuple[str, ...]
    """Without --out."""
    rows: str
    """The file of its result that is compared, below --out; empty: --out itself."""


def jobs(model: str, folder: Path) -> list[Job]:
    """The commands, on files that are written into the folder."""
    prompts, pairs = folder / "prompts.jsonl", folder / "pairs.jsonl"
    prompts.write_text("".join(islice(PROMPTS.open(encoding="utf-8"), 16)), encoding="utf-8")
    with gzip.open(PAIRS, "rt", encoding="utf-8") as source:
        pairs.write_text("".join(islice(source, 32)), encoding="utf-8")
    drawn = ("--samples", "1", "--temperature", "0", "--max-tokens", "64")
    judged = ("-c", "helpful-harmless", "--judge", model, "--format", "hh")
    trained = ("--model", model, "--format", "hh", "--max-length", "384", "--batch-size", "8")
    return [
        Job("respond", ("respond", str(prompts), "--model", model, *drawn), ""),
        Job("label", ("label", str(pairs), *judged), "labels.jsonl"),
        Job("train dpo", ("train", "dpo", str(pairs), *trained), "metrics.jsonl"),
    ]


def ran(job: Job, units: str, out: Path) -> float:
    """CPU seconds of one command, which writes to `out`. Raises CalledProcessError with what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PRECEPTOR_CPU_BF16": UNITS[units]}
    words = [sys.executable, "-m", "preceptor", *job.words, "--out", str(out)]
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compared(name: str, one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> str:
    """In words, how far the results of a command are apart."""
    both = list(zip(one, other, strict=True))
    if name == "respond":
        return f"{sum(a['text'] == b['text'] for a, b in both)} of {len(both)} replies equal"
    if name == "label":
        apart = [
            abs(a["probability"] - b["probability"])
            for a, b in both
            if a["probability"] is not None and b["probability"] is not None
        ]
        same = sum(a["status"] == b["status"] for a, b in both)
        return (
            f"P(a) apart by {statistics.fmean(apart):.4f} on average, {max(apart):.4f} at most; "
            f"{same} of {len(both)} statuses equal"
        )
    losses = [abs(a["loss"] - b["loss"]) for a, b in both if "loss" in a]
    return f"losses of {len(losses)} steps apart by {max(losses):.4f} at most"


def main() -> None:
    """Print a row for each command."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--model", default="smollm2")
    given.add_argument("--rounds", type=int, default=3)
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        print("| command | float32, s of CPU | bf16 | gain | results |\n|---|---:|---:|---:|---|")  # noqa: T201
        for job in jobs(options.model, folder):
            seconds: dict[str, list[float]] = {units: [] for units in UNITS}
            for number in range(options.rounds):
                for units in UNITS:
                    out = folder / f"{job.name.replace(' ', '-')}-{units}-{number}"
                    seconds[units].append(ran(job, units, out))
            begun = (folder / f"{job.name.replace(' ', '-')}-{units}-0" for units in UNITS)
            results = [rows_of(path / job.rows if job.rows else path) for path in begun]
            slow, fast = (statistics.median(seconds[units]) for units in UNITS)
            gain = statistics.median(a / b for a, b in zip(seconds["float32"], seconds["bf16"], strict=True))
            print(  # noqa: T201
                f"| {job.name} | {slow:.1f} | {fast:.1f} | {gain:.2f} | {compared(job.name, *results)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
