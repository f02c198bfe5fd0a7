"""Response -> Revision: critique by a principle, then a rewrite, for n rounds (Bai et al. 2022, 3.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from preceptor.constitution.checks import looks_refused
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.models.protocol import Dialogue, Model, Request
from preceptor.judge.records import Critique, ReplyStatus, Response, Revision
from preceptor.judge.replies import ModelReply, read_reply
from preceptor.judge.settings import ReviseSettings
from preceptor.prompts.records import Message, content_id
from preceptor.prompts.template import load, nonce


class _Round(NamedTuple):
    critique: Critique | None
    draft: str | None
    call: str
    status: ReplyStatus
    problem: str
    thoughts: str = ""


def revise(
    response: Response, constitution: Constitution, model: Model, settings: ReviseSettings
) -> Dialogue[Revision]:
    """The response, criticised and rewritten `rounds` times, each round by one principle.

    A round whose critique or revision is refused, empty, cut off or failed leaves the former draft; the
    following rounds go on from there. The status is `ok` if every round succeeded, else that of the first
    round that did not, with the round named in `problem`. A response without a whole reply, one that was cut off
    included, is passed on with its own status: its revision would be compared with half a reply.
    """
    rounds: list[_Round] = []
    text = response.text
    principles = drawn(constitution.for_prompt(response.prompt.tags), response.id, settings)
    skipped = _skipped(response, principles)
    for principle in () if skipped else principles:
        step = yield from _one_round(response, text, principle, model, settings)
        text = step.draft or text
        rounds.append(step)
    bad = next((index for index, step in enumerate(rounds) if step.status != "ok"), None)
    status, problem = skipped or ("ok", "")
    if bad is not None:
        status = rounds[bad].status
        problem = f"round {bad + 1} ({principles[bad].id}): {rounds[bad].problem}"
    return Revision(
        id=content_id("revision", response.id, constitution.identity, model.name, settings.model_dump()),
        response=response,
        critiques=tuple(step.critique for step in rounds if step.critique),
        drafts=tuple(step.draft for step in rounds if step.draft is not None),
        calls=tuple(step.call for step in rounds if step.draft is not None),
        text=text,
        thoughts=tuple(step.thoughts for step in rounds if step.draft is not None),
        status=status,
        problem=problem,
        constitution=constitution.identity,
        model=model.name,
    )


def drawn(
    principles: Sequence[Principle], response_id: str, settings: ReviseSettings
) -> tuple[Principle, ...]:
    """The principle of each round: a shuffle of those with critique wording, begun anew when it is used up.

    A pure function of the seed, the response's id and the principles' ids, so that neither the order of rows
    nor the number of workers changes what is asked. Empty where no principle has critique wording.
    """

    def place(principle: Principle) -> str:
        return hashlib.sha256(f"{settings.seed}:{response_id}:{principle.id}".encode()).hexdigest()

    shuffled = sorted((principle for principle in principles if principle.critique), key=place)
    return tuple(shuffled[index % len(shuffled)] for index in range(settings.rounds) if shuffled)


def _skipped(response: Response, principles: Sequence[Principle]) -> tuple[ReplyStatus, str] | None:
    """Status and problem of a response that is not revised at all."""
    if response.status != "ok":
        return response.status, f"the response was not usable: {response.problem}"
    if not principles:
        return "failed", "no principle with critique wording applies to this prompt"
    return None


def _one_round(
    response: Response, text: str, principle: Principle, model: Model, settings: ReviseSettings
) -> Dialogue[_Round]:
    messages = response.prompt.messages
    code = nonce(settings.seed, [message.model_dump() for message in messages], text)
    slots = {"messages": messages, "response": text, "principle": principle, "nonce": code}
    asked = load("critique", model.dialect).render(**slots)
    request = _request(asked, principle, "critique", model, settings)
    (outcome,) = yield (request,)
    critique = _usable(read_reply(outcome))
    if critique.status != "ok":
        return _Round(None, None, request.key, critique.status, f"critique: {critique.problem}")
    said = Critique(principle=principle.id, text=critique.text, thoughts=critique.thoughts, call=request.key)
    code = nonce(settings.seed, [message.model_dump() for message in messages], text, critique.text)
    asked = load("revise", model.dialect).render(**{**slots, "critique": critique.text, "nonce": code})
    request = _request(asked, principle, "revise", model, settings)
    (outcome,) = yield (request,)
    draft = read_reply(outcome)
    if draft.status != "ok":
        return _Round(said, None, request.key, draft.status, f"revision: {draft.problem}")
    return _Round(said, draft.text, request.key, "ok", "", draft.thoughts)


def _usable(critique: ModelReply) -> ModelReply:
    """A critique that declines is none. A revision may decline: that can be the very repair."""
    if critique.status == "ok" and looks_refused(critique.text):
        return critique._replace(status="refused", problem=critique.text)
    return critique


def _request(
    messages: tuple[Message, ...], principle: Principle, stage: str, model: Model, settings: ReviseSettings
) -> Request:
    return Request(
        model=model.name,
        endpoint=model.endpoint,
        messages=messages,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=settings.seed,
        effort=settings.effort or "",
        stage=stage,
        principle=principle.id,
    )
