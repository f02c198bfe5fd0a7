"""What is compared: samples that were cut at their length count unless they are left out, and it is said."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from preceptor.asking import stages
from preceptor.asking.stages import Truncated
from preceptor.judge.records import Response
from preceptor.prompts.rows import write_rows
from tests.judge.canned import response

ROWS = [
    response("A whole reply.", id="1"),
    response("A reply that was cut in the", id="2", status="truncated"),
    response("Another whole one.", id="3"),
    response("And one more that was", id="4", status="truncated"),
    response("", id="5", status="refused"),
]


@pytest.mark.parametrize(
    ("truncated", "pairs", "words"),
    [
        (
            "keep",
            2,
            "2 of 5 samples were cut at --max-tokens, and are kept: --truncated drop leaves them out",
        ),
        (
            "drop",
            1,
            "2 of 5 samples were cut at --max-tokens, and are left out: --truncated keep judges them",
        ),
    ],
)
def test_cut_samples_are_counted_and_the_flag_decides(
    truncated: Truncated, pairs: int, words: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    assert len(stages.pairs_to_label(ROWS, [], truncated=truncated)) == pairs
    assert words in caplog.text
    write_rows(tmp_path / "responses.jsonl", ROWS)
    (group,) = stages.groups_from(str(tmp_path / "responses.jsonl"), truncated)
    assert len(group.responses) == 2 * pairs


def test_nothing_is_said_where_nothing_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows: list[Response] = [ROWS[0], ROWS[2]]
    assert len(stages.pairs_to_label(rows, [])) == 1
    assert caplog.text == ""
