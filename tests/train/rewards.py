"""Reward functions for PPO, to be named on a command line or handed over."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

CALLS = 0


def vowels(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:  # noqa: ARG001
    """How many of the first letters of the alphabet a reply holds."""
    return [float(sum(text.count(letter) for letter in "abcdef")) for text in completions]


def vowels_unless_killed(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
    """`vowels`, and at the call that KILL_AT says the end of this process, with no time to tidy up."""
    global CALLS
    CALLS += 1
    if os.environ.get("KILL_AT") == str(CALLS):
        os.kill(os.getpid(), signal.SIGKILL)
    return vowels(prompts, completions, **columns)


def too_few(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:  # noqa: ARG001
    """A function that is wrong."""
    return [0.0]


def broken(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:  # noqa: ARG001
    """A function that raises."""
    raise ZeroDivisionError("division by zero")
