"""A judge's reply -> the verdict in it, or why there is none.

The verdict is the last of the menu's words that the reply contains. So a reply under judgement that quotes or
forges a verdict, and is quoted by the judge, never beats what the judge itself says at the end; and a verdict
that was not offered is no verdict. Nothing is guessed: what cannot be read is `Unparsed`, with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from preceptor.prompts.spelling import LabelledMenu, labelled, last_claim
from preceptor.prompts.thoughts import blanked

GAP = r"[\s*_`]*+"  # white space, and Markdown's emphasis and code marks
MARKS = r"[*_`]*+"
JOINER = rf"{GAP}(?:/|&|<|\bor\b(?: maybe\b)?|\band\b|\bvs\b)"


class Verdict(NamedTuple):
    """What the judge said last."""

    letter: str
    """Key of the menu. Of a grade between two of its numbers the lower."""
    start: int
    end: int
    """The verdict's words are reply[start:end]."""
    at: int | None = None
    """Where the words begin by which it differs from the menu's others, where that is known."""
    grade: float | None = None
    """The number itself where the menu is one of grades."""


class Unparsed(NamedTuple):
    """A reply without a verdict that counts."""

    reason: str


class _Patterns(NamedTuple):
    letters: tuple[tuple[str, str, re.Pattern[str]], ...]  # letter, words, pattern
    prefix: re.Pattern[str] | None
    hedge: re.Pattern[str]


RUNS_ON = re.compile(r"(?<![ \t])[ \t]++[^\W_]")


def parse(reply: str, menu: Mapping[str, str]) -> Verdict | Unparsed:
    """The last verdict of the menu that the reply contains outside its thoughts.

    Entries of the form "Verdict: A" are read in every unambiguous spelling (`prompts.spelling`), grades with their
    decimals and their scale. Others ("Output (a)") are read with Markdown marks, runs of white space, and letter
    case where the menu does not need it to tell its entries apart. "verdict: a close call" is not read as A: in
    other than the menu's own case, a verdict that ends in a letter must not run on. Where two verdicts end at
    one place, the longer counts. Unparsed where

    - none of the menu's words occurs, or only inside thoughts or a quotation,
    - the words that all entries begin with ("Verdict:", "Output (") come once more after the last verdict,
      followed by something that was not offered, or
    - the last verdict leaves the choice open ("Verdict: A or B", "Verdict: A < B", "Score: 7-8").
    """
    answer = blanked(reply)
    form = _labelled(tuple(menu.items()))
    found = _spelt(answer, form) if form else _written(answer, menu)
    if found is None:
        if not reply.strip():
            return Unparsed("an empty reply")
        if not answer.strip():
            return Unparsed("thoughts without an answer")
        return Unparsed("no verdict of the menu in the reply")
    return found


def _spelt(answer: str, form: LabelledMenu) -> Verdict | Unparsed | None:
    claim = last_claim(answer, form)
    if claim is None:
        return None
    if claim.doubt:
        return Unparsed(claim.doubt)
    if claim.letter is None:
        said = " ".join(answer[claim.start : claim.end + 40].split())
        return Unparsed(f"the last verdict was not on the menu: {said!r}")
    return Verdict(claim.letter, claim.start, claim.end, claim.at, claim.grade)


def _written(answer: str, menu: Mapping[str, str]) -> Verdict | Unparsed | None:
    patterns = _patterns(tuple(menu.items()))
    found = max(
        (
            Verdict(letter, match.start(), match.end())
            for letter, words, pattern in patterns.letters
            for match in pattern.finditer(answer)
            if match.group().endswith(words[-1])
            or not (words[-1].isalnum() and RUNS_ON.match(answer, match.end()))
        ),
        key=lambda verdict: (verdict.end, verdict.end - verdict.start),
        default=None,
    )
    after = found.end if found else 0
    if patterns.prefix and (off := patterns.prefix.search(answer, after)):
        said = " ".join(answer[off.start() : off.end() + 40].split())
        return Unparsed(f"the last verdict was not on the menu: {said!r}")
    if found is None:
        return None
    for match in patterns.hedge.finditer(answer):
        if match.start() <= found.start and found.end <= match.end():
            return Unparsed(f"a choice between two verdicts: {' '.join(match.group().split())!r}")
    return found


@lru_cache(maxsize=64)
def _labelled(menu: tuple[tuple[str, str], ...]) -> LabelledMenu | None:
    return labelled(dict(menu))


@lru_cache(maxsize=64)
def _patterns(menu: tuple[tuple[str, str], ...]) -> _Patterns:
    entries = [" ".join(words.split()) for _, words in menu]
    folded = len({words.casefold() for words in entries}) == len(entries)
    flags = re.IGNORECASE if folded else re.NOFLAG
    prefix = _common_start(entries).rstrip()
    suffixes = [words[len(prefix) :].strip() for words in entries] if prefix else entries
    choice = "|".join(_tolerant(suffix) for suffix in sorted(suffixes, key=len, reverse=True) if suffix)
    start = f"(?:{_tolerant(prefix)}{GAP})?" if prefix else ""
    one = f"(?:{start}(?:{choice}))"
    letters = tuple(
        (letter, words, re.compile(_whole(words), flags))
        for (letter, _), words in zip(menu, entries, strict=True)
    )
    marked = len(prefix) > 0 and not prefix[-1].isalnum()
    return _Patterns(
        letters,
        re.compile(_begin(prefix) + _tolerant(prefix), flags) if marked else None,
        re.compile(f"{_begin(entries[0])}{one}{JOINER}{GAP}{one}(?![^\\W_])"),
    )


def _common_start(entries: list[str]) -> str:
    """The characters that all entries begin with."""
    first, last = min(entries), max(entries)
    same = (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]


def _whole(words: str) -> str:
    """Pattern of an entry as a whole: not the end of a longer word before it, nor the beginning of one after
    it.
    """
    return _begin(words) + _tolerant(words) + r"(?![^\W_])"


def _begin(words: str) -> str:
    return r"(?<![^\W_])" if words[:1].isalnum() else ""


def _tolerant(words: str) -> str:
    """Pattern of the words, with Markdown marks and any white space allowed between their parts.

    Space between a mark of punctuation and a word may be missing ("Verdict:A"), space between two words may
    not. No two of its repetitions can match the same characters, so that it fails in linear time.
    """
    parts = re.findall(r"[^\W_]+|\s+|[^\s]", words)
    pattern = ""
    for index, part in enumerate(parts):
        follows = parts[index + 1] if index + 1 < len(parts) else ""
        if not part.isspace():
            pattern += re.escape(part) + (MARKS if follows and not follows.isspace() else "")
        elif parts[index - 1].isalnum() and follows.isalnum():
            pattern += rf"{MARKS}\s{GAP}"
        else:
            pattern += GAP
    return pattern
