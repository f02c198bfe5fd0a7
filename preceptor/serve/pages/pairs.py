"""`/pairs`: labels one by one, what made them, and what people say of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from preceptor.judge.aggregate import deciding, opinions, winner
from preceptor.judge.audit.audit import decisive
from preceptor.judge.ledger import queries
from preceptor.judge.ledger.location import reading
from preceptor.judge.records import Label, Letter
from preceptor.serve.auth import require
from preceptor.serve.jobs.native import WRITE
from preceptor.serve.pages.differences import marked
from preceptor.serve.pages.label_index import MOST_NUMBER, PAGE, SORTS, BeingIndexed, LabelFilters, LabelIndex
from preceptor.serve.pages.label_sets import LabelSet, Sets
from preceptor.serve.pages.opinion_store import Correction, OpinionStore
from preceptor.serve.pages.rendering import HEADERS, query_of, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.pages.spreadsheet import csv_file, download
from preceptor.serve.problems import Problem

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/pairs")
LONGEST_REASON = 2000


def opinions_of(request: Request) -> OpinionStore:
    """What people have said."""
    store: OpinionStore = request.app.state.opinions
    return store


@router.get("")
def sets(request: Request, known: Sets) -> Response:
    """Which labels there are."""
    return show(request, "label_sets.html", sets=known.all())


class ListQuery(LabelFilters):
    """Filters, and where in the list one is."""

    after: int | None = Field(default=None, ge=1, le=MOST_NUMBER)
    before: int | None = Field(default=None, ge=1, le=MOST_NUMBER)


@router.get("/{name}")
def listed(request: Request, known: Sets, name: str, wanted: Annotated[ListQuery, Query()]) -> Response:
    """Labels by filters, a page at a time."""
    found = known.found(name)
    index = known.index(found)
    if isinstance(index, BeingIndexed):
        return show(request, "being_indexed.html", set=found, rows=index.rows)
    filters = LabelFilters.model_validate(wanted.model_dump(exclude={"after", "before"}))
    rows = index.page(filters, wanted.after, wanted.before, PAGE + 1)
    more = len(rows) > PAGE
    back = wanted.before is not None
    rows = rows[-PAGE:] if back else rows[:PAGE]
    query = filters.query()
    return show(
        request,
        "pairs.html",
        set=found,
        facts=index.facts,
        rows=rows,
        count=index.count(filters),
        filters=filters,
        query=query,
        sorts=tuple(SORTS),
        earlier=more if back else wanted.after is not None,
        later=more or back,
    )


class ShownJudgement(NamedTuple):
    """A judgement as the page shows it."""

    principle: str
    by: str
    order: str
    letter: str | None
    probability: float | None
    status: str
    reason: str
    call: str | None


class PairQuery(LabelFilters):
    """A label, and the filters of the list in which it was found."""

    id: str


@router.get("/{name}/pair")
def pair(request: Request, known: Sets, name: str, asked: Annotated[PairQuery, Query()]) -> Response:
    """One label with all that made it. Its address holds as long as the labels have this name."""
    found, index = known.whole_index(name)
    number, label = _label(index, asked.id)
    wanted = LabelFilters.model_validate(asked.model_dump(exclude={"id"}))
    parts = marked(label.response_a, label.response_b)
    sides = [
        {"letter": letter, "text": text, "parts": parts[at] if parts else None, "model": model}
        for at, (letter, text, model) in enumerate(
            zip("ab", (label.response_a, label.response_b), label.models or ("", ""), strict=True)
        )
    ]
    rows = [
        ShownJudgement(
            *(one.principle, one.model, one.order, one.letter, one.probability),
            *(one.fault or one.status, one.reason, one.call),
        )
        for one in label.judgements
    ]
    before, after = (index.page(wanted, before=number, limit=1), index.page(wanted, after=number, limit=1))
    return show(
        request,
        "pair.html",
        set=found,
        label=label,
        number=number,
        winner=_winner(label),
        sides=sides,
        judgements=rows,
        opinions=opinions(label),
        decisive=_decisive(label, found),
        corrections=opinions_of(request).corrections(name, label.id),
        query=wanted.query(),
        before=before[0] if before else None,
        after=after[0] if after else None,
    )


@router.get("/{name}/call")
def call(request: Request, known: Sets, name: str, id: str, key: str) -> Response:  # noqa: A002
    """A call behind a label: what was asked, what came, and its price, as the ledger has it."""
    found, index = known.whole_index(name)
    _, label = _label(index, id)
    if key not in {one.call for one in label.judgements}:
        raise Problem(404, "not_found", "this label rests on no such call")
    made = None
    if found.ledger is not None:
        with reading(found.ledger) as connection:
            made = next(queries.calls(connection, queries.Wanted(key=key), limit=1), None)
    return show(request, "call.html", set=found, label=label, call=made, key=key)


@router.post("/{name}/correct")
async def correct(
    request: Request,
    known: Sets,
    looking: Looking,
    name: str,
    id: Annotated[str, Form()],  # noqa: A002
    letter: Annotated[Letter, Form()],
    reason: Annotated[str, Form(max_length=LONGEST_REASON)] = "",
) -> Response:
    """Say what the better reply is, beside what the judge says."""
    require(looking.caller, WRITE)
    author = looking.signed()
    if not reason.strip():
        raise Problem(422, "no_reason", "a correction wants a reason: the next reader asks why")
    _, index = await asyncio.to_thread(known.whole_index, name)
    await asyncio.to_thread(_label, index, id)
    await asyncio.to_thread(opinions_of(request).correct, name, id, letter, reason.strip(), author)
    return RedirectResponse(f"/pairs/{quote(name)}/pair{query_of({}, id=id)}", 303, HEADERS)


COLUMNS = ("id", "status", "judge_winner", "judge_probability", "correction", "reason", "author", "at")


@router.get("/{name}/corrections.csv")
def corrections_csv(request: Request, known: Sets, name: str) -> Response:
    """Every correction with what the judge said."""
    return csv_file("corrections.csv", COLUMNS, _corrected(request, known, name))


@router.get("/{name}/corrections.jsonl")
def corrections_jsonl(request: Request, known: Sets, name: str) -> Response:
    """The same as JSON Lines."""
    rows = "".join(json.dumps(row) + "\n" for row in _corrected(request, known, name))
    return download("corrections.jsonl", rows, "application/jsonl; charset=utf-8")


def _corrected(request: Request, known: Sets, name: str) -> Iterator[Mapping[str, Any]]:
    _, index = known.whole_index(name)
    return _beside(index, opinions_of(request).corrections(name))


def _beside(index: LabelIndex, corrections: Sequence[Correction]) -> Iterator[Mapping[str, Any]]:
    for one in corrections:
        number = index.number_of(one.label)
        label = index.label(number) if number is not None else None
        yield {
            "id": one.label,
            "status": label.status if label else None,
            "judge_winner": _winner(label) if label else None,
            "judge_probability": label.probability if label else None,
            "correction": one.letter,
            "reason": one.reason,
            "author": one.author,
            "at": one.at,
        }


def _label(index: LabelIndex, identity: str) -> tuple[int, Label]:
    """(line, label). Raises Problem 404."""
    number = index.number_of(identity)
    label = index.label(number) if number is not None else None
    if number is None or label is None:
        raise Problem(404, "not_found", "there is no label with this id here")
    return number, label


def _winner(label: Label) -> Letter | None:
    """None where the judgements add up to none."""
    if label.probability is None or label.status not in ("ok", "tie"):
        return None
    return winner(label.probability)


def _decisive(label: Label, found: LabelSet) -> list[str] | None:
    """The principles without which there would be another winner; None: it is not known."""
    if found.constitution is None or found.constitution.identity != label.constitution:
        return None
    try:
        return list(decisive(label, deciding(label), found.constitution))
    except KeyError:
        return None
