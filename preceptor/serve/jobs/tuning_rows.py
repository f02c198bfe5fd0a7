"""Training files in OpenAI's forms: what is wrong with them, by line, and supervised rows as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from preceptor.constitution.foreign import json_of

LEAST = 10
"""Rows that a training file has at least, as with OpenAI."""
MOST_FAULTS = 5
"""Faults that are told; with more, the file is of another kind."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TRAINED_ROLES = ("system", "user", "assistant")
"""Roles that the models here are trained on."""


def faults_of(path: Path, method: str) -> list[str]:
    """What is wrong with a file, each with its line; empty: nothing is."""
    found: list[str] = []
    rows = 0
    check = CHECKS[method]
    for number, row in lines_of(path):
        rows += 1
        fault = row if isinstance(row, str) else check(row)
        if fault is not None:
            found.append(f"line {number}: {fault}")
            if len(found) == MOST_FAULTS:
                return found
    if not found and rows < LEAST:
        found.append(f"the file has {rows} examples; wanted at least {LEAST}")
    return found


def lines_of(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of every line that holds something; a text says why one is no row."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            try:
                row = json_of(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError:
                yield number, "not JSON in UTF-8"
                continue
            yield number, row if isinstance(row, dict) else "not a JSON object"


def demonstrations(path: Path) -> Iterator[dict[str, Any]]:
    """Supervised rows -> one row of ours for every reply that is to be learned: all of the assistant's whose `weight`
    is not 0."""
    for _, row in lines_of(path):
        assert isinstance(row, dict)
        messages = [{"role": _role(one), "content": _text(one)} for one in row["messages"]]
        for place, message in enumerate(row["messages"]):
            if message["role"] == "assistant" and place and message.get("weight", 1) != 0:
                yield {"messages": messages[:place], "completion": _text(message)}


def prompts(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of the reinforcement method -> prompts of ours. What else a row holds is for graders that are not served."""
    for _, row in lines_of(path):
        assert isinstance(row, dict)
        yield {"messages": [{"role": _role(one), "content": _text(one)} for one in row["messages"]]}


def _conversation(row: Mapping[str, Any]) -> str | None:
    fault = _messages("messages", row.get("messages"))
    if fault is not None:
        return fault
    replies = [place for place, one in enumerate(row["messages"]) if one["role"] == "assistant" and place]
    if not any(row["messages"][place].get("weight", 1) != 0 for place in replies):
        return "messages: no message of the assistant's to learn from"
    if row["messages"][-1]["role"] != "assistant":
        return "messages: the last is not of the assistant's"
    return None


def _preference(row: Mapping[str, Any]) -> str | None:
    given = row.get("input")
    if not isinstance(given, dict):
        return "input: missing; wanted an object with messages"
    if given.get("tools"):
        return "input.tools: tools are not trained on here; wanted []"
    if (fault := _messages("input.messages", given.get("messages"))) is not None:
        return fault
    if given["messages"][-1]["role"] == "assistant":
        return "input.messages: the last is of the assistant's; wanted one of the user's"
    for name in ("preferred_output", "non_preferred_output"):
        if (fault := _messages(name, row.get(name))) is not None:
            return fault
        if len(row[name]) != 1 or row[name][0]["role"] != "assistant":
            return f"{name}: wanted one message of the assistant's"
    if _text(row["preferred_output"][0]) == _text(row["non_preferred_output"][0]):
        return "preferred_output and non_preferred_output are the same"
    return None


def _question(row: Mapping[str, Any]) -> str | None:
    if (fault := _messages("messages", row.get("messages"))) is not None:
        return fault
    if row["messages"][-1]["role"] != "user":
        return "messages: the last is not of the user's, whom the model is to answer"
    return None


CHECKS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = MappingProxyType(
    {"supervised": _conversation, "dpo": _preference, "reinforcement": _question}
)
"""Method -> what is wrong with a row of its; None: nothing."""


def _messages(place: str, given: Any) -> str | None:
    if not isinstance(given, list) or not given:
        return f"{place}: missing; wanted a list of messages"
    for number, message in enumerate(given):
        here = f"{place}[{number}]"
        if not isinstance(message, dict):
            return f"{here}: wanted an object with role and content"
        if message.get("role") not in ROLES:
            return f"{here}.role: {message.get('role')!r:.40}; wanted one of {', '.join(ROLES)}"
        if _role(message) not in TRAINED_ROLES or message.get("tool_calls") or message.get("function_call"):
            return f"{here}: tools are not trained on here"
        if (text := _text(message)) is None:
            return f"{here}.content: wanted a text, or parts of type text"
        if message["role"] == "assistant" and not text.strip():
            return f"{here}.content: an empty reply"
        if message.get("weight", 1) not in (0, 1):
            return f"{here}.weight: wanted 0 or 1"
    return None


def _role(message: Mapping[str, Any]) -> str:
    """`developer` is what later models call `system`."""
    role = str(message["role"])
    return "system" if role == "developer" else role


def _text(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not parts or not all(isinstance(part, str) for part in parts):
            return None
        return "".join(map(str, parts))
    return content if isinstance(content, str) else None
