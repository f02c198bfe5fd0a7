"""The forms that a reply can be asked for. Markdown is read by markdown-it, JSON by the standard library."""

from __future__ import annotations

import json
from typing import Any

from preceptor.constitution.foreign import json_of

FORMATS = {
    "json": "the whole reply is one valid JSON value",
    "json-object": "the whole reply is one valid JSON object",
    "json-array": "the whole reply is one valid JSON array",
    "markdown-list": "the reply holds a Markdown list, bulleted or numbered, of two items or more",
    "numbered-list": "the reply holds a numbered Markdown list of two items or more",
    "code-block": "the reply holds a fenced code block that is closed",
    "table": "the reply holds a Markdown table",
    "one-line": "the reply is a single line",
}


def problem(reply: str, form: str) -> str:
    """What keeps the reply from the form; empty where nothing does."""
    if form.startswith("json"):
        return _json_problem(reply, form)
    if form == "one-line":
        lines = len(reply.strip().splitlines())
        return "" if lines == 1 else f"{lines} lines"
    return _markdown_problem(reply, form)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _json_problem(reply: str, form: str) -> str:
    try:
        value = json_of(reply, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return f"not JSON (line {error.lineno}: {error.msg})"
    except ValueError as error:
        return f"not JSON ({error})"
    wanted = {"json-object": dict, "json-array": list}.get(form, object)
    return "" if isinstance(value, wanted) else f"JSON, but a {_json_kind(value)}"


def _json_kind(value: object) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _markdown_problem(reply: str, form: str) -> str:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(reply)
    if form == "table":
        return "" if any(token.type == "table_open" for token in tokens) else "no table"
    if form == "code-block":
        fences = [token for token in tokens if token.type == "fence"]
        if not fences:
            return "no fenced code block"
        last_line = reply.rstrip().splitlines()[-1].strip()
        open_ended = (
            fences[-1].map
            and fences[-1].map[1] >= len(reply.splitlines())
            and not last_line.startswith(fences[-1].markup)
        )
        return "a code block that is never closed" if open_ended else ""
    kinds = {"ordered_list_open"} if form == "numbered-list" else {"ordered_list_open", "bullet_list_open"}
    longest = 0
    for place, token in enumerate(tokens):
        if token.type in kinds:
            longest = max(longest, _items(tokens, place))
    return "" if longest >= 2 else f"{longest} list items"


def _items(tokens: list[Any], place: int) -> int:
    """Items of the list that opens at this place, without those of lists inside it."""
    level = tokens[place].level
    count = 0
    for token in tokens[place + 1 :]:
        if token.level == level and token.type.endswith("_list_close"):
            break
        count += token.type == "list_item_open" and token.level == level + 1
    return count
