"""Files -> Prompts, with ids, and the split into training and held-out prompts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args

from preceptor.prompts.columns import renamed
from preceptor.prompts.errors import RowsError
from preceptor.prompts.records import Message, Prompt, Role, content_id
from preceptor.prompts.rows import BadRowError, RawRow, kind_of, parsed_rows, text_of
from preceptor.prompts.seen import SeenIds

PROMPT_COLUMNS = frozenset({"id", "prompt", "messages", "tags", "meta"})


class PromptSplit(NamedTuple):
    """Prompts to learn from, and prompts that nothing may learn from."""

    train: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]


class Ids:
    """Gives every row of one file its id: the one that it brings, or one derived from its content.

    A second row that brings the same id is a fault that names both lines. Equal rows without ids are told
    apart by a number (`prompt-5f…`, `prompt-5f…-2`), because both came in and both must go out.
    """

    def __init__(self) -> None:
        self._seen = SeenIds()
        self._equal: Counter[str] = Counter()

    def of(self, row: RawRow, derived: str) -> str:
        """The row's id; `derived` where it brings none. Raises BadRowError."""
        came = row.fields.get("id")
        if came is None:
            if self._seen.add(derived, row.line) is None:
                return derived
            self._equal[derived] += 1
            identity = f"{derived}-{self._equal[derived] + 1}"
        elif isinstance(came, (str, int)) and not isinstance(came, bool) and str(came).strip():
            identity = str(came)
        else:
            raise BadRowError(
                f"id is {kind_of(came) if came != '' else 'empty'}", "a text or a whole number, or no id"
            )
        before = self._seen.add(identity, row.line)
        if before is not None:
            raise BadRowError(f"id {identity!r} stands on line {before} too", "ids that differ, or none")
        return identity


def read_prompts(source: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[Prompt]:
    """The prompts of a file as a stream, in order.

    A row has `prompt` (a text) or `messages`, and may have `id` and `tags`; other columns go to `meta`. `columns` are
    names of ours -> the file's own.
    Raises RowsError with up to ten faults, each with its line, after the good rows before the first of them.
    """
    read = _prompt_reader()
    return parsed_rows(source, lambda row: read(row._replace(fields=renamed(row.fields, columns or {}))))


def _prompt_reader() -> Callable[[RawRow], Prompt]:
    ids = Ids()

    def read(row: RawRow) -> Prompt:
        messages, tags = messages_of(row.fields), tags_of(row.fields)
        identity = ids.of(row, content_id("prompt", [message.model_dump() for message in messages]))
        return Prompt(id=identity, messages=messages, tags=tags, meta=meta_of(row.fields, PROMPT_COLUMNS))

    return read


def messages_of(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation that a row gives as `prompt` or as `messages`. Raises BadRowError."""
    given = [name for name in ("prompt", "messages") if fields.get(name) is not None]
    if len(given) != 1:
        came = "both prompt and messages" if given else "neither prompt nor messages"
        raise BadRowError(came, "one of them, with the conversation that waits for a reply")
    name, value = given[0], fields[given[0]]
    if isinstance(value, str) and name == "prompt":
        if not value.strip():
            raise BadRowError("prompt is empty", "a text")
        return (Message(role="user", content=value),)
    messages = conversation(name, value)
    if messages[-1].role != "user":
        raise BadRowError(
            f"{name} ends with a message of the {messages[-1].role}", "a last message of the user"
        )
    return messages


def conversation(name: str, value: Any) -> tuple[Message, ...]:
    """Messages out of a list of {role, content}. Raises BadRowError; `name` is the column."""
    wanted = "a list of {role, content}"
    if not isinstance(value, (list, tuple)):
        raise BadRowError(
            f"{name} is {kind_of(value)}", f"a text or {wanted}" if name != "messages" else wanted
        )
    if not value:
        raise BadRowError(f"{name} is an empty list", wanted)
    return tuple(_message(f"{name}[{index}]", item) for index, item in enumerate(value))


def _message(name: str, item: Any) -> Message:
    if not isinstance(item, Mapping):
        raise BadRowError(f"{name} is {kind_of(item)}", "an object with role and content")
    role, content = item.get("role"), item.get("content")
    if role not in get_args(Role):
        raise BadRowError(f"{name}.role is {role!r}", "system, user or assistant")
    if extra := sorted(
        key for key, value in item.items() if key not in ("role", "content") and value is not None
    ):
        raise BadRowError(f"{name} has {', '.join(extra)} beside role and content", "messages of plain text")
    return Message(role=role, content=text_of(f"{name}.content", content))


def tags_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The row's tags, each once, in order. In CSV they may stand in one cell, between commas. Raises
    BadRowError.
    """
    value = fields.get("tags")
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(tag, str) and tag.strip() for tag in value):
        raise BadRowError(f"tags is {value!r:.60}", "a list of texts")
    return tuple(dict.fromkeys(tag.strip() for tag in value))


def meta_of(fields: Mapping[str, Any], ours: frozenset[str]) -> dict[str, Any]:
    """The columns that are not ours, beside what the row's own `meta` holds. Raises BadRowError."""
    own = fields.get("meta")
    if own is not None and not isinstance(own, Mapping):
        raise BadRowError(f"meta is {kind_of(own)}", "an object")
    others = {key: value for key, value in fields.items() if key not in ours}
    if both := sorted(set(others) & set(own or {})):
        raise BadRowError(f"{', '.join(both)} stands in meta and as a column", "one of the two")
    return {**(own or {}), **others}


def split(prompts: Iterable[Prompt], held_out_share: float, seed: int) -> PromptSplit:
    """Prompts by a hash of seed and id: where a prompt falls depends on no other prompt, so adding rows moves
    none.
    """
    if not 0 <= held_out_share <= 1:
        raise RowsError(f"held-out share is {held_out_share}; wanted a number from 0 to 1")
    train: list[Prompt] = []
    held_out: list[Prompt] = []
    for prompt in prompts:
        drawn = int(hashlib.sha256(f"{seed}:{prompt.id}".encode()).hexdigest()[:12], 16) / 16**12
        (held_out if drawn < held_out_share else train).append(prompt)
    return PromptSplit(tuple(train), tuple(held_out))


def shipped_pools() -> tuple[str, ...]:
    """Names of the pools that come with Preceptor."""
    folder = resources.files("preceptor.prompts").joinpath("pools")
    return tuple(
        sorted(
            entry.name.removesuffix(".jsonl") for entry in folder.iterdir() if entry.name.endswith(".jsonl")
        )
    )


def pool_path(name: str) -> Path:
    """Where a shipped pool lies. Raises RowsError that lists the pools."""
    if name not in shipped_pools():
        raise RowsError(f"{name}: no such pool; wanted one of {', '.join(shipped_pools())}")
    return Path(str(resources.files("preceptor.prompts").joinpath("pools", f"{name}.jsonl")))


def prompts_from(source: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[Prompt]:
    """The prompts of a shipped pool, by its name, or of a file, whose columns may have other names; a pool's are
    ours."""
    if str(source) in shipped_pools():
        return read_prompts(pool_path(str(source)))
    return read_prompts(source, columns)
