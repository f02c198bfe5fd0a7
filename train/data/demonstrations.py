"""Prompts with one reply as tokens, for the trainings that learn from single replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from preceptor.judge.models.local.conversation import UnrenderableError
from preceptor.prompts.records import Message
from preceptor.train.data.counts import TrainedRows
from preceptor.train.data.pairs import encode_messages, encode_reply, fit_prompt, tell_joined, turn_ends
from preceptor.train.data.readers import Demonstration
from preceptor.train.models.base import Base


class Demonstrated(NamedTuple):
    """Tokenised demonstrations, and what became of the others."""

    rows: list[tuple[list[int], list[int]]]
    """Tokens of prompt and reply."""
    numbers: list[int]
    """Of each of them among the demonstrations given."""
    set_aside: dict[str, int]
    """Reason -> number of rows."""
    shortened: int

    @property
    def counts(self) -> TrainedRows:
        """What became of every row."""
        return {
            "in": len(self.rows) + sum(self.set_aside.values()),
            "used": len(self.rows),
            "held_out": 0,
            "set_aside": self.set_aside,
            "shortened": self.shortened,
        }


def encode_demonstrations(
    demonstrations: Sequence[Demonstration], base: Base, max_length: int
) -> Demonstrated:
    """Tokenise as pairs are; a prompt is shortened from its left, never the reply."""
    tokenizer = base.tokenizer
    ends = turn_ends(tokenizer, base.generation_eos)
    rows: list[tuple[list[int], list[int]]] = []
    numbers: list[int] = []
    aside: dict[str, int] = {}
    shortened = 0
    for number, row in enumerate(demonstrations):
        message = Message(role="assistant", content=row.completion)
        try:
            prompt = encode_messages(tokenizer, row.prompt, generation_prompt=True)
            reply = encode_reply(tokenizer, row.prompt, prompt, [message], ends)
        except UnrenderableError as fault:
            aside[str(fault)] = aside.get(str(fault), 0) + 1
            continue
        fitted = fit_prompt(prompt, len(reply), max_length, tokenizer.bos_token_id)
        if fitted is None:
            reason = f"the reply alone is longer than max_length = {max_length} tokens"
            aside[reason] = aside.get(reason, 0) + 1
            continue
        shortened += len(fitted) < len(prompt)
        rows.append((fitted, reply))
        numbers.append(number)
    tell_joined(tokenizer, [row.prompt for row in demonstrations])
    return Demonstrated(rows, numbers, aside, shortened)
