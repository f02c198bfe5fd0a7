"""How long a reply may be: for the request that is sent, the budget and the plan alike. Imports no SDK."""

from __future__ import annotations

import re

from preceptor.judge.models.protocol import Request

REASONING = re.compile(r"^(o\d|gpt-[5-9])(?!.*-chat)")
"""OpenAI's models that think before they write: no temperature, no token probabilities, hidden tokens in the
bill."""
HIDDEN_TOKENS = 4096
"""Room for what a reasoning model thinks, on top of the reply's own."""
VERDICT_TOKENS = 32
"""Room for a bare verdict. Never one or two: servers are known to answer such limits with odd things."""


def thinks(model: str, endpoint: str) -> bool:
    """Whether `provider/model` is a reasoning model at its provider's own address."""
    provider, _, name = model.partition("/")
    return provider == "openai" and not endpoint and REASONING.match(name) is not None


def reply_tokens(request: Request) -> int:
    """Tokens that the reply's own text may have. Where OpenAI's protocol is asked for a verdict alone, a few."""
    if request.model.startswith("openai/") and request.menu and not request.reasoning:
        return min(max(request.max_tokens, VERDICT_TOKENS // 2), VERDICT_TOKENS)
    return request.max_tokens


def billed_tokens(request: Request) -> int:
    """The most tokens that a reply can be billed for, hidden ones included."""
    return reply_tokens(request) + (HIDDEN_TOKENS if thinks(request.model, request.endpoint) else 0)
