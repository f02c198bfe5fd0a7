"""Several judges' votes on the same pairs -> how far they agree, and who is to be believed."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.aggregate import winner
from preceptor.judge.figures import Agreement, SavedFigures, StepFigures, VoteFigures
from preceptor.judge.records import Label, Letter, Vote
from preceptor.judge.settings import Combine
from preceptor.prompts.rows import read_records, write_rows

DAWID_SKENE: Combine = "dawid-skene"
PARTS = 10
"""Into so many runs rows are cut to show what is saved over time."""


class Ballot(NamedTuple):
    """One judge's verdict on one pair."""

    pair: str
    judge: str
    letter: Letter


def ballots(labels: Iterable[Label]) -> list[Ballot]:
    """Every vote that has a winner, or is a tie; a judge who contradicts itself has cast none."""
    return [
        Ballot(label.id, vote.judge, winner(vote.probability))
        for label in labels
        for vote in label.votes
        if vote.probability is not None and vote.status in ("ok", "tie")
    ]


def agreement(cast: Sequence[Ballot]) -> VoteFigures:
    """How far judges agree: `matrix` (judge -> judge -> share of equal verdicts and n) and Krippendorff's `alpha`.

    Alpha is nominal (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"); None where no two judges
    met, or where all verdicts are the same, for which it is not defined.
    """
    by_pair: dict[str, dict[str, Letter]] = {}
    for ballot in cast:
        by_pair.setdefault(ballot.pair, {})[ballot.judge] = ballot.letter
    judges = list(dict.fromkeys(ballot.judge for ballot in cast))
    matrix: dict[str, dict[str, Agreement]] = {name: {} for name in judges}
    for one, other in combinations(judges, 2):
        both = [votes for votes in by_pair.values() if one in votes and other in votes]
        equal = sum(votes[one] == votes[other] for votes in both)
        share: Agreement = {"share": equal / len(both) if both else None, "n": len(both)}
        matrix[one][other] = matrix[other][one] = share
    return {"matrix": matrix, "alpha": _alpha([list(votes.values()) for votes in by_pair.values()])}


def _alpha(verdicts: Sequence[Sequence[Letter]]) -> float | None:
    met = [letters for letters in verdicts if len(letters) > 1]
    kinds = sorted({letter for letters in met for letter in letters})
    if len(kinds) < 2:
        return None
    import krippendorff
    import numpy as np

    counts = np.array([[letters.count(kind) for kind in kinds] for letters in met])
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def require_dawid_skene() -> None:
    """Raises UserError where the library is not installed: to be called before anybody is asked."""
    if find_spec("crowdkit") is None or find_spec("pandas") is None:
        raise UserError(
            "--combine dawid-skene needs crowd-kit; install it with: pip install 'preceptor[panel]'"
        )


def dawid_skene(cast: Sequence[Ballot]) -> Mapping[str, float]:
    """Pair -> probability that a is the better, ties counted half, by every judge's own estimated errors.

    Dawid & Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm". Raises
    UserError where the library for it is not installed.
    """
    if not cast:
        return {}
    require_dawid_skene()
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    table = pd.DataFrame(cast, columns=["task", "worker", "label"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # crowd-kit 1.4 calls what pandas 3 is about to drop
        found = DawidSkene(n_iter=200).fit_predict_proba(table)
    rows = found.reindex(columns=["a", "b", "tie"], fill_value=0.0).fillna(0.0)
    return {str(pair): float(row["a"] + row["tie"] / 2) for pair, row in rows.iterrows()}


def recombined(labels: Sequence[Label]) -> Iterator[Label]:
    """The labels; each that a panel made with the probability that Dawid and Skene's method finds over all of them."""
    panel = [label for label in labels if len(last_votes(label)) > 1]
    found = dawid_skene(ballots([label.model_copy(update={"votes": last_votes(label)}) for label in panel]))
    for label in labels:
        if len(last_votes(label)) < 2 or label.id not in found:
            yield label
            continue
        probability = found[label.id]
        tie = winner(probability) == "tie"
        yield label.model_copy(
            update={"status": "tie" if tie else "ok", "probability": 0.5 if tie else probability}
        )


def recombine(path: Path) -> None:
    """`recombined` of a file of labels."""
    write_rows(path, recombined(list(read_records(path, Label))))


def votes_of(label: Label) -> tuple[Vote, ...]:
    """The label's votes; of one that a single judge made, that judge's."""
    alone = Vote(judge=label.judge, step=0, status=label.status, probability=label.probability)
    return label.votes or (alone,)


def last_votes(label: Label) -> tuple[Vote, ...]:
    """The votes of the step that made the label."""
    last = max((vote.step for vote in label.votes), default=0)
    return tuple(vote for vote in label.votes if vote.step == last)


def accuracy_by_step(labels: Iterable[Label]) -> list[StepFigures]:
    """For each step of an escalation: the pairs that it saw, and those with gold that were right when it ended.

    `right` is over all pairs with gold, each with the verdict of the last step up to this one that saw it: what the
    labels would be worth had the run stopped there. A pair without a verdict is not right.
    """
    seen: Counter[int] = Counter()
    right: Counter[int] = Counter()
    gold = 0
    rows = [label.model_copy(update={"votes": votes_of(label)}) for label in labels]
    steps = max((vote.step for label in rows for vote in label.votes), default=-1) + 1
    for label in rows:
        gold += label.preferred is not None
        for step in range(steps):
            seen[step] += any(vote.step == step for vote in label.votes)
            right[step] += label.preferred is not None and _so_far(label, step) == label.preferred
    return [
        {
            "step": step,
            "pairs": seen[step],
            "right": right[step],
            "accuracy": right[step] / gold if gold else None,
        }
        for step in range(steps)
    ]


def saved_calls(labels: Iterable[Label]) -> SavedFigures:
    """The share of pairs that the first step's judges decided, over all and in the order of the rows."""
    kept = [max((vote.step for vote in label.votes), default=0) == 0 for label in labels]
    size = max(1, -(-len(kept) // PARTS))
    parts = [kept[at : at + size] for at in range(0, len(kept), size)]
    return {
        "share": sum(kept) / len(kept) if kept else None,
        "over_time": [sum(part) / len(part) for part in parts],
    }


def _so_far(label: Label, step: int) -> Letter | None:
    """The winner by the last step up to this one that saw the pair, its votes averaged."""
    reached = max((vote.step for vote in label.votes if vote.step <= step), default=None)
    shares = [v.probability for v in label.votes if v.step == reached and v.probability is not None]
    return winner(sum(shares) / len(shares)) if shares else None
