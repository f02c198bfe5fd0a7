"""Criteria with weights: rubrics, graders of OpenAI's, principles that stand in rows or among annotators."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from preceptor.constitution.forms.draft import DraftPrinciple, FoundPrinciples, one_line
from preceptor.constitution.forms.prose import marker
from preceptor.constitution.principle import Constitution

TEXTS = ("description", "criterion", "criteria", "text", "requirement", "rubric", "expected_outcome")
NAMES = ("id", "title", "name")
LISTS = ("rubric", "rubrics", "criteria", "items")
GRADERS = frozenset({"score_model", "label_model", "multi", "string_check", "text_similarity", "python"})
ASKING = "Grade the reply from 0 to 1 by this principle, as if it were compared with another reply: "
GRADED = "Prompt:\n{{item.prompt}}\n\nReply:\n{{sample.output_text}}"
MODEL = "gpt-6-luna"
"""Which OpenAI model a written grader names; another stands in its place in a word."""


def rubric_of(value: Any) -> list[Any] | None:
    """The criteria of a rubric; None: it is none."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in LISTS if isinstance(value.get(name), list)), None)
    if not isinstance(value, list) or not value:
        return None
    fits = all(isinstance(one, Mapping) and _text(one, TEXTS) for one in value)
    return value if fits else None


def read_rubric(value: Any) -> FoundPrinciples:
    """A principle a criterion. One whose weight is not above 0 says what a reply loses by, and is set aside."""
    drafts, penalties = [], 0
    for one in rubric_of(value) or ():
        weight = next((one[name] for name in ("weight", "points") if _is_number(one.get(name))), 1.0)
        if weight <= 0:
            penalties += 1
            continue
        text = _text(one, TEXTS)
        drafts.append(DraftPrinciple(text, id=_text(one, NAMES), weight=float(weight), origin=text))
    return FoundPrinciples(
        tuple(drafts), {"criteria of a weight that is not above 0": penalties} if penalties else {}
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = (fields[name] for name in names if isinstance(fields.get(name), str))
    return next((text.strip() for text in found if text.strip()), "")


def write_rubric(constitution: Constitution) -> tuple[str, dict[str, int]]:
    """A list of title, description and weight."""
    rows = [
        {"title": one.id, "description": one.text, "weight": one.weight} for one in constitution.principles
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n", {}


def is_grader(value: Any) -> bool:
    """Whether JSON is a grader of OpenAI's."""
    return isinstance(value, Mapping) and str(value.get("type")) in GRADERS


def read_grader(value: Any) -> FoundPrinciples:
    """A principle for each model that grades, by what its first message asks; its weight by `calculate_output`."""
    graders = (
        value["graders"] if isinstance(value.get("graders"), Mapping) else {str(value.get("name", "")): value}
    )
    weights = _weights(str(value.get("calculate_output", "")))
    drafts, others = [], 0
    for name, grader in graders.items():
        asked = _asked(grader) if isinstance(grader, Mapping) else ""
        if not asked:
            others += 1
            continue
        text = asked.removeprefix(ASKING).strip()
        own = str(grader.get("name") or name)
        drafts.append(DraftPrinciple(text, id=own, weight=weights.get(name, 1.0), origin=text))
    return FoundPrinciples(tuple(drafts), {"graders that ask no model": others} if others else {})


def _asked(grader: Mapping[str, Any]) -> str:
    messages = grader.get("input")
    first = messages[0] if isinstance(messages, list) and messages else None
    content = first.get("content") if isinstance(first, Mapping) else None
    if isinstance(content, Mapping):
        content = content.get("text")
    return content.strip() if isinstance(content, str) else ""


def _weights(formula: str) -> dict[str, float]:
    """Of a sum such as `(2.0 * a + 1.0 * b) / 3.0`; what is no such sum gives none."""
    found = {}
    for part in formula.partition(")")[0].strip("( ").split(" + "):
        number, times, name = part.strip().partition(" * ")
        try:
            weight = float(number)
        except ValueError:
            return {}
        if not times or not 0 < weight < float("inf"):
            return {}
        found[name] = weight
    return found


def write_grader(constitution: Constitution) -> tuple[str, dict[str, int]]:
    """A `multi` grader: one model grades by one principle each, and the grades are averaged by weight."""
    keys = {one.id: f"p{number}" for number, one in enumerate(constitution.principles, 1)}
    graders = {
        keys[one.id]: {
            "type": "score_model",
            "name": one.id,
            "model": MODEL,
            "range": [0, 1],
            "input": [
                {"role": "system", "content": f"{ASKING}{one.text}"},
                {"role": "user", "content": GRADED},
            ],
        }
        for one in constitution.principles
    }
    total = sum(one.weight for one in constitution.principles)
    parts = " + ".join(f"{one.weight!r} * {keys[one.id]}" for one in constitution.principles)
    grader = {"type": "multi", "graders": graders, "calculate_output": f"({parts}) / {total!r}"}
    return json.dumps(grader, indent=2, ensure_ascii=False) + "\n", {}


def principles_in(value: Any) -> list[str]:
    """The `principle` fields of rows, as NeMo Gym's requests have them, each text once."""
    rows = value if isinstance(value, list) else [value]
    texts = [
        row["principle"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("principle"), str)
    ]
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


def read_principles(value: Any) -> FoundPrinciples:
    """A field that numbers several is several."""
    texts = [one for text in principles_in(value) for one in numbered(text)]
    return FoundPrinciples(tuple(DraftPrinciple(text, origin=text) for text in dict.fromkeys(texts)), {})


def numbered(text: str) -> Iterator[str]:
    """The items of a text whose every line is one; else the text as it is."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 0 and all(map(marker, lines)):
        yield from (line[len(marker(line)) :].strip() for line in lines)
    else:
        yield one_line(text)


def in_numbers(texts: Iterable[str]) -> str:
    """As `numbered` reads it."""
    return "\n".join(f"{number}. {one_line(text)}" for number, text in enumerate(texts, 1))


def write_principles(constitution: Constitution) -> tuple[str, dict[str, int]]:
    """One JSON line with all of them in its field."""
    texts = in_numbers(one.text for one in constitution.principles)
    return json.dumps({"principle": texts}, ensure_ascii=False) + "\n", {}


def icai_texts(value: Any) -> list[str] | None:
    """What ICAI's constitution file says, a text or a list; None: it is none."""
    said = value.get("constitution") if isinstance(value, Mapping) else None
    if isinstance(said, str) and said.strip():
        return list(numbered(said))
    if isinstance(said, list) and said and all(isinstance(one, str) for one in said):
        return [one for one in said if one.strip()]
    return None


def read_icai(value: Any) -> FoundPrinciples:
    """A principle a line."""
    return FoundPrinciples(
        tuple(DraftPrinciple(text.strip(), origin=text.strip()) for text in icai_texts(value) or ()), {}
    )


def write_icai(constitution: Constitution) -> tuple[str, dict[str, int]]:
    """ICAI's `060_constitution.json`."""
    said = in_numbers(one.text for one in constitution.principles)
    return json.dumps({"constitution": said}, indent=2, ensure_ascii=False) + "\n", {}


def is_annotated(value: Any) -> bool:
    """Whether JSON is annotated pairs, as ICAI and feedback-forensics have them."""
    return isinstance(value, Mapping) and isinstance(value.get("annotators"), Mapping)


def read_annotated(value: Any) -> FoundPrinciples:
    """The annotators that are principles."""
    drafts, kinds = [], Counter[str]()
    for one in value["annotators"].values():
        text = _text(one, ("description", "name")) if isinstance(one, Mapping) else ""
        if text and one.get("type") == "principle":
            drafts.append(DraftPrinciple(text, id=_text(one, ("name",)), origin=text))
        else:
            kinds["annotators that are no principle"] += 1
    return FoundPrinciples(tuple(drafts), dict(kinds))


def read_texts(value: list[str]) -> FoundPrinciples:
    """A list of texts, as the paper's instructions for comparing are; `Options:` at their end is no part of them."""
    texts = [one.strip().removesuffix("Options:").strip() for one in value]
    return FoundPrinciples(tuple(DraftPrinciple(text, origin=text) for text in texts if text), {})


def write_texts(constitution: Constitution) -> tuple[str, dict[str, int]]:
    """The texts alone."""
    return json.dumps([one.text for one in constitution.principles], indent=2, ensure_ascii=False) + "\n", {}
