"""A conversation and a menu in a local model's own tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from preceptor.judge.models.local.prefix_passes import Passes
from preceptor.judge.models.protocol import Request


class Loaded(NamedTuple):
    """A checkpoint in memory."""

    model: Any
    tokenizer: Any
    stops: frozenset[int]
    """Tokens that end a reply."""
    context: int
    """Longest prompt and reply together, in tokens."""
    passes: Passes
    """How it is asked for logits."""


class Ask(NamedTuple):
    """A request in the model's own tokens."""

    request: Request
    text: str
    """The conversation in the chat template, with the assistant's turn opened."""
    tokens: tuple[int, ...]
    """The same in tokens."""


class Question(NamedTuple):
    """Which of the menu's words come next."""

    context: tuple[int, ...]
    """All tokens that the options share, the conversation's included."""
    options: dict[str, tuple[int, ...]]
    """Letter -> the tokens that only this option has, with the end of the turn after them."""


def render(loaded: Loaded, request: Request) -> str:
    """The conversation in the model's chat template, with the assistant's turn opened and thinking switched
    off."""
    import jinja2

    messages = [message.model_dump() for message in request.messages]
    if not loaded.tokenizer.chat_template:
        return "".join(f"{message['role']}: {message['content']}\n\n" for message in messages) + "assistant: "
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    try:
        return str(loaded.tokenizer.apply_chat_template(messages, **options))
    except jinja2.TemplateError:
        if messages[0]["role"] != "system" or len(messages) < 2:
            raise
        # some templates refuse a system message: its words open the first turn instead
        first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        return str(loaded.tokenizer.apply_chat_template([first, *messages[2:]], **options))


def _tokenize(loaded: Loaded, texts: Sequence[str]) -> list[list[int]]:
    """The chat template writes its own special tokens; a tokenizer without one adds them itself."""
    if not texts:
        return []
    plain = not loaded.tokenizer.chat_template
    tokens: list[list[int]] = loaded.tokenizer(list(texts), add_special_tokens=plain)["input_ids"]
    if plain:
        tokens = [row[:-1] if len(row) > 1 and row[-1] in loaded.stops else row for row in tokens]
    return tokens


def encode(loaded: Loaded, requests: Sequence[Request]) -> list[Ask]:
    """Requests -> their text and tokens, in the same order."""
    texts = [render(loaded, request) for request in requests]
    rows = zip(requests, texts, _tokenize(loaded, texts), strict=True)
    return [Ask(request, text, tuple(tokens)) for request, text, tokens in rows]


def questions(loaded: Loaded, asked: Sequence[tuple[str, Mapping[str, str]]]) -> list[Question]:
    """(text before the verdict, menu) -> the options in tokens, split where the first of them differs."""
    texts = [before + words for before, menu in asked for words in menu.values()]
    rows = iter(_tokenize(loaded, texts))
    end = (min(loaded.stops),) if loaded.stops else ()
    made = []
    for _, menu in asked:
        options = {letter: (*next(rows), *end) for letter in menu}
        shared = 0
        while len({option[shared : shared + 1] for option in options.values()}) == 1 and shared < min(
            map(len, options.values())
        ):
            shared += 1
        context = next(iter(options.values()))[:shared]
        made.append(Question(context, {letter: option[shared:] for letter, option in options.items()}))
    return made
