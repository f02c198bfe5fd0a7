"""A conversation in a model's chat template, with all that must be in it and no mark but the template's."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.constitution.errors import UserError
from preceptor.judge.models.local.text_tokens import text_tokens
from preceptor.prompts.deadline import within

_log = logging.getLogger(__name__)
Row = Mapping[str, str]
LIMIT_S = 10.0
"""Seconds that a conversation may take to be rendered; it takes milliseconds."""
WAYS = ((False, False), (True, False), (False, True), (True, True))
"""How a conversation may be changed to suit a template: (system message into the first turn, neighbours joined)."""


class UnrenderableError(UserError):
    """The chat template cannot write a conversation, or leaves out what stands in it."""


def render(tokenizer: Any, rows: Sequence[Row], generation_prompt: bool) -> str:
    """The conversation as the model reads it, thinking switched off, with the assistant's turn opened if asked for.

    Without a template as `role: text` paragraphs. A system message that the template refuses or leaves out opens the
    first turn instead; neighbouring turns of one role are joined where the template refuses them. Marks of control
    tokens that the texts hold are text (`text_tokens`). Raises UnrenderableError.
    """
    texts = text_tokens(tokenizer)
    held: list[str] = []
    marked = any(texts.holds(row["content"]) for row in rows)
    if marked:
        rows = [{"role": row["role"], "content": texts.hold_back(row["content"], held)} for row in rows]
    if not tokenizer.chat_template:
        text = "".join(f"{row['role']}: {row['content']}\n\n" for row in rows)
        text += "assistant: " * generation_prompt
    else:
        text = _by_template(tokenizer, arranged(tokenizer, rows), generation_prompt)
    return texts.marked(text, held) if marked else text


def ids_of(tokenizer: Any, rows: Sequence[Row], generation_prompt: bool) -> list[int]:
    """The tokens of `render`. Without a template the tokenizer's own beginning of text stands before them."""
    text = render(tokenizer, rows, generation_prompt)
    return text_tokens(tokenizer).ids([text], add_special_tokens=not tokenizer.chat_template)[0]


def arranged(tokenizer: Any, rows: Sequence[Row]) -> Sequence[Row]:
    """The conversation as the template takes it whole. Raises UnrenderableError where it takes it in no way."""
    into_first, joining = _way(tokenizer, tuple(row["role"] for row in rows))
    if into_first:
        first = {**rows[1], "content": f"{rows[0]['content']}\n\n{rows[1]['content']}"}
        rows = [first, *rows[2:]]
    return joined(rows) if joining else rows


def joins(tokenizer: Any, roles: Sequence[str]) -> bool:
    """Whether neighbouring turns of a conversation with these roles are joined for this template."""
    return bool(tokenizer.chat_template) and _way(tokenizer, tuple(roles))[1]


def joined(rows: Sequence[Row]) -> list[Row]:
    """Neighbouring turns of one role as one, a blank line between them."""
    made: list[Row] = []
    for row in rows:
        if made and made[-1]["role"] == row["role"]:
            made[-1] = {**made[-1], "content": f"{made[-1]['content']}\n\n{row['content']}"}
        else:
            made.append(row)
    return made


_WAYS: weakref.WeakKeyDictionary[Any, dict[tuple[str, tuple[str, ...]], Any]] = weakref.WeakKeyDictionary()


def _way(tokenizer: Any, roles: tuple[str, ...]) -> tuple[bool, bool]:
    """The first way in which the template writes all messages of such a conversation, tried once with words of ours."""
    known = _WAYS.setdefault(tokenizer, {})
    key = (str(tokenizer.chat_template), roles)
    if key not in known:
        known[key] = _tried(tokenizer, roles)
    found = known[key]
    if isinstance(found, str):
        raise UnrenderableError(found)
    return found  # type: ignore[no-any-return]


def _tried(tokenizer: Any, roles: tuple[str, ...]) -> tuple[bool, bool] | str:
    rows = [{"role": role, "content": f"zq{index}x message"} for index, role in enumerate(roles)]
    has_system = len(roles) > 1 and roles[0] == "system"
    problem = ""
    for into_first, joining in WAYS:
        tried: Sequence[Row] = rows
        if into_first and not has_system:
            continue
        if into_first:
            tried = [{**rows[1], "content": f"{rows[0]['content']}\n\n{rows[1]['content']}"}, *rows[2:]]
        if joining:
            tried = joined(tried)
        try:
            text = _by_template(tokenizer, tried, False)
        except UnrenderableError as exc:
            problem = problem or str(exc)
            if isinstance(exc.__cause__, TimeoutError):
                break  # it would not end in another way either
            continue
        lost = [role for index, role in enumerate(roles) if f"zq{index}x" not in text]
        if lost:
            problem = problem or f"the chat template leaves out the message of the {lost[0]}"
            continue
        if into_first and _log.isEnabledFor(logging.INFO):
            _log.info("the chat template has no room for a system message: its words open the first turn")
        if joining:
            _log.warning(
                "the chat template refuses roles that do not alternate: neighbouring turns are joined"
            )
        return into_first, joining
    return f"{problem}; the roles are {', '.join(roles)}"


def _by_template(tokenizer: Any, rows: Sequence[Row], generation_prompt: bool) -> str:
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": generation_prompt}
    turns = [dict(row) for row in rows]
    try:
        return str(
            within(LIMIT_S, lambda: tokenizer.apply_chat_template(turns, enable_thinking=False, **options))
        )
    except TimeoutError as exc:
        raise UnrenderableError(f"the chat template does not end: {exc}") from exc
    except Exception as exc:  # a template is a program of somebody else's and raises what it likes
        said = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
        raise UnrenderableError(f"the chat template refuses the conversation: {said}") from exc
