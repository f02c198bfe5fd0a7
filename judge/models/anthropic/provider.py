"""What Anthropic's protocol declares; imports no SDK."""

from __future__ import annotations

from preceptor.judge.models.protocol import Request
from preceptor.judge.models.provider import Provider


def hidden_tokens(request: Request) -> int:  # noqa: ARG001
    """What a model may think before it answers."""
    return 0


PROVIDER = Provider(
    open_model="preceptor.judge.models.anthropic.model:open_model",
    open_batches="preceptor.judge.models.anthropic.batch:open_batches",
    example="anthropic/claude-sonnet-4-5",
    takes_address=True,
    key="ANTHROPIC_API_KEY",
    libraries=("anthropic",),
    hidden_tokens=hidden_tokens,
)
