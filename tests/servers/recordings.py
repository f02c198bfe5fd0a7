"""The recorded GPT-4 verdicts of tests/data/llmbar as pairs to judge and as what the server replays."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.servers.llm import Recording

LLMBAR = Path(__file__).parents[1] / "data" / "llmbar"


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(LLMBAR / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def pairs(subset: str) -> list[dict[str, str]]:
    """Rows for `audit`: the subset's pairs with the better output as gold."""
    return [
        {
            "id": str(row["index"]),
            "prompt": row["input"],
            "response_a": row["output_1"],
            "response_b": row["output_2"],
            "preferred": "a" if row["label"] == 1 else "b",
        }
        for row in _rows(f"dataset_{subset}")
    ]


def recordings(subset: str, strategy: str = "CoT") -> list[Recording]:
    """Both orders of every pair. The completions call what was shown first "Output (a)"."""
    asked = {row["index"]: row for row in _rows(f"dataset_{subset}")}
    found = []
    for row in _rows(f"recorded_{subset}"):
        if row["strategy"] != strategy:
            continue
        shown = asked[row["index"]]
        last = row["results"][-1]
        for swapped, (first, second) in ((False, ("output_1", "output_2")), (True, ("output_2", "output_1"))):
            completion = last[f"swap = {swapped}"]["completion"]
            text = completion[0] if isinstance(completion, list) else completion
            found.append(Recording(shown[first], shown[second], text, asked=shown["input"]))
    return found
