"""Texts that a chat template has made -> the conversation in them, and the reply at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from preceptor.prompts.records import Message, Role

FURTHEST = 64
"""Characters that may stand before the prompt in a decoded sequence: a token for its beginning, which some add."""
ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
    "<eos>",
    "</s>",
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<|finetune_right_pad_id|>",
    "<｜end▁of▁sentence｜>",
)
"""What closes a turn or a sequence, or fills a batch."""
BEGINS = ("<|begin_of_text|>", "<bos>", "<s>", "<|startoftext|>", "<｜begin▁of▁sentence｜>")
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "model": "assistant"}


class _Form(NamedTuple):
    """How a family of templates marks turns."""

    opening: re.Pattern[str]
    """With the role as its group."""
    closing: str


FORMS = (
    _Form(re.compile(r"<\|im_start\|>(\w{1,16})\n"), "<|im_end|>"),
    _Form(re.compile(r"<\|start_header_id\|>(\w{1,16})<\|end_header_id\|>\n\n"), "<|eot_id|>"),
    _Form(re.compile(r"<start_of_turn>(\w{1,16})\n"), "<end_of_turn>"),
)
"""ChatML, Llama 3, Gemma."""


def turns_of(text: str) -> list[Message] | None:
    """The turns of a text in a form that is known; None: it is in none. A last turn without words is left out: it
    waits for the reply."""
    for form in FORMS:
        openings = list(form.opening.finditer(text))
        if not openings or without_begin(text[: openings[0].start()]).strip():
            continue
        ends = [opening.start() for opening in openings[1:]] + [len(text)]
        turns = []
        for opening, end in zip(openings, ends, strict=True):
            role = ROLES.get(opening.group(1))
            if role is None:
                return None
            said = text[opening.end() : end].partition(form.closing)[0]
            turns.append(Message(role=role, content=said.strip("\n") if end == len(text) else said))
        if turns[-1].role == "assistant" and not turns[-1].content.strip():
            turns.pop()
        return turns or None
    return None


def prompt_turns(text: str) -> list[Message]:
    """The conversation that a prompt holds: by its template where that is known, else all of it as the user's words."""
    turns = turns_of(text)
    return turns if turns and turns[-1].role == "user" else [Message(role="user", content=text)]


def reply_in(query: str, prompt: str) -> str | None:
    """What follows the prompt in a decoded sequence, without what closes it; None: the prompt does not stand there."""
    at = query.find(prompt, 0, FURTHEST + len(prompt))
    if at < 0:
        prompt = without_begin(prompt)
        at = query.find(prompt, 0, FURTHEST + len(prompt))
    return None if at < 0 else without_end(query[at + len(prompt) :])


def without_end(text: str) -> str:
    """The text without what closes a turn or fills a batch behind it."""
    while True:
        text = text.rstrip()
        end = next((end for end in ENDS if text.endswith(end)), None)
        if end is None:
            return text
        text = text.removesuffix(end)


def without_begin(text: str) -> str:
    """The text without the token for its beginning."""
    for begin in BEGINS:
        text = text.removeprefix(begin)
    return text


def split_reply(turns: Sequence[Message]) -> tuple[list[Message], str] | None:
    """(what was said before, the last reply); None: the last words are no reply to anybody."""
    if len(turns) < 2 or turns[-1].role != "assistant":
        return None
    return list(turns[:-1]), without_end(turns[-1].content)
