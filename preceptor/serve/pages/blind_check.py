"""`/check`: people judge a sample blind to the judge, to the models and to each other; then how far they agree."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import majority
from preceptor.judge.records import Label, Letter
from preceptor.serve.auth import require
from preceptor.serve.jobs.native import WRITE
from preceptor.serve.pages.human_agreement import agreements, judge_says, with_judge
from preceptor.serve.pages.label_index import LabelFilters, LabelIndex
from preceptor.serve.pages.label_sets import LabelSet, LabelSets, Sets
from preceptor.serve.pages.opinion_store import LEASE_S, BlindCheck, HumanVerdict, OpinionStore, Rule
from preceptor.serve.pages.pairs import LONGEST_REASON, opinions_of
from preceptor.serve.pages.proposals import Proposal, proposals
from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking, Visitor
from preceptor.serve.pages.spreadsheet import csv_file, download
from preceptor.serve.problems import Problem
from preceptor.serve.service import Served, Service

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/check")
MOST_ITEMS = 2000
MOST_PEOPLE = 20
MOST_AGREEMENTS = 40
"""Checks, the latest first, whose agreement the list shows."""
RULES: dict[Rule, str] = {
    "random": "drawn at random from all that have two replies: agreement on it is agreement on all of them",
    "least sure": "those of the smallest margin: what there is most to learn from, and no measure of the whole",
}
Side = Literal["first", "second", "tie"]


@router.get("")
def listed(request: Request, looking: Looking) -> Response:
    """The checks, and how far each is."""
    store = opinions_of(request)
    rows = [(one, store.verdicts(one.id)) for one in store.checks(looking.owner)]
    shown = [
        {
            "check": check,
            "done": sum(verdict.letter is not None for verdict in verdicts),
            "people": len({verdict.person for verdict in verdicts}),
            "mine": sum(verdict.person == _person(looking) for verdict in verdicts),
            "agree": with_judge(store.items(check.id), verdicts)
            if at < MOST_AGREEMENTS and _is_over(check, verdicts)
            else None,
        }
        for at, (check, verdicts) in enumerate(rows)
    ]
    return show(request, "checks.html", checks=shown)


@router.get("/new")
def new(request: Request, known: Sets, labels: str = "") -> Response:
    """How a sample is to be drawn."""
    return show(request, "check_new.html", sets=known.all(), labels=labels, rules=RULES, most=MOST_ITEMS)


@router.post("/new")
async def draw(
    request: Request,
    known: Sets,
    looking: Looking,
    labels: Annotated[str, Form()],
    name: Annotated[str, Form(max_length=120)] = "",
    rule: Annotated[Rule, Form()] = "random",
    size: Annotated[int, Form(ge=1, le=MOST_ITEMS)] = 50,
    people: Annotated[int, Form(ge=1, le=MOST_PEOPLE)] = 2,
    seed: Annotated[int, Form(ge=0, le=2**31 - 1)] = 0,
    shared: Annotated[bool, Form()] = False,
) -> Response:
    """Draw it."""
    require(looking.caller, WRITE)
    looking.signed()

    def work() -> str:
        found, index = known.whole_index(labels)
        items, of = drawn(index, rule, size, seed)
        if not items:
            raise Problem(
                422, "nothing_to_check", "no label here has two replies that differ and a status to check"
            )
        return opinions_of(request).open_check(
            *(looking.caller.key, name.strip() or found.told, labels, rule, seed, of, people),
            *(_guide(found), shared, looking.name, items),
        )

    identity = await asyncio.to_thread(work)
    return RedirectResponse(f"/check/{identity}", 303, HEADERS)


def drawn(index: LabelIndex, rule: Rule, size: int, seed: int) -> tuple[list[Label], int]:
    """The sample, in the order in which it is judged, and how many it was drawn from.

    random: of the labels that are ok, ties or inconsistent, each as likely as every other; the same for the same seed.
    least sure: of those with a margin, the smallest. Labels of two equal replies are left out.
    """
    shuffled = random.Random(seed)
    if rule == "least sure":
        numbers = [row.number for row in index.page(LabelFilters(sort="least sure"), limit=2 * size)]
        of = index.count(LabelFilters(sort="least sure"))
    else:
        numbers = [
            number
            for status in ("ok", "tie", "inconsistent")
            for number in index.numbers(LabelFilters(status=status))
        ]
        of = len(numbers)
        shuffled.shuffle(numbers)
    items: list[Label] = []
    for number in numbers:
        label = index.label(number)
        if label is not None and label.response_a != label.response_b:
            items.append(label)
        if len(items) == size:
            break
    shuffled.shuffle(items)
    return items, of


@router.get("/{identity}")
def overview(request: Request, served: Served, known: Sets, looking: Looking, identity: str) -> Response:
    """A check: its sample, how far it is, and once it is complete or closed what came of it."""
    store = opinions_of(request)
    check = _found(store, looking, identity)
    verdicts = store.verdicts(check.id)
    shown: dict[str, Any] = {"figures": None, "against": []}
    if _is_over(check, verdicts):
        items = store.items(check.id)
        figures = agreements(items, verdicts)
        shown = {
            "figures": figures,
            "against": [_against(check, items, verdicts, at) for at in figures.against],
            "proposals": [
                (one, _editable(served, one)) for one in proposals(items, verdicts, _rules(known, check))
            ],
        }
    people = {
        person: sum(one.person == person for one in verdicts)
        for person in dict.fromkeys(v.person for v in verdicts)
    }
    return show(
        request,
        "check.html",
        check=check,
        rule=RULES[check.rule],
        people=people,
        done=sum(one.letter is not None for one in verdicts),
        over=_is_over(check, verdicts),
        mine=people.get(_person(looking), 0),
        lease_min=round(LEASE_S / 60),
        **shown,
    )


@router.get("/{identity}/next")
def next_item(request: Request, looking: Looking, identity: str, place: int | None = None) -> Response:
    """The next item for this person, or the one that they took back."""
    require(looking.caller, WRITE)
    looking.signed()
    store = opinions_of(request)
    check = _found(store, looking, identity)
    if check.closed_at is not None:
        return RedirectResponse(f"/check/{check.id}", 303, HEADERS)
    person = _person(looking)
    got = store.lease(check, person, place)
    mine = sum(one.person == person for one in store.verdicts(check.id))
    if got is None:
        return show(request, "check_done.html", check=check, mine=mine)
    label = store.item(check.id, got)
    assert label is not None
    replies = (label.response_a, label.response_b)
    return show(
        request,
        "check_item.html",
        check=check,
        place=got,
        mine=mine,
        messages=label.prompt.messages,
        tags=label.prompt.tags,
        replies=replies[::-1] if _swapped(check, got, person) else replies,
    )


@router.post("/{identity}/judge")
async def judge(
    request: Request,
    looking: Looking,
    identity: str,
    place: Annotated[int, Form(ge=1)],
    verdict: Annotated[Literal["first", "second", "tie", "skip"], Form()],
    reason: Annotated[str, Form(max_length=LONGEST_REASON)] = "",
) -> Response:
    """Keep a verdict, and go on."""
    require(looking.caller, WRITE)
    looking.signed()
    store = opinions_of(request)
    check = _found(store, looking, identity)
    if place > check.size:
        raise Problem(404, "not_found", f"this check has {check.size} items")
    if verdict == "skip" and not reason.strip():
        raise Problem(422, "no_reason", "to skip an item wants a reason: write why it cannot be judged")
    person = _person(looking)
    letter = None if verdict == "skip" else letter_of(verdict, _swapped(check, place, person))
    wrong = await asyncio.to_thread(store.judge, check, place, person, letter, reason.strip())
    if wrong:
        raise Problem(409, "not_kept", wrong)
    return RedirectResponse(f"/check/{check.id}/next", 303, HEADERS)


@router.post("/{identity}/undo")
async def undo(request: Request, looking: Looking, identity: str) -> Response:
    """Take one's last verdict back, and see the item again."""
    require(looking.caller, WRITE)
    looking.signed()
    store = opinions_of(request)
    check = _found(store, looking, identity)
    if _is_over(check, store.verdicts(check.id)):
        raise Problem(409, "over", "this check is over, and its results are shown")
    place = await asyncio.to_thread(store.undo, check, _person(looking))
    return RedirectResponse(f"/check/{check.id}/next" + (f"?place={place}" if place else ""), 303, HEADERS)


@router.post("/{identity}/close")
async def close(request: Request, looking: Looking, identity: str) -> Response:
    """Take no more verdicts, and show what came of it."""
    require(looking.caller, WRITE)
    store = opinions_of(request)
    check = _found(store, looking, identity)
    if check.author != looking.name and not looking.may("admin"):
        raise Problem(
            403, "not_yours", f"{check.author} made this check and may close it", "permission_error"
        )
    await asyncio.to_thread(store.close_check, check.id)
    return RedirectResponse(f"/check/{check.id}", 303, HEADERS)


COLUMNS = ("place", "id", "person", "verdict", "reason", "at", "judge_winner", "judge_probability", "status")


@router.get("/{identity}/verdicts.csv")
def verdicts_csv(request: Request, looking: Looking, identity: str) -> Response:
    """Every verdict beside the judge's, once the check is over."""
    check, items, verdicts = _over(request, looking, identity)
    rows = (
        {
            "place": one.place,
            "id": (label := items[one.place - 1]).id,
            "person": one.person,
            "verdict": one.letter or "skipped",
            "reason": one.reason,
            "at": one.at,
            "judge_winner": judge_says(label),
            "judge_probability": label.probability,
            "status": label.status,
        }
        for one in verdicts
    )
    return csv_file(f"{check.id}.csv", COLUMNS, rows)


@router.get("/{identity}/gold.jsonl")
def gold(request: Request, looking: Looking, identity: str) -> Response:
    """The items that have a majority, as pairs with `preferred`: what `preceptor audit` takes."""
    check, items, verdicts = _over(request, looking, identity)
    said: dict[int, list[Letter]] = {}
    for one in verdicts:
        if one.letter is not None:
            said.setdefault(one.place, []).append(one.letter)
    rows = []
    for place, label in enumerate(items, start=1):
        if (most := majority(said.get(place, ()))) is not None:
            row = {
                "id": label.id,
                "messages": [message.model_dump() for message in label.prompt.messages],
                "response_a": label.response_a,
                "response_b": label.response_b,
                "preferred": most,
                "tags": list(label.prompt.tags),
            }
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return download(f"{check.id}-gold.jsonl", "".join(rows), "application/jsonl; charset=utf-8")


def letter_of(side: Side, swapped: bool) -> Letter:
    """What a person says of the replies as they were shown -> the label's own letter."""
    if side == "tie":
        return "tie"
    return "b" if (side == "first") == swapped else "a"


def _swapped(check: BlindCheck, place: int, person: str) -> bool:
    """Whether b is shown first: another toss for every item and person, and always the same."""
    tossed = hashlib.sha256(f"{check.id} {place} {person}".encode()).digest()
    return tossed[0] % 2 == 1


def _guide(found: LabelSet) -> list[dict[str, str]]:
    if found.constitution is None:
        return []
    return [{"id": one.id, "text": one.text} for one in found.constitution.principles]


def _person(looking: Visitor) -> str:
    """A name, and the key with which it was told."""
    return f"{looking.name} ({looking.caller.key})" if looking.caller.key else looking.name


def _found(store: OpinionStore, looking: Visitor, identity: str) -> BlindCheck:
    check = store.check(identity, looking.owner)
    if check is None:
        raise Problem(404, "not_found", "there is no such check")
    return check


def _is_over(check: BlindCheck, verdicts: list[HumanVerdict]) -> bool:
    """Closed, or every verdict is there that is wanted."""
    given = sum(one.letter is not None for one in verdicts)
    return check.closed_at is not None or given >= check.size * check.people


def _over(
    request: Request, looking: Visitor, identity: str
) -> tuple[BlindCheck, list[Label], list[HumanVerdict]]:
    store = opinions_of(request)
    check = _found(store, looking, identity)
    verdicts = store.verdicts(check.id)
    if not _is_over(check, verdicts):
        raise Problem(
            409, "not_over", "verdicts are shown once the check is complete or closed, so that all stay blind"
        )
    return check, store.items(check.id), verdicts


def proposal_of(
    request: Request, known: LabelSets, looking: Visitor, identity: str, principle: str
) -> tuple[BlindCheck, Proposal]:
    """What a check proposes for a principle. Raises Problem 404, and 409 while it must stay blind."""
    check, items, verdicts = _over(request, looking, identity)
    found = proposals(items, verdicts, _rules(known, check))
    for one in found:
        if one.principle == principle:
            return check, one
    raise Problem(404, "not_found", f"this check has nothing against {principle!r}")


def _rules(known: LabelSets, check: BlindCheck) -> Constitution | None:
    """The constitution that made the labels; None: they, or it, are not here any more."""
    try:
        return known.found(check.labels).constitution
    except Problem:
        return None


def _editable(served: Service, proposal: Proposal) -> str:
    """The name under which this server has the constitution with the principle; empty: it has none."""
    bears = proposal.evidence[0].label.constitution.partition("@")[0]
    for name, rules in served.rewards.constitutions.items():
        if rules.name == bears and proposal.principle in {one.id for one in rules.principles}:
            return name
    return ""


def _against(
    check: BlindCheck, items: list[Label], verdicts: list[HumanVerdict], place: int
) -> dict[str, Any]:
    label = items[place - 1]
    return {
        "place": place,
        "id": label.id,
        "labels": check.labels,
        "asked": label.prompt.messages[-1].content[:160],
        "judge": judge_says(label),
        "people": [f"{one.person}: {one.letter or 'skipped'}" for one in verdicts if one.place == place],
        "reasons": [one.reason for one in verdicts if one.place == place and one.reason],
    }
