"""How often certificates and corrected intervals hold over resplits of recorded judges, for docs/certificates.md.

    python benchmarks/certificates.py DATA [--resplits 1000] [--out docs/certificates.md]

DATA holds public recordings as gzipped JSON lines (`recorded_judges.py` says from where): llmbar/, alpaca_eval/,
pandalm/, prometheus-eval/ (github.com/prometheus-eval/prometheus-eval, eval data with three recorded gradings) and
cje/ (github.com/cimo-labs/cje, examples/arena_sample). What stands in the page above the tables stays as it is.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recorded_judges import ORDERS, SUBSETS, rows

from preceptor.judge.audit.certify import Found, Refused, certify, shift
from preceptor.judge.statistics import prediction_powered, rogan_gladen, wilson
from preceptor.judge.voting.choice import Recordings, choose, correctness
from preceptor.judge.voting.confidence import effective_votes, error_correlation

TARGETS = (0.7, 0.8, 0.9)
GOLD = 300
"""Gold rows of a resplit, where the recorded set has twice as many; else half of it."""
THETA = 0.7
"""Win rate of the policy that the corrected win rates are to find."""
FEWEST = 100
"""Pairs that a recorded set must have."""
PROMPTS = ("Vanilla", "Vanilla_NoRules", "CoT", "Metrics_Reference")
"""Of LLMBar's: the bare ones, reasoning, and its authors' best."""


class Recorded(NamedTuple):
    """A recorded judge on pairs with gold."""

    name: str
    confidence: Any
    """(N,) floats, NaN where there is no winner."""
    right: Any
    """(N,) whether the winner is the gold one."""

    @property
    def said(self) -> Any:
        """(N,) what the judge says of the reply that gold finds the better: 1, 0, or 0.5 without a winner."""
        return np.where(np.isnan(self.confidence), 0.5, self.right.astype(float))


def recorded(name: str, probability: Any, share: Any, gold: Any) -> Recorded:
    """From the probability of a (NaN: none), the share of verdicts for the winner, and whether gold is a; NaN gold
    is a tie, with which no winner agrees."""
    winner = np.where(probability > 0.5, 1.0, np.where(probability < 0.5, 0.0, np.nan))
    sure = np.where(np.isnan(winner), np.nan, np.maximum(probability, 1 - probability) * share)
    return Recorded(name, sure, winner == gold)


def llmbar_verdicts(folder: Path) -> tuple[dict[tuple[str, str], Any], Any]:
    """((judge, prompt) -> (N, 2) probability of output_1 by order, NaN without a verdict; (N,) gold)."""
    index: dict[tuple[str, int], int] = {}
    gold: list[float] = []
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    value = {"1": 1.0, "2": 0.0, "tie": 0.5}
    for subset in SUBSETS:
        for row in rows(folder / f"recorded_{subset}.jsonl.gz"):
            last = row["results"][-1]
            if row["strategy"] not in PROMPTS or not all(isinstance(last[name], dict) for name, _ in ORDERS):
                continue
            at = index.setdefault((subset, row["index"]), len(index))
            if at == len(gold):
                gold.append(float(row["label"] == 1))
            orders = [value.get(last[name]["winner"], math.nan) for name, _ in ORDERS]
            found.setdefault((row["evaluator"], row["strategy"]), {})[at] = orders
    tables = {}
    for key, own in found.items():
        tables[key] = np.array([own.get(at, [math.nan, math.nan]) for at in range(len(gold))])
    return tables, np.array(gold)


def both_orders(table: Any) -> Any:
    """(N,) probability where both orders name the same reply, NaN elsewhere, as `judge.aggregate.sum_up` has it."""
    mean = table.mean(axis=1)
    return np.where((table[:, 0] == table[:, 1]) & (mean != 0.5), mean, np.nan)


def llmbar(folder: Path) -> Iterator[Recorded]:
    """Every judge and prompt by itself, and the panel of all judges who were asked for the verdict alone."""
    tables, gold = llmbar_verdicts(folder)
    for (judge, prompt), table in sorted(tables.items()):
        asked = ~np.isnan(table).all(axis=1)
        yield recorded(f"LLMBar {judge} {prompt}", both_orders(table)[asked], 1.0, gold[asked])
    panel = np.stack([both_orders(table) for (_, prompt), table in tables.items() if prompt == "Vanilla"])
    voted = ~np.isnan(panel)
    some = voted.any(axis=0)
    mean = (np.where(voted, panel, 0).sum(axis=0) / np.maximum(voted.sum(axis=0), 1))[some]
    yield recorded("LLMBar panel of all, Vanilla", mean, np.maximum(mean, 1 - mean), gold[some])


def alpaca(folder: Path) -> Iterator[Recorded]:
    """GPT-4 turbo's one token, with its probability, beside its own verdict after reasoning as gold."""
    path = folder / "annotations_alpaca_eval_cot_gpt4_turbo_fn.jsonl.gz"
    gold = {_pair(row): row["preference"] for row in rows(path) if row["preference"] is not None}
    said = {
        _pair(row): row["preference"]
        for row in rows(folder / "annotations_weighted_alpaca_eval_gpt4_turbo.jsonl.gz")
        if row["preference"] is not None and _pair(row) in gold
    }
    first = np.array([2.0 - said[key] for key in said])
    truth = np.array([2.0 - gold[key] for key in said])
    truth = np.where(truth == 0.5, np.nan, (truth > 0.5).astype(float))
    yield recorded("alpaca_eval weighted_gpt4_turbo", first, 1.0, truth)


def _pair(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["instruction"], row["output_1"], row["output_2"]


def pandalm(folder: Path) -> Iterator[Recorded]:
    """Two judges, one order, against what most of three people say."""
    value = {"1": 1.0, "2": 0.0, "0": 0.5, "Tie": 0.5}
    people = {
        row["idx"]: [value[str(row[f"annotator{number}"])] for number in (1, 2, 3)]
        for row in rows(folder / "testset.jsonl.gz")
    }
    gold = {key: float(np.median(said)) if len(set(said)) < 3 else 0.5 for key, said in people.items()}
    truth = np.array([math.nan if said == 0.5 else said for said in gold.values()])
    columns = []
    for name, column in (("gpt-3.5-turbo", "gpt_result"), ("pandalm-7b", "pandalm_result")):
        said = {
            row["idx"]: value.get(str(row[column]), math.nan)
            for row in rows(folder / f"recorded_{name}.jsonl.gz")
        }
        columns.append(np.array([said.get(key, math.nan) for key in gold]))
        yield recorded(f"PandaLM {name}", columns[-1], 1.0, truth)
    mean = np.mean(columns, axis=0)
    yield recorded("PandaLM panel of both", mean, np.maximum(mean, 1 - mean), truth)


def prometheus(folder: Path) -> Iterator[Recorded]:
    """Two replies by GPT-4's first grading; gold is its two other gradings together, where they differ. Every reply is
    in one pair."""
    for name in ("vicuna_eval", "mt_bench_eval"):
        by_question: dict[Any, list[list[float]]] = {}
        for row in rows(folder / f"{name}.jsonl.gz"):
            by_question.setdefault(row["idx"], []).append(row["gpt4_score"])
        pairs = [(own[at], own[at + 1]) for own in by_question.values() for at in range(0, len(own) - 1, 2)]
        first = np.array([a[0] - b[0] for a, b in pairs], float)
        others = np.array([sum(a[1:]) - sum(b[1:]) for a, b in pairs], float)
        truth = np.where(others == 0, np.nan, (others > 0).astype(float))
        yield recorded(f"prometheus {name}, grading 1", 0.5 + first / 8, 1.0, truth)


class Kept(NamedTuple):
    """What became of the resplits of one set at one target."""

    granted: float
    coverage: float
    violated: int
    """Certificates whose set agrees less than the target in the whole recorded set."""
    held_out: int
    """In the rows that are not gold, where their own chance counts, too."""


def resplit(one: Recorded, target: float, resplits: int, seed: int = 0) -> Kept:
    """Certificates from gold drawn from the recorded set, held against all of it, and against the other rows of a
    split."""
    drawn = np.random.default_rng(seed)
    total = len(one.confidence)
    size = min(GOLD, total // 2)
    granted = violated = held_out = 0
    covered = 0.0
    for _ in range(resplits):
        with_return = drawn.integers(0, total, size)
        found = certify(one.confidence[with_return], one.right[with_return], target)
        if isinstance(found, Found):
            granted += 1
            kept = one.confidence >= found.threshold
            covered += kept.mean()
            violated += bool(one.right[kept].mean() < target)
        order = drawn.permutation(total)
        gold, rest = order[:size], order[size:]
        split = certify(one.confidence[gold], one.right[gold], target)
        if isinstance(split, Found):
            kept = rest[one.confidence[rest] >= split.threshold]
            held_out += bool(len(kept) and one.right[kept].mean() < target)
    return Kept(granted / resplits, covered / granted if granted else math.nan, violated, held_out)


class Covered(NamedTuple):
    """How often 95 % intervals hold the truth."""

    agreement: float
    naive_bias: float
    """Mean of the naive agreement, less the truth."""
    wins: float | None
    """None: the judge is near chance, and no win rate is told."""
    naive_wins: float
    told: float
    """Share of the resplits in which a win rate is told."""


def intervals(one: Recorded, resplits: int, seed: int = 0) -> Covered:
    """Of agreement (rows have the judge's confidence alone), and of a win rate of THETA."""
    drawn = np.random.default_rng(seed)
    total = len(one.confidence)
    size = min(GOLD, total // 2)
    claimed = np.where(np.isnan(one.confidence), 0.0, one.confidence)
    truth = one.right.mean()
    held = told = held_wins = held_naive = 0
    bias = 0.0
    for _ in range(resplits):
        gold, others = drawn.integers(0, total, size), drawn.integers(0, total, total)
        made = prediction_powered(claimed[others], claimed[gold], one.right[gold])
        assert made is not None
        held += made.low <= truth <= made.high
        bias += (made.naive - truth) / resplits
        won = drawn.random(total) < THETA
        said = np.where(won, one.said[others], 1 - one.said[others])
        corrected = rogan_gladen(said, one.said[gold])
        plain = wilson(float(said.sum()), total)
        held_naive += plain.low <= THETA <= plain.high
        if corrected is not None:
            told += 1
            held_wins += corrected.low <= THETA <= corrected.high
    return Covered(
        held / resplits, bias, held_wins / told if told else None, held_naive / resplits, told / resplits
    )


def certificate_table(sets: Sequence[Recorded], resplits: int) -> list[str]:
    """One row for each set and target; and what came of all of them."""
    lines = [
        "| recorded judge | pairs | agreement | target | granted | labels kept | violated | in held-out rows |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    worst: list[float] = []
    nothing = 0
    for one in sets:
        agreement = one.right[~np.isnan(one.confidence)].mean()
        for target in (*TARGETS, round(float(agreement) + 0.005, 3)):
            if not 0.5 < target < 1:
                continue
            made = resplit(one, target, resplits)
            worst.append(made.violated / resplits)
            if not made.granted:
                nothing += 1
                continue
            coverage = "–" if math.isnan(made.coverage) else f"{made.coverage:.3f}"
            lines.append(
                f"| {one.name} | {len(one.right)} | {agreement:.3f} | {target:g} | {made.granted:.3f} | {coverage} | "
                f"{made.violated / resplits:.3f} | {made.held_out / resplits:.3f} |"
            )
    noise = 0.05 + 1.645 * math.sqrt(0.05 * 0.95 / resplits)
    over = sum(share > noise for share in worst)
    return [
        *lines,
        "",
        f"Violated in more than 5 % of {resplits:,} resplits and the noise of so many ({noise:.3f}): {over} of "
        f"{len(worst)} pairs of set and target; the most is {max(worst):.3f}. In {nothing} of them no certificate was "
        "ever granted, and they are not shown.",
        "",
    ]


def interval_table(sets: Sequence[Recorded], resplits: int) -> list[str]:
    """One row for each set."""
    lines = [
        "| recorded judge | agreement: holds | naive off by | win rate: holds | naive holds | told |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    inside = {"agreement": [0, 0], "win rate": [0, 0]}
    for one in sets:
        made = intervals(one, resplits)
        wins = "–" if made.wins is None else f"{made.wins:.3f}"
        lines.append(
            f"| {one.name} | {made.agreement:.3f} | {made.naive_bias:+.3f} | {wins} | {made.naive_wins:.3f} | "
            f"{made.told:.3f} |"
        )
        for name, share in (("agreement", made.agreement), ("win rate", made.wins)):
            if share is not None:
                inside[name][0] += 0.94 <= share <= 0.96
                inside[name][1] += 1
    said = "; ".join(f"{name}: {within} of {of}" for name, (within, of) in inside.items())
    return [*lines, "", f"Within 0.94 to 0.96: {said}.", ""]


def panel_table(folder: Path) -> list[str]:
    """Effective votes of the judges of LLMBar who were asked for the verdict alone."""
    tables, gold = llmbar_verdicts(folder)
    names = sorted(judge for judge, prompt in tables if prompt == "Vanilla")
    said = np.stack([both_orders(tables[name, "Vanilla"]) for name in names], axis=1)
    lines = [
        "| judges | pairs that all decide | correlation of errors | effective votes |",
        "|---|---:|---:|---:|",
    ]
    for size in (2, len(names)):
        for some in combinations(range(len(names)), size):
            own = said[:, some]
            decided = ~np.isnan(own).any(axis=1)
            correlation = error_correlation(own[decided] != gold[decided, None])
            if correlation is None:
                continue
            who = ", ".join(names[at] for at in some) if size < len(names) else f"all {size}"
            votes = effective_votes(size, correlation)
            lines.append(f"| {who} | {decided.sum()} | {correlation:.2f} | {votes:.2f} |")
    return [*lines, ""]


def choice_table(folder: Path, resplits: int) -> list[str]:
    """Panels chosen on one half of the rows, on the other half beside the members that looked best."""
    tables, gold = llmbar_verdicts(folder)
    lines = [
        "| judges | resplits | one judge | a panel | the panel loses | members |",
        "|---|---:|---:|---:|---:|---|",
    ]
    drawn = np.random.default_rng(0)
    for prompt in ("Vanilla", "CoT"):
        names = sorted(judge for judge, asked in tables if asked == prompt)
        said = np.stack([both_orders(tables[name, prompt]) for name in names], axis=1)
        some = ~np.isnan(said).all(axis=1)
        known = Recordings(tuple(names), said[some], gold[some])
        panels = lost = 0
        seen: dict[tuple[str, ...], int] = {}
        for _ in range(resplits):
            order = drawn.permutation(len(known.gold))
            one, other = (
                known._replace(said=known.said[half], gold=known.gold[half])
                for half in np.array_split(order, 2)
            )
            chosen = choose(one)
            who = tuple(names[at] for at in chosen)
            seen[who] = seen.get(who, 0) + 1
            if len(chosen) > 1:
                panels += 1
                best = max(chosen, key=lambda at: correctness(one.said[:, [at]], one.gold).mean())
                held_out = [correctness(other.said[:, at], other.gold).mean() for at in (chosen, [best])]
                lost += bool(held_out[0] < held_out[1])
        most = max(seen, key=seen.__getitem__)
        lines.append(
            f"| six, {prompt} | {resplits} | {resplits - panels} | {panels} | {lost} | {', '.join(most)} in "
            f"{seen[most]} |"
        )
    return [*lines, ""]


def cascade_table(folder: Path) -> list[str]:
    """A cheap judge is kept where its orders agree: what that keeps, and what the certificate says of it at 0.8."""
    tables, gold = llmbar_verdicts(folder)
    lines = ["| cheap judge | kept | agreement there | certificate at 0.80 |", "|---|---:|---:|---|"]
    for (judge, prompt), table in sorted(tables.items()):
        if prompt != "Vanilla":
            continue
        asked = ~np.isnan(table).all(axis=1)
        one = recorded(judge, both_orders(table)[asked], 1.0, gold[asked])
        kept = ~np.isnan(one.confidence)
        found = certify(one.confidence, one.right, 0.8)
        said = (
            f"refused: {found.reason}"
            if isinstance(found, Refused)
            else f"granted, {found.coverage:.3f} kept"
        )
        lines.append(f"| {judge} | {kept.mean():.3f} | {one.right[kept].mean():.3f} | {said} |")
    return [*lines, ""]


MEASURED = "## Measured"
"""The heading under which the tables stand."""
CUT = 0.7
"""A reply of the cje sample is good from this grade on."""


def cje_features(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By which replies are like or unlike the gold ones."""
    return {
        "confidence": np.array([abs(row["judge_score"] - CUT) for row in some]),
        "score": np.array([row["judge_score"] for row in some]),
        "length": np.log([len(row["response"]) + 1 for row in some]),
    }


def cje_table(folder: Path) -> list[str]:
    """Gold of one policy, labels of others: the shift test, and agreement where probes know it."""
    base = [row for row in rows(folder / "fresh_base.jsonl.gz") if row.get("oracle_label") is not None]
    lines = [
        "| policy | replies | p of the shift | in | probes that agree | certificate |",
        "|---|---:|---:|---|---:|---|",
    ]
    for name in ("clone", "unhelpful"):
        fresh = list(rows(folder / f"fresh_{name}.jsonl.gz"))
        probes = list(rows(folder / f"probe_{name}.jsonl.gz"))
        test = shift(cje_features(base), cje_features(fresh))
        right = np.mean([(row["judge_score"] >= CUT) == (row["oracle_label"] >= CUT) for row in probes])
        said = "refused: unlike gold" if test.unlike else "not refused for its rows"
        lines.append(f"| {name} | {len(fresh)} | {test.p:.2g} | {test.feature} | {right:.2f} | {said} |")
    return [*lines, ""]


def main() -> None:
    """Put the tables under the page's last heading of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/certificates.md"))
    options = parser.parse_args()
    readers = (
        ("llmbar", llmbar),
        ("alpaca_eval", alpaca),
        ("pandalm", pandalm),
        ("prometheus-eval", prometheus),
    )
    sets = [
        one
        for folder, read in readers
        if (options.data / folder).is_dir()
        for one in read(options.data / folder)
        if len(one.right) >= FEWEST
    ]
    lines = ["### Certificates", "", *certificate_table(sets, options.resplits)]
    lines += ["### Intervals", "", *interval_table(sets, options.resplits)]
    if (options.data / "llmbar").is_dir():
        lines += ["### Cascades", "", *cascade_table(options.data / "llmbar")]
        lines += ["### Votes", "", *panel_table(options.data / "llmbar")]
        lines += ["### Panels", "", *choice_table(options.data / "llmbar", 200)]
    if (options.data / "cje").is_dir():
        lines += ["### A policy that fools its judge", "", *cje_table(options.data / "cje")]
    above = options.out.read_text(encoding="utf-8").partition(MEASURED)[0]
    options.out.write_text("\n".join([above + MEASURED, "", *lines]).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
