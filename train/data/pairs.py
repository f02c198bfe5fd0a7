"""Preferences as tokens: the prompt once, and both replies. How they lie in a batch: `train.data.collate_pairs`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from preceptor.judge.models.local.conversation import UnrenderableError, ids_of, joins
from preceptor.judge.models.local.text_tokens import text_tokens
from preceptor.judge.records import Preference
from preceptor.prompts.records import Message, canonical_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from preceptor.train.models.base import Base


_log = logging.getLogger(__name__)


class PairTokens(NamedTuple):
    """One pair: the prompt's tokens once, and each reply's tokens with its end of turn."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    probability: float
    id: str
    margin: float = 0.0
    """By how much the chosen reply is the better, on the scale of the data."""
    weight: float = 1.0
    """In the loss, beside the other pairs'."""
    tags: tuple[str, ...] = ()
    opinions: tuple[tuple[str, float], ...] = ()
    """Principle, and the probability that the chosen reply is the better by it alone."""
    gold: str | None = None
    """`chosen`, `rejected` or `tie`: the better reply by people's verdict."""

    @property
    def length(self) -> int:
        """Tokens of the longer of prompt + chosen and prompt + rejected."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def tokens(self) -> int:
        """Tokens of prompt, chosen and rejected together: of the pair's row where the prompt is shared."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


class Encoded(NamedTuple):
    """Tokenised rows and what became of the others."""

    rows: list[PairTokens]
    set_aside: dict[str, int]
    """Reason -> number of rows that are not in `rows`."""
    shortened: int
    """Rows of `rows` whose prompt lost tokens at its left."""
    ids_aside: dict[str, list[str]]
    """Reason -> ids of the rows that are not in `rows`."""


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation_prompt: bool
) -> list[int]:
    """Tokens of a conversation, with the opening of the reply where that is asked for.

    As models are asked at inference (`judge.models.local.conversation`): by the chat template, thinking switched off;
    a system message that the template has no room for opens the first turn instead; without a template, as
    `role: text` paragraphs. What the texts hold is text, whatever it looks like. Raises UnrenderableError.
    """
    rows = [{"role": message.role, "content": message.content} for message in messages]
    ids = ids_of(tokenizer, rows, generation_prompt)
    if not tokenizer.chat_template and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        return ids[:-1]
    return ids


def encode_reply(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    prompt_ids: Sequence[int],
    reply: Sequence[Message],
    ends: frozenset[int],
) -> list[int]:
    """Tokens of a reply as they follow the prompt's, ending in exactly one end of turn.

    They are what the whole conversation's tokens have after the prompt's, cut after the end of turn (some templates
    add a newline there, or an end of text). Where the template writes the prompt differently once a reply stands
    behind it, as templates do that move the system message or drop old reasoning, the reply is looked for behind the
    last turn alone; where it is not found there either, and where there is no template, its text is tokenised on its
    own. A mark in the reply's text is text, and so ends nothing.
    """
    ids = _behind(tokenizer, prompt, prompt_ids, reply)
    if ids is None and len(prompt) > 1 and prompt[-1].role == "user":
        opened = encode_messages(tokenizer, prompt[-1:], generation_prompt=True)
        ids = _behind(tokenizer, prompt[-1:], opened, reply)
    if ids is None:
        ids = text_tokens(tokenizer).text_ids("".join(message.content for message in reply))
    closing = [at for at, token in enumerate(ids) if token in ends]
    if not closing:
        return [*ids, _eos(tokenizer)]
    while len(closing) > 1 and not str(tokenizer.decode(ids[closing[-2] + 1 : closing[-1]])).strip():
        closing.pop()  # the end of text behind an end of turn
    return ids[: closing[-1] + 1]


def _behind(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    prompt_ids: Sequence[int],
    reply: Sequence[Message],
) -> list[int] | None:
    """What the whole conversation has after the prompt's tokens; None where it does not begin with them."""
    if not tokenizer.chat_template:
        return None
    whole = encode_messages(tokenizer, [*prompt, *reply], False)
    return whole[len(prompt_ids) :] if whole[: len(prompt_ids)] == list(prompt_ids) else None


def turn_ends(
    tokenizer: PreTrainedTokenizerBase, generation_eos: int | Sequence[int] | None
) -> frozenset[int]:
    """The tokens that end a turn: the tokenizer's end of text and those of the generation config."""
    more = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
    return frozenset([_eos(tokenizer), *more])


def encode_pairs(
    preferences: Sequence[Preference],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    generation_eos: int | Sequence[int] | None = None,
) -> Encoded:
    """Tokenise pairs; none is dropped without a reason in `set_aside`.

    A pair longer than `max_length` tokens loses the left of its prompt (a beginning-of-text token stays),
    never a part of a reply; one whose longer reply leaves no room for a prompt is set aside, and so is one
    whose replies are the same. A row's `weight` is divided by the mean of all, so that it shifts the weight
    of a pair among the others and not the step.
    """
    ends = turn_ends(tokenizer, generation_eos)
    rows: list[PairTokens] = []
    aside: dict[str, list[str]] = {}
    shortened = 0
    for row in preferences:
        try:
            prompt = encode_messages(tokenizer, row.prompt, generation_prompt=True)
            chosen = encode_reply(tokenizer, row.prompt, prompt, row.chosen, ends)
            rejected = encode_reply(tokenizer, row.prompt, prompt, row.rejected, ends)
        except UnrenderableError as fault:
            aside.setdefault(str(fault), []).append(row.id)
            continue
        fitted = fit_prompt(prompt, max(len(chosen), len(rejected)), max_length, tokenizer.bos_token_id)
        weight = float(row.meta.get("weight", 1.0))
        if chosen == rejected:
            aside.setdefault("chosen and rejected are the same", []).append(row.id)
        elif fitted is None:
            reason = f"a reply alone is longer than max_length = {max_length} tokens"
            aside.setdefault(reason, []).append(row.id)
        elif weight == 0:
            aside.setdefault("its weight is 0", []).append(row.id)
        else:
            shortened += len(fitted) < len(prompt)
            margin = float(row.meta.get("margin", row.margin))
            opinions = tuple((one.principle, one.probability) for one in row.principles)
            rows.append(
                PairTokens(
                    fitted,
                    chosen,
                    rejected,
                    row.probability,
                    row.id,
                    margin,
                    weight,
                    row.tags,
                    opinions,
                    row.gold,
                )
            )
    tell_joined(tokenizer, [row.prompt for row in preferences])
    mean = sum(row.weight for row in rows) / max(len(rows), 1)
    rows = [row._replace(weight=row.weight / mean) for row in rows]
    return Encoded(rows, {reason: len(ids) for reason, ids in aside.items()}, shortened, aside)


def tell_joined(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> None:
    """Say of how many conversations neighbouring turns of one role were joined, because the template refuses them."""
    count = 0
    for prompt in prompts:
        with suppress(UnrenderableError):
            count += joins(tokenizer, [message.role for message in prompt])
    if count:
        _log.warning(
            "%d of %d conversations have neighbouring turns of one role, which were joined",
            count,
            len(prompts),
        )


def fit_prompt(prompt: list[int], reply_tokens: int, max_length: int, bos: int | None) -> list[int] | None:
    """The right end of the prompt that fits beside the reply; None where not even two tokens do."""
    room = max_length - reply_tokens
    if len(prompt) <= room:
        return prompt
    if room < 2:
        return None
    if bos is not None and prompt[0] == bos:
        return [bos, *prompt[len(prompt) - room + 1 :]]
    return prompt[len(prompt) - room :]


def split_held_out(
    preferences: Sequence[Preference], share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """(train, held-out) by a hash of the prompt.

    By the prompt and not by the row, because two pairs about one prompt on both sides would leak; by a hash,
    so that a row keeps its side when others are added.
    """
    train: list[Preference] = []
    held_out: list[Preference] = []
    for row in preferences:
        prompt = canonical_json([message.model_dump() for message in row.prompt])
        digest = hashlib.sha256(f"{seed}:{prompt}".encode()).digest()
        side = held_out if int.from_bytes(digest[:8], "big") < share * 2**64 else train
        side.append(row)
    return train, held_out


def encode_sides(
    preferences: Sequence[Preference], base: Base, *, held_out: float, seed: int, max_length: int
) -> tuple[Encoded, Encoded]:
    """The pairs to train on and the share held out, tokenised."""
    to_train, to_hold = (
        encode_pairs(rows, base.tokenizer, max_length, base.generation_eos)
        for rows in split_held_out(preferences, held_out, seed)
    )
    return to_train, to_hold


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise ValueError("the tokenizer has no end-of-text token")
    return eos
