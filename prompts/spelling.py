"""A judge's reply -> the verdicts in it, for menus of the form "Verdict: A": a label, a colon, a word or a number.

Judges write what was asked for in many ways: `**Verdict**: A`, `{"verdict": "A"}`, a heading with the letter under
it, `<verdict>A</verdict>`, `\\boxed{A}`, "Verdict：Reply A". All of them are read as one, by taking the reply apart
into words, numbers and marks and leaving out the marks that only decorate. What stands between quotation marks, or in a
quoted line ("> Verdict: B"), is somebody else's verdict. What follows the word is read as well: "A or maybe B", "A < B"
and "A is worse than B" name two replies and choose neither.

Each token is looked at a bounded number of times, so that the work is linear in the length of the reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

ZERO_WIDTH = dict.fromkeys(
    [0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]
)
"""Characters that show nothing."""
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x3000: 0x20,
    0x2236: 0x3A,
    0xFE55: 0x3A,
}
_TOKEN = re.compile(
    r"(?P<number>\d++(?:[.,]\d++)*+)|(?P<word>[^\W\d_]++)|(?P<line>\n)"
    r"|(?P<tag></[^\W_]{1,12}>|<(?:(?-i:b|i|u)|em|strong|code|span|p|br ?/?|h[1-6]|div|li|mark)>)"
    r"|\\(?P<latex>boxed|fbox|text(?:bf|it|rm|tt)?|math(?:bf|rm|it|tt)|left|right|n)(?![^\W\d_])"
    r"|(?P<mark>[^\s*_`\"'“”‘’«»「」『』()\[\]{}$#\\])",
    re.IGNORECASE,
)
_QUOTED = {'"': '"', "“": "”", "„": "“”", "«": "»", "「": "」", "『": "』", "`": "`", "'": "'", "‘": "’"}
FILLERS = frozenset(
    {
        "the",
        "reply",
        "response",
        "answer",
        "assistant",
        "option",
        "output",
        "candidate",
        "choice",
        "text",
        "version",
        "is",
        "winner",
        "better",
        "best",
        "preferred",
        "final",
        "grade",
        "score",
        "my",
        "number",
    }
)
"""Words that may stand between the label and the verdict: "Verdict: the better reply is A"."""
MOST_FILLERS = 6
MOST_COMMANDS = 12
"""Commands of LaTeX that may stand before a verdict: \\boxed{\\text{\\textbf{A}}}."""
SEPARATORS = frozenset(":=>|-–—→⇒")  # a dash or arrow only before white space
HEDGES = frozenset(
    {
        "or",
        "maybe",
        "perhaps",
        "possibly",
        "either",
        "neither",
        "vs",
        "versus",
        "unless",
        "if",
    }
)
"""Words behind a verdict that leave it open, whatever follows."""
JOINING = HEDGES | {"and", "/", "&", "|", "<", "=", ","}
"""What makes two verdicts one choice between them."""
RETRACTING = HEDGES | {"no", "wait", "actually", "hmm", "alternatively", "nor"}
"""Words with which a verdict is taken back."""
PREDICATES = frozenset(
    {
        "is",
        "was",
        "isn",
        "wasn",
        "seems",
        "looks",
        "appears",
        "has",
        "does",
        "doesn",
        "did",
        "didn",
        "would",
        "wouldn",
        "should",
    }
)
DOUBTING = frozenset(
    {
        "could",
        "can",
        "may",
        "might",
        "loses",
        "lost",
        "fails",
    }
)
BETTER = frozenset(
    {
        "better",
        "best",
        "preferable",
        "preferred",
        "superior",
        "stronger",
        "clearer",
        "kinder",
        "safer",
        "more",
        "right",
        "correct",
        "winner",
        "wins",
        "win",
        "ahead",
    }
)
WORSE = frozenset(
    {
        "not",
        "t",
        "worse",
        "worst",
        "less",
        "no",
        "never",
        "hardly",
        "neither",
        "inferior",
        "weaker",
        "wrong",
        "lose",
        "loses",
    }
)
MOST_BRACES = 8
"""Places that are tried as the beginning of a JSON object."""
SENTENCE = 40
"""Tokens of a sentence that are looked at for another reply."""


class Token(NamedTuple):
    """A piece of a reply that is no white space and no decoration."""

    kind: Literal["number", "word", "line", "latex", "mark"]
    text: str
    start: int
    end: int


class Claim(NamedTuple):
    """A place where the reply says that this is its verdict."""

    letter: str | None
    """Key of the menu; None for what is not on it."""
    start: int
    end: int
    at: int
    """Where the words begin by which the verdict differs from the others."""
    grade: float | None = None
    doubt: str = ""
    """Why it chooses nothing."""
    after: int = 0
    """Index of the token behind it."""


class LabelledMenu(NamedTuple):
    """A menu whose entries are a label with a colon and a word or number each."""

    label: tuple[str, ...]
    options: Mapping[tuple[str, ...], str]
    """The words that follow the colon, without fillers -> key of the menu."""
    folded: bool
    """Letter case does not tell two of them apart."""
    most: float
    """The highest grade where the options are the numbers that are their keys; 0 elsewhere."""


def labelled(menu: Mapping[str, str]) -> LabelledMenu | None:
    """The menu as a label and its options, where it is of that form."""
    heads = {words.rpartition(":")[0].strip() for words in menu.values()}
    if len(heads) != 1 or not (label := _words(heads.pop())) or not all(word.isalnum() for word in label):
        return None
    options: dict[tuple[str, ...], str] = {}
    for key, words in menu.items():
        said = _words(words.rpartition(":")[2])
        bare = tuple(word for word in said if word.casefold() not in FILLERS) or said
        if not bare or bare in options:
            return None
        options[bare] = key
    folded = len({" ".join(words).casefold() for words in options}) == len(options)
    numbers = all(key.isdecimal() and words == (key,) for words, key in options.items())
    return LabelledMenu(
        tuple(word.casefold() for word in label), options, folded, max(map(int, menu)) if numbers else 0
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(token.text for token in tokens(text))


def tokens(text: str) -> list[Token]:
    """The text's words, numbers, lines and marks, in full-width or normal characters, with their places in the text."""
    wide = text.translate(FULL_WIDTH)
    plain = wide.translate(ZERO_WIDTH)
    places: Sequence[int] = range(len(text) + 1)
    if len(plain) < len(text):
        places = [*(index for index, char in enumerate(wide) if ord(char) not in ZERO_WIDTH), len(text)]
    return [
        Token(found.lastgroup, found[0].lstrip("\\"), places[found.start()], places[found.end() - 1] + 1)  # type: ignore[arg-type]
        for found in _TOKEN.finditer(plain)
        if found.lastgroup != "tag"
    ]


def last_claim(reply: str, menu: LabelledMenu) -> Claim | None:
    """The last place where the reply gives a verdict and does not only quote one."""
    found = tokens(reply)
    quotes = _Quotes(reply)
    former: Claim | None = None
    last: Claim | None = None
    index = 0
    while index < len(found):
        claim, after = _claim(reply, found, index, menu)
        if claim is None:
            index += 1
            continue
        index = max(after, index + 1)
        if not quotes.around(claim.start, claim.end):
            former, last = last, claim
    if last is None or last.letter is None or last.doubt:
        return last
    if (key := _said_twice(reply, last.start, menu)) is not None:
        return last._replace(doubt=f"two verdicts under one JSON key: {key!r}")
    if former is not None and former.letter != last.letter and _joined(reply[former.end : last.start]):
        said = " ".join(reply[former.start : last.end].split())
        return last._replace(doubt=f"a choice between two verdicts: {said!r}")
    return last._replace(doubt=doubt(reply, found, last.after, menu, last.letter))


def _said_twice(reply: str, at: int, menu: LabelledMenu) -> str | None:
    """The key of a verdict that stands more than once, with values that differ, in the JSON object around a place.

    Whatever opens an object may also stand in a text, so the few nearest braces are tried, and the first of all.
    """
    begins = [reply.find("{", 0, at)]
    place = at
    while place >= 0 and len(begins) < MOST_BRACES:
        place = reply.rfind("{", 0, place)
        begins.append(place)
    for begin in dict.fromkeys(begins):
        twice: list[str] = []

        def read(pairs: list[tuple[str, object]], twice: list[str] = twice) -> dict[str, object]:
            made = dict(pairs)
            if len(made) < len(pairs):
                twice += (key for key, value in pairs if made[key] != value)
            return made

        try:
            _, end = json.JSONDecoder(object_pairs_hook=read, strict=False).raw_decode(reply, max(begin, 0))
        except (ValueError, RecursionError):
            continue
        label = " ".join(menu.label)
        if begin >= 0 and end > at:
            return next((key for key in twice if label in " ".join(_words(key)).casefold()), None)
    return None


def _joined(between: str) -> bool:
    """Whether two verdicts are named in one breath ("Verdict: A or Verdict: B")."""
    if len(between) > 40 or "\n" in between:
        return False
    said = [token.text.casefold() for token in tokens(between)]
    return bool(said) and all(word in JOINING for word in said)


def _claim(reply: str, found: Sequence[Token], index: int, menu: LabelledMenu) -> tuple[Claim | None, int]:
    """The claim that begins at the token, and the index behind it."""
    first = found[index]
    if first.kind == "latex":
        if first.text.casefold() not in ("boxed", "fbox"):
            return None, index
        at, strong = index + 1, True
        if (labelled_at := _label(reply, found, at, menu)) is not None:
            at = labelled_at[0]
    elif (begun := _label(reply, found, index, menu)) is not None:
        at, strong = begun
        while (again := _label(reply, found, at, menu)) is not None and again[1]:  # {"verdict": "Verdict: A"}
            at, strong = again
    else:
        return None, index
    claim = _value(reply, found, at, menu, first.start)
    if claim.letter is None and not strong:
        return None, index
    return claim, at


def _label(reply: str, found: Sequence[Token], index: int, menu: LabelledMenu) -> tuple[int, bool] | None:
    """Index of what follows the label at the token, and whether the words can be nothing but a verdict's."""
    end = index + len(menu.label)
    if tuple(token.text.casefold() for token in found[index:end]) != menu.label or end >= len(found):
        return None
    mark, strong = found[end], False
    if mark.kind == "mark" and mark.text in SEPARATORS:
        strong = mark.text == ":"
        if mark.text in "-–—" and not reply[mark.end : mark.end + 1].isspace():
            return None
        end += 1
        if mark.text == "=" and end < len(found) and found[end].text == "=":
            return None
    elif mark.kind == "word" and mark.text.casefold() in ("is", "goes"):
        end += 1 + (mark.text.casefold() == "goes" and end + 1 < len(found) and found[end + 1].text == "to")
    elif mark.kind != "line" and not _alone_on_its_line(found, index, end):
        return None
    while end < len(found) and (
        found[end].kind == "line" or (found[end].kind == "latex" and found[end].text == "n")
    ):
        end += 1
    while (
        end + 1 < len(found)
        and found[end].text in "-•>"
        and reply[found[end].end : found[end].end + 1].isspace()
    ):
        end += 1
    return end, strong


def _alone_on_its_line(found: Sequence[Token], index: int, end: int) -> bool:
    """Whether the label and one token behind it are all that their line holds."""
    before = found[index - 1].kind == "line" if index else True
    after = found[end + 1].kind == "line" if end + 1 < len(found) else True
    return before and after


def _value(reply: str, found: Sequence[Token], at: int, menu: LabelledMenu, start: int) -> Claim:
    """What is said at the token."""
    at, begin = _past_fillers(found, at, menu), at
    furthest = at + MOST_COMMANDS
    while at < min(furthest, len(found)) and (found[at].kind == "latex" or found[at].text == "<"):
        at += 1
    end = found[min(max(at, begin), len(found) - 1)].end if found else start
    option = _option(found, at, menu)
    if menu.most:
        return _grade(reply, found, at, menu, start, end)
    if option is None:
        return Claim(None, start, end, end)
    words, letter = option
    last = found[at + len(words) - 1]
    if last.text != words[-1] and _runs_on(reply, found, at + len(words)):
        return Claim(None, start, last.end, found[at].start)
    return Claim(letter, start, last.end, found[at].start, after=at + len(words))


def _past_fillers(found: Sequence[Token], at: int, menu: LabelledMenu) -> int:
    for index in range(at, min(at + MOST_FILLERS, len(found))):
        token = found[index]
        if token.kind == "latex":
            continue
        if token.text.casefold() not in FILLERS or _option(found, index, menu) is not None:
            return index
    return min(at + MOST_FILLERS, len(found))


def _option(found: Sequence[Token], at: int, menu: LabelledMenu) -> tuple[tuple[str, ...], str] | None:
    """The longest option whose words stand at the token, as the menu spells them, and its key."""
    best: tuple[tuple[str, ...], str] | None = None
    for words, letter in menu.options.items():
        said = [token.text for token in found[at : at + len(words)]]
        if (
            list(words) == said or (menu.folded and " ".join(words).casefold() == " ".join(said).casefold())
        ) and (best is None or len(words) > len(best[0])):
            best = words, letter
    return best


def _runs_on(reply: str, found: Sequence[Token], at: int) -> bool:
    """Whether a verdict in other than the menu's case is the beginning of a sentence ("verdict: a tie")."""
    if at >= len(found) or found[at].kind not in ("word", "number"):
        return False
    gap = reply[found[at - 1].end : found[at].start]
    return not gap.strip()


def _grade(reply: str, found: Sequence[Token], at: int, menu: LabelledMenu, start: int, end: int) -> Claim:
    """A number between the lowest and the highest grade, as 8, 8.5, 8,5, 8/10 or "8 out of 10"."""
    off = Claim(None, start, end, end)
    if (
        at >= len(found)
        or found[at].kind != "number"
        or reply[found[at].start - 1 : found[at].start] in ("-", "−")
    ):
        return off
    number, grade = found[at], _number(found[at].text)
    if grade is None or not 1 <= grade <= menu.most or reply[number.end : number.end + 1].isalnum():
        return off
    after = [token for token in found[at + 1 : at + 4] if token.kind != "line"]
    scale = _scale(after)
    if scale is not None:
        if scale != menu.most:
            return off._replace(end=number.end, doubt=f"a grade of {number.text} out of {scale:g}")
        end = next(token.end for token in after if token.kind == "number")
        at = next(index for index in range(at + 1, len(found)) if found[index].end == end)
    elif (
        after
        and after[0].text in ("-", "–", "—", "~", "+", "%", "/", "±", "^")
        and not _is_dash(reply, after[0])
    ):
        said = reply[number.start : after[min(1, len(after) - 1)].end]
        return off._replace(end=number.end, doubt=f"more than one number: {said!r}")
    elif len(after) > 1 and after[0].text.casefold() in ("to", "until") and after[1].kind == "number":
        return off._replace(end=number.end, doubt=f"a range: {reply[number.start : after[1].end]!r}")
    return Claim(str(int(grade)), start, number.end, number.start, grade, after=at + 1)


def _is_dash(reply: str, mark: Token) -> bool:
    """Whether a mark is a dash between two thoughts ("8 – it is polite") and not part of a number ("7-8", "7 - 8")."""
    rest = reply[mark.end : mark.end + 2].lstrip()
    return mark.text in "-–—" and reply[mark.end : mark.end + 1].isspace() and not rest[:1].isdigit()


def _scale(after: Sequence[Token]) -> float | None:
    """The highest grade in "8/10", "8 out of 10" and "8 of 10"."""
    said = [token.text.casefold() for token in after]
    for words in (["/"], ["out", "of"], ["of"]):
        if said[: len(words)] == words and len(after) > len(words) and after[len(words)].kind == "number":
            return _number(after[len(words)].text)
    return None


def _number(text: str) -> float | None:
    return float(text.replace(",", ".")) if re.fullmatch(r"\d{1,9}(?:[.,]\d{1,9})?", text) else None


def doubt(reply: str, found: Sequence[Token], at: int, menu: LabelledMenu, letter: str) -> str:
    """Why the words behind a verdict leave it open; empty where they do not."""
    sentence, after = _sentence(reply, found, at)
    others = [index for index in range(len(sentence)) if _other(sentence, index, menu, letter)]
    first = next(
        (index for index, token in enumerate(sentence) if token.kind in ("word", "number")), len(sentence)
    )
    marks = "".join(token.text for token in sentence[:first])
    words = [token.text.casefold() for token in sentence[first:] if token.kind in ("word", "number")]
    ends = sentence[-1].end if sentence else 0
    said = " ".join(reply[found[at - 1].start : ends].split())
    whole = f"a choice between two verdicts: {said[:60]!r}"
    if "?" in marks:
        return f"a question: {said[:60]!r}"
    named = _past_fillers(sentence, first, menu) if others else first
    if others and named in others and all(word not in BETTER for word in words[: named - first]):
        return "" if marks.strip(",.;") and set(marks) == {">"} else whole
    if not words:
        return _afterthought(reply, after, menu, letter)
    head = words[0]
    if head in HEDGES or head in DOUBTING or (head in ("and", "nor") and others):
        return whole
    if head in PREDICATES:
        near = words[1:6]
        worse = next((place for place, word in enumerate(near) if word in WORSE), len(near))
        better = next((place for place, word in enumerate(near) if word in BETTER), len(near))
        if head.endswith("n") or better >= worse:
            return f"words that do not say which is the better: {said[:60]!r}"
    elif head in WORSE and not (head == "not" and others and others[0] <= first + 3):
        return f"words that do not say which is the better: {said[:60]!r}"
    if any(
        {token.text.casefold() for token in sentence[max(index - 3, 0) : index]} & {"or", "maybe"}
        for index in others
    ):
        return whole
    return _afterthought(reply, after, menu, letter)


def _sentence(reply: str, found: Sequence[Token], at: int) -> tuple[list[Token], list[Token]]:
    """The tokens up to the end of the sentence or line, and those that follow, as far as they are looked at."""
    rest = found[at : at + 2 * SENTENCE]
    for index, token in enumerate(rest):
        stops = token.text in (".", "!", ";", "。") and not reply[token.end : token.end + 1].isalnum()
        if token.kind == "line" or stops:
            return list(rest[:index]), list(rest[index + 1 :])
    return list(rest[:SENTENCE]), []


def _afterthought(reply: str, after: Sequence[Token], menu: LabelledMenu, letter: str) -> str:
    """Whether the next sentence takes the verdict back ("No, wait, B")."""
    words = [token for token in after if token.kind != "line"]
    if not words or words[0].text.casefold() not in RETRACTING:
        return ""
    sentence, _ = _sentence(reply, words, 0)
    if any(_other(sentence, index, menu, letter) for index in range(min(len(sentence), 6))):
        return f"a verdict that is taken back: {reply[words[0].start : sentence[-1].end]!r:.60}"
    return ""


def _other(found: Sequence[Token], index: int, menu: LabelledMenu, letter: str) -> bool:
    """Whether another verdict is named at the token: as the menu spells it, because "a" is also a word."""
    for words, key in menu.options.items():
        if key != letter and tuple(token.text for token in found[index : index + len(words)]) == words:
            return True
    return False


class _Quotes:
    """The quotations of a text: between quotation marks, and lines that begin with ">"."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = list(_quotations(text))
        self._next = 0

    def around(self, start: int, end: int) -> bool:
        """Whether a quotation holds the whole of text[start:end]; asked in the order of the text."""
        line = self._text.rfind("\n", max(0, start - 400), start) + 1
        if self._text[line:start].lstrip()[:1] == ">":
            return True
        while self._next < len(self._ends) and self._ends[self._next][1] < end:
            self._next += 1
        if self._next == len(self._ends) or self._ends[self._next][0] > start:
            return False
        return not self._is_all(*self._ends[self._next])

    def _is_all(self, start: int, end: int) -> bool:
        """Whether what is quoted is all that its line says, or the value of a JSON key."""
        line = self._text.rfind("\n", max(0, start - 400), start) + 1
        until = self._text.find("\n", end, end + 400)
        before = self._text[line:start]
        rest = self._text[end + 1 : until if until >= 0 else end + 400]
        if re.search(r"[\"'][ \t]{0,9}:[ \t]{0,9}\Z", before[-20:]):
            return True
        return not any(map(str.isalnum, before + rest))


def _quotations(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of what stands between quotation marks: text[start:end] without the marks, outermost first.

    A quotation ends with its paragraph at the latest; one that nothing closes ends with its line.
    """
    opened: tuple[int, str] | None = None
    line_end = -1
    for found in re.finditer(r"[\"“”„«»「」『』`'‘’]|\n[ \t]{0,20}\n|\Z", text):
        mark, at = found[0], found.start()
        if opened is not None:
            start, closing = opened
            after = text[at + 1 : at + 2]
            if mark and mark in closing and not (mark in "'’" and after.isalnum()):
                yield start, at
                opened = None
                continue
            if mark and mark[0] != "\n":
                continue
            line_end = text.find("\n", start)
            yield start, line_end if line_end >= 0 else len(text)
            opened = None
        elif mark in _QUOTED:
            before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
            if not before.isalnum() and (after.isalnum() or after in '*_`<{[(\\"'):
                opened = at + 1, _QUOTED[mark]
