"""Preferences as tokens: the prompt once, both replies, and batches of them.

A pair is kept as three token lists (`PairTokens`), so that the layout of a batch is this module's own affair.
Here a batch is laid out in two right-padded rows a pair, chosen rows first; whoever reads a `PairBatch` uses
its masks and indices alone, and does not see the layout change.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.utils.data import Sampler

from judge.records import Preference
from prompts.records import Message, canonical_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GROUP_BATCHES = 8
"""Batches are cut from runs of this many batches sorted by length: less padding, and still a shuffle."""


class PairTokens(NamedTuple):
    """One pair: the prompt's tokens once, and each reply's tokens with its end of turn."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    probability: float
    id: str

    @property
    def length(self) -> int:
        """Tokens of the longer of prompt + chosen and prompt + rejected."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class Encoded(NamedTuple):
    """Tokenised rows and what became of the others."""

    rows: list[PairTokens]
    set_aside: dict[str, int]
    """Reason -> number of rows that are not in `rows`."""
    shortened: int
    """Rows of `rows` whose prompt lost tokens at its left."""


class PairBatch(NamedTuple):
    """B pairs as R = 2B rows of T tokens: row b holds the chosen, row B + b the rejected reply of pair b."""

    input_ids: Tensor  # (R, T) int64
    attention_mask: Tensor  # (R, T) int64, 0 on padding
    reply_mask: Tensor  # (R, T) bool, true on reply tokens and their end of turn
    last: Tensor  # (R,) int64, index of each row's last reply token
    probability: Tensor  # (B,) float32, that the chosen reply is the better
    number: Tensor  # (B,) int64, number of the pair in the data set


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation_prompt: bool
) -> list[int]:
    """Tokens of a conversation, with the opening of the reply where that is asked for.

    As models are asked at inference: by the chat template, thinking switched off; a system message that the
    template refuses opens the first turn instead; without a template, as `role: text` paragraphs.
    """
    rows = [{"role": message.role, "content": message.content} for message in messages]
    if not tokenizer.chat_template:
        text = "".join(f"{row['role']}: {row['content']}\n\n" for row in rows)
        ids = [int(token) for token in tokenizer(text + "assistant: " * generation_prompt)["input_ids"]]
        return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
    try:
        return _by_template(tokenizer, rows, generation_prompt)
    except TemplateError:
        if rows[0]["role"] != "system" or len(rows) < 2:
            raise
        first = {**rows[1], "content": f"{rows[0]['content']}\n\n{rows[1]['content']}"}
        return _by_template(tokenizer, [first, *rows[2:]], generation_prompt)


def _by_template(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]], generation_prompt: bool
) -> list[int]:
    ids: Any = tokenizer.apply_chat_template(
        rows, add_generation_prompt=generation_prompt, tokenize=True, return_dict=False, enable_thinking=False
    )
    return [int(token) for token in ids]


def encode_reply(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    prompt_ids: Sequence[int],
    reply: Sequence[Message],
    ends: frozenset[int],
) -> list[int]:
    """Tokens of a reply as they follow the prompt's, ending in exactly one end of turn.

    They are what the whole conversation's tokens have after the prompt's, cut after the last token of `ends`
    (some templates add a newline there). Where the template writes the prompt differently once a reply stands
    behind it (as templates do that drop old reasoning), and where there is no template, the reply's text is
    tokenised on its own.
    """
    whole = encode_messages(tokenizer, [*prompt, *reply], False) if tokenizer.chat_template else []
    if whole[: len(prompt_ids)] == list(prompt_ids):
        ids = whole[len(prompt_ids) :]
    else:
        text = "".join(message.content for message in reply)
        ids = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    closing = [at for at, token in enumerate(ids) if token in ends]
    if closing:
        return ids[: closing[-1] + 1]
    return [*ids, _eos(tokenizer)]


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
    whose replies are the same.
    """
    ends = turn_ends(tokenizer, generation_eos)
    rows: list[PairTokens] = []
    set_aside: dict[str, int] = {}
    shortened = 0
    for row in preferences:
        prompt = encode_messages(tokenizer, row.prompt, generation_prompt=True)
        chosen = encode_reply(tokenizer, row.prompt, prompt, row.chosen, ends)
        rejected = encode_reply(tokenizer, row.prompt, prompt, row.rejected, ends)
        fitted = fit_prompt(prompt, max(len(chosen), len(rejected)), max_length, tokenizer.bos_token_id)
        if chosen == rejected:
            reason = "chosen and rejected are the same"
        elif fitted is None:
            reason = f"a reply alone is longer than max_length = {max_length} tokens"
        else:
            shortened += len(fitted) < len(prompt)
            rows.append(PairTokens(fitted, chosen, rejected, row.probability, row.id))
            continue
        set_aside = {**set_aside, reason: set_aside.get(reason, 0) + 1}
    return Encoded(rows, set_aside, shortened)


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


def collate_pairs(pairs: Sequence[PairTokens], numbers: Sequence[int], pad_id: int) -> PairBatch:
    """Lay out `pairs`, whose numbers in the data set are `numbers`, as one batch."""
    rows = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    ids, attention, reply, last = collate_rows(rows, pad_id)
    return PairBatch(
        input_ids=ids,
        attention_mask=attention,
        reply_mask=reply,
        last=last,
        probability=torch.tensor([pair.probability for pair in pairs], dtype=torch.float32),
        number=torch.tensor(list(numbers), dtype=torch.long),
    )


def collate_rows(
    rows: Sequence[tuple[list[int], list[int]]], pad_id: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`input_ids`, `attention_mask`, `reply_mask` (R, T), `last` (R,) of (prompt, reply) rows, padded right."""
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)  # (R, T)
    attention = torch.zeros((len(rows), width), dtype=torch.long)  # (R, T)
    reply_mask = torch.zeros((len(rows), width), dtype=torch.bool)  # (R, T)
    for number, (prompt, reply) in enumerate(rows):
        end = len(prompt) + len(reply)
        ids[number, :end] = torch.tensor(prompt + reply, dtype=torch.long)
        attention[number, :end] = 1
        reply_mask[number, len(prompt) : end] = True
    return ids, attention, reply_mask, attention.sum(dim=1) - 1


def grouped_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of row numbers: shuffled by `seed` and `epoch`, with rows of like length together.

    Every row is in exactly one batch, and every batch but one holds `batch_size` rows, so that the number of
    batches is the same in every epoch. Depends on nothing else, which is what makes a resumed run equal to an
    unbroken one.
    """
    draw = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    run = batch_size * GROUP_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), run):
        group = sorted(order[start : start + run], key=lambda row: (-lengths[row], row))
        batches += [group[at : at + batch_size] for at in range(0, len(group), batch_size)]
    draw.shuffle(batches)
    return batches


class GroupedBatches(Sampler[list[int]]):
    """`grouped_batches` as torch's DataLoader and transformers' Trainer ask for them."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = tuple(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(grouped_batches(self.lengths, self.batch_size, self.seed, self.epoch))

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)


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


def batch_fields(batch: PairBatch) -> dict[str, Tensor]:
    """The batch as a mapping, the one form that transformers' Trainer moves between devices."""
    return batch._asdict()


def batch_from_fields(fields: Mapping[str, Any]) -> PairBatch:
    """The inverse of `batch_fields`."""
    return PairBatch(**fields)


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise ValueError("the tokenizer has no end-of-text token")
    return eos
