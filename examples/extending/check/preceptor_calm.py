"""A machine check: how many exclamation marks a reply may have."""

from __future__ import annotations

from typing import Any

from preceptor.constitution.checks import Check, CheckInfo, Exchange, Measure


def fault(argument: Any) -> str:
    """What is wrong with the argument, as "ARGUMENT; wanted …"; empty where nothing is."""
    fits = isinstance(argument, int) and not isinstance(argument, bool) and argument >= 0
    return "" if fits else f"{argument!r}; wanted a whole number from 0"


def measure(most: int, reply: str, _: Exchange) -> Measure:
    """The same answer for the same reply, always: labels rest on it."""
    count = reply.count("!")
    return Measure(count <= most, f"{count} exclamation marks", f"at most {most}")


MAX_EXCLAMATIONS = Check(
    CheckInfo("max_exclamations", "count", "exclamation marks in the reply, at most", "1"), fault, measure
)
