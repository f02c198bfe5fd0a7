"""Record, the frozen base of every row, and the rows with which everything begins: Message and Prompt."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

log = logging.getLogger(__name__)

Role = Literal["system", "user", "assistant"]

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def canonical_json(value: Any) -> str:
    """The one JSON form that is hashed: sorted keys, no spaces, UTF-8 as it is."""
    return _CANONICAL.encode(value)


def said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of these keys and values, as `object_pairs_hook`. Raises ValueError for a key with two values, of
    which the standard library would silently take the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        for key, value in pairs:
            if made[key] != value:
                raise ValueError(f"the key {key[:60]!r} stands twice in one object and says two things")
    return made


def content_id(kind: str, *parts: Any) -> str:
    """`kind-<16 hex>`: the identity of a row by its content, for rows that bring no id of their own."""
    return f"{kind}-{hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]}"


class Record(BaseModel):
    """A frozen row. Unknown keys are refused, so that a typo in a file cannot pass for a missing value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> str:
        """The row as one line of JSON Lines, without its unset (None) fields and without the newline."""
        return self.model_dump_json(exclude_none=True)


class Settings(Record):
    """Frozen settings. The words under a field are its description: the first paragraph is the help of its flag."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    former: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Field -> the name that it had in the version before, which is still read, with a warning."""

    @model_validator(mode="before")
    @classmethod
    def _of_former_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for name, old in cls.former.items():
            if old in given and name not in given:
                log.warning("%s is now %s; the former name goes with the next version", old, name)
                given = {name if key == old else key: value for key, value in given.items()}
        return given


class Message(Record):
    """One turn of a conversation."""

    role: Role
    content: str


class Prompt(Record):
    """A conversation that waits for a reply."""

    id: str
    messages: tuple[Message, ...] = Field(min_length=1)
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = Field(default_factory=dict)
    """Columns of the input that are not ours, as they came."""
