"""Layouts with two replies side by side and a column that says which is preferred."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from preceptor.prompts.layouts.layout import (
    ConversationPair,
    Fields,
    Layout,
    asked,
    has,
    is_conversation,
    parted,
    reply,
    slots,
    without,
)
from preceptor.prompts.rows import BadRowError, kind_of, text_of

PreferredSide = tuple[str | None, float | None]
"""`a`, `b`, `tie` or None where nobody said, and the probability that a is the better where that is known."""


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRowError(f"{name} is {kind_of(value)}", "a number") from None
    if not math.isfinite(number):
        raise BadRowError(f"{name} is {number}", "a finite number")
    return number


def _choice(name: str, value: Any, a: Any, b: Any, ties: tuple[Any, ...] = ()) -> PreferredSide:
    """Which of two values a column holds; None in it is nobody's word."""
    if value is None:
        return None, None
    for letter, wanted in (("a", (a,)), ("b", (b,)), ("tie", ties)):
        if value in wanted or str(value) in map(str, wanted):
            return letter, None
    raise BadRowError(f"{name} is {value!r:.40}", f"{a!r} or {b!r}")


def _alpaca_eval(fields: Fields) -> PreferredSide:
    """1 or 2; 0 and 1.5 are ties; between 1 and 2 it is 1 + the probability of the second."""
    if fields.get("preference") is None:
        return None, None
    number = _number("preference", fields["preference"])
    if number in (0, 1.5):
        return "tie", None
    if not 1 <= number <= 2:
        raise BadRowError(f"preference is {number:g}", "1 to 2, or 0 for a tie")
    soft = None if number in (1, 2) else 2 - number
    return ("a" if number < 1.5 else "b"), soft


def _majority(fields: Fields) -> PreferredSide:
    votes = Counter(
        str(value) for key, value in fields.items() if key.startswith("annotator") and value is not None
    )
    if wrong := sorted(set(votes) - {"0", "1", "2"}):
        raise BadRowError(f"an annotator says {wrong[0]!r:.40}", "0 (tie), 1 or 2")
    if not votes:
        return None, None
    (first, most), *others = votes.most_common()
    if others and others[0][1] == most:
        return "tie", None
    return {"1": "a", "2": "b", "0": "tie"}[first], None


def _strength(name: str) -> Callable[[Fields], PreferredSide]:
    def read(fields: Fields) -> PreferredSide:
        if fields.get(name) is None:
            return None, None
        number = _number(name, fields[name])
        return ("a" if number < 0 else "b" if number > 0 else "tie"), None

    return read


def _icai(fields: Fields) -> PreferredSide:
    return _choice("preferred_text", fields.get("preferred_text"), "text_a", "text_b", ("tie",))


def _arrow(fields: Fields) -> PreferredSide:
    return _choice("label", fields.get("label"), "A>B", "B>A", ("A=B", "tie"))


def _two(
    name: str,
    about: str,
    question: str,
    sides: tuple[str, str],
    gold: str,
    said: Callable[[Fields], PreferredSide],
    *,
    more: str = "",
    also: tuple[str, ...] = (),
    not_with: tuple[str, ...] = (),
    write: Callable[[ConversationPair], Fields] | None = None,
) -> Layout:
    first, second = sides

    def fits(fields: Fields) -> bool:
        known = gold in fields or (gold.endswith("*") and any(key.startswith(gold[:-1]) for key in fields))
        return (
            known
            and has(fields, question, first, second)
            and all(key in fields for key in also)
            and not set(not_with) & fields.keys()
        )

    def read(fields: Fields) -> Iterable[Fields]:
        yield decided(
            {**without(fields, question, more, first, second, gold), **asked(fields, question, more)},
            reply(first, fields[first]),
            reply(second, fields[second]),
            said(fields),
        )

    return Layout(name, about, fits, read, write)


def decided(rest: Fields, a: str, b: str, said: PreferredSide) -> Fields:
    """A row of ours with two replies and which is preferred. A probability of its own makes it chosen and rejected."""
    preferred, probability = said
    if preferred in ("a", "b"):
        chosen, rejected = (a, b) if preferred == "a" else (b, a)
        sure = {} if probability is None else {"probability": max(probability, 1 - probability)}
        return {**rest, "chosen": chosen, "rejected": rejected, **sure}
    made = {**rest, "response_a": a, "response_b": b}
    return made if preferred is None else {**made, "preferred": preferred}


def _read_arena(fields: Fields) -> Iterable[Fields]:
    messages, a, b = parted(fields["conversation_a"], fields["conversation_b"])
    ties = ("tie", "tie (bothbad)", "both_bad")
    said = _choice("winner", fields.get("winner"), "model_a", "model_b", ties)
    yield decided(
        {**without(fields, "conversation_a", "conversation_b", "winner"), "messages": messages}, a, b, said
    )


def _read_text_ab(fields: Fields) -> Iterable[Fields]:
    """Both texts may begin with the question: "Instruction: …" and then "Output: …" or "Assistant: …"."""
    a, b = text_of("text_a", fields["text_a"]), text_of("text_b", fields["text_b"])
    rest = without(fields, "text_a", "text_b", "preferred_text", "index", "prompt", "input")
    if "index" in fields and "id" not in fields:
        rest["id"] = str(fields["index"])
    question = fields.get("prompt", fields.get("input"))
    if isinstance(question, str) and question.strip():
        yield decided({**rest, "prompt": question}, a, b, _icai(fields))
        return
    for mark in ("\n\nOutput:", "\n\nAssistant:", "\n\nassistant:"):
        (before, found, one), (other, _, two) = a.partition(mark), b.partition(mark)
        if found and before == other:
            prompt = before.strip().removeprefix("Instruction:").strip()
            yield decided({**rest, "prompt": prompt}, one.strip(), two.strip(), _icai(fields))
            return
    raise BadRowError(
        "text_a and text_b without a prompt that they share", "a column prompt, or texts that begin with it"
    )


def _read_annotated(fields: Fields) -> Iterable[Fields]:
    """A comparison of ICAI's annotated pairs. The first annotator's word is the gold."""
    a, b = (_side(name, fields[name]) for name in ("response_a", "response_b"))
    votes = [vote for vote in fields["annotations"].values() if isinstance(vote, Mapping) and "pref" in vote]
    pref = votes[0]["pref"] if votes else None
    said = _choice("pref", pref, "a", "b", ("tie", "not_applicable"))
    said = (
        _choice("pref", None if pref in ("not_applicable", "invalid") else pref, "a", "b", ("tie",))
        if pref
        else said
    )
    rest = without(fields, "response_a", "response_b", "annotations", "prompt")
    models = [
        fields[name].get("model")
        for name in ("response_a", "response_b")
        if isinstance(fields[name], Mapping)
    ]
    if len(models) == 2 and all(models):
        rest["models"] = models
    yield decided({**rest, **asked(fields, "prompt")}, a, b, said)


def _side(name: str, value: Any) -> str:
    return text_of(f"{name}.text", value.get("text")) if isinstance(value, Mapping) else text_of(name, value)


def _argilla_fits(fields: Fields) -> bool:
    return isinstance(fields.get("fields"), Mapping) and any(
        name in fields for name in ("responses", "suggestions")
    )


def _read_argilla(record: Fields) -> Iterable[Fields]:
    """An exported record: texts under `fields`; people's answers, else suggestions, to a question of choice or rank."""
    given = record["fields"]
    question = next(
        (name for name in ("prompt", "instruction", "question", "input", "context") if has(given, name)), None
    )
    replies = [
        name
        for name in given
        if name not in ("prompt", "instruction", "question", "input", "context", "system")
    ]
    if question is None or len(replies) < 2:
        raise BadRowError(f"a record with the fields {', '.join(given)}", "a prompt and two replies")
    order = _argilla_order(record, replies)
    rest: Fields = {key: record[key] for key in ("id",) if record.get(key) is not None}
    rest |= asked(given, question, "", "system")
    if isinstance(record.get("metadata"), Mapping):
        rest["meta"] = dict(record["metadata"])
    a, b = (order[0], order[1]) if len(order) > 1 else (replies[0], replies[1])
    said: PreferredSide = ("a" if order else None, None)
    if len(order) == 1:
        a, b = order[0], next(name for name in replies if name != order[0])
    if order == ["tie"]:
        a, b, said = replies[0], replies[1], ("tie", None)
    yield decided(rest, reply(a, given[a]), reply(b, given[b]), said)


def _argilla_order(record: Fields, replies: list[str]) -> list[str]:
    """The fields that the first answer names, best first; empty where nobody answered."""
    for kind in ("responses", "suggestions"):
        for answers in (record.get(kind) or {}).values() if isinstance(record.get(kind), Mapping) else ():
            for answer in answers if isinstance(answers, (list, tuple)) else [answers]:
                value = answer.get("value") if isinstance(answer, Mapping) else answer
                if (
                    isinstance(value, (list, tuple))
                    and value
                    and all(isinstance(item, Mapping) for item in value)
                ):
                    ranked = sorted(value, key=lambda item: _number("rank", item.get("rank", 0)))
                    value = [item.get("value") for item in ranked]
                names = value if isinstance(value, (list, tuple)) else [value]
                if names and all(name in replies for name in names):
                    return [str(name) for name in names]
                if names in (["tie"], ["both"], ["equal"]):
                    return ["tie"]
    return []


def _write_pku(row: ConversationPair) -> Fields:
    a, b, first = slots(row)
    made = {"prompt": _one(row), "response_0": a, "response_1": b, "better_response_id": 0 if first else 1}
    return {**made, "id": row.id, **row.rest}


def _write_alpaca_eval(row: ConversationPair) -> Fields:
    a, b, first = slots(row)
    sure = row.rest.get("probability", 1.0)
    made = {
        "instruction": _one(row),
        "output_1": a,
        "output_2": b,
        "preference": 2 - sure if first else 1 + sure,
    }
    return {**made, "id": row.id, **without(row.rest, "probability")}


def _write_icai(row: ConversationPair) -> Fields:
    a, b, first = slots(row)
    made = {"prompt": _one(row), "text_a": a, "text_b": b, "preferred_text": "text_a" if first else "text_b"}
    return {**made, "id": row.id, **row.rest}


def _one(row: ConversationPair) -> str:
    if len(row.messages) != 1:
        raise BadRowError(
            f"a conversation of {len(row.messages)} messages",
            "a single question: this layout has room for no more",
        )
    return str(row.messages[0]["content"])


LAYOUTS = (
    _two(
        "alpaca-eval",
        "alpaca_eval's annotations: instruction, output_1, output_2, preference",
        "instruction",
        ("output_1", "output_2"),
        "preference",
        _alpaca_eval,
        write=_write_alpaca_eval,
    ),
    _two(
        "llmbar",
        "LLMBar: input, output_1, output_2 and the label 1 or 2",
        "input",
        ("output_1", "output_2"),
        "label",
        lambda row: _choice("label", row.get("label"), 1, 2),
    ),
    _two(
        "judgebench",
        "JudgeBench: question, response_A, response_B and the label A>B or B>A",
        "question",
        ("response_A", "response_B"),
        "label",
        _arrow,
    ),
    _two(
        "pku-saferlhf",
        "PKU-SafeRLHF: prompt, response_0, response_1; better_response_id says which is preferred",
        "prompt",
        ("response_0", "response_1"),
        "better_response_id",
        lambda row: _choice("better_response_id", row.get("better_response_id"), 0, 1, (-1,)),
        write=_write_pku,
    ),
    _two(
        "pandalm",
        "PandaLM: instruction, input, response1, response2; the majority of the annotators decides",
        "instruction",
        ("response1", "response2"),
        "annotator*",
        _majority,
        more="input",
    ),
    _two(
        "helpsteer2-preference",
        "HelpSteer2's preferences: prompt, response_1, response_2; the sign of preference_strength decides",
        "prompt",
        ("response_1", "response_2"),
        "preference_strength",
        _strength("preference_strength"),
    ),
    _two(
        "helpsteer3",
        "HelpSteer3: context, response1, response2; the sign of overall_preference decides",
        "context",
        ("response1", "response2"),
        "overall_preference",
        _strength("overall_preference"),
    ),
    _two(
        "shp",
        "SHP: history, human_ref_A, human_ref_B; the label 1 prefers A",
        "history",
        ("human_ref_A", "human_ref_B"),
        "labels",
        lambda row: _choice("labels", row.get("labels"), 1, 0),
    ),
    Layout(
        "arena",
        "Chatbot Arena: conversation_a, conversation_b and the winner",
        lambda row: (
            is_conversation(row.get("conversation_a"))
            and is_conversation(row.get("conversation_b"))
            and "winner" in row
        ),
        _read_arena,
    ),
    Layout(
        "icai",
        "ICAI's pairs: text_a, text_b and preferred_text",
        lambda row: has(row, "text_a", "text_b") and "preferred_text" in row,
        _read_text_ab,
        _write_icai,
    ),
    Layout(
        "annotated-pairs",
        "ICAI's annotated_pairs: comparisons with annotations, of which the first is the gold",
        lambda row: (
            has(row, "prompt", "response_a", "response_b") and isinstance(row.get("annotations"), Mapping)
        ),
        _read_annotated,
    ),
    Layout(
        "argilla",
        "Argilla's records: texts under fields; people's answers decide, or suggestions where there are none",
        _argilla_fits,
        _read_argilla,
    ),
)
