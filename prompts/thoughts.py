"""A model's text -> its thoughts, and the answer.

Thoughts are what stands in a model's own marks for them: tags (`<think>`, `<thinking>`, `<reasoning>` and their
kin), or the channels of Harmony, which gpt-oss writes. What may be thoughts is not the answer: an unclosed block
reaches to the end, and a closing tag that was never opened (the prompt did it) ends thoughts that began with the
text. Nothing is lost: both parts are handed back. The work is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
QUOTES = "\"'`“”‘’«»"
_TAG = re.compile(
    rf"(?P<fence>^ {{0,3}}```)|<(?P<close>/?)(?P<name>{'|'.join(NAMES)})[ \t]{{0,3}}>"
    r"|\[(?P<end>/?)THINK\]|<\|(?P<side>START|END)_THINKING\|>|<\|(?P<edge>begin|end)_of_thought\|>"
    r"|◁(?P<stop>/?)think▷",
    re.IGNORECASE | re.MULTILINE,
)
_CHANNEL = re.compile(
    r"(?<![\"'`])<\|channel\|>\s{0,3}(analysis|commentary|final)\b[^<]{0,80}(?:<\|message\|>|\Z)"
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_STRIPPED = re.compile(r"\A\s*+analysis(?=[A-Z])")
"""How Harmony looks where a server has dropped its marks: "analysisWe need … assistantfinalThe answer"."""
_STRIPPED_FINAL = "assistantfinal"


class Parts(NamedTuple):
    """A text in two parts."""

    thoughts: str
    """Without their marks; empty where there are none."""
    answer: str
    """The text as it came where there are no thoughts, else what remains, stripped."""


class _Mark(NamedTuple):
    kind: Literal["fence", "open", "close"]
    name: str
    start: int
    end: int


class _Spans(NamedTuple):
    """Where the parts stand in a text, as (start, end). What lies between them are marks."""

    thoughts: list[tuple[int, int]]
    answer: list[tuple[int, int]]


def split(text: str) -> Parts:
    """The thoughts in a text, and its answer.

    A tag that stands directly behind a quotation mark or a backtick is spoken of and opens nothing; so is one in
    a block of code. An opening tag in the middle of a line that nothing closes is text. Blocks of one name nest.
    The answer of the answer is the answer.
    """
    thoughts: list[str] = []
    for read in (_channels, _stripped, _tagged):
        if (found := read(text)) is not None:
            thoughts += [text[start:end] for start, end in found.thoughts]
            text = _joined([text[start:end] for start, end in found.answer])
    return Parts(_joined(thoughts), text)


def blanked(text: str) -> str:
    """The text with thoughts and their marks replaced by as many spaces, so that places in it stay the same.

    Thoughts that begin in the middle of a line and are never ended are blanked too: whoever reads a decision out
    of a text would rather have none than one out of thoughts.
    """
    for read in (_channels, _stripped, _tagged):
        if (found := read(text)) is not None:
            text = _only(text, found.answer)
    depth: dict[str, list[int]] = {}
    for mark in _marks(text):
        starts = depth.setdefault(mark.name, [])
        if mark.kind == "open":
            starts.append(mark.start)
        elif mark.kind == "close" and starts:
            starts.pop()
    start = min((starts[0] for starts in depth.values() if starts), default=len(text))
    return _only(text, [(0, start)])


def _only(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text in the spans, which are in order; spaces elsewhere."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [" " * (start - at), text[start:end]]
        at = end
    return "".join([*pieces, " " * (len(text) - at)])


def _channels(text: str) -> _Spans | None:
    """Harmony: what is in the channel `final` is the answer, all else thoughts."""
    heads = list(_CHANNEL.finditer(text))
    if not heads:
        return None
    found = _Spans([_message(text, 0, heads[0].start())], [])
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        message = _message(text, head.end(), after.start() if after else len(text))
        (found.answer if head[1] == "final" else found.thoughts).append(message)
    return found


def _message(text: str, start: int, end: int) -> tuple[int, int]:
    """A channel's text up to the mark that ends it."""
    stop = _CHANNEL_END.search(text, start, end)
    return start, stop.start() if stop else end


def _stripped(text: str) -> _Spans | None:
    """Harmony without its marks. The last start of the answer counts."""
    opened = _STRIPPED.match(text)
    if opened is None:
        return None
    start, end = opened.end(), len(text)
    final = text.rfind(_STRIPPED_FINAL, start)
    if final < 0:
        return _Spans([(start, end)], [])
    return _Spans([(start, final)], [(final + len(_STRIPPED_FINAL), end)])


def _tagged(text: str) -> _Spans | None:
    marks = _marks(text)
    closers, fences = _closers(marks), _fences(marks)
    found = _Spans([], [])
    at = seen = index = 0  # text[:at] and marks[:index] are dealt with, text[at:seen] is answer
    while index < len(marks):
        mark = marks[index]
        index += 1
        _, line, before = text[max(at, seen) : mark.start].rpartition("\n")
        begins_line = not before.strip() and (bool(line) or seen <= at)
        seen = mark.end
        if mark.kind == "fence":
            index = fences.get(index - 1, index)
            seen = marks[index - 1].end
        elif mark.kind == "close":  # opened by the prompt, or twice closed: all before it was thought
            found.thoughts.extend([*found.answer, (at, mark.start)])
            found.answer.clear()
            at = mark.end
        elif (closer := closers.get(index - 1)) is not None:
            found.answer.append((at, mark.start))
            found.thoughts.append((mark.end, marks[closer].start))
            at, index = marks[closer].end, closer + 1
        elif begins_line:
            found.answer.append((at, mark.start))
            found.thoughts.append((mark.end, len(text)))
            at, index = len(text), len(marks)
    found.answer.append((at, len(text)))
    return found if found.thoughts else None


def _joined(parts: Sequence[str]) -> str:
    """The parts that hold something, a line break between them, so that no two make a mark together."""
    return "\n".join(part.strip() for part in parts if part.strip())


def _marks(text: str) -> list[_Mark]:
    """Fences of code and tags that are not spoken of, in their order. A tag opened twice in a row opens once."""
    marks: list[_Mark] = []
    depth: dict[str, int] = {}
    for found in _TAG.finditer(text):
        before, after = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
        if found["fence"] is not None:
            marks.append(_Mark("fence", "", found.start(), found.end()))
            continue
        name = (found["name"] or "").casefold()
        closing = any(
            (found[group] or "").casefold() in ("/", "end")
            for group in ("close", "end", "side", "edge", "stop")
        )
        behind, ahead = bool(before) and before in QUOTES, bool(after) and after in QUOTES
        if (ahead and (behind or not depth.get(name))) if closing else behind:
            continue
        last = marks[-1] if marks else None
        if not closing and last and last[:2] == ("open", name) and not text[last.end : found.start()].strip():
            marks[-1] = last._replace(end=found.end())
            continue
        depth[name] = max(depth.get(name, 0) + (-1 if closing else 1), 0)
        marks.append(_Mark("close" if closing else "open", name, found.start(), found.end()))
    return marks


def _closers(marks: Sequence[_Mark]) -> dict[int, int]:
    """Index of an opening mark -> index of the mark that closes it."""
    pairs: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    for index, mark in enumerate(marks):
        if mark.kind == "open":
            waiting.setdefault(mark.name, []).append(index)
        elif mark.kind == "close" and waiting.get(mark.name):
            pairs[waiting[mark.name].pop()] = index
    return pairs


def _fences(marks: Sequence[_Mark]) -> dict[int, int]:
    """Index of a fence -> index behind the next, where the code between them closes nothing that it has not opened."""
    ends: dict[int, int] = {}
    started: int | None = None
    depth: dict[str, int] = {}
    for index, mark in enumerate(marks):
        if mark.kind == "fence":
            if started is not None:
                ends[started] = index + 1
            started, depth = index, {}
        elif started is not None:
            depth[mark.name] = depth.get(mark.name, 0) + (1 if mark.kind == "open" else -1)
            if depth[mark.name] < 0:
                started = None
    return ends
