"""A reply of chat as it is written: what may be sent of it so far, cut at its stops, with its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from preceptor.judge.models.protocol import Completion, TokenLogprob, WrittenToken

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""Of a character of which not all tokens are written."""


class ReplyPart(NamedTuple):
    """What a reply has gained."""

    text: str
    tokens: tuple[WrittenToken, ...]
    """Those that begin in the text."""


class GrowingReply:
    """A reply, token by token. What is sent is never taken back, and holds no stop nor what follows one.

    All pieces together are the text of the whole reply, up to the first stop in it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._sent = ""
        self._length = 0
        """Of the reply before the next token."""
        self._kept: list[tuple[int, WrittenToken]] = []
        """Where tokens begin that are not sent yet."""
        self.stopped = False
        """Whether a stop was met."""

    def take(self, token: WrittenToken) -> ReplyPart | None:
        """What may be sent with this token; None: nothing as yet."""
        self._kept.append((self._length, token))
        self._length = len(token.reply.rstrip(UNFINISHED))
        place = self._stop_in(token.reply)
        if place is not None:
            self.stopped = True
            return self._up_to(token.reply[:place])
        text = token.reply.rstrip(UNFINISHED)
        return self._up_to(text[: len(text) - self._held_back(text)])

    def finish(self, completion: Completion) -> ReplyPart:
        """The rest, once the reply is whole."""
        place = self._stop_in(completion.text)
        self.stopped = self.stopped or place is not None
        text = completion.text[:place]
        tokens = tuple(token for start, token in self._kept if place is None or start < place)
        return ReplyPart(text[len(self._sent) :], tokens)

    def _up_to(self, text: str) -> ReplyPart | None:
        if not text.startswith(self._sent) or text == self._sent:
            return (
                None  # a tokenizer may take a space back that a later token makes superfluous: then it waits
            )
        more = text[len(self._sent) :]
        tokens = tuple(token for start, token in self._kept if start < len(text))
        self._kept = self._kept[len(tokens) :]
        self._sent = text
        return ReplyPart(more, tokens)

    def _stop_in(self, text: str) -> int | None:
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        return min(places, default=None)

    def _held_back(self, text: str) -> int:
        """Characters at the end that may be the beginning of a stop."""
        most = 0
        for stop in self._stops:
            longest = min(len(stop) - 1, len(text))
            most = max(most, next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0))
        return most


def logprobs_of(tokens: Sequence[WrittenToken]) -> dict[str, Any]:
    """Tokens as OpenAI's API tells of their probabilities."""
    return {"content": [_logprob(token) for token in tokens], "refusal": None}


def _logprob(token: WrittenToken) -> dict[str, Any]:
    assert token.logprob is not None
    here = _told(TokenLogprob(token.text, token.logprob))
    return {**here, "top_logprobs": [_told(other) for other in token.top]}


def _told(token: TokenLogprob) -> dict[str, Any]:
    whole = UNFINISHED not in token.text
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()) if whole else None,
    }
