"""Rows made once more from what they rest on, and what is wrong with those that were found.

    raw replies in the ledger -> responses, revisions, judgements -> labels -> rankings, preferences

Everything is compared exactly: JSON keeps every digit of a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import Sum
from preceptor.judge.audit.certificate import settled
from preceptor.judge.compare import check, read
from preceptor.judge.ledger.raw_replies import RawReply
from preceptor.judge.models.protocol import WEIGHTS, SideBySide
from preceptor.judge.records import Group, Judgement, Label, Ranking, Response, Revision
from preceptor.judge.replies import read_reply
from preceptor.judge.voting.cascade import VotingRule
from preceptor.judge.voting.derived import stepwise
from preceptor.judge.voting.panel import last_votes
from preceptor.judge.voting.ranking import scores
from preceptor.label.run import pair_of
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.prompts.template import defuse

UNANSWERED = frozenset({"failed", "refused"})
"""What a row can be whose call has no answer."""
Calls = Mapping[str, RawReply]


class Rules(NamedTuple):
    """By what labels came of judgements."""

    constitution: Constitution
    panels: Sequence[tuple[Sequence[str], str]]
    rule: VotingRule
    clamp: tuple[float, float] | None
    own_template: bool
    """Whether the judge was asked by a template that is not shipped."""
    certified: Sequence[float] = ()
    """The confidence, step by step, under which a label abstains."""
    over_all: Mapping[str, float] | None = None
    """Label -> probability, where votes were added up over all labels together; None: they were not."""


def label_faults(label: Label, rules: Rules) -> Iterator[str]:
    """What of a label does not follow from its own judgements."""
    known = {principle.id: principle for principle in rules.constitution.for_prompt(label.prompt.tags)}
    open_ones = {name for name, principle in known.items() if not principle.check}
    for one in label.judgements:
        if one.call is None:
            if one.principle not in known or not known[one.principle].check:
                yield f"a check judges by {one.principle}, which has none"
                return
            if one != check(pair_of(label), known[one.principle]):
                yield f"the check of {one.principle} finds otherwise"
        elif one.principle not in open_ones and not (one.principle == "joint" and open_ones):
            yield f"it was judged by {one.principle}, which is no principle for it"
            return
    made, votes, judge, _ = stepwise(label, rules.constitution, rules.panels, rules.rule)
    if votes != label.votes:
        yield "its votes are not what its judgements say"
    if judge != label.judge:
        yield f"its judge is {label.judge!r}, its judgements are by {judge!r}"
    if rules.over_all is not None and len(last_votes(label)) > 1 and label.id in rules.over_all:
        made = _over_all(rules.over_all[label.id], made)
    as_made = label.model_copy(update={"status": made.status, "probability": made.probability})
    made = made._replace(status=settled(as_made, rules.certified).status)
    if (made.status, made.probability) != (label.status, label.probability):
        yield (
            f"it is {label.status} with probability {label.probability}, its judgements say {made.status} with "
            f"{made.probability}"
        )
    if made.incomplete != label.unjudged:
        yield "what it names as not judged is not what its judgements lack"


def _over_all(probability: float, made: Sum) -> Sum:
    tie = abs(probability - 0.5) < 1e-9
    return made._replace(status="tie" if tie else "ok", probability=0.5 if tie else probability)


def judgement_faults(label: Label, calls: Calls, rules: Rules) -> Iterator[str]:
    """What of a label's judgements is not what their judges replied."""
    for one in label.judgements:
        if one.call is None or one.call not in calls:
            continue  # a check; or a call that is missing, which is told for all rows together
        reply = calls[one.call]
        if reply.completion is None:
            if one.probability is not None or one.status not in UNANSWERED:
                yield f"the call {one.call} has no answer, and its judgement says {one.status}"
            continue
        if one.fault == "failed":
            continue  # it was answered afterwards, for somebody else
        asked = reply.request.model_copy(update={"principle": one.principle})
        if asked.endpoint.startswith(WEIGHTS):
            asked = asked.model_copy(update={"model": one.model})
        if read(reply.completion, one.order, asked, rules.clamp).model_copy(update={"call": one.call}) != one:
            yield f"its judgement of {one.principle} in the {one.order} order is not what {one.model} replied"
        beside = asked.side_by_side
        if one.order == "none":
            shown = beside is not None and _stand_in(beside, label)
        else:
            shown = beside is None and _shown(label, one, asked.messages, rules.own_template)
        if not shown:
            order = "side by side" if one.order == "none" else f"in the {one.order} order"
            yield f"the call {one.call} did not ask about these replies {order}"


def _stand_in(beside: SideBySide, label: Label) -> bool:
    """Whether a request has the pair's replies side by side, a first."""
    own = zip(beside.replies, (label.response_a, label.response_b), strict=True)
    return all(_place(text, reply) is not None for text, reply in own)


def _shown(label: Label, one: Judgement, messages: Sequence[Message], own_template: bool) -> bool:
    """Whether a request shows the pair, in the judgement's order. A template of the user's own may show texts in other
    words, so that nothing is known there unless both replies stand in it as they are."""
    text = "\n".join(message.content for message in messages)
    first, second = (label.response_a, label.response_b)[:: 1 if one.order == "original" else -1]
    said = [_place(text, part) for part in (first, second)]
    if None in said:
        return own_template
    if not own_template and any(_place(text, message.content) is None for message in label.prompt.messages):
        return False
    for before in (first.strip(), defuse(first).strip()):
        start = text.find(before)
        behind = text[start + len(before) :]
        if start >= 0 and any(after.strip() in behind for after in (second, defuse(second))):
            return True
    return False


def _place(text: str, part: str) -> int | None:
    found = max(text.find(part.strip()), text.find(defuse(part).strip()))
    return found if found >= 0 else None


def response_faults(response: Response, calls: Calls) -> Iterator[str]:
    """What of a response is not what its model replied."""
    if response.call not in calls:
        return
    reply = calls[response.call]
    if not _asks(reply.request.messages, response.prompt):
        yield "its call did not ask its prompt"
    if reply.completion is None:
        if response.text or response.status not in UNANSWERED:
            yield f"its call has no answer, and it is {response.status}"
        return
    said = read_reply(reply.completion)
    if response.status != "failed" and (said.text, said.status, said.thoughts) != (
        response.text,
        response.status,
        response.thoughts,
    ):
        yield f"it is not what {response.model} replied"


def revision_faults(revision: Revision, calls: Calls) -> Iterator[str]:
    """What of a revision is not what its critic replied."""
    if revision.text != (revision.drafts[-1] if revision.drafts else revision.response.text):
        yield "its text is not its last draft"
    if len(revision.drafts) != len(revision.calls):
        yield f"{len(revision.drafts)} drafts came of {len(revision.calls)} calls"
    written = [*zip(revision.drafts, revision.calls, strict=False)]
    written += [(critique.text, critique.call) for critique in revision.critiques]
    for text, call in written:
        if call in calls and not said_by(calls[call], text):
            yield f"a draft or critique is not what {revision.model} replied to {call}"


def said_by(reply: RawReply, text: str) -> bool:
    """Whether a text is what came."""
    return reply.completion is not None and read_reply(reply.completion).text == text


def replies_to(prompts: Iterable[Prompt], calls: Calls) -> dict[str, str]:
    """Id of a response -> its text, of every call that asked one of the prompts."""
    by_messages: dict[tuple[Message, ...], list[Prompt]] = {}
    for prompt in prompts:
        by_messages.setdefault(tuple(prompt.messages), []).append(prompt)
    found: dict[str, str] = {}
    for key, reply in calls.items():
        messages = tuple(reply.request.messages)
        asked = by_messages.get(messages) or by_messages.get(messages[1:]) or []
        if reply.completion is not None:
            text = read_reply(reply.completion).text
            found |= {content_id("response", prompt.id, key): text for prompt in asked}
    return found


def ranking_faults(ranking: Ranking, labels: Mapping[str, Label]) -> Iterator[str]:
    """What of a ranking does not follow from its labels."""
    if missing := [name for name in ranking.labels if name not in labels]:
        yield f"its label {missing[0]} is missing"
        return
    group = Group(id=ranking.id, prompt=ranking.prompt, responses=ranking.responses, sources=ranking.sources)
    at = {source: number for number, source in enumerate(ranking.sources)}
    met: dict[tuple[int, int], Label] = {}
    for name in ranking.labels:
        label = labels[name]
        places = [at.get(source) for source in label.sources or ()]
        if len(places) != 2 or None in places:
            yield f"its label {name} compares other replies"
            return
        one, other = (number for number in places if number is not None)
        replies = (label.response_a, label.response_b)
        if replies != (ranking.responses[one], ranking.responses[other]):
            yield f"its label {name} compares other texts"
        # the order of a meeting is the group's, whichever reply was shown as a
        met[min(one, other), max(one, other)] = label
    if not same_scores(scores(group, met), ranking.scores):
        yield "its scores are not what its labels say"


def same_scores(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Whether strengths are equal but for the iteration's own error."""
    return len(one) == len(other) and all(
        a == b or (a is not None and b is not None and abs(a - b) < 1e-6)
        for a, b in zip(one, other, strict=True)
    )


def _asks(messages: Sequence[Message], prompt: Prompt) -> bool:
    return tuple(messages[-len(prompt.messages) :]) == tuple(prompt.messages)
