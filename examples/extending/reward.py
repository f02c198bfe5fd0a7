"""A reward of one's own for PPO, GRPO and RLOO: `--reward reward:brevity`, from the folder in which this file lies.

It is called as TRL's reward functions are. It may be asynchronous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def brevity(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float | None]:  # noqa: ARG001
    """A reward for each completion: 1 for one word, less for more.

    None where there is none to be had: such a reply is masked, and never counts as 0.
    """
    return [1.0 / len(words) if (words := text.split()) else None for text in completions]
