"""Labelling through faults of every kind: each comparison ends in one row, right or with its honest status."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Preceptor
from tests.servers.llm import LLMServer

pytestmark = pytest.mark.slow

MENDED = ("408", "409", "425", "429", "500", "503", "529", "drop", "badjson", "html", "empty", "truncate")
"""What another try mends."""
MENDED_ONCE = ("badjson", "empty", "truncate")
"""What one more try mends, and no second one."""
FINAL = {"garbage": "unparsed", "refusal": "refused", "400": "failed"}
"""What is the answer for this row, and the row's status then."""


def labels(file: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def test_a_third_of_all_requests_fail_and_no_row_is_lost_or_wrong(
    preceptor: Preceptor, start_server: Callable[..., LLMServer]
) -> None:
    draw = random.Random(4)
    faults = [draw.choice(MENDED) if draw.random() < 0.3 else "ok" for _ in range(100)]
    faults[5:40:12] = FINAL.keys()
    rows = [
        {"id": f"p{n}", "prompt": f"say {n}", "response_a": f"quality={n}", "response_b": f"quality={30 - n}"}
        for n in range(30)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {}
    for name, befalls in (("calm", []), ("stormy", faults)):
        server = start_server(faults=befalls, once=MENDED_ONCE, retry_after="0.02")
        words = ("label", "pairs.jsonl", "-c", "style", "--reasoning", "--judge", "openai/m", "--out", name)
        ended = preceptor(*words, "--base-url", server.url, "--ledger", f"{name}.db", "--concurrency", 16)
        assert ended.code == 0, ended.err
        made[name] = labels(Path(name) / "labels.jsonl")
    assert server.stats()["faults"].keys() >= {"429", "drop", "badjson", "empty", *FINAL}
    assert server.stats()["answered_twice"] <= sum(fault in ("empty", "truncate") for fault in faults)
    assert made["calm"].keys() == made["stormy"].keys() == {f"p{n}" for n in range(30)}
    changed = {
        name: row["status"]
        for name, row in made["stormy"].items()
        if any(row.get(key) != made["calm"][name].get(key) for key in ("status", "probability"))
    }
    assert len(changed) <= len(FINAL) + 1
    assert set(changed.values()) <= {*FINAL.values()}
    again = preceptor(
        *("label", "pairs.jsonl", "-c", "style", "--reasoning", "--judge", "openai/m", "--out", "stormy"),
        *("--base-url", server.url, "--ledger", "stormy.db", "--json"),
    )
    asked = json.loads(again.out)["calls"]["asked"]
    assert asked == 1, "what was rejected is asked again, and nothing else"
