"""The lines of a batch's results, as they come: no line is kept that is longer than a reply may be."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator

import httpx2

from preceptor.judge.errors import Transient
from preceptor.judge.models import door
from preceptor.judge.models.batch_protocol import BatchResult
from preceptor.judge.models.door import LARGEST_BODY

CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([\w-]{1,64})"')
"""By which a line that is too long says whose it is."""
BEGINNING = 4096
"""Bytes of such a line in which it is looked for; both providers write it first."""


async def result_lines(blocks: AsyncIterable[bytes], provider: str) -> AsyncIterator[BatchResult]:
    """The results in a stream of bytes, a line each. A line that cannot be read is left out; one that is too long is
    `too_long`, and left out where it does not say whose it is. Raises Transient where the stream breaks off."""
    line = _Line()
    try:
        async for block in blocks:
            first, *rest = block.split(b"\n")
            line.add(first)
            for part in rest:
                if (result := line.result()) is not None:
                    yield result
                line = _Line()
                line.add(part)
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise Transient(f"{provider} broke off the results of a batch ({type(exc).__name__})") from exc
    if (result := line.result()) is not None:
        yield result


class _Line:
    def __init__(self) -> None:
        self._kept = bytearray()
        self._length = 0

    def add(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= LARGEST_BODY:
            self._kept += part
        elif len(self._kept) < BEGINNING:
            self._kept += part[:BEGINNING]
        else:
            del self._kept[BEGINNING:]

    def result(self) -> BatchResult | None:
        if self._length > LARGEST_BODY:
            name = CUSTOM_ID.search(self._kept[:BEGINNING])
            return None if name is None else BatchResult(name[1].decode(), {}, too_long=True)
        try:
            line = door.json_of(bytes(self._kept))
            return BatchResult(str(line["custom_id"]), line)
        except (ValueError, KeyError, TypeError):
            return None
