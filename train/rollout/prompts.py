"""The prompts that a policy answers while it is trained, in tokens, and which of them each step asks."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from preceptor.judge.models.local.conversation import UnrenderableError
from preceptor.prompts.records import Prompt
from preceptor.train.data.counts import TrainedRows, check_rows
from preceptor.train.data.pairs import encode_messages, fit_prompt, turn_ends
from preceptor.train.models.base import Base
from preceptor.train.rollout.sampling import Sampling
from preceptor.train.settings import RolloutSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenisedPrompt(NamedTuple):
    """A prompt to learn on."""

    prompt: Prompt
    tokens: list[int]


def drawings(prompts: int, *, epochs: float, samples: int, batch_size: int) -> int:
    """How often new replies are drawn in a training on so many prompts: of PPO its steps. batch_size: replies."""
    return math.ceil(epochs * prompts * samples / batch_size)


def encode_prompts(
    prompts: Sequence[Prompt], base: Base, *, max_new_tokens: int, max_length: int
) -> tuple[list[TokenisedPrompt], TrainedRows]:
    """The prompts in tokens, and what became of every row.

    One that leaves no room in `max_length` for a reply of `max_new_tokens` loses its left. Raises TrainDataError where
    there is none at all.
    """
    asked: list[TokenisedPrompt] = []
    shortened = 0
    aside: dict[str, int] = {}
    for prompt in prompts:
        try:
            tokens = encode_messages(base.tokenizer, prompt.messages, generation_prompt=True)
        except UnrenderableError as fault:
            aside[str(fault)] = aside.get(str(fault), 0) + 1
            continue
        fitted = fit_prompt(tokens, max_new_tokens, max_length, base.tokenizer.bos_token_id)
        assert fitted is not None, "the settings leave room for two tokens"
        shortened += len(fitted) < len(tokens)
        asked.append(TokenisedPrompt(prompt, fitted))
    rows: TrainedRows = {
        "in": len(prompts),
        "used": len(asked),
        "held_out": 0,
        "set_aside": aside,
        "shortened": shortened,
    }
    check_rows(rows)
    return asked, rows


def prompts_of_step(count: int, prompts: int, seed: int, step: int) -> list[int]:
    """Numbers of the `prompts` prompts of step 1, 2, ..., out of `count`: pass after pass over all of them, each
    pass in an order of its own."""
    found: list[int] = []
    for place in range((step - 1) * prompts, step * prompts):
        epoch, at = divmod(place, count)
        order = list(range(count))
        random.Random(f"{seed}:{epoch}").shuffle(order)
        found.append(order[at])
    return found


def sampling_of(settings: RolloutSettings, base: Base, device: torch.device) -> Sampling:
    """How replies are drawn of a policy on this base."""
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        stops=turn_ends(base.tokenizer, base.generation_eos),
        batch_tokens=rollout_tokens(settings.rollout_tokens, device),
    )


def rollout_tokens(wanted: int | None, device: torch.device) -> int:
    """Tokens, of prompts and of room for replies, to generate together, also where none are wanted."""
    return wanted or (8192 if device.type == "cpu" else 65536)


def text_of(tokenizer: PreTrainedTokenizerBase, reply: Sequence[int], ended: bool) -> str:
    """A reply as who rewards it reads it: without the token that ended it."""
    return str(tokenizer.decode(list(reply[:-1] if ended else reply), skip_special_tokens=True))


def seed_of(*parts: int) -> int:
    """A seed of 56 bits that belongs to these numbers alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
