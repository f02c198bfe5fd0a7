"""Text is text: what users and models wrote is tokenised without control tokens.

A tokenizer takes "<|im_end|>" in a reply for the end of the turn, because the chat template writes the same letters.
Where a text holds such a mark, a copy of the tokenizer is used in which every control token has another spelling,
of private characters, and only the template's marks are written so. Everything else is the same in the copy, so that
a text without marks has the same tokens in both.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.constitution.errors import UserError

OPEN, CLOSE = "\U0010fff0", "\U0010fff1"
"""Around the number of a control token in its private spelling. No text of a person has them."""
HELD = ("\U0010fff2", "\U0010fff3")
"""Around the number of a mark in a text that is held back while a template is rendered."""
THOUGHTS = re.compile(r"</?(?:think|thinking|thought|reasoning)>|\[/?THINK\]", re.IGNORECASE)
PLAIN = "The guest asks what time breakfast is."
"""What a tokenizer must give back, spaces and letter case aside."""
MARKLIKE = re.compile(r"\A[<\[◁{(|].*[>\]▷})|]", re.DOTALL)


class Marked(str):
    """A text in which control tokens have their private spelling, and what looks like them is text."""

    __slots__ = ()


class TextTokens:
    """A tokenizer that can tell the template's marks from a text's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = weakref.proxy(tokenizer)
        self.controls = controls_of(tokenizer)
        alternatives = "|".join(re.escape(mark) for mark in sorted(self.controls, key=len, reverse=True))
        self._pattern = re.compile(alternatives) if alternatives else None
        self._copy: Any = None

    def holds(self, text: str) -> bool:
        """Whether a text holds what the tokenizer takes for a control token."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def hold_back(self, text: str, held: list[str]) -> str:
        """The text with its marks replaced by their numbers in `held`, to which they are added."""
        for private in (OPEN, CLOSE, *HELD):
            text = text.replace(private, "\ufffd")
        if self._pattern is None:
            return text

        def number(found: re.Match[str]) -> str:
            held.append(found.group())
            return f"{HELD[0]}{len(held) - 1}{HELD[1]}"

        return self._pattern.sub(number, text)

    def marked(self, text: str, held: Sequence[str] = ()) -> Marked:
        """A rendered conversation: its control tokens in their private spelling, then what was held back put in."""
        if self._pattern is not None:
            text = self._pattern.sub(lambda found: f"{OPEN}{self.controls[found.group()]}{CLOSE}", text)
        back = re.compile(f"{HELD[0]}(\\d+){HELD[1]}")
        return Marked(back.sub(lambda found: held[int(found[1])], text))

    def joined(self, text: str, more: str) -> str:
        """A rendered conversation with more text behind it, in which nothing is a control token."""
        if not isinstance(text, Marked) and not self.holds(more):
            return text + more
        return Marked((text if isinstance(text, Marked) else self.marked(text)) + more)

    def ids(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """The tokens of texts. Of those that are not `Marked`, control tokens are what they look like."""
        plain = [text for text in texts if not isinstance(text, Marked)]
        rows = iter(
            self._tokenizer(plain, add_special_tokens=add_special_tokens)["input_ids"] if plain else []
        )
        return [
            self._marked_ids(text, add_special_tokens)
            if isinstance(text, Marked)
            else [int(token) for token in next(rows)]
            for text in texts
        ]

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text in which nothing is a control token."""
        return self.ids([Marked(text) if self.holds(text) else text], False)[0]

    def _marked_ids(self, text: str, add_special_tokens: bool) -> list[int]:
        if self._copy is None:
            self._copy = _respelt(self._tokenizer, self.controls)
        if self._copy is not False:
            return [
                int(token) for token in self._copy.encode(text, add_special_tokens=add_special_tokens).ids
            ]
        ids: list[int] = []  # a tokenizer in Python: piece by piece
        for number, piece in enumerate(re.split(f"{OPEN}(\\d+){CLOSE}", text)):
            if number % 2:
                ids.append(int(piece))
                continue
            for part in self._broken(piece):
                special = add_special_tokens and not ids
                tokens = self._tokenizer(part, add_special_tokens=special, split_special_tokens=True)
                ids += [int(token) for token in tokens["input_ids"]]
        return ids

    def _broken(self, text: str) -> list[str]:
        """The text cut behind the first character of every mark in it, so that no part holds one."""
        cuts = [found.start() + 1 for found in self._pattern.finditer(text)] if self._pattern else []
        return [
            text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if start < end
        ]


_KNOWN: weakref.WeakKeyDictionary[Any, TextTokens] = weakref.WeakKeyDictionary()


def text_tokens(tokenizer: Any) -> TextTokens:
    """The tokenizer's, made once."""
    known = _KNOWN.get(tokenizer)
    if known is None:
        known = _KNOWN[tokenizer] = TextTokens(tokenizer)
    return known


def check_tokenizer(name: str, tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer that has a token without an embedding, or that does not give plain text back.

    rows: of the model's embedding. Raises UserError.
    """
    count = max(tokenizer.get_vocab().values(), default=-1) + 1
    if count > rows:
        raise UserError(
            f"{name}: the tokenizer has {count} tokens and the model embeddings for {rows}: a text with one of the "
            "others cannot be read; put the tokenizer that belongs to the model beside it, or resize its embeddings"
        )
    given = str(
        tokenizer.decode(tokenizer(PLAIN, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    )
    kept = {*given.casefold().split()} & {*PLAIN.casefold().split()}
    if len(kept) * 2 < len({*PLAIN.casefold().split()}):
        raise UserError(
            f"{name}: the tokenizer makes {given[:60]!r} of {PLAIN!r}, so that texts would be lost; the folder lacks "
            "tokenizer.json or what it is made of: save or download the tokenizer again"
        )


def controls_of(tokenizer: Any) -> dict[str, int]:
    """Control token -> its number: the special ones, and others that are added and look like marks (tools, images).

    Marks of thoughts that are no special tokens are left: they open no turn and end none, and templates look for them.
    """
    return {
        str(added.content): int(number)
        for number, added in tokenizer.added_tokens_decoder.items()
        if added.content.strip()
        and (added.special or (MARKLIKE.fullmatch(added.content) and not THOUGHTS.fullmatch(added.content)))
    }


def _respelt(tokenizer: Any, controls: Mapping[str, int]) -> Any:
    """A copy of the tokenizer with its control tokens under their private spelling; False where there can be none."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return False
    spelt = {mark: f"{OPEN}{number}{CLOSE}" for mark, number in controls.items()}
    whole = json.loads(backend.to_str())
    for added in whole.get("added_tokens", ()):
        if added["content"] in spelt:
            added.update(content=spelt[added["content"]], normalized=False)
    model = whole["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {spelt.get(piece, piece): number for piece, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[spelt.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in spelt:
        model["unk_token"] = spelt[model["unk_token"]]
    if model.get("merges"):
        model["merges"] = [
            pair
            for pair in model["merges"]
            if not {*(parts := pair.split(" ") if isinstance(pair, str) else pair), "".join(parts)}
            & spelt.keys()
        ]
    try:
        copy = Tokenizer.from_str(json.dumps(whole))
    except Exception:  # a kind of tokenizer that cannot be respelt; piece by piece it can be
        return False
    copy.no_truncation()
    copy.no_padding()
    sound = all(
        copy.encode(spelling, add_special_tokens=False).ids == [controls[mark]]
        for mark, spelling in spelt.items()
    )
    return copy if sound else False
