"""What OpenAI's protocol declares; imports no SDK."""

from __future__ import annotations

import re

from preceptor.judge.models.protocol import ModelName, Request
from preceptor.judge.models.provider import Provider

REASONING = re.compile(r"^(o\d|gpt-[5-9])(?!.*-chat)")
"""OpenAI's models that think before they write: no temperature, no token probabilities, hidden tokens in the
bill."""
HIDDEN_TOKENS = 4096
"""Room for what a reasoning model thinks, on top of the reply's own."""
VERDICT_TOKENS = 32
"""Room for a bare verdict. Never one or two: servers are known to answer such limits with odd things."""


def thinks(model: str, endpoint: str) -> bool:
    """Whether `provider/model` is a reasoning model at its provider's own address."""
    return not endpoint and REASONING.match(ModelName.of(model).model) is not None


def reply_tokens(request: Request) -> int:
    """Where a verdict alone is asked for, a few."""
    if request.menu and not request.reasoning:
        return min(max(request.max_tokens, VERDICT_TOKENS // 2), VERDICT_TOKENS)
    return request.max_tokens


def hidden_tokens(request: Request) -> int:
    """What a reasoning model may think."""
    return HIDDEN_TOKENS if thinks(request.model, request.endpoint) else 0


PROVIDER = Provider(
    open_model="preceptor.judge.models.openai.model:open_model",
    open_batches="preceptor.judge.models.openai.batch:open_batches",
    example="openai/gpt-5-mini",
    takes_address=True,
    key="OPENAI_API_KEY",
    libraries=("openai",),
    reply_tokens=reply_tokens,
    hidden_tokens=hidden_tokens,
)
