"""How many tokens texts have, where no server has counted them."""

from __future__ import annotations

import math

from preceptor.judge.models.protocol import Request


def likely_tokens(text: str) -> int:
    """At four characters a token, as English prose has."""
    return math.ceil(len(text) / 4)


def likely_tokens_in(request: Request) -> int:
    """Tokens of a request's messages, with what frames each of them."""
    return sum(likely_tokens(text) + 4 for text in _texts(request))


def planned_tokens(text: str) -> int:
    """For plans, and for bills where a server counts nothing: ASCII at four characters a token, everything else at two
    bytes, which is more than any tokenizer of today makes of Chinese, Japanese or Korean, and of Cyrillic or Arabic."""
    ascii_bytes = len(text.encode("ascii", errors="ignore"))
    others = len(text.encode(errors="replace")) - ascii_bytes
    return math.ceil(ascii_bytes / 4) + math.ceil(others / 2)


def planned_tokens_in(request: Request) -> int:
    """`planned_tokens` of a request's messages, with what frames each of them."""
    return sum(planned_tokens(text) + 4 for text in _texts(request))


def most_tokens_in(request: Request) -> int:
    """More tokens than a request's messages will have: three ASCII characters a token, one byte of others."""
    return sum(
        math.ceil(len(text) / 3) + len(text.encode(errors="replace")) - len(text) + 16
        for text in _texts(request)
    )


def _texts(request: Request) -> list[str]:
    """All that is read for a request."""
    beside = request.side_by_side
    apart = (*beside.replies, *beside.names, *beside.names) if beside is not None else ()
    return [*(message.content for message in request.messages), *apart]
