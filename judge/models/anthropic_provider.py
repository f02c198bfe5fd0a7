"""What Anthropic's protocol declares; imports no SDK."""

from __future__ import annotations

from judge.models.provider import Provider

PROVIDER = Provider(
    open_model="judge.models.anthropic:open_model",
    open_batches="judge.models.anthropic_batch:open_batches",
    example="anthropic/claude-sonnet-4-5",
    key="ANTHROPIC_API_KEY",
    libraries=("anthropic",),
)
