"""How much a model thinks before it answers: what it takes, what is asked for, and the room that it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from preceptor.judge.models.protocol import ModelName, Request

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From no thoughts to the most."""
ROOM = {"none": 0, "minimal": 1024, "low": 4096, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 65536}
"""Tokens for thoughts, on top of the reply's own."""


class Profile(NamedTuple):
    """What models of these names do, by their provider's documentation."""

    names: re.Pattern[str]
    efforts: tuple[str, ...]
    """Levels that they take, least first; `none` only where they can be told not to think."""
    sampling_beside_thoughts: bool = False
    """Whether temperature and top_p may be sent where they think."""
    sampling: bool = True
    """Whether they may be sent where they do not."""
    responses: tuple[str, ...] = ()
    """Levels that OpenAI takes through its Responses API alone."""
    off: str = "disabled"
    """Anthropic's word by which they are told not to think."""
    checked: str = ""
    """Day on which the documentation was read, YYYY-MM-DD."""
    source: str = ""


def profile_named(profiles: Sequence[Profile], name: str) -> Profile | None:
    """The profile of `provider/model`, if it is asked at its provider's own address."""
    model = ModelName.of(name).model
    return next((one for one in profiles if one.names.match(model)), None)


def profile_of(profiles: Sequence[Profile], request: Request) -> Profile | None:
    """The profile of a request's model at its provider's own address; elsewhere a name says nothing."""
    return None if request.endpoint else profile_named(profiles, request.model)


def nearest(profile: Profile, wished: str) -> str:
    """The level that is asked for where this one is wished: it, or the next that the model takes."""
    wanted = LEVELS.index(wished)
    return min(profile.efforts, key=lambda level: (abs(LEVELS.index(level) - wanted), LEVELS.index(level)))


def effort_of(profile: Profile, request: Request) -> str:
    """The level that is asked for: the request's own, or the next that the model takes. Where nothing is said, a bare
    verdict wants the least, and everything else the least at which the model still thinks."""
    if request.effort:
        return nearest(profile, request.effort)
    if request.menu and not request.reasoning:
        return profile.efforts[0]
    return next((level for level in profile.efforts if level not in ("none", "minimal")), profile.efforts[-1])
