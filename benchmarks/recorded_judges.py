"""Recorded judges, audited by our own audit, beside what their authors published: writes docs/judges.md.

    python benchmarks/recorded_judges.py DATA [--out docs/judges.md]

DATA holds public recordings as gzipped JSON lines: llmbar/ (github.com/princeton-nlp/LLMBar, the evaluators' outputs
and statistics.json by subset), alpaca_eval/ (github.com/tatsu-lab/alpaca_eval, annotations by annotator) and pandalm/
(github.com/WeOpenML/PandaLM, the test set with three people's and two judges' verdicts).
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import sum_up, weights
from preceptor.judge.audit.audit import audit
from preceptor.judge.audit.biases import VerdictTraits, habits, traits
from preceptor.judge.records import Judgement, Label, Letter, Order
from preceptor.judge.voting.panel import Ballot, agreement
from preceptor.prompts.records import Message, Prompt, content_id

SUBSETS = ("Natural", "Neighbor", "GPTOut", "MT-Bench", "LLMEval2", "Negation", "Normal")
SHOWN = (("GPT-4", "ChatGPT", "LLaMA2"), ("Vanilla", "CoT"))
BETTER = Principle(id="better", text="Choose the better reply.")
RULES = Constitution(name="recorded", principles=(BETTER,))
ORDERS: tuple[tuple[str, Order], ...] = (("swap = False", "original"), ("swap = True", "swapped"))
PUBLISHED = ("correct_False", "correct_True", "correct_both", "equal")
OURS = ("correct_original", "correct_swapped", "correct_both", "orders_agree")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def label_of(
    identity: str, replies: tuple[str, str], verdicts: dict[Order, Letter | None], gold: Letter
) -> Label:
    """A recorded comparison as one of our labels."""
    judgements = tuple(
        Judgement(
            principle=BETTER.id,
            order=order,
            letter=letter,
            probability=None if letter is None else {"a": 1.0, "b": 0.0, "tie": 0.5}[letter],
            status="unparsed" if letter is None else "ok",
            reason="",
            model="recorded",
            call=content_id("call", identity, order),
            sampled=True,
        )
        for order, letter in verdicts.items()
    )
    added = sum_up(judgements, weights(RULES.principles))
    return Label(
        id=identity,
        status=added.status,
        probability=added.probability,
        prompt=Prompt(id=identity, messages=(Message(role="user", content="?"),)),
        response_a=replies[0],
        response_b=replies[1],
        preferred=gold,
        judgements=judgements,
        constitution=RULES.identity,
        judge="recorded",
    )


def llmbar(folder: Path, subset: str) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(evaluator, strategy, our figures, published statistics) of every recorded evaluator on a subset."""
    replies = {
        row["index"]: (row["output_1"], row["output_2"])
        for row in rows(folder / f"dataset_{subset}.jsonl.gz")
    }
    published = {
        (row["evaluator"], row["strategy"]): row
        for row in rows(folder / "statistics.jsonl.gz")
        if row["subset"] == subset
    }
    labels: dict[tuple[str, str], list[Label]] = {}
    letters: dict[Any, Letter | None] = {"1": "a", "2": "b", "tie": "tie"}
    for row in rows(folder / f"recorded_{subset}.jsonl.gz"):
        last = row["results"][-1]
        if not all(isinstance(last[name], dict) for name, _ in ORDERS):
            continue  # ratings, which are no comparisons
        verdicts = {order: letters.get(last[name]["winner"]) for name, order in ORDERS}
        gold: Letter = "a" if row["label"] == 1 else "b"
        made = label_of(str(row["index"]), replies[row["index"]], verdicts, gold)
        labels.setdefault((row["evaluator"], row["strategy"]), []).append(made)
    for key, own in labels.items():
        if key in published and len(own) == len(replies):
            yield *key, audit(own, RULES), published[key]


def count(text: str) -> int:
    """The count in "94 / 100 = 94.0%"."""
    return int(text.split("/")[0])


def llmbar_part(folder: Path) -> list[str]:
    """The table of the named judges, and how many of all recorded ones have equal counts."""
    lines, equal, different, weak = [], 0, 0, []
    for subset in SUBSETS:
        for evaluator, strategy, found, published in llmbar(folder, subset):
            ours, theirs = [found[name] for name in OURS], [count(published[name]) for name in PUBLISHED]
            equal, different = equal + (ours == theirs), different + (ours != theirs)
            if ours != theirs:
                weak.append(
                    f"{subset} {evaluator} {strategy}: {ours}, published {theirs}, unparsed {found['unparsed']}"
                )
            if evaluator in SHOWN[0] and strategy in SHOWN[1]:
                n = found["n"]
                lines.append(
                    f"| {subset} | {evaluator} | {strategy} | {n} | "
                    + " | ".join(f"{a} / {b}" for a, b in zip(ours, theirs, strict=True))
                    + f" | {found['kappa']:.2f} | {found['flip_rate']:.2f} | {found['first_share']:.2f} |"
                    f" {found['longer_share']:.2f} | {'equal' if ours == theirs else 'DIFFERENT'} |"
                )
    head = (
        "| subset | judge | prompt | pairs | right, a first | right, b first | right in both | orders agree "
    )
    return [
        "## LLMBar",
        "",
        "Our count / the published one. The inconsistent rate of JudgeBench (Tan et al. 2024) is the flip rate.",
        "",
        head + "| kappa | flip rate | first slot | longer | |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        *lines,
        "",
        f"Of all recorded evaluators and prompts, {equal} have equal counts and {different} have not. These differ",
        "in the orders that agree alone, by replies in which the recording has no verdict: two such replies to a",
        "pair are published as agreeing with one another, and here they agree in nothing.",
        "",
        *(f"- {line}" for line in weak),
        "",
    ]


def table_of(cast: Sequence[Ballot]) -> list[str]:
    """Agreement of judges two by two, and Krippendorff's alpha."""
    found = agreement(cast)
    names = list(found["matrix"])
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for name in names:
        cells = [
            ""
            if other == name
            else f"{found['matrix'][name][other]['share']:.3f} ({found['matrix'][name][other]['n']})"
            for other in names
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "", f"Krippendorff's alpha (nominal): {found['alpha']:.3f}", ""]


def alpaca_part(folder: Path) -> list[str]:
    """How far the recorded annotators agree where they judged the same pair, and what they like."""
    cast: list[Ballot] = []
    lines = []
    for path in sorted(folder.glob("annotations_*.jsonl.gz")):
        name = path.name.removeprefix("annotations_").removesuffix(".jsonl.gz")
        verdicts = []
        for row in rows(path):
            if row["preference"] is None:
                continue
            share = 2.0 - float(row["preference"])  # 1: the first output, 2: the second
            letter: Letter = "tie" if share == 0.5 else "a" if share > 0.5 else "b"
            pair = content_id("pair", row["instruction"], row["output_1"], row["output_2"])
            cast.append(Ballot(pair, name, letter))
            label = label_of(pair, (row["output_1"], row["output_2"]), {"original": letter}, "a")
            verdicts.append(VerdictTraits(letter, None, traits(label)))
        own = habits(verdicts)
        lines.append(
            f"| {name} | {len(verdicts)} | {own['longer_share']:.3f} | {own['length_coefficient']:+.2f} ± "
            f"{own['length_stderr']:.2f} | {own['list_share']:.3f} |"
        )
    return [
        "## AlpacaEval",
        "",
        "One recorded verdict a pair, so flips cannot be seen. The length coefficient is the log-odds with each",
        "doubling of length; gold is not known here, and longer answers are also better ones in part.",
        "",
        "| annotator | verdicts | longer | length coefficient | lists |",
        "|---|---:|---:|---:|---:|",
        *lines,
        "",
        "Share of equal verdicts where two judged the same pair (pairs):",
        "",
        *table_of(shared(cast)),
    ]


def shared(cast: Iterable[Ballot]) -> list[Ballot]:
    """The ballots of judges who met another one somewhere."""
    cast = list(cast)
    judges: dict[str, set[str]] = {}
    for ballot in cast:
        judges.setdefault(ballot.pair, set()).add(ballot.judge)
    met = {judge for names in judges.values() if len(names) > 1 for judge in names}
    return [ballot for ballot in cast if ballot.judge in met]


def pandalm_part(folder: Path) -> list[str]:
    """Three people and two judges on the same pairs, ties allowed."""
    letters: dict[str, Letter] = {"1": "a", "2": "b", "0": "tie", "Tie": "tie"}
    cast = [
        Ballot(str(row["idx"]), f"person {number}", letters[str(row[f"annotator{number}"])])
        for row in rows(folder / "testset.jsonl.gz")
        for number in (1, 2, 3)
    ]
    garbage = 0
    for name, column in (("gpt-3.5-turbo", "gpt_result"), ("pandalm-7b", "pandalm_result")):
        for row in rows(folder / f"recorded_{name}.jsonl.gz"):
            letter = letters.get(str(row[column]))
            garbage += letter is None
            if letter is not None:
                cast.append(Ballot(str(row["idx"]), name, letter))
    return [
        "## PandaLM",
        "",
        f"Three people and two recorded judges, one order, ties allowed; {garbage} replies held no verdict.",
        "",
        *table_of(cast),
    ]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/judges.md"))
    options = parser.parse_args()
    lines = [
        "# Recorded judges",
        "",
        "Made by `python benchmarks/recorded_judges.py DATA` from public recordings (the script says which). Every",
        "figure is from `judge.audit` and `judge.voting.panel`, the code behind `preceptor audit` and the",
        "dataset card.",
        "",
        *llmbar_part(options.data / "llmbar"),
        *alpaca_part(options.data / "alpaca_eval"),
        *pandalm_part(options.data / "pandalm"),
    ]
    options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
