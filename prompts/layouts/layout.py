"""A layout: by what it is known, how a row of it is read, how one is written.

Read rows have our own columns: `prompt` or `messages` with `chosen` and `rejected`, or `response_a`, `response_b` and,
where it is known, `preferred`. Columns that a layout has no use for are handed on as they came, and end in `meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from preceptor.prompts.records import content_id
from preceptor.prompts.rows import BadRowError, kind_of, text_of

Fields = dict[str, Any]
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""How others call the three roles."""


class ConversationPair(NamedTuple):
    """A pair in the form from which every layout is written."""

    id: str
    messages: list[Fields]
    """{role, content}, the last of the user."""
    chosen: str
    rejected: str
    rest: Fields
    """What else the row holds: tags, probability, and what was under `meta`."""


class Layout(NamedTuple):
    """One way in which the field writes pairs."""

    name: str
    about: str
    """What it is called, and by what rule pairs are made where that is not plain."""
    fits: Callable[[Fields], bool]
    """Whether a row looks like it, by its columns and what they hold."""
    read: Callable[[Fields], Iterable[Fields]]
    """The rows of ours in a row of it. Raises BadRowError."""
    write: Callable[[ConversationPair], Fields] | None = None
    together: Callable[[Fields], Any] | None = None
    """What neighbouring rows share that make pairs with one another; they are then read as one row with `rows`."""


def has(fields: Mapping[str, Any], *names: str) -> bool:
    """Whether the row has something in all these columns."""
    return all(fields.get(name) is not None for name in names)


def without(fields: Mapping[str, Any], *names: str) -> Fields:
    """The row's other columns."""
    return {key: value for key, value in fields.items() if key not in names}


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages: {role, content}, or ShareGPT's {from, value}."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(
            isinstance(item, Mapping)
            and ({"role", "content"} <= item.keys() or {"from", "value"} <= item.keys())
            for item in value
        )
    )


def is_message(value: Any) -> bool:
    """Whether a value is one message."""
    return is_conversation([value])


def messages_of(name: str, value: Any) -> list[Fields]:
    """A list of messages in our own words for the roles, of plain text. Raises BadRowError."""
    if not is_conversation(value):
        raise BadRowError(f"{name} is {kind_of(value)}", "a list of messages")
    messages = []
    for index, item in enumerate(value):
        role = item.get("role", item.get("from"))
        content = item.get("content", item.get("value"))
        if role not in ROLES:
            raise BadRowError(
                f"{name}[{index}] is of the role {role!r}", "system, user or assistant, or a name for them"
            )
        messages.append({"role": ROLES[role], "content": text_of(f"{name}[{index}]", content)})
    return messages


def reply(name: str, value: Any) -> str:
    """One reply: a text, a message of the assistant, or a list of one; what a table took for a number or a truth is its
    words. Raises BadRowError.
    """
    if is_message(value):
        value = [value]
    if is_conversation(value):
        messages = messages_of(name, value)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            raise BadRowError(f"{name} holds more than one message of the assistant", "the reply alone")
        return str(messages[0]["content"])
    return str(value) if isinstance(value, (bool, int, float)) else text_of(name, value)


def parted(chosen: Any, rejected: Any) -> tuple[list[Fields], str, str]:
    """Two whole conversations -> what they share, and the two last replies. Raises BadRowError."""
    one, other = messages_of("chosen", chosen), messages_of("rejected", rejected)
    for name, messages in (("chosen", one), ("rejected", other)):
        if messages[-1]["role"] != "assistant":
            raise BadRowError(
                f"{name} ends with a message of the {messages[-1]['role']}", "a last reply of the assistant"
            )
    if one[:-1] != other[:-1]:
        raise BadRowError(
            "chosen and rejected differ before the last reply", "conversations that share all but it"
        )
    if not one[:-1]:
        raise BadRowError(
            "chosen and rejected hold a reply alone", "a prompt, in its own column or before the reply"
        )
    return one[:-1], str(one[-1]["content"]), str(other[-1]["content"])


def asked(fields: Mapping[str, Any], question: str, more: str = "", system: str = "") -> Fields:
    """`prompt`, or `messages` where there is a system text or a conversation: a question with what belongs to it."""
    value = fields[question]
    if is_conversation(value):
        messages = messages_of(question, value)
        return {"messages": messages}
    words = text_of(question, value)
    if more and isinstance(fields.get(more), str) and fields[more].strip():
        words = f"{words}\n\n{fields[more]}"
    if system and isinstance(fields.get(system), str) and fields[system].strip():
        return {
            "messages": [{"role": "system", "content": fields[system]}, {"role": "user", "content": words}]
        }
    return {"prompt": words}


def slots(row: ConversationPair) -> tuple[str, str, bool]:
    """The two replies side by side, and whether the first is the chosen one: drawn by the id.

    No slot is anybody's: were the chosen one always first, a judge that always says A would look perfect.
    """
    first = int(content_id("slot", row.id)[-1], 16) % 2 == 0
    return (row.chosen, row.rejected, True) if first else (row.rejected, row.chosen, False)
