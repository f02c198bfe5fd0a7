"""What Anthropic's protocol declares; imports no SDK."""

from __future__ import annotations

import re
from functools import partial

from preceptor.judge.models.effort import ROOM, Profile, effort_of, profile_named, profile_of
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.provider import Provider

DOCS = "https://platform.claude.com/docs/en/build-with-claude/effort"
READ = "2026-11-30"
LEVELS = ("low", "medium", "high", "xhigh", "max")
PROFILES = (
    Profile(
        re.compile(r"claude-(haiku-5|opus-5(?!-\d\b))"),
        ("none", *LEVELS),
        sampling=False,
        checked=READ,
        source=DOCS,
    ),
    Profile(
        re.compile(r"claude-sonnet-5-5"),
        ("none", *LEVELS),
        sampling=False,
        off="between_tools",
        checked=READ,
        source="https://platform.claude.com/docs/en/models/sonnet-5-5/migration-guide",
    ),
    Profile(re.compile(r"claude-(sonnet|opus|fable)-5"), LEVELS, sampling=False, checked=READ, source=DOCS),
)
"""Models that think unless they are told not to, which some cannot be; they refuse sampling parameters."""


def effort(request: Request) -> str | None:
    """How much the model thinks for this request; None: as much as it was asked to, which is not at all."""
    profile = profile_of(PROFILES, request)
    return None if profile is None else effort_of(profile, request)


def off(request: Request) -> str:
    """By which word a model is told not to think."""
    profile = profile_of(PROFILES, request)
    return "disabled" if profile is None else profile.off


def samples(request: Request) -> bool:
    """Whether the model takes sampling parameters."""
    profile = profile_of(PROFILES, request)
    return profile is None or profile.sampling


def hidden_tokens(request: Request) -> int:
    """What the model may think."""
    return ROOM[effort(request) or "none"]


PROVIDER = Provider(
    open_model="preceptor.judge.models.anthropic.model:open_model",
    open_batches="preceptor.judge.models.anthropic.batch:open_batches",
    example="anthropic/claude-haiku-5-5",
    takes_address=True,
    planned=True,
    key="ANTHROPIC_API_KEY",
    libraries=("anthropic",),
    hidden_tokens=hidden_tokens,
    profile_of=partial(profile_named, PROFILES),
)
