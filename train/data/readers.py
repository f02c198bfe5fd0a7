"""Files -> preferences and demonstrations, in any of the forms in which they come. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pydantic import Field, ValidationError

from preceptor.judge.records import Opinion, Preference, Revision
from preceptor.prompts.columns import renamed
from preceptor.prompts.layouts.recognition import pairs_in, parsed_pairs
from preceptor.prompts.pool import Ids, conversation, messages_of, meta_of, tags_of
from preceptor.prompts.records import Message, Record, content_id
from preceptor.prompts.rows import BadRowError, RawRow, kind_of, parsed_rows
from preceptor.train.errors import TrainDataError

PAIR_COLUMNS = frozenset(Preference.model_fields) | {"messages"}
NOT_PREFERRED = "no reply is preferred"
UNKNOWN = "unknown"
"""Constitution and judge of rows that do not name them, such as those of a public preference data set."""


class Demonstration(Record):
    """A prompt and the reply to learn."""

    id: str
    prompt: tuple[Message, ...] = Field(min_length=1)
    completion: str
    constitution: str = Field(default="", exclude=True)
    """By which it was revised; like `judge` empty where the row does not say. Both are for the manifest alone:
    they cannot change what is learned, and so have no part in a row's hash."""
    judge: str = Field(default="", exclude=True)


class Preferences(NamedTuple):
    """Pairs to train on, and rows of the file that are none."""

    rows: list[Preference]
    set_aside: dict[str, int]
    """Reason -> number of rows."""


class Demonstrations(NamedTuple):
    """Replies to train on, and rows of the file that are none."""

    rows: list[Demonstration]
    set_aside: dict[str, int]
    """Reason -> number of rows."""


def read_preferences(
    source: str | Path, form: str = "rows", columns: Mapping[str, str] | None = None
) -> Preferences:
    """Preferences of a file.

    `rows`: our own preferences, or TRL's `prompt`, `chosen`, `rejected` as texts or messages, where a missing
    probability means 1. A `weight` is the pair's in the loss; a `margin` other than 2 * probability - 1 is
    kept under `meta`, as every unknown column is, and is the pair's margin. Every other layout of the field
    (`prompts.layouts`) is read by sight, or is named by `form`; `columns` names its columns by ours. What they call
    chosen is taken as certain unless they say otherwise; pairs in which nothing is preferred are set aside.
    Raises RowsError with file and lines for rows that cannot be read, TrainDataError where none is a
    preference.
    """
    if form == "hh":
        return _read_transcripts(source)
    read = _preference_reader()
    rows: list[Preference] = []
    aside: dict[str, int] = {}
    for row in parsed_pairs(
        source, lambda row: _undecided(row.fields) or read(row), pairs_in(source, form, columns)
    ):
        if isinstance(row, Preference):
            rows.append(row)
        else:
            aside[row] = aside.get(row, 0) + 1
    if not rows:
        raise TrainDataError(f"{source}: no row says which reply is preferred")
    return Preferences(rows, aside)


def _undecided(fields: Mapping[str, Any]) -> str:
    """Why a pair teaches nothing; empty where a reply is chosen, or the row has no pair of replies at all."""
    if "chosen" in fields or "response_a" not in fields:
        return ""
    return "a tie" if fields.get("preferred") == "tie" else NOT_PREFERRED


def read_demonstrations(source: str | Path, columns: Mapping[str, str] | None = None) -> Demonstrations:
    """Demonstrations of a file: our own revisions, or rows of `prompt` (or `messages`) and `completion`. `columns` are
    names of ours -> the file's own.

    Raises RowsError with file and lines for rows that cannot be read, TrainDataError where none is usable.
    """
    rows: list[Demonstration] = []
    aside: dict[str, int] = {}
    read = _demonstration_reader()
    for row in parsed_rows(source, lambda row: read(row._replace(fields=renamed(row.fields, columns or {})))):
        if isinstance(row, Demonstration):
            rows.append(row)
        else:
            aside[row] = aside.get(row, 0) + 1
    if not rows:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in aside.items())
        raise TrainDataError(f"{source}: no row to train on ({reasons}); wanted revisions of status ok")
    return Demonstrations(rows, aside)


def from_revision(row: Revision) -> Demonstration | str:
    """The final reply of a revision that went well, or why there is none."""
    if row.status != "ok":
        return f"the revision is {row.status}"
    if not row.text.strip():
        return "the revised reply is empty"
    return Demonstration(
        id=row.id,
        prompt=row.response.prompt.messages,
        completion=row.text,
        constitution=row.constitution,
    )


def _preference_reader() -> Callable[[RawRow], Preference]:
    ids = Ids()

    def read(row: RawRow) -> Preference:
        fields = row.fields
        for name in ("chosen", "rejected"):
            if name not in fields:
                raise BadRowError(f"no column {name}", "prompt, chosen and rejected")
        prompt = messages_of(fields)
        chosen, rejected = (_reply(fields, name) for name in ("chosen", "rejected"))
        derived = content_id("pair", *([m.model_dump() for m in part] for part in (prompt, chosen, rejected)))
        probability = _number(fields, "probability", 1.0)
        if not 0.5 <= probability <= 1:
            raise BadRowError(
                f"probability is {probability}",
                "0.5 to 1, of the chosen reply: exchange the replies below 0.5",
            )
        margin = 2 * probability - 1
        meta = meta_of(fields, PAIR_COLUMNS)
        own = _number({**meta, **fields}, "margin", margin)
        if own < 0 or (weight := _number(meta, "weight", 1.0)) < 0:
            name, value = ("margin", own) if own < 0 else ("weight", weight)
            raise BadRowError(f"{name} is {value}", "a number that is not negative")
        return Preference(
            id=ids.of(row, derived),
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            probability=probability,
            margin=margin,
            constitution=name_of(fields, "constitution", UNKNOWN),
            judge=name_of(fields, "judge", UNKNOWN),
            tags=tags_of(fields),
            principles=_opinions(fields),
            gold=_gold(fields),
            meta=meta if math.isclose(own, margin, abs_tol=1e-6) else {**meta, "margin": own},
        )

    return read


def _reply(fields: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    value = fields[name]
    if isinstance(value, str):
        return (Message(role="assistant", content=value),)
    messages = conversation(name, value)
    if any(message.role != "assistant" for message in messages):
        raise BadRowError(
            f"{name} holds more than the reply",
            "the assistant's messages alone, the prompt in its own column",
        )
    return messages


def _opinions(fields: Mapping[str, Any]) -> tuple[Opinion, ...]:
    """What each principle says, as a list of {principle, probability}."""
    wanted = "a list of {principle, probability}, the probability that the chosen reply is the better"
    value = fields.get("principles") or ()
    if not isinstance(value, list | tuple):
        raise BadRowError(f"principles is {kind_of(value)}", wanted)
    try:
        found = tuple(Opinion.model_validate(one) for one in value)
    except ValidationError as error:
        raise BadRowError(f"principles: {error.errors()[0]['msg'].lower()}", wanted) from None
    if len({one.principle for one in found}) < len(found):
        raise BadRowError("principles names one twice", "each principle once")
    return found


def _gold(fields: Mapping[str, Any]) -> Literal["chosen", "rejected", "tie"] | None:
    value = fields.get("gold")
    if value not in (None, "chosen", "rejected", "tie"):
        raise BadRowError(f"gold is {value!r}", "chosen, rejected or tie")
    return cast(Literal["chosen", "rejected", "tie"] | None, value)


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name, default)
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise BadRowError(f"{name} is {kind_of(value)}", "a number") from None
    if not math.isfinite(number):
        raise BadRowError(f"{name} is {number}", "a finite number")
    return number


def name_of(fields: Mapping[str, Any], name: str, absent: str) -> str:
    """A row's constitution or judge; `absent` where it has no such column."""
    value = fields.get(name, absent)
    if not isinstance(value, str):
        raise BadRowError(f"{name} is {kind_of(value)}", "a text")
    return value


def _demonstration_reader() -> Callable[[RawRow], Demonstration | str]:
    ids = Ids()

    def read(row: RawRow) -> Demonstration | str:
        if "response" in row.fields and "drafts" in row.fields:
            return from_revision(_revision(row.fields))
        completion = row.fields.get("completion")
        if isinstance(completion, list):
            completion = "".join(message.content for message in _reply(row.fields, "completion"))
        if not isinstance(completion, str):
            came = "no column completion" if completion is None else f"completion is {kind_of(completion)}"
            raise BadRowError(came, "prompt and completion, or the rows that `preceptor revise` writes")
        prompt = messages_of(row.fields)
        derived = content_id("demonstration", [message.model_dump() for message in prompt], completion)
        if not completion.strip():
            return "the completion is empty"
        return Demonstration(
            id=ids.of(row, derived),
            prompt=prompt,
            completion=completion,
            constitution=name_of(row.fields, "constitution", ""),
            judge=name_of(row.fields, "judge", ""),
        )

    return read


def _revision(fields: Mapping[str, Any]) -> Revision:
    try:
        return Revision.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadRowError(
            f"{place}: {first['msg'].lower()}", "a row that `preceptor revise` wrote"
        ) from error


def _read_transcripts(source: str | Path) -> Preferences:
    from preceptor.judge.pairs import read_pairs

    rows: list[Preference] = []
    aside: dict[str, int] = {}
    for pair in read_pairs(source, "hh"):
        if pair.preferred not in ("a", "b"):
            aside[NOT_PREFERRED] = aside.get(NOT_PREFERRED, 0) + 1
            continue
        replies = (pair.response_a, pair.response_b)
        chosen, rejected = replies if pair.preferred == "a" else replies[::-1]
        rows.append(
            Preference(
                id=pair.id,
                prompt=pair.prompt.messages,
                chosen=(Message(role="assistant", content=chosen),),
                rejected=(Message(role="assistant", content=rejected),),
                probability=1.0,
                margin=1.0,
                constitution=UNKNOWN,
                judge=UNKNOWN,
                tags=pair.prompt.tags,
            )
        )
    if not rows:
        raise TrainDataError(f"{source}: no row says which reply is preferred")
    return Preferences(rows, aside)
