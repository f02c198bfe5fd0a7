"""A part of a page is sent when it changes, whole, and to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from preceptor.serve.jobs.native import HEARTBEAT_S
from preceptor.serve.pages import streaming
from preceptor.serve.pages.streaming import DrawnPart, pieces


async def sent(drawn: Sequence[DrawnPart], look_s: float = 0.0) -> list[str]:
    """What comes of these pieces, the last of which is drawn from then on."""
    left: Iterator[DrawnPart] = iter(drawn)
    return [one async for one in pieces(lambda: next(left, drawn[-1]), look_s)]


async def test_each_change_once_and_the_end_last() -> None:
    drawn = [DrawnPart("a", False), DrawnPart("a", False), DrawnPart("b", False), DrawnPart("c", True)]
    first, *events = await sent(drawn)
    assert first.startswith("retry:")
    assert events == [
        *(f"event: piece\ndata: {text}\n\n" for text in "abc"),
        "event: end\ndata: \n\n",
    ]


@pytest.mark.parametrize("text", ["one\ntwo", "one\r\ntwo", "one\rtwo", "event: end\n\nevent: end"])
async def test_no_text_ends_an_event_or_begins_another(text: str) -> None:
    _, event, end = await sent([DrawnPart(text, True)])
    lines = event.removesuffix("\n\n").split("\n")
    assert lines[0] == "event: piece"
    assert all(line.startswith("data: ") for line in lines[1:])
    assert "\n".join(line.removeprefix("data: ") for line in lines[1:]) == "\n".join(text.splitlines())
    assert end.startswith("event: end")


async def test_a_stream_says_that_it_lives_and_does_not_last_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(_: float) -> None:
        return

    monkeypatch.setattr(streaming.asyncio, "sleep", at_once)
    events = await sent([DrawnPart("a", False)], HEARTBEAT_S)
    assert events[1] == "event: piece\ndata: a\n\n"
    assert set(events[2:]) == {": still here\n\n"}
    assert len(events) - 2 == streaming.LONGEST_S / HEARTBEAT_S
