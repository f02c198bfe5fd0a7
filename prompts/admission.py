"""Which prompts that a model wrote are taken: answerable, of the wanted length and language, new, and no leak."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Literal

from preceptor.constitution.checks.language import detect
from preceptor.prompts.near import NearIndex, said
from preceptor.prompts.records import Prompt

AdmissionRefusal = Literal[
    "not answerable", "too short", "too long", "another language", "near another", "leak of held-out"
]
GAPS = re.compile(
    r"\[(?:insert|your|name|topic)\b|<(?:name|topic|insert)\b|\{\{|\bxxx\b|\blorem ipsum\b", re.IGNORECASE
)
"""Places in a prompt that were meant to be filled in."""
MISSING = re.compile(
    r"\b(?:attached|attachment|(?:image|picture|table|text|document) (?:above|below))\b", re.IGNORECASE
)
"""Words for something that does not come with a prompt."""
SURE_OF_LANGUAGE = 5
"""Words from which on the language of a text can be told."""


class Admission:
    """Admits prompts, and remembers what it let through."""

    def __init__(
        self,
        threshold: float,
        known: Iterable[Prompt],
        held_out: Iterable[Prompt] = (),
        words: tuple[int, int] = (3, 400),
        language: str = "",
    ) -> None:
        """known: what new prompts may not be near. held_out: what they may not leak. words: fewest and most. language:
        ISO 639 code; empty: any. Raises RowsError for a threshold that is none."""
        with ExitStack() as stack:
            self._known = stack.enter_context(NearIndex(threshold))
            self._apart = stack.enter_context(NearIndex(threshold))
            for index, prompts in ((self._known, known), (self._apart, held_out)):
                for prompt in prompts:
                    index.add(index.sketch(said(prompt)))
            self._open = stack.pop_all()
        self._words = words
        self._language = language

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def refuses(self, prompt: Prompt) -> AdmissionRefusal | None:
        """Why a prompt is not taken; None: it is, and none near it will be taken again."""
        text = prompt.messages[-1].content
        count = len(text.split())
        if not any(map(str.isalpha, text)) or GAPS.search(text) or MISSING.search(text):
            return "not answerable"
        if count < self._words[0]:
            return "too short"
        if count > self._words[1]:
            return "too long"
        if self._language and count >= SURE_OF_LANGUAGE and detect(text) != self._language:
            return "another language"
        sketch = self._known.sketch(said(prompt))
        if next(self._apart.near(sketch), None) is not None:
            return "leak of held-out"
        if next(self._known.near(sketch), None) is not None:
            return "near another"
        self._known.add(sketch)
        return None
