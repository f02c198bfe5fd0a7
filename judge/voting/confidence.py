"""How sure a label is, as one number by which labels can be put in order; how many votes a panel amounts to."""

from __future__ import annotations

import math
from typing import Any

from preceptor.judge.aggregate import deciding, winner
from preceptor.judge.records import Label

PANEL_CORRELATION = 0.35
"""Of the errors of two judges, about as recorded judges have it (docs/certificates.md)."""


def effective_votes(judges: float, correlation: float) -> float:
    """How many independent judges so many like-minded ones are worth: k / (1 + (k - 1) rho).

    Kish 1965, "Survey Sampling", section 8.2 (the design effect of a cluster), with rho the mean correlation of the
    judges' errors, at least 0.
    """
    return judges / (1 + (judges - 1) * max(0.0, correlation)) if judges > 1 else judges


def error_correlation(wrong: Any) -> float | None:
    """Mean correlation, over all pairs of judges, of being wrong. wrong: (N, K) of 0 and 1, rows that all have judged.

    None where no two judges have errors that vary. Without gold, `wrong` may hold the verdicts for a themselves: what
    judges share because it is true then counts as dependence, so that the effective votes are a lower bound.
    """
    import numpy as np

    table = np.asarray(wrong, float)
    if not len(table):
        return None
    varied = table[:, table.std(axis=0) > 0]
    if varied.shape[1] < 2:
        return None
    matrix = np.corrcoef(varied, rowvar=False)
    return float(matrix[np.triu_indices(varied.shape[1], 1)].mean())


def confidence(label: Label) -> float | None:
    """Between 0 and 1: the probability of the winner, averaged over orders, draws and panel, times the share of single
    verdicts that name that winner; None for a label without a winner.

    So a label whose probability is 0.9 because everybody says 0.9 stands above one of whose verdicts one in ten says
    otherwise. Where some of a panel have no verdict, its distance from 0.5 shrinks with the root of the effective
    votes that are left.
    """
    if label.status not in ("ok", "abstained") or label.probability is None:
        return None
    side = winner(label.probability)
    verdicts = [
        winner(one.probability)
        for one in deciding(label)
        if one.probability is not None and (one.call is not None or one.letter != "tie")
    ]
    share = verdicts.count(side) / len(verdicts) if verdicts else 1.0
    found = max(label.probability, 1 - label.probability) * share
    return 0.5 + (found - 0.5) * math.sqrt(_turnout(label))


def reachable(label: Label) -> float:
    """The most that the confidence of a label of one verdict can become when the other order is asked, too.

    With c = p for the reply that it names, the second verdict can at most be certain of the same: (1 + p) / 2; for the
    other reply, of which then one verdict of two says otherwise, less than 1/2. A label without a verdict may still
    become anything.
    """
    if label.probability is None:
        return 1.0
    return (1 + (confidence(label) or 0.5)) / 2


def _turnout(label: Label) -> float:
    last = max((vote.step for vote in label.votes), default=0)
    asked = [vote for vote in label.votes if vote.step == last]
    voted = sum(vote.probability is not None for vote in asked)
    if not asked or not voted:
        return 1.0
    of_all = effective_votes(len(asked), PANEL_CORRELATION)
    return effective_votes(voted, PANEL_CORRELATION) / of_all
