"""What `constitution induce` finds: a constitution that was planted, and ICAI's own data.

    python benchmarks/induction.py embedded [--pairs 160] [--seeds 0 1 2] [--planted polite concise]
    python benchmarks/induction.py icai DATA --model openai/NAME [--judge openai/NAME] [--pairs 130] [--write DIR]

embedded: pairs of the front desk, of which the one that meets more of the planted principles is preferred; ties are
left out. A scripted model proposes the four principles that the embedded judge can read, the planted ones among them.
So what is measured is the choice and the ways of carrying it out, and not how well a model proposes.

icai: ICAI's synthetic orthogonal pairs, and AlpacaEval's as they are (aligned) and turned round (unaligned). DATA holds
`icai/synthetic_orthogonal.jsonl.gz` and `alpaca_eval/annotations_alpaca_eval_gpt4.jsonl.gz`, in the fields of
github.com/rdnfn/icai (`text_a`, `text_b`, `preferred_text`) and github.com/tatsu-lab/alpaca_eval. ICAI's figures, from
its paper (arXiv:2406.06560), are those of its own models and splits and of human preferences: beside ours, not against.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preceptor.constitution.files import load
from preceptor.train.embedded.lessons import JUDGED
from preceptor.train.embedded.oracle import oracle
from preceptor.train.embedded.world import draw_prompt, draw_reply, draw_virtues

Row = dict[str, Any]
PUBLISHED = {"icai-orthogonal": 0.867, "alpaca-aligned": 0.685, "alpaca-unaligned": 0.664}
"""Agreement of ICAI's constitutional annotator."""


def planted_pairs(count: int, planted: Sequence[str], seed: int) -> Iterator[Row]:
    """Pairs of the front desk with a preference by the planted principles alone."""
    chance = random.Random(seed)
    made = 0
    while made < count:
        prompt = draw_prompt(chance, "held-out")
        replies = [draw_reply(chance, prompt, draw_virtues(chance, prompt)) for _ in range(2)]
        met = [sum(oracle(prompt, reply).get(name, False) for name in planted) for reply in replies]
        if met[0] == met[1]:
            continue
        yield {
            "id": f"planted-{made}",
            "messages": prompt["messages"],
            "tags": prompt["tags"],
            "response_a": replies[0],
            "response_b": replies[1],
            "preferred": "a" if met[0] > met[1] else "b",
        }
        made += 1


def icai_pairs(row: Row) -> Row:
    """A row of ICAI's, whose texts hold instruction and output."""
    texts = [row[name].partition("\n\nOutput:") for name in ("text_a", "text_b")]
    return {
        "id": f"icai-{row['index']}",
        "prompt": texts[0][0].removeprefix("Instruction:").strip(),
        "response_a": texts[0][2].strip(),
        "response_b": texts[1][2].strip(),
        "preferred": row["preferred_text"].removeprefix("text_"),
    }


def alpaca_pairs(rows: Sequence[Row], count: int, turned: bool) -> Iterator[Row]:
    """Rows of AlpacaEval with a preference, drawn by chance; `turned`: for the other reply."""
    known = [row for row in rows if str(row["preference"]) in ("1", "1.0", "2", "2.0")]
    for number, row in enumerate(random.Random(0).sample(known, min(count, len(known)))):
        first = (float(row["preference"]) == 1) != turned
        yield {
            "id": f"alpaca-{number}",
            "prompt": row["instruction"],
            "response_a": row["output_1"],
            "response_b": row["output_2"],
            "preferred": "a" if first else "b",
        }


def read(path: Path) -> list[Row]:
    """The rows of a compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def induced(folder: Path, rows: Sequence[Row], words: Sequence[str]) -> Row:
    """What the command prints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [sys.executable, "-m", "preceptor", "constitution", "induce", "pairs.jsonl", "--json"]
    made = subprocess.run(
        [*command, "--out", "induced.yaml", *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    found: Row = json.loads(made.stdout)
    return found


def say(name: str, found: Row, more: Row) -> None:
    """One line a data set: what was chosen, and the table of executors."""
    executors = {
        one["executor"]: {key: one[key] for key in ("n", "right", "undecided", "share", "ci95")}
        for one in found["executors"]
    }
    chosen = [one["id"] for one in found["principles"]]
    said = {"data": name, "judge": found["judge"], "chosen": chosen, "executors": executors, **more}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def embedded(given: argparse.Namespace, folder: Path) -> None:
    """The planted constitution, seed by seed."""
    texts = {one.id: one.text for one in load("front-desk").principles if one.id in JUDGED}
    proposed = "\n".join(json.dumps({"principle": text}) for text in texts.values())
    script = (folder / "proposer.jsonl").absolute()
    script.write_text(json.dumps({"match": ".", "text": proposed}) + "\n")
    words = ["--model", f"scripted/{script}", "--judge", "embedded", "--proposals", "1", "--no-tie"]
    for seed in given.seeds:
        rows = list(planted_pairs(given.pairs, given.planted, seed))
        found = induced(folder / f"seed-{seed}", rows, words)
        with_words = {text: name for name, text in texts.items()}
        rules = load(folder / f"seed-{seed}" / "induced.yaml").principles
        names = [with_words[one.text] for one in rules]
        say("planted", found, {"seed": seed, "planted": list(given.planted), "found": names})


def icai(given: argparse.Namespace, folder: Path) -> None:
    """ICAI's data by a model that the user names."""
    rows = read(given.data / "alpaca_eval" / "annotations_alpaca_eval_gpt4.jsonl.gz")
    sets = {
        "icai-orthogonal": [
            icai_pairs(row) for row in read(given.data / "icai" / "synthetic_orthogonal.jsonl.gz")
        ],
        "alpaca-aligned": list(alpaca_pairs(rows, given.pairs, turned=False)),
        "alpaca-unaligned": list(alpaca_pairs(rows, given.pairs, turned=True)),
    }
    words = ["--model", given.model, *(["--judge", given.judge] if given.judge else [])]
    for name, some in sets.items():
        say(name, induced(folder / name, some, words), {"icai_published": PUBLISHED[name]})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(required=True)
    one = ways.add_parser("embedded")
    one.add_argument("--pairs", type=int, default=160)
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    one.add_argument("--planted", nargs="+", default=["polite", "concise"], choices=JUDGED)
    one.set_defaults(run=embedded)
    other = ways.add_parser("icai")
    other.add_argument("data", type=Path)
    other.add_argument("--model", required=True)
    other.add_argument("--judge")
    other.add_argument("--pairs", type=int, default=130)
    other.set_defaults(run=icai)
    for way in (one, other):
        way.add_argument("--write", type=Path, help="folder in which pairs, constitutions and ledgers stay")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.write or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        given.run(given, folder)


if __name__ == "__main__":
    main()
