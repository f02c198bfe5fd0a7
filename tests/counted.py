"""`python -m tests.counted`: how many instructions our readers of foreign text take, for texts of three lengths, as
JSON: name -> [what the text begins with, what is repeated, [of 20 times, of 40, of 80]].
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from preceptor.judge.models import door
from preceptor.judge.models.http.faults import FaultContext, error_of, fault_of, status_in
from preceptor.judge.models.http.waits import allowances, stated_s, wait_s
from preceptor.prompts import thoughts, verdict
from preceptor.prompts.secrets import redacted, shown_address

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MENU = {"a": "Verdict: A", "b": "Verdict: B"}
GRADES = {str(grade): f"Score: {grade}" for grade in range(1, 11)}
ASKED = FaultContext("openai", "openai/m", "KEY")


def read_refusal(text: str) -> object:
    body = {"error": {"message": text, "code": text, "retry_after": text, "details": [text]}}
    return error_of(fault_of(ASKED, status_in(body), body, {"retry-after": text}))


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "a verdict": lambda text: verdict.parse(text, MENU),
    "a grade": lambda text: verdict.parse(text, GRADES),
    "thoughts": thoughts.split,
    "a time": lambda text: stated_s(text, NOON),
    "a wait": lambda text: wait_s({}, {"retry_after": text}, f"try again in {text}", NOON),
    "limits": lambda text: allowances(
        {f"x-ratelimit-{part}-requests": text for part in ("limit", "remaining", "reset")}, NOON
    ),
    "a refusal": read_refusal,
    "a body": lambda text: door.json_of(text.encode()),
    "a body's text": lambda text: door.json_of(json.dumps({"a": [{"b": text}]}).encode()),
    "many texts": lambda text: door.texts_of([{"text": part} for part in text]),
    "sound": door.sound,
    "secrets": redacted,
    "an address": lambda text: shown_address(f"http://x/{text}?{text}"),
}
"""What reads foreign text, whatever patterns and loops it has within."""
PUMPS = (
    *(
        "\\boxed{",
        "\\text{",
        "Verdict:",
        "Verdict: A\n",
        "Verdict: A or ",
        "Verdict\n",
        "Score: 7/",
        "Score: ",
        "<",
    ),
    *(
        "<think>",
        "</think>",
        "<think>a</think>",
        "```\n",
        "<|channel|>final",
        '{"verdict": ',
        '"',
        "> ",
        "- ",
        "*",
    ),
    *(
        "a1",
        "1",
        "1s ",
        "1.",
        "[",
        "{",
        '{"a":',
        "[1,",
        "\n",
        " ",
        "try again in 1",
        "\u200b",
        "“",
        "'a",
        "a=",
        "a=b&",
    ),
)
SLOW = "a slow loop"


def instructions(call: Callable[[], object]) -> int:
    """Instructions of Python that a call takes, the calls within it included; what C does is not counted."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def slow(text: str) -> int:
    """Quadratic, so that it shows whether such a one is seen."""
    return sum(1 for start in range(len(text)) for _ in text[start:])


def counted(function: Callable[[str], object], start: str, pump: str) -> list[int]:
    """Of 20, 40 and 80 times what is repeated."""

    def read(text: str) -> None:
        with contextlib.suppress(ValueError):
            function(text)

    read("Verdict: A")  # patterns are built once
    texts = [start + pump * many for many in (20, 40, 80)]
    return [instructions(lambda text=text: read(text)) for text in texts]  # type: ignore[misc]


def main() -> None:
    """Print it."""
    found: dict[str, list[Any]] = {
        name: [(start, pump, counted(function, start, pump)) for start in ("", "Verdict: ") for pump in PUMPS]
        for name, function in FUNCTIONS.items()
    }
    found[SLOW] = [("", "a", counted(slow, "", "a"))]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
