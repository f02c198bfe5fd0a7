"""How long a reply may be: for the request that is sent, the budget and the plan alike. Imports no SDK."""

from __future__ import annotations

from preceptor.judge.models.protocol import Request
from preceptor.judge.models.registry import declared


def reply_tokens(request: Request) -> int:
    """Tokens that the reply's own text may have."""
    return declared(request.model).reply_tokens(request)


def hidden_tokens(request: Request) -> int:
    """Tokens that the model is known to think before it replies, at most."""
    return declared(request.model).hidden_tokens(request)


def billed_tokens(request: Request) -> int:
    """The most tokens that a reply can be billed for, hidden ones included."""
    return reply_tokens(request) + hidden_tokens(request)
