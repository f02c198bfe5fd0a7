"""Prose and Markdown lists: where a principle ends and the next begins, told from the words alone.

A sentence of prose is taken for a principle if it says what ought to be: by a word such as *should* or *never*, or by
beginning with an order. The others are counted and left out. Sentences under a heading have its words as their tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from preceptor.constitution.forms.draft import DraftPrinciple, FoundPrinciples, one_line, slug

DEMANDING = frozenset(
    (
        "should",
        "must",
        "never",
        "always",
        "ought",
        "shall",
        "avoid",
        "refuse",
        "prefer",
        "prioritize",
        "prioritise",
        "shouldn't",
        "mustn't",
        "cannot",
        "needs",
        "want",
        "wants",
        "aim",
        "aims",
    )
)
"""Words that make a sentence say what ought to be."""
ORDERS = frozenset(
    (
        "answer",
        "ask",
        "avoid",
        "be",
        "choose",
        "compare",
        "consider",
        "decline",
        "do",
        "don't",
        "ensure",
        "explain",
        "give",
        "keep",
        "make",
        "never",
        "please",
        "prefer",
        "refuse",
        "respect",
        "say",
        "select",
        "take",
        "tell",
        "treat",
        "use",
        "write",
    )
)
"""First words of sentences that are orders."""
UNFINISHED = frozenset(
    ["e.g.", "i.e.", "cf.", "etc.", "vs.", "mr.", "mrs.", "ms.", "dr.", "no.", "fig.", "st."]
)
"""Words whose full stop ends no sentence."""
CLOSING = "\"'”’)]*_"
FEWEST_WORDS = 3


class Sentence(NamedTuple):
    """Of a text, with its place."""

    text: str
    line: int
    """1-based, on which it begins."""
    heading: str
    """Over it; empty: there is none."""


class _Block(NamedTuple):
    """A paragraph or an item of a list."""

    words: list[tuple[str, int]]
    heading: str
    item: bool


def marker(line: str) -> str:
    """What makes a line an item of a list, `- ` or `12. ` with the white space around it; empty: it is none."""
    bare = line.lstrip()
    indent = len(line) - len(bare)
    if bare[:2] in ("- ", "* ", "+ ", "• "):
        return line[: indent + 2]
    digits = len(bare) - len(bare.lstrip("0123456789"))
    if 0 < digits <= 4 and bare[digits : digits + 2] in (". ", ") "):
        return line[: indent + digits + 2]
    return ""


def is_list(text: str) -> bool:
    """Whether most words of a text stand in items of a list."""
    blocks = list(_blocks(text))
    return 2 * sum(len(block.words) for block in blocks if block.item) > sum(
        len(block.words) for block in blocks
    )


def _blocks(text: str) -> Iterator[_Block]:
    heading, fenced = "", False
    block = _Block([], "", False)
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("```"):
            fenced = not fenced
        if fenced or bare.startswith("```"):
            continue
        starts = marker(line)
        if not bare or bare.startswith("#") or starts or bare.strip("-=*_ ") == "":
            if block.words:
                yield block
            if bare.startswith("#"):
                heading = bare.strip("# ")
            block = _Block([], heading, bool(starts))
        if not bare.startswith("#") and bare.strip("-=*_ "):
            block.words.extend((word, number) for word in line[len(starts) :].split())
    if block.words:
        yield block


def read_list(text: str) -> FoundPrinciples:
    """A principle an item; `**name**: text` names it. What is no item is left out."""
    drafts, others = [], 0
    for block in _blocks(text):
        words = " ".join(word for word, _ in block.words)
        if not block.item:
            others += 1
            continue
        name, said = _named(words)
        tags = (slug(block.heading),) if block.heading else ()
        drafts.append(DraftPrinciple(said, id=name, tags=tags, origin=words, line=block.words[0][1]))
    return FoundPrinciples(tuple(drafts), {"paragraphs beside the list": others} if others else {})


def _named(words: str) -> tuple[str, str]:
    """(name, rest) of `**name**: rest`."""
    if words.startswith("**"):
        name, closed, rest = words[2:].partition("**")
        rest = rest.lstrip(": ")
        if closed and name.strip(": ") and rest:
            return name.strip(": "), rest
    return "", words


def read_prose(text: str) -> FoundPrinciples:
    """A principle a demanding sentence."""
    drafts, others = [], 0
    for sentence in sentences(text):
        if not demands(sentence.text):
            others += 1
            continue
        tags = (slug(sentence.heading),) if sentence.heading else ()
        drafts.append(DraftPrinciple(sentence.text, tags=tags, origin=sentence.text, line=sentence.line))
    return FoundPrinciples(tuple(drafts), {"sentences that demand nothing": others} if others else {})


def sentences(text: str) -> Iterator[Sentence]:
    """In their order, each within one paragraph or item."""
    for block in _blocks(text):
        begun: list[tuple[str, int]] = []
        for place, (word, line) in enumerate(block.words):
            begun.append((word, line))
            after = block.words[place + 1][0] if place + 1 < len(block.words) else ""
            if _ends(word, after):
                yield _sentence(begun, block.heading)
                begun = []


def _sentence(words: list[tuple[str, int]], heading: str) -> Sentence:
    return Sentence(" ".join(word for word, _ in words), words[0][1], heading)


def _ends(word: str, after: str) -> bool:
    if not after:
        return True
    bare = word.rstrip(CLOSING)
    if not bare.endswith((".", "!", "?")) or bare.lower() in UNFINISHED:
        return False
    if len(bare) == 2 and bare[0].isupper():  # an initial
        return False
    first = after.lstrip(CLOSING + "(“‘[")[:1]
    return not first.islower()


def demands(sentence: str) -> bool:
    """Whether a sentence says what ought to be."""
    words = [word.strip('.,;:!?()[]"“”*_').lower().replace("’", "'") for word in sentence.split()]
    if len(words) < FEWEST_WORDS or one_line(sentence).rstrip(CLOSING).endswith("?"):
        return False
    return words[0] in ORDERS or not DEMANDING.isdisjoint(words)
