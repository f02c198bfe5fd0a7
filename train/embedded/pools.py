"""Write the shipped prompt pools from the world: `python -m train.embedded.pools`.

The held-out pool is drawn from combinations of item and value, and from guests, that no training prompt has.
"""

import json
import random
from pathlib import Path

from preceptor.train.embedded.world import PoolRow, SplitName, draw_prompt

FOLDER = Path(__file__).parents[2] / "prompts" / "pools"
POOLS: dict[str, tuple[SplitName, int]] = {
    "front-desk": ("train", 600),
    "front-desk-held-out": ("held-out", 200),
}


def draw_pool(name: str) -> list[PoolRow]:
    """The pool of this name: always the same rows, none twice."""
    split, size = POOLS[name]
    rng = random.Random(name)
    rows: dict[str, PoolRow] = {}
    while len(rows) < size:
        prompt = draw_prompt(rng, split)
        rows[prompt["id"]] = prompt
    return list(rows.values())


def to_lines(rows: list[PoolRow]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write both files."""
    for name in POOLS:
        (FOLDER / f"{name}.jsonl").write_text(to_lines(draw_pool(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
