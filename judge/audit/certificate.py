"""Labels and their certificate: which are kept, what likeness is tested by, what follows from the rows again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from preceptor.judge.aggregate import winner
from preceptor.judge.audit.biases import traits
from preceptor.judge.audit.certify import LEVEL, Found, Refused, certify, lower_bound, shift
from preceptor.judge.figures import CorrectedAgreement
from preceptor.judge.records import Certificate, CertifiedStep, Label, RefusedStep
from preceptor.judge.statistics import prediction_powered
from preceptor.judge.voting.confidence import confidence

NEVER = 2.0
"""A threshold that no confidence reaches."""
MOST_TAGS = 20
"""Tags whose share is compared, the most frequent among the gold rows."""


class Evidence(NamedTuple):
    """What a certificate needs of each label."""

    confidence: float
    """NaN where there is no winner."""
    step: int
    right: bool
    """Whether the winner is the gold one; False without gold."""
    features: Mapping[str, float]
    tags: tuple[str, ...]


def step_of(label: Label) -> int:
    """The step whose judges made the label."""
    return max((vote.step for vote in label.votes), default=0)


def settled(label: Label, thresholds: Sequence[float]) -> Label:
    """The label, `abstained` where its winner is less sure than its step's threshold; steps beyond them are people."""
    step = step_of(label)
    if label.status != "ok" or step >= len(thresholds) or (confidence(label) or 0.0) >= thresholds[step]:
        return label
    return label.model_copy(update={"status": "abstained"})


def evidence(labels: Iterable[Label]) -> list[Evidence]:
    """Of every label, in their order."""
    return [_evidence(label) for label in labels]


def _evidence(label: Label) -> Evidence:
    sure = confidence(label)
    a, b = len(label.response_a), len(label.response_b)
    said = label.probability is not None and winner(label.probability) == label.preferred
    return Evidence(
        confidence=math.nan if sure is None else sure,
        step=step_of(label),
        right=sure is not None and said,
        features={
            "confidence": math.nan if sure is None else sure,
            "length of the replies": math.log2(a + b + 1),
            "difference of their lengths": abs(traits(label, label.judge).doublings),
            "length of the prompt": math.log2(sum(len(one.content) for one in label.prompt.messages) + 1),
        },
        tags=label.prompt.tags,
    )


def sample(rows: Sequence[Evidence], tags: Sequence[str]) -> dict[str, Any]:
    """Feature -> (N,) values, for `certify.shift`; a tag, which says what principles apply, is 0 or 1."""
    import numpy as np

    names = rows[0].features if rows else {}
    found: dict[str, Any] = {name: np.array([row.features[name] for row in rows]) for name in names}
    return found | {f"tag {tag}": np.array([float(tag in row.tags) for row in rows]) for tag in tags}


def tags_of(rows: Sequence[Evidence]) -> list[str]:
    """The most frequent tags."""
    counts: dict[str, int] = {}
    for row in rows:
        for tag in row.tags:
            counts[tag] = counts.get(tag, 0) + 1
    return sorted(counts, key=lambda tag: (-counts[tag], tag))[:MOST_TAGS]


def first_step(
    judge: str, gold: Sequence[Evidence], target: float, parts: int
) -> CertifiedStep | RefusedStep:
    """What of these judges' labels can be kept, at an equal part of the level for each of several steps."""
    found = certify([row.confidence for row in gold], [row.right for row in gold], target, LEVEL / parts)
    if isinstance(found, Refused):
        return RefusedStep(judge=judge, reason=found.reason, needed=found.needed)
    return _certified(judge, found, len(gold))


def _certified(judge: str, found: Found, seen: int) -> CertifiedStep:
    return CertifiedStep(
        judge=judge, threshold=found.threshold, seen=seen, n=found.n, right=found.right, low=found.low
    )


def certificate(
    target: float,
    steps: Sequence[CertifiedStep],
    refused: Sequence[RefusedStep],
    gold: Sequence[Evidence],
    rows: Sequence[Evidence],
    *,
    constitution: str,
    judge: str,
    date: str,
    floating: Sequence[str] = (),
    ways: int = 1,
) -> Certificate:
    """The certificate of these rows; not granted where they are unlike the gold ones."""
    by_judges = [row for row in rows if row.step < len(steps)]
    likeness = _likeness(gold, by_judges)
    kept = 0 if likeness.unlike else sum(row.confidence >= steps[row.step].threshold for row in by_judges)
    known = [[row for row in side if not math.isnan(row.confidence)] for side in (by_judges, gold)]
    rated, checked = known
    corrected = prediction_powered(
        [row.confidence for row in rated],
        [row.confidence for row in checked],
        [row.right for row in checked],
    )
    return Certificate(
        target=target,
        level=LEVEL,
        ways=ways,
        granted=not likeness.unlike,
        reason=f"the rows are unlike the gold ones in: {likeness.feature}" if likeness.unlike else "",
        steps=tuple(steps),
        refused=tuple(refused),
        gold=len(gold),
        labels=len(rows),
        kept=kept,
        people=len(rows) - len(by_judges),
        shift_p=likeness.p,
        shift_feature=likeness.feature,
        shift_level=likeness.level,
        agreement_naive=corrected.naive if corrected else None,
        agreement=corrected.share if corrected else None,
        agreement_ci95=(corrected.low, corrected.high) if corrected else None,
        constitution=constitution,
        judge=judge,
        floating=tuple(floating),
        date=date,
    )


def corrected_agreement(gold: Sequence[Evidence], rows: Sequence[Evidence]) -> CorrectedAgreement:
    """How often the rows' labels are right, by their confidence and by gold."""
    checked, rated = ([row for row in side if not math.isnan(row.confidence)] for side in (gold, rows))
    found = prediction_powered(
        [row.confidence for row in rated],
        [row.confidence for row in checked],
        [row.right for row in checked],
    )
    likeness = _likeness(gold, rows)
    return {
        "rows": len(rated),
        "gold": len(checked),
        "naive": found.naive if found else None,
        "agreement": found.share if found else None,
        "ci95": [found.low, found.high] if found else None,
        "unlike": likeness.feature if likeness.unlike else "",
    }


def _likeness(gold: Sequence[Evidence], rows: Sequence[Evidence]) -> Any:
    tags = tags_of([*gold, *rows])
    return shift(sample(gold, tags), sample(rows, tags))


def faults(said: Certificate, gold: Sequence[Label], rows: Sequence[Label]) -> Iterator[str]:
    """What of a certificate does not follow from its gold labels and its rows, sentence by sentence."""
    proof, labelled = evidence(gold), evidence(rows)
    parts = (len(said.steps) + len(said.refused)) * said.ways
    for number, step in enumerate(said.steps):
        came = [row for row in proof if row.step >= number]
        kept = [row for row in proof if row.step == number and row.confidence >= step.threshold]
        right = sum(row.right for row in kept)
        if (step.seen, step.n, step.right) != (len(came), len(kept), right):
            yield f"{step.judge}: {right} of {len(kept)} gold rows agree, of {len(came)} seen; it says otherwise"
        elif abs(step.low - lower_bound(right, len(kept), said.level / parts)) > 1e-9:
            yield f"{step.judge}: its bound is not that of {right} in {len(kept)}"
        elif step.low < said.target:
            yield f"{step.judge}: its bound {step.low:.3f} is below the target"
    again = certificate(
        said.target,
        said.steps,
        said.refused,
        proof,
        labelled,
        constitution=said.constitution,
        judge=said.judge,
        floating=said.floating,
        ways=said.ways,
        date=said.date,
    )
    if again != said:
        yield "it is not what its gold labels and its rows say"
