"""The forms as a table: which one a file has, how it becomes a constitution, how a constitution becomes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load_text, yaml_text
from preceptor.constitution.foreign import json_of, text_in
from preceptor.constitution.forms import critiques, prose, rubrics
from preceptor.constitution.forms.draft import DraftPrinciple, FoundPrinciples, fields, named, one_line
from preceptor.constitution.principle import Constitution, Principle

Write = Callable[[Constitution], tuple[str, dict[str, int]]]


class ConstitutionForm(NamedTuple):
    """One way in which the field writes principles."""

    name: str
    about: str
    fits: Callable[[Any], bool]
    """Whether a value looks like it: text, or what JSON holds."""
    read: Callable[[Any], FoundPrinciples]
    write: Write | None
    keeps: frozenset[str]
    """Fields of a principle, beside its text, that it has a place for."""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _write_list(constitution: Constitution) -> tuple[str, dict[str, int]]:
    head = [f"# {constitution.name}", ""] + (
        [constitution.description, ""] if constitution.description else []
    )
    items = [f"- **{one.id}**: {one_line(one.text)}" for one in constitution.principles]
    return "\n".join([*head, *items]) + "\n", {}


_IDS = frozenset({"id"})
_WEIGHTED = frozenset({"id", "weight"})
FORMS = (
    ConstitutionForm(
        "annotated-pairs",
        "annotated pairs of ICAI and feedback-forensics: the annotators that are principles",
        rubrics.is_annotated,
        rubrics.read_annotated,
        None,
        frozenset(),
    ),
    ConstitutionForm(
        "critiques",
        "critique and revision requests of the CAI paper, llm-swarm and LangChain",
        critiques.is_requests,
        critiques.read_requests,
        critiques.write_requests,
        frozenset({"id", "critique", "revision"}),
    ),
    ConstitutionForm(
        "icai",
        "ICAI's constitution file",
        lambda value: rubrics.icai_texts(value) is not None,
        rubrics.read_icai,
        rubrics.write_icai,
        frozenset(),
    ),
    ConstitutionForm(
        "openai-grader",
        "OpenAI's score_model and multi graders",
        rubrics.is_grader,
        rubrics.read_grader,
        rubrics.write_grader,
        _WEIGHTED,
    ),
    ConstitutionForm(
        "nemo-gym",
        "rows with a `principle` field, as NeMo Gym's requests have it",
        lambda value: bool(rubrics.principles_in(value)),
        rubrics.read_principles,
        rubrics.write_principles,
        frozenset(),
    ),
    ConstitutionForm(
        "rubric",
        "criteria with weights, as verifiers' rubrics have them",
        lambda value: rubrics.rubric_of(value) is not None,
        rubrics.read_rubric,
        rubrics.write_rubric,
        _WEIGHTED,
    ),
    ConstitutionForm(
        "texts",
        "a JSON list of texts, as the CAI paper's instructions for comparing are",
        _is_texts,
        rubrics.read_texts,
        rubrics.write_texts,
        frozenset(),
    ),
    ConstitutionForm(
        "markdown",
        "a Markdown list, one principle an item",
        lambda value: isinstance(value, str) and prose.is_list(value),
        prose.read_list,
        _write_list,
        _IDS,
    ),
    ConstitutionForm(
        "prose",
        "prose: the sentences that say what ought to be",
        lambda value: isinstance(value, str),
        prose.read_prose,
        None,
        frozenset(),
    ),
)
"""In the order in which they are tried."""


class ImportedConstitution(NamedTuple):
    """A foreign file as a constitution."""

    form: str
    text: str
    """Of the constitution file."""
    constitution: Constitution
    set_aside: Mapping[str, int]


def form_named(name: str, writing: bool = False) -> ConstitutionForm:
    """Raises UserError where there is none, or none that is written."""
    known = [form for form in FORMS if not writing or form.write is not None]
    found = next((form for form in known if form.name == name), None)
    if found is None:
        names = ", ".join(form.name for form in known)
        raise UserError(
            f"{name!r} is no form of constitutions{' that is written' if writing else ''}; wanted {names}"
        )
    return found


def text_of(source: Path) -> str:
    """The file's text. Raises UserError."""
    try:
        return text_in(source).removeprefix("\ufeff")
    except UnicodeDecodeError as exc:
        raise UserError(
            f"{source} is not UTF-8; wanted a text, Markdown or JSON file saved as UTF-8"
        ) from exc
    except (OSError, ValueError) as exc:
        raise UserError(f"{source} cannot be read ({exc}); wanted a text, Markdown or JSON file") from exc


def value_of(text: str) -> Any:
    """What JSON or JSON Lines hold; else the text itself."""
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        return json_of(text)
    except ValueError:
        pass
    try:
        return [json_of(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        return text


def recognised(value: Any, source: str) -> ConstitutionForm:
    """The form of a value. Raises UserError where it has none."""
    found = next((form for form in FORMS if form.fits(value)), None)
    if found is None:
        names = "; ".join(f"{form.name}: {form.about}" for form in FORMS)
        raise UserError(f"{source} has no form that is known; wanted one of {names}")
    return found


def read_form(source: Path, form: str, name: str) -> ImportedConstitution:
    """The file as a constitution of this name. form: `auto`, or a form's name. Raises UserError."""
    value = value_of(text_of(source))
    way = recognised(value, str(source)) if form == "auto" else form_named(form)
    if not way.fits(value) and not (way.name == "markdown" and isinstance(value, str)):
        raise UserError(
            f"{source} does not look like {way.name} ({way.about}); leave the form out to have it told"
        )
    found = way.read(value)
    if not found.drafts:
        left = ", ".join(f"{count} {reason}" for reason, count in found.set_aside.items())
        raise UserError(
            f"{source} holds no principle as {way.name}{f' ({left})' if left else ''}; name another form"
        )
    text = file_text(name, f"From {source.name}, read as {way.name}", found.drafts)
    return ImportedConstitution(way.name, text, load_text(text, Path(f"{name}.yaml")), found.set_aside)


def file_text(name: str, description: str, drafts: tuple[DraftPrinciple, ...]) -> str:
    """A constitution file of drafts, over each the words that it came from. Raises UserError where it does not load."""
    parts = [
        yaml_text({"name": name, "version": "1.0.0", "description": one_line(description)}),
        "principles:\n",
    ]
    for identity, draft in named(drafts):
        if draft.line or one_line(draft.origin) not in ("", one_line(draft.text)):
            place = f"line {draft.line}: " if draft.line else ""
            shown = "".join(one if one.isprintable() else " " for one in one_line(draft.origin))
            parts += [f"  # {line}\n" for line in wrap(f"{place}{shown}", 100)]
        parts += [yaml_text([fields(identity, draft)]), "\n"]
    return "".join(parts).rstrip("\n") + "\n"


class ExportedConstitution(NamedTuple):
    """A constitution in a foreign form."""

    text: str
    set_aside: Mapping[str, int]
    """Principles that have no place in it, by why."""
    lost: tuple[str, ...]
    """Fields that some principle has and the form has no place for."""


def write_form(constitution: Constitution, form: str) -> ExportedConstitution:
    """Raises UserError where nothing of it has a place there."""
    way = form_named(form, writing=True)
    assert way.write is not None
    text, set_aside = way.write(constitution)
    if sum(set_aside.values()) == len(constitution.principles):
        raise UserError(f"{constitution.identity} has nothing for {form}: {', '.join(set_aside)}")
    bare = Principle(id="x", text="x")
    beside = (name for name in Principle.model_fields if name not in {"text", *way.keeps})
    has = [
        name
        for name in beside
        if name != "id" and any(getattr(one, name) != getattr(bare, name) for one in constitution.principles)
    ]
    return ExportedConstitution(text, set_aside, tuple(["id"] * ("id" not in way.keeps) + has))
