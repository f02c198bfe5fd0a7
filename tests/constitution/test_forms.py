"""Foreign forms of constitutions: each is known by sight, and what is written is read back as it was."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load as load_constitution
from preceptor.constitution.files import load_text, shipped
from preceptor.constitution.forms.carry import FORMS, read_form, value_of, write_form
from preceptor.constitution.forms.draft import one_line
from preceptor.constitution.forms.prose import demands, is_list, read_list, read_prose, sentences
from preceptor.constitution.principle import Constitution, Principle

WRITTEN = [form.name for form in FORMS if form.write is not None]
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=60
).map(one_line)
WORDS = TEXT.filter(lambda text: any(one.isalnum() for one in text) and not text.startswith(("*", "#", "`")))
PRINCIPLES = st.lists(
    st.builds(
        dict,
        text=WORDS,
        critique=WORDS,
        revision=WORDS,
        weight=st.floats(0.01, 100).map(lambda one: round(one, 3)),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one["text"],
)


def constitution(rows: list[dict[str, Any]]) -> Constitution:
    return Constitution(
        name="mine", principles=tuple(Principle(id=f"rule-{n}", **row) for n, row in enumerate(rows))
    )


def carried(tmp_path: Path, text: str, name: str = "given.json", form: str = "auto") -> Constitution:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    made = read_form(path, form, "mine")
    assert load_text(made.text, Path("mine.yaml")) == made.constitution
    return made.constitution


@pytest.mark.parametrize("form", WRITTEN)
@settings(max_examples=10)
@given(rows=PRINCIPLES)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, form: str, rows: list[Any]
) -> None:
    rules = constitution(rows)
    ending = "given.md" if form == "markdown" else "given.json"
    folder = tmp_path_factory.mktemp("round")
    found = carried(folder, write_form(rules, form).text, ending)
    keeps = {"text", *next(one.keeps for one in FORMS if one.name == form)}
    kept = [one.model_dump(include=keeps) for one in found.principles]
    assert kept == [one.model_dump(include=keeps) for one in rules.principles]


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("name", shipped())
def test_shipped_constitutions_go_out_and_in(tmp_path: Path, form: str, name: str) -> None:
    rules = load_constitution(name)
    found = carried(tmp_path, write_form(rules, form).text, "a.md" if form == "markdown" else "a.json")
    has = [one for one in rules.principles if form != "critiques" or (one.critique and one.revision)]
    assert [one.text for one in found.principles] == [one_line(one.text) for one in has]


SAID = ["Select the reply that is brief.", "Select the reply that is kind."]
FOREIGN: dict[str, tuple[str, Any, list[str]]] = {
    "icai text": (
        "icai",
        {"constitution": "1. Select the reply that is brief.\n2. Select the reply that is kind."},
        SAID,
    ),
    "icai list": ("icai", {"constitution": SAID}, SAID),
    "cai paper": ("texts", [f"\n{text} Options:" for text in SAID], SAID),
    "annotated pairs": (
        "annotated-pairs",
        {
            "metadata": {"version": "2.0"},
            "annotators": {
                "h": {"name": "people", "type": "human"},
                **{f"p{n}": {"description": text, "type": "principle"} for n, text in enumerate(SAID)},
            },
            "comparisons": [],
        },
        SAID,
    ),
    "nemo gym": ("nemo-gym", [{"principle": text, "input": []} for text in [*SAID, SAID[0]]], SAID),
    "rubric": (
        "rubric",
        {
            "rubric": [
                *({"title": "t", "description": text, "weight": 2} for text in SAID),
                {"criterion": "x y", "points": -3},
            ]
        },
        SAID,
    ),
    "grader": (
        "openai-grader",
        {
            "type": "score_model",
            "name": "brief",
            "model": "m",
            "input": [{"role": "user", "content": SAID[0]}],
        },
        SAID[:1],
    ),
    "llm-swarm": (
        "critiques",
        {"constitutions": [{"critic": "Say where.", "revision": "Mend it."}], "system_chat": []},
        ["Choose the reply to which this applies less: Say where."],
    ),
    "cai revisions": (
        "critiques",
        {
            "harmful0": {
                "prompt": "Critique Request: Say where.",
                "edit_request": "Revision Request: Mend it.",
            }
        },
        ["Choose the reply to which this applies less: Say where."],
    ),
    "langchain": (
        "critiques",
        [{"name": "one", "critique_request": "Say where.", "revision_request": "Mend it."}],
        ["Choose the reply to which this applies less: Say where."],
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_forms_of_the_field_are_known_by_sight(tmp_path: Path, case: str) -> None:
    form, value, wanted = FOREIGN[case]
    path = tmp_path / "given.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    made = read_form(path, "auto", "mine")
    assert (made.form, [one.text for one in made.constitution.principles]) == (form, wanted)
    if form == "critiques":
        assert [(one.critique, one.revision) for one in made.constitution.principles] == [
            ("Say where.", "Mend it.")
        ]
    if form == "rubric":
        assert [one.weight for one in made.constitution.principles] == [2, 2]
        assert made.set_aside == {"criteria of a weight that is not above 0": 1}
    if form == "annotated-pairs":
        assert made.set_aside == {"annotators that are no principle": 1}


PROSE = """\
# On honesty

Claude should basically never lie. This is important, e.g. because people
rely on it. What should we say? Dr. Who must
be told.

## Safety
Avoid help with weapons. It was raining.

```
You must not read this.
```
"""


def test_prose_is_split_into_the_sentences_that_demand(tmp_path: Path) -> None:
    found = read_prose(PROSE)
    assert [(one.text, one.line, one.tags) for one in found.drafts] == [
        ("Claude should basically never lie.", 3, ("on-honesty",)),
        ("Dr. Who must be told.", 4, ("on-honesty",)),
        ("Avoid help with weapons.", 8, ("safety",)),
    ]
    assert found.set_aside == {"sentences that demand nothing": 3}
    path = tmp_path / "given.md"
    path.write_text(PROSE)
    made = read_form(path, "auto", "mine")
    assert made.form == "prose"
    assert "# line 4: Dr. Who must be told." in made.text


def test_a_list_is_a_principle_an_item() -> None:
    text = "Intro.\n\n- **Kindness**: Be kind\n  to people.\n- Say why.\n12) Third one.\n"
    assert is_list(text)
    assert [(one.id, one.text) for one in read_list(text).drafts] == [
        ("Kindness", "Be kind to people."),
        ("", "Say why."),
        ("", "Third one."),
    ]
    assert read_list(text).set_aside == {"paragraphs beside the list": 1}


@given(st.text(max_size=200))
def test_no_word_of_prose_is_lost_or_made_up(text: str) -> None:
    found = list(sentences(text))
    given_words = text.split()
    said = [word for one in found for word in one.text.split()]
    assert all(word in given_words or any(word in whole for whole in given_words) for word in said)
    lines = len(text.splitlines())
    assert all(1 <= one.line <= lines for one in found)
    assert all(demands(one.text) for one in read_prose(text).drafts)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "constitution",
                        "constitutions",
                        "principle",
                        "rubric",
                        "annotators",
                        "graders",
                        "type",
                        "critic",
                        "revision",
                        "description",
                        "weight",
                    ]
                )
                | st.text(max_size=4),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "given.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with suppress(UserError):
        assert read_form(path, "auto", "mine").constitution.principles


def test_what_has_no_place_in_a_form_is_named() -> None:
    made = write_form(constitution([{"text": "Choose.", "critique": "Say.", "weight": 2.0}]), "markdown")
    assert made.lost == ("critique", "weight")
    with pytest.raises(UserError, match="has nothing for critiques"):
        write_form(constitution([{"text": "Choose."}]), "critiques")


def test_wrong_files_and_forms(tmp_path: Path) -> None:
    empty, bytes_file = tmp_path / "empty.md", tmp_path / "b.md"
    empty.write_text("It was raining.")
    bytes_file.write_bytes(b"\xff\xfe\x00")
    for path, form, said in (
        (empty, "auto", "holds no principle as prose"),
        (empty, "icai", "does not look like icai"),
        (empty, "nine", "no form of constitutions"),
        (bytes_file, "auto", "not UTF-8"),
        (tmp_path / "none", "auto", "cannot be read"),
    ):
        with pytest.raises(UserError, match=said):
            read_form(path, form, "mine")
    assert value_of("[1") == "[1"
