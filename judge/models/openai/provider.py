"""What OpenAI's protocol declares; imports no SDK."""

from __future__ import annotations

import re
from functools import partial

from preceptor.judge.models.effort import ROOM, Profile, effort_of, profile_named, profile_of
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.provider import Provider

DOCS = "https://developers.openai.com/api/docs/models"
READ = "2026-11-30"
ALL = ("none", "low", "medium", "high", "xhigh", "max")
PROFILES = (
    Profile(re.compile(r"gpt-6(-luna|-sol)|gpt-6\.1-terra"), ALL, checked=READ, source=DOCS),
    Profile(
        re.compile(r"gpt-6\.1-sol"), ALL[1:], responses=ALL[-1:], checked=READ, source=f"{DOCS}/gpt-6.1-sol"
    ),
    Profile(re.compile(r"gpt-6"), ALL[1:], checked=READ, source=DOCS),
    Profile(re.compile(r"(gpt-[5-9]|o\d)(?!.*-chat)"), ("low", "medium", "high"), checked=READ, source=DOCS),
)
"""OpenAI's models that think before they write, the first that fits; no sampling and no token probabilities beside
thoughts, which are hidden and billed."""
VERDICT_TOKENS = 32
"""Room for a bare verdict. Never one or two: servers are known to answer such limits with odd things."""


def effort(request: Request) -> str | None:
    """How much the model thinks for this request; None: it is none that thinks."""
    profile = profile_of(PROFILES, request)
    return None if profile is None else effort_of(profile, request)


def by_responses(request: Request) -> bool:
    """Whether this is known to be for the Responses API alone."""
    profile = profile_of(PROFILES, request)
    return profile is not None and effort_of(profile, request) in profile.responses


def reply_tokens(request: Request) -> int:
    """Where a verdict alone is asked for, a few: a run is planned and its cap held by the longest reply. What the user
    has said stands."""
    if request.menu and not request.reasoning and not request.own_limit:
        return min(max(request.max_tokens, VERDICT_TOKENS // 2), VERDICT_TOKENS)
    return request.max_tokens


def hidden_tokens(request: Request) -> int:
    """What the model may think."""
    return ROOM[effort(request) or "none"]


PROVIDER = Provider(
    open_model="preceptor.judge.models.openai.model:open_model",
    open_batches="preceptor.judge.models.openai.batch:open_batches",
    example="openai/gpt-6-luna",
    takes_address=True,
    planned=True,
    key="OPENAI_API_KEY",
    libraries=("openai",),
    flex=True,
    reply_tokens=reply_tokens,
    hidden_tokens=hidden_tokens,
    profile_of=partial(profile_named, PROFILES),
)
