"""Machine checks that a principle may carry: `check: {name: argument, ...}`, all of which must hold.

They serve three ends: as a verdict about a principle without any model, as a verifiable principle beside a
model's verdicts, and as the test of a principle's own examples. A check reads the reply and the text of the
prompt, and always answers the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from preceptor.constitution.checks.catalogue import Check, CheckInfo, Exchange, Measure, checks
from preceptor.constitution.checks.refusal import looks_refused

__all__ = [
    "Check",
    "CheckInfo",
    "Exchange",
    "Finding",
    "Measure",
    "catalogue",
    "looks_refused",
    "passes",
    "run",
    "validate",
]


class Finding(NamedTuple):
    """What one check saw in one reply."""

    check: str
    passed: bool
    measured: str
    """As "73 words"."""
    wanted: str
    """As "at most 60"."""


def catalogue() -> tuple[CheckInfo, ...]:
    """The checks that there are."""
    return tuple(check.info for check in checks().values())


def validate(check: Mapping[str, Any]) -> list[str]:
    """Faults in words, each what came and what was wanted; empty for a check that `run` can take."""
    faults: list[str] = []
    for name, argument in check.items():
        if name not in checks():
            faults.append(f"unknown check {name!r}; wanted {_suggestion(name)}")
        elif fault := checks()[name].fault(argument):
            faults.append(f"check {name} with {fault}")
    return faults


def _suggestion(name: object) -> str:
    near = difflib.get_close_matches(str(name), checks(), n=1)
    return f"{near[0]!r}, perhaps" if near else f"one of {', '.join(checks())}"


def run(check: Mapping[str, Any], reply: str, exchange: Exchange) -> tuple[Finding, ...]:
    """One finding for each name, in the order of the check, which `validate` found without fault.

    UserError where a pattern of the check needs more time than `patterns.SEARCH_LIMIT_S`.
    """
    return tuple(
        Finding(name, *checks()[name].measure(argument, reply, exchange)) for name, argument in check.items()
    )


def passes(check: Mapping[str, Any], reply: str, exchange: Exchange) -> bool:
    """Whether all of them hold."""
    return all(finding.passed for finding in run(check, reply, exchange))
