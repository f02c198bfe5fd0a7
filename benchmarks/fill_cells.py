"""Does filling the cells of a weak principle raise its held-out share more than as many random prompts?

    python benchmarks/fill_cells.py --out runs/fill-cells [--principle steadfast] [--base 120] [--more 60]
        [--seeds 0 1 2]

The front desk, where a principle speaks about prompts with a tag. A pool in which that tag is rare (--share) gets as
many further prompts, twice: `random`, drawn as the pool was, and `fill`, all with the tag, as `synthesize --fill`
writes for the emptiest cell. The world writes them in both arms, since the embedded model cannot write prompts: so
what is measured is where prompts go, and not how well a model writes them. `base` gets none.

Each arm is a run of its own on the embedded model: replies, labels principle by principle, DPO, and replies to held-out
prompts, which the world's oracle reads. The held-out prompts are the same for all arms of a seed, half of them with the
tag. Printed: the principle's share of held-out replies by arm and seed, and over all seeds the difference of `fill` and
`random` on the same prompts, with a bootstrap interval over prompts (95 %). Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preceptor.judge.statistics import bootstrap, wilson
from preceptor.prompts.rows import read_records
from preceptor.records import HeldOut
from preceptor.run.files import HELD_OUT
from preceptor.train.embedded.world import NEEDS_TAG, PoolRow, draw_prompt

ARMS = ("base", "random", "fill")
OTHERS: tuple[tuple[str, ...], ...] = ((), ("other-guest",), ("false-claim",), ("json",))
RUN: dict[str, Any] = {
    "model": "embedded",
    "judge": "embedded",
    "constitution": "front-desk",
    "concurrency": 256,
    "respond": {"samples": 4, "temperature": 1.0, "max_tokens": 96},
    "pairs": "all",
    "truncated": "drop",
    "label": {"principles": "each"},
    "dpo": {"epochs": 2, "learning_rate": 5.0e-4, "batch_size": 16, "beta": 0.2},
    "evaluate": {"oracle": "embedded", "temperature": 0.7},
    "probes": None,
}
"""What `preceptor quickstart` does, without revisions and what follows from them."""


def prompts(count: int, tag: str, share: float, chance: random.Random) -> list[PoolRow]:
    """From the world's learning part, of which this share has the tag."""
    rest = [tags for tags in OTHERS if tag not in tags]
    return [
        draw_prompt(chance, "train", (tag,) if chance.random() < share else chance.choice(rest))
        for _ in range(count)
    ]


def pools(given: argparse.Namespace, tag: str, seed: int) -> dict[str, list[PoolRow]]:
    """Of every arm; all begin with the same prompts."""
    base = prompts(given.base, tag, given.share, random.Random(f"base {seed}"))
    return {
        "base": base,
        "random": base + prompts(given.more, tag, given.share, random.Random(f"random {seed}")),
        "fill": base + prompts(given.more, tag, 1.0, random.Random(f"fill {seed}")),
    }


def held_out(count: int, tag: str, seed: int) -> list[PoolRow]:
    """From the world's other part, every second one with the tag."""
    chance = random.Random(f"held out {seed}")
    rest = [tags for tags in OTHERS if tag not in tags]
    return [
        draw_prompt(chance, "held-out", (tag,) if number % 2 else chance.choice(rest))
        for number in range(count)
    ]


def write(path: Path, rows: Sequence[PoolRow]) -> None:
    """As a file of prompts; a prompt that was drawn twice is kept once."""
    unique = {row["id"]: row for row in rows}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in unique.values()))


def trained(folder: Path, pool: Sequence[PoolRow], apart: Sequence[PoolRow], seed: int) -> list[HeldOut]:
    """The held-out replies of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "pool.jsonl", pool)
    write(folder / "apart.jsonl", apart)
    files = {"file": "pool.jsonl", "held_out": "apart.jsonl"}
    values = {**RUN, "out": "run", "seed": seed, "prompts": files}
    (folder / "run.yaml").write_text(json.dumps(values, indent=1))  # JSON is YAML
    subprocess.run([sys.executable, "-m", "preceptor", "run", "run.yaml"], cwd=folder, check=True)
    return list(read_records(folder / "run" / HELD_OUT, HeldOut))


def marks(rows: Sequence[HeldOut], principle: str) -> dict[str, bool]:
    """Prompt -> whether the trained policy's reply satisfies the principle; only where it speaks."""
    found = {row.prompt.id: row.satisfied_after.get(principle) for row in rows}
    return {name: met for name, met in found.items() if met is not None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--principle", default="steadfast", choices=NEEDS_TAG)
    parser.add_argument("--base", type=int, default=120)
    parser.add_argument("--more", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.02, help="of the pool's prompts that have the tag")
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    tag = NEEDS_TAG[given.principle]
    differences: list[float] = []
    for seed in given.seeds:
        apart = held_out(given.held_out, tag, seed)
        by_arm = {}
        for arm, pool in pools(given, tag, seed).items():
            rows = trained(given.out / f"seed-{seed}" / arm, pool, apart, seed)
            by_arm[arm] = found = marks(rows, given.principle)
            told = {"seed": seed, "arm": arm, "prompts": len(pool), "principle": given.principle}
            share = wilson(sum(found.values()), len(found))
            say(told | {"n": len(found), "share": share.share, "ci95": [share.low, share.high]})
        both = by_arm["fill"].keys() & by_arm["random"].keys()
        differences += [float(by_arm["fill"][name]) - float(by_arm["random"][name]) for name in sorted(both)]
    interval = bootstrap(
        len(differences),
        lambda times: sum(one * n for one, n in zip(differences, times, strict=True)) / len(differences),
    )
    mean = sum(differences) / len(differences) if differences else None
    say({"fill_minus_random": mean, "n": len(differences), "ci95": interval, "seeds": given.seeds})


def say(row: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
