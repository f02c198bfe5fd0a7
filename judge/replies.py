"""What came back from a model, read the same way by every stage."""

from __future__ import annotations

from typing import NamedTuple

from preceptor.judge.models.protocol import Completion, Failure, Outcome
from preceptor.judge.records import ReplyStatus


class ModelReply(NamedTuple):
    """A model's text and what became of the request."""

    text: str
    status: ReplyStatus
    problem: str
    """Why the status is not ok, in the provider's words where it gave some."""
    thoughts: str = ""
    """What the model thought before it replied; no part of the reply."""


def read_reply(outcome: Outcome) -> ModelReply:
    """The reply in an outcome.

    `refused` is what the provider declares refused or filtered. A reply that declines in words is a reply:
    whether declining was right is for the judge to say.
    """
    if isinstance(outcome, Failure):
        return ModelReply("", outcome.kind, outcome.problem)
    text, thoughts = outcome.text.strip(), outcome.thoughts
    if outcome.finish_reason == "refused":
        return ModelReply(text, "refused", text or "the provider declined to answer", thoughts)
    if not text:
        return ModelReply("", "empty", _why_empty(outcome), thoughts)
    if outcome.finish_reason == "length":
        return ModelReply(text, "truncated", "the reply was cut off at max_tokens", thoughts)
    if outcome.finish_reason == "cut":
        return ModelReply(text, "truncated", f"the reply was broken off: {outcome.finish_word}", thoughts)
    return ModelReply(text, "ok", "", thoughts)


def _why_empty(outcome: Completion) -> str:
    if outcome.thoughts or outcome.finish_reason == "length":
        return "the model thought until its tokens were used up and wrote no reply; raise --max-tokens"
    if outcome.finish_reason == "cut":
        return f"the reply was broken off before its first word: {outcome.finish_word}"
    return "the reply holds no text"
