"""Labels as tasks for people in the tools of others, and what people said there back as gold.

Argilla          records as `Dataset.records.to_json` writes and `from_json` reads them
Label Studio     tasks with `data`; its JSON export holds their `annotations`
feedback-forensics, ICAI   annotated pairs, version 2.0
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.constitution.forms.carry import text_of, value_of
from preceptor.judge.aggregate import majority, opinions, winner
from preceptor.judge.records import Label, Letter
from preceptor.prompts.records import Message, Record

Tool = Literal["argilla", "label-studio", "feedback-forensics"]
QUESTION = "preferred"
"""What people are asked, as fields and controls name it."""
LETTERS: tuple[Letter, ...] = ("a", "b", "tie")
LABEL_CONFIG = f"""\
<View>
  <Text name="prompt" value="$prompt"/>
  <Text name="response_a" value="$response_a"/>
  <Text name="response_b" value="$response_b"/>
  <Choices name="{QUESTION}" toName="prompt" choice="single" required="true">
    <Choice value="a"/><Choice value="b"/><Choice value="tie"/>
  </Choices>
</View>
"""
"""The labelling interface that the tasks want."""


class GoldPair(Record):
    """A pair as `audit` and `label --gold` read it, with what people said."""

    id: str
    messages: tuple[Message, ...]
    tags: tuple[str, ...]
    response_a: str
    response_b: str
    preferred: Letter


class PeopleFormat(NamedTuple):
    """How one tool has tasks and answers."""

    write: Callable[[Sequence[Label], bool], str]
    """Of labels; whether the judge's verdict is shown."""
    fits: Callable[[Any], bool]
    """Whether what JSON holds is its export."""
    read: Callable[[Any], Iterator[tuple[str, list[Letter]]]]
    """Id of a label and what people said of it."""


class PeopleAnswers(NamedTuple):
    """What came back."""

    tool: Tool
    pairs: list[GoldPair]
    """With what most people said; `tie` where nothing has the most."""
    unanswered: int
    unknown: int
    """Answers about pairs that the labels do not hold."""
    disagreed: int
    """Pairs about which people said different things."""


def _said(label: Label) -> str:
    """The conversation as a person reads it."""
    messages = label.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{one.role}: {one.content}" for one in messages)


def _verdict(label: Label) -> Letter | None:
    if label.status == "tie":
        return "tie"
    return winner(label.probability) if label.status == "ok" and label.probability is not None else None


def _fields(label: Label) -> dict[str, str]:
    return {"prompt": _said(label), "response_a": label.response_a, "response_b": label.response_b}


def _write_argilla(labels: Sequence[Label], shown: bool) -> str:
    rows = []
    for label in labels:
        verdict = _verdict(label) if shown else None
        suggestion = {QUESTION: {"value": verdict, "score": None, "agent": label.judge}}
        rows.append(
            {
                "id": label.id,
                "fields": _fields(label),
                "metadata": {},
                "suggestions": suggestion if verdict else {},
                "responses": {},
                "vectors": {},
            }
        )
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _fits_argilla(value: Any) -> bool:
    return _rows(value, "fields") is not None


def _read_argilla(value: Any) -> Iterator[tuple[str, list[Letter]]]:
    for row in _rows(value, "fields") or ():
        responses = row.get("responses")
        answers = responses.get(QUESTION) if isinstance(responses, Mapping) else None
        said = [one.get("value") for one in answers or () if isinstance(one, Mapping) and _submitted(one)]
        yield str(row.get("id")), _letters(said)


def _submitted(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("status", "submitted") == "submitted")


def _write_label_studio(labels: Sequence[Label], shown: bool) -> str:
    tasks = []
    for label in labels:
        task: dict[str, Any] = {"data": {"label": label.id, **_fields(label)}}
        verdict = _verdict(label) if shown else None
        if verdict is not None:
            task["predictions"] = [{"model_version": label.judge, "result": [_choice(verdict)]}]
        tasks.append(task)
    return json.dumps(tasks, indent=2, ensure_ascii=False) + "\n"


def _choice(letter: Letter) -> dict[str, Any]:
    return {"from_name": QUESTION, "to_name": "prompt", "type": "choices", "value": {"choices": [letter]}}


def _fits_label_studio(value: Any) -> bool:
    return _rows(value, "data") is not None


def _read_label_studio(value: Any) -> Iterator[tuple[str, list[Letter]]]:
    for task in _rows(value, "data") or ():
        said: list[Any] = []
        for annotation in task.get("annotations") or ():
            if not isinstance(annotation, Mapping) or annotation.get("was_cancelled"):
                continue
            for result in annotation.get("result") or ():
                if isinstance(result, Mapping) and result.get("from_name") == QUESTION:
                    chosen = result.get("value")
                    said += chosen.get("choices") or [] if isinstance(chosen, Mapping) else []
        yield str(task["data"].get("label")), _letters(said)


def _write_annotated(labels: Sequence[Label], shown: bool) -> str:
    annotators: dict[str, dict[str, str]] = {}
    if any(label.preferred for label in labels):
        annotators["gold"] = {
            "name": "gold",
            "description": "The better reply as it is known",
            "type": "human",
        }
    if shown:
        annotators["judge"] = {
            "name": labels[0].judge if labels else "",
            "description": "The label",
            "type": "unknown",
        }
        names = dict.fromkeys(one.principle for label in labels for one in opinions(label))
        annotators |= {
            f"principle-{name}": {"name": name, "description": name, "type": "principle"} for name in names
        }
    metadata: dict[str, Any] = {
        "version": "2.0",
        "description": "Labels of Preceptor",
        "dataset_name": "labels",
    }
    if annotators:
        metadata["default_annotator"] = next(iter(annotators))
    comparisons = []
    for label in labels:
        models = label.models or (None, None)
        sides = zip(("a", "b"), (label.response_a, label.response_b), models, strict=True)
        comparisons.append(
            {
                "id": label.id,
                "prompt": _said(label),
                **{
                    f"response_{side}": {"text": text, **({"model": by} if by else {})}
                    for side, text, by in sides
                },
                "annotations": {name: {"pref": one} for name, one in _annotations(label, shown)},
            }
        )
    whole = {"metadata": metadata, "annotators": annotators, "comparisons": comparisons}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _annotations(label: Label, shown: bool) -> Iterator[tuple[str, str]]:
    words = {"a": "a", "b": "b", "tie": "both"}
    if label.preferred is not None:
        yield "gold", words[label.preferred]
    if shown:
        if (verdict := _verdict(label)) is not None:
            yield "judge", words[verdict]
        for one in opinions(label):
            yield f"principle-{one.principle}", words[winner(one.probability)]


def _fits_annotated(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("comparisons"), list)


def _read_annotated(value: Any) -> Iterator[tuple[str, list[Letter]]]:
    """Of human annotators alone."""
    known = value.get("annotators")
    annotators = known if isinstance(known, Mapping) else {}
    people = {
        name for name, one in annotators.items() if isinstance(one, Mapping) and one.get("type") == "human"
    }
    for row in value["comparisons"]:
        if isinstance(row, Mapping):
            said = row.get("annotations")
            found = said if isinstance(said, Mapping) else {}
            prefs = [
                one.get("pref") for name, one in found.items() if name in people and isinstance(one, Mapping)
            ]
            yield str(row.get("id")), _letters(prefs)


def _rows(value: Any, column: str) -> list[Mapping[str, Any]] | None:
    """The objects of a list, or one alone, that all hold an object in this column; None: it is none such."""
    rows = value if isinstance(value, list) else [value]
    fits = bool(rows) and all(
        isinstance(one, Mapping) and isinstance(one.get(column), Mapping) for one in rows
    )
    return rows if fits else None


def _letters(said: Iterable[Any]) -> list[Letter]:
    words: dict[Any, Letter] = {"a": "a", "b": "b", "tie": "tie", "both": "tie", "neither": "tie"}
    return [words[one] for one in said if isinstance(one, str) and one in words]


FORMATS: Mapping[Tool, PeopleFormat] = {
    "argilla": PeopleFormat(_write_argilla, _fits_argilla, _read_argilla),
    "label-studio": PeopleFormat(_write_label_studio, _fits_label_studio, _read_label_studio),
    "feedback-forensics": PeopleFormat(_write_annotated, _fits_annotated, _read_annotated),
}


def tasks_of(labels: Iterable[Label], tool: Tool, shown: bool) -> str:
    """The tool's file. shown: whether the judge's verdict is in it. Raises UserError where there is no label."""
    rows = list(labels)
    if not rows:
        raise UserError("there is no label that a person could be asked about")
    return FORMATS[tool].write(rows, shown)


def answers_in(path: Path, labels: Iterable[Label]) -> PeopleAnswers:
    """What people said of these labels. Raises UserError for a file that is of no tool, or holds no answer."""
    value = value_of(text_of(path))
    tool = next((name for name, one in FORMATS.items() if one.fits(value)), None)
    if tool is None:
        raise UserError(f"{path} is no export that is known; wanted JSON of {', '.join(FORMATS)}")
    by_id = {label.id: label for label in labels}
    pairs: list[GoldPair] = []
    counts: Counter[str] = Counter()
    for identity, letters in FORMATS[tool].read(value):
        label = by_id.get(identity)
        counts["unknown" if label is None else "unanswered" if not letters else "answered"] += 1
        if label is not None and letters:
            counts["disagreed"] += len(set(letters)) > 1
            pairs.append(_gold(label, letters))
    if not pairs:
        raise UserError(
            f"{path} holds no answer to any of {len(by_id)} labels; name the labels that were exported"
        )
    return PeopleAnswers(tool, pairs, counts["unanswered"], counts["unknown"], counts["disagreed"])


def _gold(label: Label, letters: Sequence[Letter]) -> GoldPair:
    return GoldPair(
        id=label.id,
        messages=label.prompt.messages,
        tags=label.prompt.tags,
        response_a=label.response_a,
        response_b=label.response_b,
        preferred=majority(letters) or "tie",
    )
