"""Files -> pairs and groups that wait for a judge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args

from preceptor.judge.records import Group, Letter, Pair, Response
from preceptor.prompts.layouts.recognition import pairs_in, parsed_pairs
from preceptor.prompts.pool import Ids, conversation, messages_of, meta_of, tags_of
from preceptor.prompts.records import Prompt, content_id
from preceptor.prompts.rows import BadRowError, RawRow, kind_of, parsed, parsed_rows, validated

PAIR_COLUMNS = frozenset(
    {
        "id",
        "prompt",
        "messages",
        "tags",
        "meta",
        "response_a",
        "response_b",
        "responses",
        "chosen",
        "rejected",
    }
    | {"preferred", "sources"}
)
FORMS = (("response_a", "response_b"), ("responses",), ("chosen", "rejected"))
WANTED = "response_a and response_b, or responses, or chosen and rejected"


class _Replies(NamedTuple):
    texts: tuple[str, ...]
    """In the order in which they become a and b; more than two make adjacent pairs."""
    preferred: Letter | None


def read_pairs(
    source: str | Path, form: str = "rows", columns: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """The pairs of a file as a stream, in order.

    `rows`: `prompt` or `messages` beside `response_a` and `response_b`, or `responses` (each with its
    neighbour: n replies make n - 1 pairs, whose ids end in `-1`, `-2`, ...), or TRL's `chosen` and
    `rejected`, or whatever layout of the field the file has (`prompts.layouts`). Another `form` names the layout,
    and `columns` names theirs by ours.

    Of `chosen` and `rejected`, which one is a is drawn by a hash of prompt and replies that does not see
    which was chosen: were a always the chosen one, a judge that always says A would look perfect in the
    original order.

    Raises RowsError with up to ten faults, each with its line, or where the layout is not known.
    """
    how = pairs_in(source, form, columns)
    for pairs in parsed_pairs(source, _row_reader(), how):
        yield from pairs


class Candidate(NamedTuple):
    """A reply that is to be compared with others."""

    id: str
    text: str
    model: str = ""
    """Who wrote it; empty where that is not known."""


def slotted(prompt: Prompt, one: Candidate, other: Candidate) -> Pair:
    """Two replies as a pair whose a is drawn by a hash of their ids, so that no slot is anybody's."""
    a, b = sorted((one, other), key=lambda reply: content_id("slot", reply.id))
    return Pair(
        id=content_id("pair", a.id, b.id),
        prompt=prompt,
        response_a=a.text,
        response_b=b.text,
        sources=(a.id, b.id),
        models=(a.model, b.model) if a.model and b.model else None,
    )


def read_groups(source: str | Path) -> Iterator[Group]:
    """The groups of a file as a stream: rows with `responses`, a list of two or more replies to one prompt.

    Raises RowsError with up to ten faults, each with its line.
    """
    return parsed_rows(source, _group_reader())


def pairs_of(rows: Iterable[RawRow], name: str) -> Iterator[Pair]:
    """The pairs of rows in our own columns, as `read_pairs` makes them; `name` is what faults call the rows.

    Raises RowsError with up to ten faults, each with its row.
    """
    for pairs in parsed(name, rows, _row_reader()):
        yield from pairs


def groups_in(rows: Iterable[RawRow], name: str) -> Iterator[Group]:
    """The groups of rows, as `read_groups` makes them. Raises RowsError likewise."""
    return parsed(name, rows, _group_reader())


def groups_of(responses: Iterable[Response]) -> Iterator[Group]:
    """The responses to each prompt, where there are two or more that hold a reply, cut off or not; rows of one prompt
    stand together."""
    for prompt_id, rows in groupby(responses, key=lambda response: response.prompt.id):
        usable = [response for response in rows if response.status in ("ok", "truncated")]
        if len(usable) > 1:
            yield Group(
                id=content_id("group", prompt_id, [response.id for response in usable]),
                prompt=usable[0].prompt,
                responses=tuple(response.text for response in usable),
                sources=tuple(response.id for response in usable),
                models=tuple(response.model for response in usable),
            )


def _group_reader() -> Callable[[RawRow], Group]:
    ids = Ids()

    def read(row: RawRow) -> Group:
        if row.fields.get("responses") is None:
            raise BadRowError(
                "no responses", "a list of at least two replies; groups are ranked from such rows"
            )
        prompt = prompt_of(row)
        texts = _replies(row.fields, "responses", prompt).texts
        identity = ids.of(
            row, content_id("group", [message.model_dump() for message in prompt.messages], texts)
        )
        sources = tuple(f"{identity}-{number}" for number in range(1, len(texts) + 1))
        return Group(id=identity, prompt=prompt, responses=texts, sources=sources)

    return read


def _row_reader() -> Callable[[RawRow], tuple[Pair, ...]]:
    ids = Ids()

    def read(row: RawRow) -> tuple[Pair, ...]:
        fields = row.fields
        given = [form for form in FORMS if any(fields.get(name) is not None for name in form)]
        if len(given) != 1:
            columns = ", ".join(name for form in given for name in form if fields.get(name) is not None)
            raise BadRowError(columns or "no replies", f"{WANTED}, and one of these forms alone")
        if missing := [name for name in given[0] if fields.get(name) is None]:
            raise BadRowError(f"no {missing[0]}", f"{' and '.join(given[0])} together")
        prompt = prompt_of(row)
        return _pairs(row, prompt, _replies(fields, given[0][0], prompt), ids)

    return read


def prompt_of(row: RawRow, columns: frozenset[str] = PAIR_COLUMNS) -> Prompt:
    """The row's prompt: text, messages, or one of our own Prompt rows. What is in none of the columns is its meta.

    Raises BadRowError.
    """
    fields = row.fields
    if isinstance(fields.get("prompt"), Mapping):
        return validated(Prompt, fields["prompt"])
    if fields.get("chosen") is not None and fields.get("prompt") is None and fields.get("messages") is None:
        raise BadRowError(
            "chosen and rejected without a prompt", "the conversation in a column of its own, prompt"
        )
    messages = messages_of(fields)
    return Prompt(
        id=content_id("prompt", [message.model_dump() for message in messages]),
        messages=messages,
        tags=tags_of(fields),
        meta=meta_of(fields, columns),
    )


def _replies(fields: Mapping[str, Any], form: str, prompt: Prompt) -> _Replies:
    preferred = fields.get("preferred")
    if preferred is not None and preferred not in get_args(Letter):
        raise BadRowError(f"preferred is {preferred!r}", "a, b or tie")
    if form == "response_a":
        return _Replies((_reply("response_a", fields), _reply("response_b", fields)), preferred)
    if form == "responses":
        value = fields["responses"]
        if not isinstance(value, (list, tuple)) or len(value) < 2:
            came = f"a list of {len(value)}" if isinstance(value, (list, tuple)) else kind_of(value)
            raise BadRowError(f"responses is {came}", "a list of at least two replies")
        if preferred is not None and len(value) > 2:
            raise BadRowError(f"preferred beside {len(value)} responses", "preferred for two replies only")
        texts = tuple(
            _reply(f"responses[{index}]", {f"responses[{index}]": item}) for index, item in enumerate(value)
        )
        return _Replies(texts, preferred)
    if preferred is not None:
        raise BadRowError("preferred beside chosen and rejected", "one of them: chosen is the gold")
    return _placed(prompt, _reply("chosen", fields), _reply("rejected", fields))


def _reply(name: str, fields: Mapping[str, Any]) -> str:
    """One reply: a text, or a list with one message of the assistant."""
    value = fields[name]
    if isinstance(value, str):
        return value
    messages = conversation(name, value)
    if len(messages) > 1 or messages[0].role != "assistant":
        roles = ", ".join(message.role for message in messages)
        raise BadRowError(
            f"{name} holds the conversation too ({roles})",
            "the reply alone; the conversation stands in prompt",
        )
    return messages[0].content


def _placed(prompt: Prompt, chosen: str, rejected: str) -> _Replies:
    """Chosen and rejected as a and b, placed without regard to which is which."""

    def place(text: str) -> str:
        turns = [message.model_dump() for message in prompt.messages]
        return hashlib.sha256(content_id("place", turns, text).encode()).hexdigest()

    if place(chosen) <= place(rejected):
        return _Replies((chosen, rejected), "a")
    return _Replies((rejected, chosen), "b")


def _pairs(row: RawRow, prompt: Prompt, replies: _Replies, ids: Ids) -> tuple[Pair, ...]:
    turns = [message.model_dump() for message in prompt.messages]
    identity = ids.of(row, content_id("pair", turns, replies.texts))
    several = len(replies.texts) > 2
    return tuple(
        Pair(
            id=f"{identity}-{index}" if several else identity,
            prompt=prompt,
            response_a=a,
            response_b=b,
            preferred=replies.preferred,
            sources=_sources(row.fields),
        )
        for index, (a, b) in enumerate(pairwise(replies.texts), start=1)
    )


def _sources(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    match fields.get("sources"):
        case None:
            return None
        case [str(a), str(b)]:
            return a, b
        case other:
            raise BadRowError(f"sources is {kind_of(other)}", "the ids of the two replies")
