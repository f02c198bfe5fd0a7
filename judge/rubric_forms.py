"""Rubrics in files: our own form and those of others, read and written.

    preceptor    YAML with every field of `judge.rubric.Criterion`
    verifiers    TOML of its rubric judge: name, text, weight, choices from worst to best; no weight below 0, no veto
    autorubric   YAML: requirement, weight of either sign, options with values
    healthbench  JSON: criterion, points of either sign, tags
    openenv      JSON of its tree of rubrics: gates in a sequence, then a weighted sum, whose weights add up to 1; it
                 has no form of files itself, so that the names of its classes are the types of the nodes

What a form cannot say is refused in words, never left out.
"""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of
from preceptor.judge.rubric import BINARY, Criterion, Rubric

RubricForm = Literal["preceptor", "verifiers", "autorubric", "healthbench", "openenv"]
NAMED = "name:"
"""How HealthBench's tags hold a criterion's name, which its form has no place for."""


class _Form(NamedTuple):
    read: Callable[[Any], list[dict[str, Any]]]
    """Parsed file -> fields of criteria."""
    write: Callable[[Rubric], Any]
    lacks: tuple[str, ...]
    """Fields that it has no place for."""
    suffix: str


def read_rubric(path: str | Path, form: RubricForm | None = None) -> Rubric:
    """The rubric of a file, in the form that is named or that its content shows. Raises UserError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({exc}); wanted a rubric's file") from exc
    value = _parsed(path, text)
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "rubric"
    try:
        found = form or _recognised(value)
        fields = FORMS[found].read(value)
        given = value.get("name") if isinstance(value, Mapping) and found == "preceptor" else None
        return Rubric(name=given or name, criteria=tuple(Criterion(**one) for one in fields))
    except ValidationError as exc:
        fault = exc.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise UserError(f"{path}: {place + ': ' if place else ''}{fault['msg']}") from exc
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise UserError(
            f"{path}: is no rubric that can be read ({type(exc).__name__}: {exc}); wanted one of {', '.join(FORMS)}"
        ) from exc


def write_rubric(rubric: Rubric, form: RubricForm) -> str:
    """The text of its file. Raises UserError for what the form cannot say."""
    made = FORMS[form]
    for one in rubric.criteria:
        usual = Criterion(name=one.name, text=one.text)
        lost = [name for name in made.lacks if getattr(one, name) != getattr(usual, name)]
        if lost:
            raise UserError(
                f"{form} has no place for {lost[0]} of the criterion {one.name}; take another form"
            )
        if form == "verifiers" and one.weight < 0:
            raise UserError(
                f"verifiers takes no weight below 0, and {one.name} has {one.weight:g}; take another form"
            )
    value = made.write(rubric)
    if made.suffix == ".toml":
        return _toml(value)
    if made.suffix == ".json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = False  # escapes say every character, which plain YAML does not
    yaml.dump(value, stream)
    return stream.getvalue()


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            return json_of(text)
        return YAML(typ="safe", pure=True).load(text)
    except (ValueError, YAMLError, RecursionError) as exc:
        said = " ".join(str(exc).split())
        raise UserError(f"{path}: cannot be read as {path.suffix[1:] or 'YAML'} ({said})") from exc


def _recognised(value: Any) -> RubricForm:
    """By the words for what a criterion says."""
    if isinstance(value, Mapping) and "type" in value:
        return "openenv"
    rows = _rows(value)
    keys = set(rows[0]) if rows and isinstance(rows[0], Mapping) else set()
    if "criterion" in keys:
        return "healthbench"
    if "requirement" in keys:
        return "autorubric"
    if "text" in keys:
        plain = isinstance(value, Mapping) and "name" in value
        return "preceptor" if plain else "verifiers"
    raise ValueError("no criteria with text, requirement or criterion")


def _rows(value: Any) -> list[Any]:
    """The list of criteria, bare or under the key that a form has for it."""
    if isinstance(value, Mapping):
        found = next((value[key] for key in ("criteria", "rubrics", "rubric") if key in value), None)
        if found is None:
            raise ValueError("no list of criteria")
        value = found
    if not isinstance(value, list) or not value:
        raise ValueError("no list of criteria")
    return value


def _slug(name: object, number: int) -> str:
    """A criterion's name as ours are written."""
    return re.sub(r"[^a-z0-9]+", "-", str(name or "").lower()).strip("-") or f"c{number}"


def _verifiers_in(value: Any) -> list[dict[str, Any]]:
    return [{**row, "name": _slug(row.get("name"), number)} for number, row in enumerate(_rows(value), 1)]


def _own_out(rubric: Rubric) -> Any:
    rows = [one.model_dump(mode="json", exclude_defaults=True) for one in rubric.criteria]
    return {"name": rubric.name, "criteria": rows}


def _verifiers_out(rubric: Rubric) -> Any:
    return {
        "criteria": [
            {"name": one.name, "text": one.text, "weight": one.weight, "choices": list(one.choices)}
            for one in rubric.criteria
        ]
    }


def _autorubric_in(value: Any) -> list[dict[str, Any]]:
    found = []
    for number, row in enumerate(_rows(value), 1):
        options = row.get("options") or []
        if any(one.get("na") for one in options):
            raise ValueError(
                "an option that is not assessed (na), which a judge says here without being asked"
            )
        ordered = sorted(options, key=lambda one: float(one["value"]))
        steps = [float(one["value"]) for one in ordered]
        even = [at / (len(steps) - 1) for at in range(len(steps))] if len(steps) > 1 else []
        if options and any(abs(a - b) > 1e-6 for a, b in zip(steps, even, strict=True)):
            raise ValueError(f"options worth {steps}; wanted values evenly from 0 to 1")
        labels = tuple(str(one["label"]) for one in ordered) or BINARY
        found.append(
            {
                "name": _slug(row.get("name"), number),
                "text": row["requirement"],
                "weight": row.get("weight", 1.0),
                "choices": labels,
            }
        )
    return found


def _autorubric_out(rubric: Rubric) -> Any:
    rows = []
    for one in rubric.criteria:
        row: dict[str, Any] = {"name": one.name, "weight": one.weight, "requirement": one.text}
        if one.choices != BINARY:
            last = len(one.choices) - 1
            row |= {
                "scale_type": "ordinal",
                "options": [{"label": label, "value": at / last} for at, label in enumerate(one.choices)],
            }
        rows.append(row)
    return rows


def _healthbench_in(value: Any) -> list[dict[str, Any]]:
    found = []
    for number, row in enumerate(_rows(value), 1):
        names = [tag.removeprefix(NAMED) for tag in row.get("tags", ()) if str(tag).startswith(NAMED)]
        found.append(
            {"name": names[0] if names else f"c{number}", "text": row["criterion"], "weight": row["points"]}
        )
    return found


def _healthbench_out(rubric: Rubric) -> Any:
    return {
        "rubrics": [
            {"criterion": one.text, "points": one.weight, "tags": [f"{NAMED}{one.name}"]}
            for one in rubric.criteria
        ]
    }


def _openenv_in(value: Any) -> list[dict[str, Any]]:
    """Gates become vetoes; a criterion under a gate alone, which has no share in the sum, has weight 1 there."""
    if not isinstance(value, Mapping):
        raise ValueError("no tree of rubrics")
    nodes = value["rubrics"] if value["type"] == "Sequential" else [value]
    found: dict[str, dict[str, Any]] = {}
    gated: dict[str, dict[str, Any]] = {}
    for node in nodes:
        if node["type"] == "Gate":
            leaf = _leaf(node["rubric"])
            gated[leaf["name"]] = leaf
        elif node["type"] == "WeightedSum":
            for leaf, weight in zip(map(_leaf, node["rubrics"]), node["weights"], strict=True):
                found[leaf["name"]] = leaf | {"weight": weight}
        else:
            raise ValueError(f"a node {node['type']} in the sequence; wanted Gate or WeightedSum")
    if strange := sorted(gated.keys() - found.keys()):
        raise ValueError(f"the gate of {strange[0]}, which has no place in the weighted sum")
    return [leaf | ({"veto": True} if name in gated else {}) for name, leaf in found.items()]


def _leaf(node: Mapping[str, Any]) -> dict[str, Any]:
    if node["type"] != "LLMJudge":
        raise ValueError(f"a leaf {node['type']}; wanted LLMJudge")
    return {"name": _slug(node["name"], 0), "text": node["criterion"]}


def _openenv_out(rubric: Rubric) -> Any:
    total = sum(one.weight for one in rubric.criteria)
    if total <= 0:
        raise UserError("the weights add up to 0 or less, and openenv wants them to add up to 1")
    if avoid := [one.name for one in rubric.criteria if one.veto and one.weight < 0]:
        raise UserError(
            f"openenv has no gate for what is to be avoided, and {avoid[0]} has a veto; take another form"
        )
    leaves = {
        one.name: {"type": "LLMJudge", "name": one.name, "criterion": one.text} for one in rubric.criteria
    }
    gates = [
        {"type": "Gate", "threshold": 1.0, "rubric": leaves[one.name]} for one in rubric.criteria if one.veto
    ]
    weighted = {
        "type": "WeightedSum",
        "weights": [one.weight / total for one in rubric.criteria],
        "rubrics": list(leaves.values()),
    }
    return {"type": "Sequential", "rubrics": [*gates, weighted]} if gates else weighted


FORMS: Mapping[RubricForm, _Form] = MappingProxyType(
    {
        "preceptor": _Form(_rows, _own_out, (), ".yaml"),
        "verifiers": _Form(_verifiers_in, _verifiers_out, ("veto", "applies_to", "check"), ".toml"),
        "autorubric": _Form(_autorubric_in, _autorubric_out, ("veto", "applies_to", "check"), ".yaml"),
        "healthbench": _Form(
            _healthbench_in, _healthbench_out, ("veto", "choices", "applies_to", "check"), ".json"
        ),
        "openenv": _Form(_openenv_in, _openenv_out, ("choices", "applies_to", "check"), ".json"),
    }
)


def _toml(value: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Tables of texts, numbers and lists of texts, which is all that a rubric needs."""
    lines = []
    for name, rows in value.items():
        for row in rows:
            lines += [f"[[{name}]]", *(f"{key} = {_toml_value(one)}" for key, one in row.items()), ""]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    # JSON's strings are TOML's but for one character
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
