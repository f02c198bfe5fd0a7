"""Agreement and win rates of replies of one length: a planted judge's own figure comes back."""

from __future__ import annotations

import numpy as np
import pytest

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.audit.audit import audit
from preceptor.judge.audit.length_control import doublings, length_controlled
from tests.judge.audit.test_drift import said

RULES = Constitution(name="one", principles=(Principle(id="kind", text="Be kind."),))


@pytest.mark.parametrize(("share", "pull"), [(0.8, 1.5), (0.6, -1.0), (0.9, 0.0)])
def test_what_length_does_not_explain_comes_back(share: float, pull: float) -> None:
    """Verdicts drawn with this agreement at equal lengths, and this pull of every doubling."""
    rng = np.random.default_rng(0)
    longer = rng.normal(0.7, 1.0, 6000)
    odds = np.log(share / (1 - share)) + pull * longer
    hits = rng.random(6000) < 1 / (1 + np.exp(-odds))
    found = length_controlled(hits.tolist(), longer.tolist())
    assert found is not None
    assert found["ci95"][0] < share < found["ci95"][1]
    assert found["share"] == pytest.approx(share, abs=0.03)
    assert found["length"] == pytest.approx(pull, abs=0.15)
    if pull:
        assert abs(found["naive"] - share) > 0.03, "which the plain share does not tell"


def test_where_there_is_no_model_there_is_no_figure() -> None:
    assert length_controlled([True] * 40, [0.1] * 40) is None
    assert length_controlled([True, False] * 5, [0.1, 0.2] * 5) is None
    assert length_controlled([True] * 20 + [False] * 20, [1.0] * 20 + [-1.0] * 20) is None, "length tells all"
    assert doublings("x" * 7, "x" * 3) == 1.0


def test_an_audit_tells_both() -> None:
    rng = np.random.default_rng(1)
    labels = []
    for number in range(200):
        long = bool(rng.integers(2))
        right = rng.random() < (0.95 if long else 0.6)
        row = said(str(number), ("kind", 0.9 if right else 0.1))
        sizes = (200, 100) if long else (100, 200)
        labels.append(
            row.model_copy(
                update={"preferred": "a", "response_a": "x" * sizes[0], "response_b": "y" * sizes[1]}
            )
        )
    found = audit(labels, RULES)
    controlled = found["length_controlled"]
    assert found["agreement_lc"] == controlled["share"]
    assert controlled["n"] == 200
    assert controlled["length"] > 0.5
    assert audit(labels[:5], RULES)["agreement_lc"] is None
