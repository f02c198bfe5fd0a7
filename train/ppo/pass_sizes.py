"""How much of a step of PPO goes through the model at a time, and what is done where memory runs out.

    pass_tokens       of replies that are read: by the reference, the value function, the reward, in the updates
    rollout_tokens    of prompts and of room for replies, while they are drawn

Where it runs out, the work is begun again with half of it at a time (`train.loop.oom_retry`), which changes nothing but
rounding, since gradients are added and a reply's random numbers are its own. The smaller sizes hold from there on and
stand in the checkpoints. An optimiser's own step is not begun again: it could have been done in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from preceptor.train.data.batching import passes
from preceptor.train.loop.oom_retry import MadeT, retry_on_oom, too_long


class PassSizes:
    """The sizes of one training, and what was said when they were halved."""

    def __init__(self, pass_tokens: int, rollout_tokens: int) -> None:
        self.pass_tokens = pass_tokens
        self.rollout_tokens = rollout_tokens
        self.notes: list[str] = []

    def reading(
        self, work: Callable[[], MadeT], lengths: Sequence[int], trained: Iterable[nn.Parameter] = ()
    ) -> MadeT:
        """What `work` makes of rows of these lengths, in passes of at most `pass_tokens`; half as many where that does
        not fit, with the gradients of `trained` forgotten. Raises MemoryShortError where a single row does not fit."""
        weights = list(trained)

        def forget() -> None:
            for weight in weights:
                weight.grad = None

        def halve() -> None:
            before, had = passes(lengths, self.pass_tokens), self.pass_tokens
            if len(before) == len(lengths):
                raise too_long(f"a single row of {max(lengths)} tokens")
            while passes(lengths, self.pass_tokens) == before:
                self.pass_tokens //= 2
            self.notes.append(
                f"memory ran out with {had} tokens a pass: from there on {self.pass_tokens}, in more passes"
            )

        return retry_on_oom(work, forget, halve, 1)

    def drawing(self, work: Callable[[int], MadeT], longest: int) -> MadeT:
        """What `work` makes with at most so many tokens in the cache; half as many where that does not fit. `longest`:
        tokens of the prompt that needs most room, with its replies. Raises MemoryShortError."""

        def halve() -> None:
            had = self.rollout_tokens
            if had <= longest:
                raise too_long(f"drawing the replies to a single prompt, {longest} tokens,")
            self.rollout_tokens = max(longest, had // 2)
            self.notes.append(
                f"memory ran out with {had} tokens drawn together: from there on {self.rollout_tokens}"
            )

        return retry_on_oom(lambda: work(self.rollout_tokens), lambda: None, halve, 1)

    def saved(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "pass_tokens": self.pass_tokens,
            "rollout_tokens": self.rollout_tokens,
            "notes": list(self.notes),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """What `saved` said; nothing in a checkpoint of an older version."""
        self.pass_tokens = saved.get("pass_tokens", self.pass_tokens)
        self.rollout_tokens = saved.get("rollout_tokens", self.rollout_tokens)
        self.notes[:] = saved.get("notes", [])
