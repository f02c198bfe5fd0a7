"""Files -> single replies that are good or bad, for KTO. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from preceptor.judge.records import Score
from preceptor.prompts.columns import renamed
from preceptor.prompts.pool import Ids, messages_of
from preceptor.prompts.records import Message, Record, content_id
from preceptor.prompts.rows import BadRowError, RawRow, kind_of, parsed_rows
from preceptor.train.data.readers import name_of
from preceptor.train.errors import TrainDataError


class UnpairedExample(Record):
    """A reply, and whether it is one to be given."""

    id: str
    prompt: tuple[Message, ...] = Field(min_length=1)
    completion: str
    good: bool
    constitution: str = Field(default="", exclude=True)
    """As `train.data.readers.Demonstration` has it, and so is `judge`: who said whether the reply is good."""
    judge: str = Field(default="", exclude=True)


class UnpairedExamples(NamedTuple):
    """Replies to train on, and rows of the file that are none."""

    rows: list[UnpairedExample]
    set_aside: dict[str, int]
    """Reason -> number of rows."""


def read_unpaired(source: str | Path, columns: Mapping[str, str] | None = None) -> UnpairedExamples:
    """Verdicts of a file: what `preceptor score` writes, or TRL's rows of `prompt`, `completion` and `label`.

    A score is good above the middle of its scale and bad below; one without a grade, and one on the middle,
    is set aside. `columns` are names of ours -> the file's own.
    Raises RowsError with file and lines for rows that cannot be read, TrainDataError where none is usable.
    """
    rows: list[UnpairedExample] = []
    aside: dict[str, int] = {}
    read = _reader()
    for row in parsed_rows(source, lambda row: read(row._replace(fields=renamed(row.fields, columns or {})))):
        if isinstance(row, UnpairedExample):
            rows.append(row)
        else:
            aside[row] = aside.get(row, 0) + 1
    if not rows:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in aside.items())
        raise TrainDataError(f"{source}: no row to train on ({reasons}); wanted replies that are good or bad")
    return UnpairedExamples(rows, aside)


def from_score(score: Score) -> UnpairedExample | str:
    """The verdict that a score comes to, or why there is none."""
    if score.status != "ok" or score.reward is None:
        return f"the score is {score.status}"
    if score.reward == 0:
        return "its score is on the middle of the scale"
    return UnpairedExample(
        id=score.id,
        prompt=score.prompt.messages,
        completion=score.text,
        good=score.reward > 0,
        constitution=score.constitution,
        judge=score.judge,
    )


def _reader() -> Callable[[RawRow], UnpairedExample | str]:
    ids = Ids()

    def read(row: RawRow) -> UnpairedExample | str:
        fields = row.fields
        if "grades" in fields and "judge" in fields:
            try:
                return from_score(Score.model_validate(fields))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in first["loc"])
                raise BadRowError(
                    f"{place}: {first['msg'].lower()}", "a row that `preceptor score` wrote"
                ) from error
        completion, label = fields.get("completion"), fields.get("label")
        if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], dict):
            completion = completion[0].get("content")
        if "chosen" in fields and "rejected" in fields:
            raise BadRowError("the row is a pair", "single replies; pairs are for `preceptor train dpo`")
        if not isinstance(completion, str):
            raise BadRowError(
                f"completion is {kind_of(completion)}", "a text, or one message of the assistant's"
            )
        if not isinstance(label, bool):
            raise BadRowError(f"label is {kind_of(label)}", "true or false")
        prompt = messages_of(fields)
        derived = content_id("verdict", [message.model_dump() for message in prompt], completion)
        return UnpairedExample(
            id=ids.of(row, derived),
            prompt=prompt,
            completion=completion,
            good=label,
            constitution=name_of(fields, "constitution", ""),
            judge=name_of(fields, "judge", ""),
        )

    return read
