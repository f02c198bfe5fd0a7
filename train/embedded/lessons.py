"""What the tiny model learns from: five kinds of lesson, each a shared trunk with one or more branches.

A pair of replies is read once and every principle's question branches off it, so that one reading teaches
several verdicts. Without the weight on verdict tokens judging stays at chance for long (EXPERIMENTS.md).
"""

import random
from collections.abc import Mapping
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from preceptor.train.embedded import asks
from preceptor.train.embedded.lexicon import SYLLABLES, WORDS
from preceptor.train.embedded.tokens import END, dialogue
from preceptor.train.embedded.world import (
    applicable,
    compose,
    critique_of,
    draw_draft,
    draw_prompt,
    draw_virtues,
    mend,
)

Mix = Mapping[str, float]  # kind of lesson -> its share

VERDICT_WEIGHT, REMARK_WEIGHT, FORMULA_WEIGHT = 10.0, 1.0, 0.3  # of "A", of a critique's words, of "Verdict:"
EARLY: Mix = {"echo": 0.30, "chat": 0.16, "critique": 0.18, "compare": 0.24, "revise": 0.12}
LATE: Mix = {"echo": 0.04, "chat": 0.29, "critique": 0.14, "compare": 0.20, "revise": 0.33}
JUDGED = ("private", "polite", "concise", "steadfast")  # what is left to the tiny judge
DIFFER = 0.75  # how often two replies differ on a principle; where they do not, the letter is a coin's


class LessonPart(NamedTuple):
    """One ask and its answer, in text."""

    ask: str
    answer: str
    verdict: int  # index of the answer's verdict token, -1 for none
    weight: float  # of every other token of the answer


class Branch(NamedTuple):
    """Tokens after the trunk, with their weight in the loss."""

    tokens: list[int]
    weights: list[float]


class Lesson(NamedTuple):
    """One trunk, read once, and what follows it."""

    trunk: list[int]
    branches: list[Branch]

    @property
    def size(self) -> int:
        """Tokens in all."""
        return len(self.trunk) + sum(len(b.tokens) for b in self.branches)


def _chat(rng: random.Random) -> list[LessonPart]:
    prompt = draw_prompt(rng, "train")
    draft = draw_draft(rng, prompt, draw_virtues(rng, prompt))
    return [LessonPart(dialogue(prompt["messages"]), compose(draft), -1, 1.0)]


def _echo(rng: random.Random) -> list[LessonPart]:
    """Words to repeat. Quotes, revisions and true values are all copies, and copying is learnt here first."""
    words = []
    for _ in range(rng.randint(3, 14)):
        made = "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))).capitalize()
        figures = str(rng.randint(2, 10 ** rng.randint(1, 4)))
        words.append(rng.choice((rng.choice(WORDS), rng.choice(WORDS), made, figures)))
    text = " ".join(words) + "."
    return [LessonPart(dialogue([{"role": "user", "content": f"Repeat: {text}"}]), text, -1, 1.0)]


def _critique(rng: random.Random) -> list[LessonPart]:
    prompt = draw_prompt(rng, "train")
    draft = draw_draft(rng, prompt, draw_virtues(rng, prompt))
    text = compose(draft)
    return [
        LessonPart(
            dialogue(asks.critique(prompt["messages"], text, p)),
            critique_of(prompt, draft, p),
            -1 if p == "true-to-notes" else 0,
            REMARK_WEIGHT,
        )
        for p in applicable(prompt)
    ]


def _compare(rng: random.Random) -> list[LessonPart]:
    prompt = draw_prompt(rng, "train")
    left = draw_virtues(rng, prompt)
    right = {p: (not v if rng.random() < DIFFER else v) for p, v in left.items()}
    a, b = (compose(draw_draft(rng, prompt, virtues)) for virtues in (left, right))
    parts = []
    for principle in JUDGED:
        if principle not in left:
            continue
        first = left[principle] if left[principle] != right[principle] else rng.random() < 0.5
        ask = dialogue(asks.compare(prompt["messages"], a, b, principle))
        parts.append(LessonPart(ask, asks.VERDICT + asks.LETTERS[0 if first else 1], 2, FORMULA_WEIGHT))
    return parts


def _revise(rng: random.Random) -> list[LessonPart]:
    prompt = draw_prompt(rng, "train")
    virtues = draw_virtues(rng, prompt)
    principle = rng.choice(applicable(prompt))
    virtues[principle] = rng.random() < 0.25  # mostly there is something to mend
    draft = draw_draft(rng, prompt, virtues)
    ask = asks.revise(prompt["messages"], compose(draft), critique_of(prompt, draft, principle), principle)
    return [LessonPart(dialogue(ask), compose(mend(rng, prompt, draft, principle)), -1, 1.0)]


KINDS = {"echo": _echo, "chat": _chat, "critique": _critique, "compare": _compare, "revise": _revise}


def draw_parts(rng: random.Random, mix: Mix = LATE) -> list[LessonPart]:
    """One lesson as text, of a kind drawn by its share in the mix."""
    return KINDS[rng.choices(tuple(mix), weights=tuple(mix.values()))[0]](rng)


def _shared(asked: list[list[int]]) -> int:
    """How many leading tokens all asks have in common."""
    if len(asked) == 1:
        return len(asked[0])
    shortest = min(len(tokens) for tokens in asked)
    return next((i for i in range(shortest) if len({tokens[i] for tokens in asked}) > 1), shortest)


def to_lesson(parts: list[LessonPart], tokenizer: PreTrainedTokenizerFast) -> Lesson:
    """Tokens of the parts; what their asks share becomes the trunk."""
    asked = tokenizer([part.ask for part in parts], add_special_tokens=False)["input_ids"]
    answered = tokenizer([part.answer + END for part in parts], add_special_tokens=False)["input_ids"]
    trunk = _shared(asked)
    branches = []
    for part, ask, answer in zip(parts, asked, answered, strict=True):
        weights = [part.weight] * len(answer)
        if part.verdict >= 0:
            weights[part.verdict] = VERDICT_WEIGHT
        branches.append(Branch(ask[trunk:] + answer, [0.0] * (len(ask) - trunk) + weights))
    return Lesson(asked[0][:trunk], branches)


def letter_index(tokenizer: PreTrainedTokenizerFast) -> int:
    """Where the letter stands in "Verdict: A"; both letters must be one token there."""
    prefix = tokenizer(asks.VERDICT, add_special_tokens=False)["input_ids"]
    for letter in asks.LETTERS:
        tokens = tokenizer(asks.VERDICT + letter, add_special_tokens=False)["input_ids"]
        if tokens[:-1] != prefix:
            came = tokenizer.convert_ids_to_tokens(tokens)
            raise ValueError(f"{asks.VERDICT + letter!r} became {came}; wanted {letter!r} as its last token")
    return len(prefix)
