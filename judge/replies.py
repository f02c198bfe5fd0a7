"""What came back from a model, read the same way by every stage."""

from __future__ import annotations

from typing import NamedTuple

from preceptor.judge.models.protocol import Failure, Outcome
from preceptor.judge.records import ReplyStatus


class Reply(NamedTuple):
    """A model's text and what became of the request."""

    text: str
    status: ReplyStatus
    problem: str
    """Why the status is not ok, in the provider's words where it gave some."""


def read_reply(outcome: Outcome) -> Reply:
    """The reply in an outcome.

    `refused` is what the provider declares refused or filtered. A reply that declines in words is a reply:
    whether declining was right is for the judge to say.
    """
    if isinstance(outcome, Failure):
        return Reply("", outcome.kind, outcome.problem)
    text = outcome.text.strip()
    if outcome.finish_reason == "refused":
        return Reply(text, "refused", text or "the provider declined to answer")
    if not text:
        return Reply("", "empty", "the reply holds no text")
    if outcome.finish_reason == "length":
        return Reply(text, "truncated", "the reply was cut off at max_tokens")
    return Reply(text, "ok", "")
