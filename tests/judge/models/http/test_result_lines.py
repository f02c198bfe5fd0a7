"""Lines of a batch's results: however the stream is cut into blocks, and whatever stands in it."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.errors import Transient
from preceptor.judge.models.batch_protocol import BatchResult
from preceptor.judge.models.http import result_lines as module
from preceptor.judge.models.http.result_lines import result_lines

LONGEST = 200
LINES = st.one_of(
    st.builds(
        lambda name, text: json.dumps({"custom_id": name, "text": text}, ensure_ascii=False).encode(),
        st.text("ab-_09", min_size=1, max_size=64),
        st.text(st.characters(codec="utf-8"), max_size=LONGEST),
    ),
    st.binary(max_size=2 * LONGEST).map(lambda raw: raw.replace(b"\n", b"")),
    st.just(b""),
)


async def blocks_of(raw: bytes, cuts: Sequence[int]) -> AsyncIterator[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    for start, end in itertools.pairwise(places):
        yield raw[start:end]


def expected(line: bytes) -> BatchResult | None:
    if len(line) > LONGEST:
        found = module.CUSTOM_ID.search(line[: module.BEGINNING])
        return None if found is None else BatchResult(found[1].decode(), {}, too_long=True)
    try:
        body = json.loads(line.decode("utf-8", "replace"))
        return BatchResult(str(body["custom_id"]), body)
    except (ValueError, KeyError, TypeError):
        return None


@given(st.lists(LINES, max_size=6), st.lists(st.integers(0, 3000), max_size=9), st.booleans())
async def test_the_blocks_of_a_stream_change_nothing(
    lines: list[bytes], cuts: list[int], ended: bool
) -> None:
    raw = b"\n".join(lines) + b"\n" * ended
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LARGEST_BODY", LONGEST)
        found = [result async for result in result_lines(blocks_of(raw, cuts), "openai")]
    assert found == [result for line in lines if (result := expected(line)) is not None]


async def test_of_an_endless_line_no_more_is_kept_than_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_BODY", 10_000)
    line = module._Line()
    line.add(b'{"custom_id": "mine", "text": "')
    for _ in range(1000):
        line.add(b"x" * 1000)
        assert len(line._kept) <= 11_000
    assert line.result() == BatchResult("mine", {}, too_long=True)


async def test_a_stream_that_breaks_off_can_be_read_again() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'{"custom_id": "a"}\n'
        raise httpx2.ReadError("gone")

    with pytest.raises(Transient, match="openai broke off the results of a batch"):
        _ = [result async for result in result_lines(broken(), "openai")]
