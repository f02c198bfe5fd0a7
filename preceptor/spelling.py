"""How settings are spelled on a command line: read without any library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SPELLED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "center_rewards_coefficient": ("--center-rewards",),
        "constitution": ("--constitution", "-c"),
        "four_bit": ("--4bit",),
        "judge": ("--judge", "-j"),
        "as_json": ("--json",),
        "max_cost_usd": ("--max-cost",),
        "out": ("--out", "-o"),
        "prices": ("--price",),
        "then_sync": ("--batch-then-sync",),
        "timeout_s": ("--timeout",),
    }
)
"""Fields whose flags are not simply their names with hyphens."""


def spellings_of(name: str) -> tuple[str, ...]:
    """The flag of a field, the long spelling first."""
    return SPELLED.get(name, (f"--{name.replace('_', '-')}",))
