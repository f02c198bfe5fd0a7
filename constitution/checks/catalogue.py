"""The checks by name: what each takes, which arguments it refuses, and how it measures a reply.

Heavy libraries (language detection, telephone numbers, hyphenation) are imported by the check that needs
them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self

from preceptor.constitution.added import loaded, named
from preceptor.constitution.checks import formats, patterns, private_data
from preceptor.constitution.checks.figures import foreign_figures
from preceptor.constitution.checks.refusal import looks_refused
from preceptor.constitution.checks.wording import copied_share, repeated_share, sentences, words
from preceptor.constitution.errors import UserError

SOURCES = ("system", "user", "prompt")


class Turn(Protocol):
    """One message of a prompt."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


class PromptLike(Protocol):
    """A prompt: this package knows no records."""

    @property
    def messages(self) -> Sequence[Turn]: ...


class Exchange(NamedTuple):
    """What a reply answers, as text; a check reads no more of a prompt than this."""

    system: str
    """The system messages, joined by an empty line."""
    user: str
    """The last user message."""

    @classmethod
    def of(cls, prompt: PromptLike) -> Self:
        """The prompt as every check sees it, whoever runs the check."""
        system = "\n\n".join(message.content for message in prompt.messages if message.role == "system")
        user = next((message.content for message in reversed(prompt.messages) if message.role == "user"), "")
        return cls(system, user)


class Measure(NamedTuple):
    """What one check saw in a reply, and what it wanted to see."""

    passed: bool
    measured: str
    wanted: str


class CheckInfo(NamedTuple):
    """One line of the catalogue."""

    name: str
    argument: str
    meaning: str
    example: str


class Check(NamedTuple):
    """A catalogue line with its two functions."""

    info: CheckInfo
    fault: Callable[[Any], str]
    """What is wrong with an argument, as "ARGUMENT; wanted ..."; empty where nothing is."""
    measure: Callable[[Any, str, Exchange], Measure]
    """(argument, reply, exchange) -> Measure. The argument has no fault."""


def _wants(argument: Any, fits: bool, wanted: str) -> str:
    return "" if fits else f"{argument!r}; wanted {wanted}"


def _count_fault(argument: Any) -> str:
    fits = isinstance(argument, int) and not isinstance(argument, bool) and argument >= 0
    return _wants(argument, fits, "a whole number from 0")


def _share_fault(argument: Any) -> str:
    fits = isinstance(argument, int | float) and not isinstance(argument, bool) and 0 <= argument <= 1
    return _wants(argument, fits, "a share from 0 to 1")


def _score_fault(argument: Any) -> str:
    fits = isinstance(argument, int | float) and not isinstance(argument, bool) and math.isfinite(argument)
    return _wants(argument, fits, "a number; 60 is plain English, 30 is hard")


def _one_of(names: Sequence[str]) -> Callable[[Any], str]:
    return lambda argument: _wants(argument, argument in tuple(names), f"one of {', '.join(names)}")


def _language_fault(argument: Any) -> str:
    fits = isinstance(argument, str) and re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", argument) is not None
    return _wants(argument, fits, "an ISO 639 language tag such as en, de or zh")


def _pii_fault(argument: Any) -> str:
    if isinstance(argument, list | tuple):
        fits = bool(argument) and all(kind in private_data.KINDS for kind in argument)
    else:
        fits = argument in ("absent", "present")
    return _wants(
        argument, fits, f"absent, present, or a list of kinds out of {', '.join(private_data.KINDS)}"
    )


def _at_most(count: int, limit: int, unit: str) -> Measure:
    return Measure(count <= limit, f"{count} {unit}", f"at most {limit}")


def _at_least(count: int, limit: int, unit: str) -> Measure:
    return Measure(count >= limit, f"{count} {unit}", f"at least {limit}")


def _share_at_most(share: float, limit: float, what: str) -> Measure:
    return Measure(share <= limit, f"{share:.0%} of {what}", f"at most {limit:.0%}")


def _format(form: str, reply: str, _: Exchange) -> Measure:
    problem = formats.problem(reply, form)
    return Measure(not problem, problem or "as asked", formats.FORMATS[form])


def _language(tag: str, reply: str, _: Exchange) -> Measure:
    from preceptor.constitution.checks.language import detect

    detected = detect(reply)
    wanted = tag.split("-", maxsplit=1)[0]
    return Measure(detected == wanted, f"language {detected or 'unclear'}", f"language {wanted}")


def _refusal(wanted: str, reply: str, _: Exchange) -> Measure:
    refused = looks_refused(reply)
    return Measure(
        refused == (wanted == "present"), f"refusal {'present' if refused else 'absent'}", f"refusal {wanted}"
    )


def _forbid(forbidden: Sequence[str], reply: str, _: Exchange) -> Measure:
    hits = [pattern for pattern in forbidden if patterns.occurs(pattern, reply)]
    return Measure(not hits, f"has {_quoted(hits)}" if hits else "has none", f"none of {_quoted(forbidden)}")


def _require(required: Sequence[str], reply: str, _: Exchange) -> Measure:
    missing = [pattern for pattern in required if not patterns.occurs(pattern, reply)]
    return Measure(
        not missing, f"lacks {_quoted(missing)}" if missing else "has all", f"all of {_quoted(required)}"
    )


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts)


def _repetition(limit: float, reply: str, _: Exchange) -> Measure:
    return _share_at_most(repeated_share(reply), limit, "word trigrams repeated")


def _copied(limit: float, reply: str, exchange: Exchange) -> Measure:
    share = copied_share(reply, f"{exchange.system}\n{exchange.user}")
    return _share_at_most(share, limit, "word 5-grams copied from the prompt")


def _pii(wanted: str | Sequence[str], reply: str, _: Exchange) -> Measure:
    kinds = private_data.KINDS if isinstance(wanted, str) else tuple(wanted)
    found = [kind for kind in kinds if private_data.found(reply, kind)]
    names = ", ".join(kinds)
    if wanted == "present":
        return Measure(bool(found), ", ".join(found) or "none", f"one of {names}")
    return Measure(not found, ", ".join(found) or "none", f"no {names}")


def _readability(limit: float, reply: str, _: Exchange) -> Measure:
    from preceptor.constitution.checks.readability import reading_ease

    ease = reading_ease(reply)
    if ease is None:
        return Measure(False, "no words", f"reading ease at least {limit:g}")
    return Measure(ease >= limit, f"reading ease {ease:.0f}", f"at least {limit:g}")


def _numbers_from(source: str, reply: str, exchange: Exchange) -> Measure:
    texts = {
        "system": exchange.system,
        "user": exchange.user,
        "prompt": f"{exchange.system}\n{exchange.user}",
    }
    foreign = foreign_figures(reply, texts[source])
    measured = f"{', '.join(foreign)} not in the {source} text" if foreign else "no other number"
    return Measure(not foreign, measured, f"only numbers of the {source} text")


def _check(
    name: str,
    argument: str,
    meaning: str,
    example: str,
    fault: Callable[[Any], str],
    measure: Callable[[Any, str, Exchange], Measure],
) -> Check:
    return Check(CheckInfo(name, argument, meaning, f"{{{name}: {example}}}"), fault, measure)


_COUNT = "whole number"
_PATTERNS = "list of regular expressions"
_ALL = (
    _check(
        "max_words",
        _COUNT,
        "no more words than this",
        "60",
        _count_fault,
        lambda n, reply, _: _at_most(len(words(reply)), n, "words"),
    ),
    _check(
        "min_words",
        _COUNT,
        "no fewer words than this",
        "5",
        _count_fault,
        lambda n, reply, _: _at_least(len(words(reply)), n, "words"),
    ),
    _check(
        "max_sentences",
        _COUNT,
        "no more sentences than this",
        "3",
        _count_fault,
        lambda n, reply, _: _at_most(len(sentences(reply)), n, "sentences"),
    ),
    _check(
        "min_sentences",
        _COUNT,
        "no fewer sentences than this",
        "2",
        _count_fault,
        lambda n, reply, _: _at_least(len(sentences(reply)), n, "sentences"),
    ),
    _check(
        "format",
        " | ".join(formats.FORMATS),
        "the reply has this form",
        "json",
        _one_of(tuple(formats.FORMATS)),
        _format,
    ),
    _check(
        "language",
        "ISO 639 tag",
        "the reply is in this language (unsure below a sentence)",
        "en",
        _language_fault,
        _language,
    ),
    _check(
        "refusal",
        "present | absent",
        "the reply declines the request, or does not (English)",
        "absent",
        _one_of(("present", "absent")),
        _refusal,
    ),
    _check(
        "forbid",
        _PATTERNS,
        "none of the patterns occurs; (?i) ignores case",
        "['(?i)as an ai']",
        patterns.fault,
        _forbid,
    ),
    _check("require", _PATTERNS, "each of the patterns occurs", "['https?://']", patterns.fault, _require),
    _check(
        "max_repetition",
        "share",
        "share of the word trigrams that occur twice or more",
        "0.1",
        _share_fault,
        _repetition,
    ),
    _check(
        "max_copied",
        "share",
        "share of the word 5-grams that stand in the prompt",
        "0.3",
        _share_fault,
        _copied,
    ),
    _check(
        "pii",
        f"absent | present | list of {', '.join(private_data.KINDS)}",
        "e-mail addresses, telephone numbers, payment cards; a list: none of these kinds",
        "absent",
        _pii_fault,
        _pii,
    ),
    _check(
        "min_readability",
        "number",
        "Flesch reading ease of English: 60 plain, 30 hard",
        "50",
        _score_fault,
        _readability,
    ),
    _check(
        "numbers_from",
        " | ".join(SOURCES),
        "each number written in digits also stands in that part of the prompt",
        "system",
        _one_of(SOURCES),
        _numbers_from,
    ),
)

GROUP = "preceptor.checks"
"""Entry-point group by which other packages add checks: name -> `Check`."""
OURS = {check.info.name: check for check in _ALL}


@cache
def checks() -> Mapping[str, Check]:
    """Name -> check, in the order in which they are listed: ours, then those that packages add.

    An added check cannot take the name of one of ours. Raises UserError where a package's check cannot be loaded.
    """
    added: dict[str, Check] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in OURS:
            continue
        said = named("check", entry)
        found = loaded(entry, said)
        if not isinstance(found, Check):
            raise UserError(f"{said} is a {type(found).__name__}; wanted a Check")
        added[entry.name] = found
    return MappingProxyType(OURS | dict(sorted(added.items())))
