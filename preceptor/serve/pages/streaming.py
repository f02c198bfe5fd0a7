"""A part of a page that is sent anew whenever it changes, as server-sent events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from fastapi.responses import StreamingResponse

from preceptor.serve.jobs.native import HEARTBEAT_S
from preceptor.serve.pages.rendering import HEADERS

LOOK_S = 1.0
"""How often it is looked whether the part has changed."""
LONGEST_S = 300.0
"""How long one stream lasts. The browser opens the next by itself, and whoever may not look any more gets none."""
_LINES = re.compile(r"\r\n|\r|\n")


class DrawnPart(NamedTuple):
    """The part of a page as it stands."""

    html: str
    ended: bool
    """Whether it will not change any more."""


def streamed(draw: Callable[[], DrawnPart]) -> StreamingResponse:
    """The pieces: the first at once, then each that differs from the one before; after the last an event `end`.

    draw: called in a thread, again and again.
    """
    return StreamingResponse(pieces(draw, LOOK_S), media_type="text/event-stream", headers=HEADERS)


async def pieces(draw: Callable[[], DrawnPart], look_s: float) -> AsyncIterator[str]:
    """As they are sent."""
    sent = None
    quiet_s = lasted_s = 0.0
    yield "retry: 1000\n\n"
    while lasted_s < LONGEST_S:
        piece = await asyncio.to_thread(draw)
        if piece.html != sent:
            sent, quiet_s = piece.html, 0.0
            yield _event("piece", piece.html)
        if piece.ended:
            yield _event("end", "")
            return
        await asyncio.sleep(look_s)
        quiet_s, lasted_s = quiet_s + look_s, lasted_s + look_s
        if quiet_s >= HEARTBEAT_S:
            quiet_s = 0.0
            yield ": still here\n\n"


def _event(kind: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in _LINES.split(text))
    return f"event: {kind}\n{lines}\n"
