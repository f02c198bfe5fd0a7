"""Layouts of several replies to one prompt with scores or ranks, from which pairs are made by a rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from preceptor.prompts.layouts.layout import Fields, Layout, asked, has, without
from preceptor.prompts.layouts.two_conversations import TURN
from preceptor.prompts.layouts.two_replies import _number, decided
from preceptor.prompts.rows import BadRowError, text_of

LISTS = ("answers", "completions", "responses", "generations")
WORDS = ("answer", "response", "text", "content", "output", "completion")
SCORES = ("rank", "overall_score", "fine-grained_score", "score", "rating")
"""Of a rank the lowest is the best, of all others the highest."""
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def _items(fields: Fields) -> tuple[str, str, str] | None:
    """Columns of a ranked list: the list, the words in an item, and its rank or score."""
    for name in LISTS:
        value = fields.get(name)
        if (
            isinstance(value, (list, tuple))
            and len(value) > 1
            and all(isinstance(item, Mapping) for item in value)
        ):
            words = next(
                (key for key in WORDS if all(isinstance(item.get(key), str) for item in value)), None
            )
            score = next((key for key in SCORES if all(item.get(key) is not None for item in value)), None)
            if words and score:
                return name, words, score
    return None


def _read_list(fields: Fields) -> Iterable[Fields]:
    found = _items(fields)
    if found is None:
        raise BadRowError("no list of replies that all have a rank or a score", f"one of {', '.join(LISTS)}")
    name, words, score = found
    sign = 1 if score == "rank" else -1
    ranked = sorted(
        (sign * _number(score, item[score]), text_of(words, item[words])) for item in fields[name]
    )
    rest = without(fields, name, "prompt", "instruction", "id")
    yield from _neighbours(fields, {**rest, **_prompt(fields)}, ranked)


def _prompt(fields: Fields) -> Fields:
    """The question; Nectar writes it as a transcript that waits for the assistant."""
    name = next((name for name in ("prompt", "instruction", "question") if has(fields, name)), None)
    if name is None:
        raise BadRowError("a ranked list without a prompt", "a column prompt or instruction")
    value = fields[name]
    if isinstance(value, str) and re.match(r"\s{0,9}Human:", value):
        parts = TURN.split(f"\n\n{value.strip()}")[1:]
        turns = [
            {"role": "user" if role == "Human" else "assistant", "content": said.strip()}
            for role, said in zip(parts[::2], parts[1::2], strict=True)
        ]
        return {"messages": turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns}
    return asked(fields, name)


def _neighbours(fields: Fields, rest: Fields, ranked: list[tuple[float, str]]) -> Iterable[Fields]:
    """Each reply with the next lower one; equal ones are a tie."""
    for number, ((better, chosen), (worse, rejected)) in enumerate(pairwise(ranked), start=1):
        row = decided(rest, chosen, rejected, ("tie" if better == worse else "a", None))
        if has(fields, "id"):
            row["id"] = f"{fields['id']}-{number}" if len(ranked) > 2 else fields["id"]
        yield row


def _generations_fit(fields: Fields) -> bool:
    """distilabel's and Argilla's: parallel lists of replies and ratings."""
    replies, ratings = fields.get("generations"), fields.get("rating", fields.get("ratings"))
    return (
        isinstance(replies, (list, tuple))
        and isinstance(ratings, (list, tuple))
        and len(replies) == len(ratings) > 1
        and all(isinstance(item, str) for item in replies)
        and not has(fields, "chosen")
    )


def _read_generations(fields: Fields) -> Iterable[Fields]:
    ratings = fields["rating"] if "rating" in fields else fields["ratings"]
    ranked = sorted(
        (-_number("rating", rating), words)
        for rating, words in zip(ratings, fields["generations"], strict=True)
    )
    question = next((name for name in ("input", "instruction", "prompt") if has(fields, name)), None)
    if question is None:
        raise BadRowError("generations without a prompt", "a column input, instruction or prompt")
    rest = without(fields, "generations", "rating", "ratings", question, "system", "id")
    yield from _neighbours(fields, {**rest, **asked(fields, question, "", "system")}, ranked)


def _read_helpsteer(fields: Fields) -> Iterable[Fields]:
    """Neighbouring rows of one prompt: by helpfulness, of equal ones by correctness and coherence."""

    def worth(row: Mapping[str, Any]) -> float:
        others = sum(_number(name, row.get(name, 0)) for name in ("correctness", "coherence"))
        return -(_number("helpfulness", row["helpfulness"]) + others / 100)

    rows = fields["rows"]
    if len(rows) < 2:
        raise BadRowError(
            "one reply alone to its prompt", "two or more neighbouring rows with the same prompt"
        )
    ranked = sorted((worth(row), text_of("response", row["response"])) for row in rows)
    rest = without(rows[0], "prompt", "response", "id", *HELPSTEER)
    yield from _neighbours(rows[0], {**rest, **asked(rows[0], "prompt")}, ranked)


LAYOUTS = (
    Layout(
        "ranked",
        "ranked lists, as Nectar's and UltraFeedback's: each reply is compared with the next lower one",
        lambda row: _items(row) is not None and not has(row, "chosen"),
        _read_list,
    ),
    Layout(
        "generations",
        "Argilla's and distilabel's generations with their ratings: each reply is compared with the next lower one",
        _generations_fit,
        _read_generations,
    ),
    Layout(
        "helpsteer",
        "HelpSteer's scored replies: the more helpful is chosen, of equal ones the more correct and coherent",
        lambda row: has(row, "prompt", "response", "helpfulness"),
        _read_helpsteer,
        together=lambda row: row.get("prompt"),
    ),
)
