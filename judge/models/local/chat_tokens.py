"""A conversation and a menu in a local model's own tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from preceptor.judge.models.local import conversation
from preceptor.judge.models.local.conversation import UnrenderableError
from preceptor.judge.models.local.prefix_passes import Passes
from preceptor.judge.models.local.text_tokens import text_tokens
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


class TokenisedRequest(NamedTuple):
    """A request in the model's own tokens."""

    request: Request
    text: str
    """The conversation in the chat template, with the assistant's turn opened."""
    tokens: tuple[int, ...]
    """The same in tokens."""


class TokenisedSides(NamedTuple):
    """A request whose two replies stand side by side, in the model's own tokens."""

    request: Request
    replies: tuple[tuple[int, ...], tuple[int, ...]]
    names: tuple[tuple[int, ...], tuple[int, ...]]
    """What stands behind a reply that is called `a`, and one that is called `b`."""
    before: tuple[int, ...]
    question: MenuContinuation
    """What follows the names; its options."""

    @property
    def size(self) -> int:
        """Tokens that are read: conversation and replies once, names and question for either way of naming."""
        once = len(self.before) + sum(map(len, self.replies))
        return once + 2 * (len(self.question.context) + sum(map(len, self.names)))

    @property
    def depth(self) -> int:
        """Positions that are taken before an option."""
        longest = max(map(len, self.replies)) + max(map(len, self.names))
        return len(self.before) + longest + len(self.question.context)


class MenuContinuation(NamedTuple):
    """Which of the menu's words come next."""

    context: tuple[int, ...]
    """All tokens that the options share, the conversation's included."""
    options: dict[str, tuple[int, ...]]
    """Letter -> the tokens that only this option has, with the end of the turn after them."""


def render(loaded: Loaded, request: Request) -> str:
    """The conversation as the model reads it, with the assistant's turn opened (`conversation.render`)."""
    rows = [{"role": message.role, "content": message.content} for message in request.messages]
    return conversation.render(loaded.tokenizer, rows, True)


def _tokenize(loaded: Loaded, texts: Sequence[str], begins: bool = True) -> list[list[int]]:
    """The chat template writes its own special tokens; a tokenizer without one adds them itself, where the text
    `begins` the conversation."""
    if not texts:
        return []
    plain = begins and not loaded.tokenizer.chat_template
    tokens = text_tokens(loaded.tokenizer).ids(texts, add_special_tokens=plain)
    if plain:
        tokens = [row[:-1] if len(row) > 1 and row[-1] in loaded.stops else row for row in tokens]
    return tokens


def followed_by(loaded: Loaded, text: str, more: str) -> str:
    """A rendered conversation with more behind it, in which nothing is a control token."""
    return text_tokens(loaded.tokenizer).joined(text, more)


def encode(loaded: Loaded, requests: Sequence[Request]) -> list[TokenisedRequest | UnrenderableError]:
    """Requests -> their text and tokens, in the same order; why there are none for one that cannot be written."""
    made: list[str | UnrenderableError] = []
    for request in requests:
        try:
            made.append(render(loaded, request))
        except UnrenderableError as fault:
            made.append(fault)
    tokens = iter(_tokenize(loaded, [text for text in made if isinstance(text, str)]))
    return [
        TokenisedRequest(request, text, tuple(next(tokens))) if isinstance(text, str) else text
        for request, text in zip(requests, made, strict=True)
    ]


def beside(loaded: Loaded, request: Request) -> TokenisedSides:
    """A request with replies side by side in tokens, each of its parts by itself.

    Raises UnrenderableError where the conversation cannot be written, or its template does not keep the place of the
    replies.
    """
    sides = request.side_by_side
    assert sides is not None
    text = render(loaded, request)
    parts = text.split(sides.mark)
    if len(parts) != 2:
        raise UnrenderableError(
            f"the chat template leaves {len(parts) - 1} places for the replies where the request has one"
        )
    before, after = (type(text)(part) for part in parts)  # what is marked stays so
    texts = text_tokens(loaded.tokenizer)
    first, second = (tuple(texts.text_ids(reply)) for reply in sides.replies)
    of_a, of_b = (tuple(texts.text_ids(name)) for name in sides.names)
    return TokenisedSides(
        request,
        (first, second),
        (of_a, of_b),
        tuple(_tokenize(loaded, [before])[0]),
        questions(loaded, [(after, request.menu)], begins=False)[0],
    )


def questions(
    loaded: Loaded, asked: Sequence[tuple[str, Mapping[str, str]]], begins: bool = True
) -> list[MenuContinuation]:
    """(text before the verdict, menu) -> the options in tokens, split where the first of them differs.

    begins: whether the texts are conversations from their beginning.
    """
    texts = [followed_by(loaded, before, words) for before, menu in asked for words in menu.values()]
    rows = iter(_tokenize(loaded, texts, begins))
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
        made.append(
            MenuContinuation(context, {letter: option[shared:] for letter, option in options.items()})
        )
    return made
