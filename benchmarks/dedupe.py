"""Near-duplicates among prompts with planted ones: what is found, what is dropped in error, time and memory.

    python benchmarks/dedupe.py [--prompts 2000 10000 100000] [--exact 2000] [--threshold 0.7] [--seed 0]
        [--semhash FOLDER] [--semhash-threshold 0.9]

Prompts are made of random words of a made-up language, so that none is near another by chance; a fifth of them are
copies of an earlier one in which one word was replaced, left out or put in, or of which two neighbours changed places.
A copy is planted where its exact Jaccard share with its original reaches the threshold; the others, which lie just
below it, must be kept. Sides, one after the other in processes of their own:

    ours            the index of `prompts dedupe`: MinHash, then the exact check
    exact           every prompt against every one kept before it, for sizes up to --exact
    datasketch      its MinHashLSH on the same shingles, taken at its word, as distilabel's MinHashDedup does
    semhash         SemHash with the static model in FOLDER, by cosine: install `semhash` for it

SemHash finds likeness in meaning and has a threshold of another kind; the planted copies are near in letters, so its
figures say how far it can stand in for the others here.

Recall: planted copies that were dropped. Precision: those among everything that was dropped.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from preceptor.prompts.near import PERMUTATIONS, NearIndex, Shingles, jaccard, plain, shingles

LETTERS = "abcdefghijklmnopqrstuvwxyz"
COPIES = 0.2
MIB = 1024


class Planted(NamedTuple):
    """A prompt, and whether it is a copy that reaches the threshold."""

    text: str
    copy: bool


def planted(count: int, threshold: float, seed: int) -> Iterator[Planted]:
    """Prompts of 8 to 40 words."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(LETTERS, k=chance.randint(2, 9))) for _ in range(20_000)]
    originals: list[list[str]] = []
    for _ in range(count):
        if originals and chance.random() < COPIES:
            first = originals[chance.randrange(len(originals))]
            text = " ".join(_changed(first, chance.choice(words), chance))
            near = jaccard(shingles(plain(" ".join(first))), shingles(plain(text))) >= threshold
            yield Planted(text, near)
        else:
            originals.append(chance.choices(words, k=chance.randint(8, 40)))
            yield Planted(" ".join(originals[-1]), False)


def _changed(words: list[str], word: str, chance: random.Random) -> list[str]:
    place = chance.randrange(len(words) - 1)
    return [
        [*words[:place], word, *words[place + 1 :]],
        [*words[:place], *words[place + 1 :]],
        [*words[:place], word, *words[place:]],
        [*words[:place], words[place + 1], words[place], *words[place + 2 :]],
    ][chance.randrange(4)]


def ours(texts: list[str], threshold: float) -> list[bool]:
    """Whether each is dropped."""
    dropped = []
    with NearIndex(threshold) as index:
        for text in texts:
            sketch = index.sketch(plain(text))
            dropped.append(next(index.near(sketch), None) is not None)
            if not dropped[-1]:
                index.add(sketch)
    return dropped


def exact(texts: list[str], threshold: float) -> list[bool]:
    """The same without an index."""
    kept: list[Shingles] = []
    dropped = []
    for text in texts:
        found = shingles(plain(text))
        dropped.append(any(jaccard(found, other) >= threshold for other in kept))
        if not dropped[-1]:
            kept.append(found)
    return dropped


def datasketch(texts: list[str], threshold: float) -> list[bool]:
    """The library's index alone: what it calls near is dropped."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    dropped = []
    for number, text in enumerate(texts):
        minima = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        minima.update_batch((shingles(plain(text)) >> np.uint64(32)).tolist())
        dropped.append(bool(index.query(minima)))
        if not dropped[-1]:
            index.insert(str(number), minima)
    return dropped


def semhash(texts: list[str], threshold: float, folder: str) -> list[bool]:
    """By the static model in a folder. threshold: of the cosine."""
    from model2vec import StaticModel
    from semhash import SemHash

    model = StaticModel.from_pretrained(folder)
    made = SemHash.from_records(records=texts, model=model).self_deduplicate(threshold=threshold)
    left = Counter(made.selected)
    kept = []
    for text in texts:  # equal texts are one record; the first stands for them
        kept.append(left[text] > 0)
        left[text] -= 1
    return [not one for one in kept]


SIDES = {"ours": ours, "exact": exact, "datasketch": datasketch}


def measured(
    side: str, count: int, near: float, threshold: float, seed: int, model: str
) -> dict[str, float | int | str]:
    """One side at one size, in this process. near: from which on copies are planted. model: SemHash's folder."""
    rows = list(planted(count, near, seed))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    texts = [row.text for row in rows]
    dropped = semhash(texts, threshold, model) if model else SIDES[side](texts, threshold)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    copies = sum(row.copy for row in rows)
    right = sum(row.copy and gone for row, gone in zip(rows, dropped, strict=True))
    return {
        "side": side,
        "prompts": count,
        "planted": copies,
        "dropped": sum(dropped),
        "precision": right / max(sum(dropped), 1),
        "recall": right / max(copies, 1),
        "cpu_s": cpu,
        "wall_s": wall,
        "mib": grown / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--exact", type=int, default=2000, help="largest size of the side without an index")
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--semhash", default="", metavar="FOLDER", help="of a static model of model2vec")
    parser.add_argument("--semhash-threshold", type=float, default=0.9)
    parser.add_argument("--side", choices=[*SIDES, "semhash"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        by, model = given.threshold, ""
        if given.side == "semhash":
            by, model = given.semhash_threshold, given.semhash
        found = measured(given.side, given.prompts[0], given.threshold, by, given.seed, model)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    same = ["--threshold", given.threshold, "--seed", given.seed]
    same += ["--semhash", given.semhash, "--semhash-threshold", given.semhash_threshold]
    for count in given.prompts:
        for side in [*SIDES, *(["semhash"] if given.semhash else [])]:
            if side == "exact" and count > given.exact:
                continue
            words = ["--side", side, "--prompts", count, *same]
            made = subprocess.run(
                [sys.executable, __file__, *map(str, words)], check=True, capture_output=True, text=True
            )
            sys.stdout.write(made.stdout)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
