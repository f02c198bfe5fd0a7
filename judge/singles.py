"""Files -> single replies that wait for a grade."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from preceptor.constitution.errors import FileFault
from preceptor.judge.pairs import FORMS, prompt_of
from preceptor.judge.score import ReplyToScore
from preceptor.prompts.layouts.recognition import renamed_rows
from preceptor.prompts.pool import Ids, conversation
from preceptor.prompts.records import content_id
from preceptor.prompts.rows import BadRowError, RawRow, kind_of, parsed

COLUMNS = frozenset({"id", "prompt", "messages", "tags", "meta", "response"})


def holds_singles(source: str | Path, columns: Mapping[str, str]) -> bool:
    """Whether the file's first row has a `response`, and nothing that makes it a pair. columns: ours -> theirs."""
    first = next(renamed_rows(source, columns), None)
    if not isinstance(first, RawRow) or first.fields.get("response") is None:
        return False
    return not any(first.fields.get(name) is not None for form in FORMS for name in form)


def read_singles(source: str | Path, columns: Mapping[str, str]) -> Iterator[ReplyToScore]:
    """The replies of a file as a stream: rows with `prompt` or `messages`, `response`, and where they have them `id`
    and `tags`. columns: ours -> theirs.

    Raises RowsError with up to ten faults, each with its line.
    """
    return singles_of(renamed_rows(source, columns), str(source))


def singles_of(rows: Iterable[RawRow | FileFault], name: str) -> Iterator[ReplyToScore]:
    """The replies of rows; `name` is what faults call the rows. Raises RowsError likewise."""
    return parsed(name, rows, _reader())


def _reader() -> Callable[[RawRow], ReplyToScore]:
    ids = Ids()

    def read(row: RawRow) -> ReplyToScore:
        prompt = prompt_of(row, COLUMNS)
        text = _text(row.fields.get("response"))
        turns = [message.model_dump() for message in prompt.messages]
        return ReplyToScore(ids.of(row, content_id("reply", turns, text)), prompt, text)

    return read


def _text(value: object) -> str:
    """A text, or a list with one message of the assistant."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        messages = conversation("response", value)
        if len(messages) == 1 and messages[0].role == "assistant":
            return messages[0].content
    came = "no response" if value is None else f"response is {kind_of(value)}"
    raise BadRowError(came, "the reply to be graded: a text, or one message of the assistant")
