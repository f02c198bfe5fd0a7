"""A model that answers from a script: for tests, demonstrations and replays, without network or weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of, text_in
from preceptor.judge.errors import Rejected
from preceptor.judge.models.protocol import Capabilities, Completion, ModelName, Request

ScriptedReply = str | Completion | Exception
"""What the script says next: a text, a whole completion, or an error to raise."""


class ScriptedModel:
    """Answers from a function of the request, or from lines used in turn; satisfies `protocol.Model`."""

    capabilities = Capabilities()

    def __init__(
        self,
        script: Callable[[Request], ScriptedReply] | Iterable[ScriptedReply],
        *,
        name: str = "scripted/script",
        dialect: str = "",
        remember: bool = True,
    ) -> None:
        """remember: whether `requests` keeps what was asked."""
        self.name = name
        self.endpoint = ""
        self.dialect = dialect
        self.requests: list[Request] = []
        """What was asked, in order."""
        self._remember = remember
        self._answer = script if callable(script) else _in_turn(script)

    async def complete(self, request: Request) -> Completion:
        """What the script says, with words counted as tokens where it counts none."""
        if self._remember:
            self.requests.append(request)
        said = self._answer(request)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Completion):
            return said
        return Completion(
            text=said,
            finish_reason="stop",
            served_by=self.name,
            tokens_in=sum(len(message.content.split()) for message in request.messages),
            tokens_out=len(said.split()),
        )

    async def close(self) -> None:
        """Nothing is held."""


def _in_turn(lines: Iterable[ScriptedReply]) -> Callable[[Request], ScriptedReply]:
    rest = iter(lines)

    def following(_: Request) -> ScriptedReply:
        return next(rest, Rejected("the script has no line left"))

    return following


class _Rule:
    """One line of a script file: its text answers all requests that it matches, or one in its turn."""

    def __init__(self, place: str, row: dict[str, Any]) -> None:
        unknown = sorted(set(row) - {"text", "match"})
        if unknown or not isinstance(row.get("text"), str):
            raise UserError(
                f'{place}: wanted {{"text": …}} and optionally "match", came {", ".join(row) or "nothing"}'
            )
        self.text: str = row["text"]
        try:
            self.match = re.compile(row["match"], re.DOTALL) if "match" in row else None
        except (re.error, TypeError, OverflowError, RecursionError) as exc:
            raise UserError(f"{place}: match is not a regular expression: {exc}") from exc


def read_script(path: Path) -> Callable[[Request], ScriptedReply]:
    """A file of JSON lines -> a script.

    {"match": regex, "text": …} answers every request in whose messages the expression is found, the first
    such line first; {"text": …} lines answer the others in turn.
    """
    try:
        rows = [*_rows(path)]
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: the script cannot be read: {exc}") from exc
    following = _in_turn([row.text for row in rows if row.match is None])
    matching = [row for row in rows if row.match is not None]

    def answer(request: Request) -> ScriptedReply:
        text = "\n\n".join(message.content for message in request.messages)
        for rule in matching:
            if rule.match is not None and rule.match.search(text):
                return rule.text
        return following(request)

    return answer


def _rows(path: Path) -> Iterator[_Rule]:
    for number, line in enumerate(text_in(path).splitlines(), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                row = json_of(line)
            except ValueError as exc:
                raise UserError(f"{place}: not JSON ({exc}); wanted one object on a line") from exc
            if not isinstance(row, dict):
                raise UserError(f'{place}: came {type(row).__name__}; wanted an object like {{"text": …}}')
            yield _Rule(place, row)


def open_model(name: str) -> ScriptedModel:
    """`scripted/FILE` -> a model that answers from the file."""
    return ScriptedModel(read_script(Path(ModelName.of(name).model)), name=name, remember=False)
