"""The door for replies: what a model sent is read, bounded and made safe here, whoever it is and by whichever way it
came.

A codec finds the parts of a body (`Arrived`), `completion_of` makes of them what the rest of the program believes.
`admitted` does what concerns any model's completion, one in this process or another package's too.

What is not known is not taken for good: a reply counts as ended only where its finish reason is one of `GOOD_ENDS`, a
count of tokens that is missing or absurd is estimated and marked as such.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import ModelError, Rejected, Transient, Unreadable
from preceptor.judge.models.learned import HIDDEN_TOKENS
from preceptor.judge.models.protocol import Completion, FinishReason, Request
from preceptor.judge.models.reply_limits import billed_tokens, hidden_tokens, reply_tokens
from preceptor.judge.models.token_estimates import (
    likely_tokens,
    most_tokens_in,
    planned_tokens,
    planned_tokens_in,
)
from preceptor.judge.models.verdict_tokens import TokenChoice, last_verdict, verdict_probabilities
from preceptor.prompts.records import said_once
from preceptor.prompts.secrets import redacted
from preceptor.prompts.thoughts import split

LARGEST_BODY = 32 * 2**20
"""Bytes of one reply that are read; the longest replies of today's models have a hundredth of it, with
probabilities."""
LARGEST_RESULTS = 16 * 2**30
"""Bytes of a batch's results that are read: those of 50,000 requests with all probabilities have a quarter of it."""
DEEPEST = 64
"""Levels of a body; the deepest of today's has a dozen."""
MOST_TOKENS = 10**7
"""A count above it is no count: no model reads or writes so many."""
MOST_FRAMING = 2048
"""Tokens that a server's own words around a prompt can have: its template, a gateway's instructions."""
LONGEST_NAME = 200
STANDARD_TIERS = frozenset({"", "default", "auto", "standard", "on_demand", "batch"})
"""Words for a tier at the ordinary price; that of a batch is known from having asked in one."""
PRICED_TIERS = frozenset({"flex", "priority"})
"""Words for a tier whose price is known; at any other, what a reply costs is estimated."""

GOOD_ENDS = frozenset({"", "stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "completed"})
"""Finish reasons of a reply that is all there; the empty one: none was given."""
AT_LENGTH = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit"}
    | {"model_context_window_exceeded"}
)
DECLINED = frozenset(
    {
        "refusal",
        "refused",
        "content_filter",
        "content_filtered",
        "contentfilter",
        "filtered",
        "safety",
        "blocked",
    }
    | {
        "blocklist",
        "prohibited_content",
        "recitation",
        "spii",
        "sensitive",
        "guardrail_intervened",
        "moderation",
    }
)

READ_AT_LEAST = 1 / 3
"""Share of the estimated prompt that a server's own count must reach: below it, it did not read all that was sent."""
SURELY_MORE_THAN = 1000
"""Tokens of a prompt above which the estimate is good enough to say so."""

log = logging.getLogger(__name__)


class Counts(NamedTuple):
    """The usage of a reply, in its server's numbers."""

    tokens_in: object = None
    tokens_out: object = None
    cached: object = None
    cache_written: object = None
    cache_written_long: object = None
    """Part of `cache_written`."""


class Arrived(NamedTuple):
    """The parts of a reply as its codec found them."""

    text: str = ""
    thoughts: str = ""
    refusal: str = ""
    """The model's own words where the provider says that it declined."""
    finish: object = None
    """The provider's word for how it ended."""
    counts: Counts = Counts()
    served_by: object = None
    tier: object = None
    """The provider's word for the tier of service."""
    tokens: Sequence[TokenChoice] | None = None
    """The reply's tokens with their alternatives, where they were asked for."""


def json_of(raw: bytes) -> Any:
    """What a body holds. Raises ValueError where it is no JSON, is nested too deep, holds a number of too many digits,
    or has one key with two values."""
    try:
        body = json.loads(text_of(raw), object_pairs_hook=said_once)
    except RecursionError as exc:
        raise ValueError("it is nested too deep") from exc
    level = [body]
    for _ in range(DEEPEST):
        # whoever reads it may go down by recursion
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return body
    raise ValueError("it is nested too deep")


def _inside(one: Any) -> list[Any]:
    """What it holds that may hold something itself."""
    values = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return [inner for inner in values if isinstance(inner, dict | list)]


def text_of(raw: bytes) -> str:
    """A body's text: UTF-8, or what it says by its first bytes that it is."""
    return raw.decode(json.detect_encoding(raw), "replace").lstrip("\ufeff")


def may_be_json(raw: bytes) -> bool:
    """Whether a body that cannot be read was meant to be a reply: else it is a page of a proxy's, and not paid for."""
    return text_of(raw[:4096]).lstrip()[:1] in ("{", "[")


@contextmanager
def asking(provider: str) -> Iterator[None]:
    """Surrounds a call of a provider's client. An exception that the client does not declare counts as a fault of this
    call, which is tried again. Its type is told, because the fault may be ours."""
    try:
        yield
    except (ModelError, UserError, TimeoutError):
        raise
    except Exception as exc:
        raise Transient(f"{provider}'s reply broke its client: {_said(exc)}") from exc


@contextmanager
def reading(provider: str, request: Request, counts: Counts = Counts()) -> Iterator[None]:  # noqa: B008
    """Surrounds the reading of a reply that was paid for. Whatever the parser raises makes the reply `unreadable`."""
    try:
        yield
    except (ModelError, UserError):
        raise
    except Exception as exc:
        raise unreadable(provider, exc, request, counts) from exc


def _said(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"it has no {sound(str(exc))[:300]}"
    kind = "" if type(exc) is ValueError and str(exc) else f"{type(exc).__name__}: "
    return kind + sound(str(exc))[:300]


def completion_of(arrived: Arrived, request: Request) -> Completion:
    """The completion that a reply is. Raises Rejected where the server read only a part of the prompt."""
    finish, word = _finish(arrived)
    text, thoughts = arrived.text, arrived.thoughts
    if arrived.refusal:
        finish, text = "refused", text or arrived.refusal
    probabilities = None
    if request.menu and arrived.tokens:
        probabilities = verdict_probabilities(arrived.tokens, request.menu)
    tier, usage = _name(arrived.tier).lower(), _usage(arrived.counts, request, text + thoughts)
    if tier not in STANDARD_TIERS | PRICED_TIERS:
        usage["usage"] = "estimated"
    made = Completion(
        text=text,
        thoughts=thoughts,
        finish_reason=finish,
        finish_word=word,
        probabilities=probabilities,
        served_by=_name(arrived.served_by),
        tier="" if tier in STANDARD_TIERS else tier,
        **usage,
    )
    made = admitted(made, request)
    _check_prompt_was_read(made, request)
    return made


def admitted(completion: Completion, request: Request) -> Completion:
    """A completion, made safe: its text can be written down and holds the answer alone. What is so already stays as it
    is."""
    thoughts, answer = split(sound(completion.text))
    given = "\n\n".join(filter(None, (sound(completion.thoughts).strip(), thoughts)))
    if answer == completion.text and given == completion.thoughts:
        return completion
    probabilities = completion.probabilities
    if probabilities is not None and last_verdict(answer, request.menu) is None:
        probabilities = None  # of a verdict in its thoughts
    return completion.model_copy(update={"text": answer, "thoughts": given, "probabilities": probabilities})


def unreadable(provider: str, why: object, request: Request, counts: Counts = Counts()) -> Unreadable:  # noqa: B008
    """The error for a reply that was paid for and cannot be read."""
    usage = _usage(counts, request, "")
    if _count(counts.tokens_out) is None:  # nobody knows how long the reply was that cannot be read
        usage["tokens_out"] = billed_tokens(request)
    paid = Completion(text="", finish_reason="cut", finish_word="unreadable", **usage)
    said = _said(why) if isinstance(why, Exception) else sound(str(why))[:300]
    return Unreadable(f"{provider} answered with a broken body: {said}", paid)


def too_long(provider: str, request: Request) -> Unreadable:
    """The error for a line of a batch's results that is longer than a reply may be: it was paid for."""
    return unreadable(
        provider, f"a line of more than {LARGEST_BODY // 2**20} MiB, which is not read", request
    )


def sound(text: str) -> str:
    """The text as it may be written down: half surrogate pairs replaced, which no file, database or terminal takes, and
    whole ones joined; without a secret that a server repeats."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return redacted(text)


def _name(word: object) -> str:
    return sound(word)[:LONGEST_NAME] if isinstance(word, str) else ""


def _finish(arrived: Arrived) -> tuple[FinishReason, str]:
    """How it ended, and the provider's word where that is none of a good end."""
    said = arrived.finish
    word = sound(said).strip().casefold() if isinstance(said, str) else "" if said is None else "unknown"
    plain = word.replace("-", "_").replace(" ", "_").removeprefix("finish_reason_")
    if plain in GOOD_ENDS:
        return "stop", ""
    if plain in AT_LENGTH:
        return "length", word[:LONGEST_NAME]
    return "refused" if plain in DECLINED else "cut", word[:LONGEST_NAME]


def _usage(counts: Counts, request: Request, text: str) -> dict[str, Any]:
    """The fields of a completion that say what it used."""
    # a prompt has tokens, and so have words
    read = _count(counts.tokens_in) or None
    wrote = _count(counts.tokens_out) or (None if text.strip() else _count(counts.tokens_out))
    estimated = read is None or wrote is None
    # a claim beyond what the request can have used is not believed: the worst case, which was reserved, is booked
    if read is not None and read > MOST_FRAMING and read > _bytes_of(request) + MOST_FRAMING:
        read, estimated = most_tokens_in(request), True
    if wrote is not None and wrote > reply_tokens(request) + max(hidden_tokens(request), HIDDEN_TOKENS):
        wrote, estimated = billed_tokens(request), True
    read = planned_tokens_in(request) if read is None else read
    if wrote is None:
        # what it thought behind the scenes is billed and not seen
        hidden = billed_tokens(request) - request.max_tokens
        wrote = (
            min(planned_tokens(text) + max(0, hidden), billed_tokens(request)) if text or hidden > 0 else 0
        )
    cached = min(_count(counts.cached) or 0, read)
    written = min(_count(counts.cache_written) or 0, read - cached)
    return {
        "tokens_in": read,
        "tokens_out": wrote,
        "tokens_cached": cached,
        "tokens_cache_written": written,
        "tokens_cache_written_long": min(_count(counts.cache_written_long) or 0, written),
        "usage": "estimated" if estimated else "reported",
    }


def _bytes_of(request: Request) -> int:
    """Of its messages: a token has one at least."""
    return sum(len(message.content.encode(errors="replace")) for message in request.messages)


def _count(value: object) -> int | None:
    """A count of tokens; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value)


def _check_prompt_was_read(made: Completion, request: Request) -> None:
    # runs of blanks are few tokens
    sent = sum(likely_tokens(" ".join(message.content.split())) + 4 for message in request.messages)
    if made.usage == "reported" and sent > SURELY_MORE_THAN and made.tokens_in < sent * READ_AT_LEAST:
        problem = (
            f"the server read {made.tokens_in} tokens of a prompt of about {sent}: it cuts long prompts in silence; "
            "raise its context length (Ollama: num_ctx)"
        )
        _warn(request.model, request.endpoint)
        raise Rejected(problem, paid=made)


@cache
def _warn(model: str, endpoint: str) -> None:
    """Once for each server: its rows say the rest."""
    log.warning(
        "%s%s cuts long prompts in silence; such rows are failed", model, endpoint and f" at {endpoint}"
    )


def texts_of(value: object) -> str:
    """All text in a value that should be one: a text, a list of texts or of parts with a `text`; nothing otherwise."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return texts_of(value.get("text"))
    if isinstance(value, Sequence):
        return "".join(texts_of(one) for one in value)
    return ""
