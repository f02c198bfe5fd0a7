"""Editing a file changes the one principle and not a byte besides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preceptor.constitution.edit import (
    new_principle,
    open_document,
    save,
    with_examples,
    with_principle,
    with_wording,
    without_principle,
)
from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.files import load, load_text, shipped, shipped_text
from preceptor.constitution.principle import Example, Principle

NEW = Principle(
    id="new-one",
    text="Choose the reply that: is new.",
    critique="Say\nmore # than this",
    tags=("x",),
    check={"max_words": 3, "forbid": ["a "]},
)
ODD = """\
# top
name:   "odd"   # why

# ---- section
principles:   # list
- id: a   # one
  text: >
    Choose the reply
    that is a.

    # part of the text
# about b
- {id: b, text: 'Choose the reply that is b.'}

# tail
description: last
"""
BYTE_ORDER_MARK = "\ufeffname: x\r\nprinciples:\r\n    - id: a\r\n      text: foo\r\n"


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("text", [ODD, BYTE_ORDER_MARK, shipped_text("front-desk")])
def test_adding_and_removing_again_gives_the_same_bytes(tmp_path: Path, text: str) -> None:
    document = open_document(write(tmp_path / "x.yaml", text))
    added = with_principle(document, NEW)
    assert added.constitution.principles == (*document.constitution.principles, NEW)
    assert without_principle(added, "new-one").text == text


@pytest.mark.parametrize(("name", "place"), [("front-desk", 0), ("style", 5), ("anti-hacking", -1)])
def test_removing_cuts_out_lines_and_changes_none(name: str, place: int) -> None:
    """The lines that are left are the file's, in their order, with every comment line among them."""
    text = shipped_text(name)
    library = Path(__file__).parents[2] / "constitution" / "library" / f"{name}.yaml"
    document = open_document(library)
    gone = document.own_ids[place]
    left = without_principle(document, gone)
    assert left.own_ids == tuple(one for one in document.own_ids if one != gone)
    rest = iter(text.splitlines())
    assert all(line in rest for line in left.text.splitlines())

    def comments(of: str) -> list[str]:
        return [line for line in of.splitlines() if line.lstrip().startswith("#")]

    assert comments(left.text) == comments(text)


def test_comments_at_the_dash_stay_and_those_inside_go(tmp_path: Path) -> None:
    document = open_document(write(tmp_path / "x.yaml", ODD))
    without_a = without_principle(document, "a").text
    assert "# about b\n- {id: b" in without_a
    assert "# one" not in without_a
    without_b = without_principle(document, "b").text
    assert without_b.endswith("    # part of the text\n# about b\n\n# tail\ndescription: last\n")


@pytest.mark.parametrize(
    "text",
    [
        "name: x # c\nprinciples: [{id: a, text: foo}, {id: b, text: bar}]\n",
        "name: x # c\nextends: [style]\n",
        "name: x # c\nextends: [style]\nprinciples: []\n",
    ],
)
def test_files_written_in_another_way_are_edited_too(tmp_path: Path, text: str) -> None:
    document = open_document(write(tmp_path / "x.yaml", text))
    added = with_principle(document, NEW)
    assert added.own_ids == (*document.own_ids, "new-one")
    assert "# c" in added.text
    assert without_principle(added, "new-one").constitution == document.constitution


def test_saving_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", ODD)
    path.chmod(0o640)
    save(with_principle(open_document(path), NEW))
    assert load(path).principles[-1] == NEW
    assert path.stat().st_mode & 0o777 == 0o640
    assert [name for name in os.listdir(tmp_path) if "x.yaml" in name] == ["x.yaml"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = write(tmp_path / "x.yaml", ODD)
    link = tmp_path / "link.yaml"
    link.symlink_to(target)
    save(without_principle(open_document(link), "a"))
    assert link.is_symlink()
    assert [one.id for one in load(target).principles] == ["b"]


def test_somebody_elses_change_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", ODD)
    document = without_principle(open_document(path), "a")
    write(path, ODD + "version: 2.0.0\n")
    with pytest.raises(UserError, match="was changed by somebody else in the meantime; open it again"):
        save(document)
    assert "2.0.0" in path.read_text()


def test_what_cannot_be_edited(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", ODD)
    document = open_document(path)
    with pytest.raises(UserError, match="already has a principle 'a'; wanted a new id"):
        with_principle(document, NEW.model_copy(update={"id": "a"}))
    with pytest.raises(UserError, match="has no principle 'c' of its own; wanted one of a, b"):
        without_principle(document, "c")
    with pytest.raises(UserError, match=r"'b' is the only principle of .*; wanted one to be left"):
        without_principle(without_principle(document, "a"), "b")
    broken = write(tmp_path / "broken.yaml", "name: x\nprinciples: 3\n")
    with pytest.raises(ConstitutionError, match="wanted a list of principles"):
        open_document(broken)
    assert path.read_text() == ODD


def test_a_principle_of_a_parent_is_not_removed_from_the_child(tmp_path: Path) -> None:
    document = open_document(write(tmp_path / "x.yaml", "name: x\nextends: [style]\n"))
    with pytest.raises(UserError, match="has no principle 'concise' of its own; wanted one of none"):
        without_principle(document, "concise")


def test_a_new_principle_from_values() -> None:
    made = new_principle({"id": "a", "text": "Choose.", "weight": 2.0, "tags": ["x"]}, "{max_words: 60}")
    assert made == Principle(id="a", text="Choose.", weight=2.0, tags=("x",), check={"max_words": 60})


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("{max_words", r"the new principle: the check '\{max_words'"),
        ("{max_word: 3}", "the new principle: unknown check 'max_word'"),
        ("60", "the new principle: check of principle 'A b' is 60; wanted a mapping"),
    ],
)
def test_a_bad_new_principle_is_refused_in_words(check: str, words: str) -> None:
    with pytest.raises(ConstitutionError, match=words):
        new_principle({"id": "A b", "text": "Choose."}, check)
    with pytest.raises(
        ConstitutionError, match=r"2 faults:\n.*id of principle 'A b'.*\n.*weight of principle"
    ):
        new_principle({"id": "A b", "text": "Choose.", "weight": 0})


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("place", [0, -1])
def test_examples_go_to_the_end_of_one_principle_and_change_no_other(name: str, place: int) -> None:
    text = shipped_text(name)
    before = load_text(text, Path(name)).principles
    own = [one for one in before if f"id: {one.id}" in text]
    added = [Example(prompt="a: # b", better="- yes\n", worse='"no', because="it's so")]
    edited = with_examples(text, own[place].id, added)
    after = load_text(edited, Path(name)).principles
    added[0] = added[0].model_copy(update={"better": "- yes"})  # a file's texts are read without space around
    more = own[place].model_copy(update={"examples": (*own[place].examples, *added)})
    left = iter(edited.splitlines())
    assert all(line in left for line in text.splitlines())  # in their order
    assert after == tuple(more if one.id == more.id else one for one in before)


def test_an_example_that_yaml_does_not_take_is_refused() -> None:
    text = "name: x\nprinciples:\n  - {id: short, text: t}\n"
    with pytest.raises(UserError, match="characters that YAML does not take"):
        with_examples(text, "short", [Example(prompt="\ud800", better="a", worse="b")])
    with pytest.raises(UserError, match="wanted one of short"):
        with_examples(text, "long", [])


@pytest.mark.parametrize("text", [ODD, BYTE_ORDER_MARK, shipped_text("front-desk")])
@pytest.mark.parametrize("words", ["Choose: the other # one.", "Choose the reply that says " + "much " * 40])
def test_a_new_wording_changes_that_principle_alone(tmp_path: Path, text: str, words: str) -> None:
    document = open_document(write(tmp_path / "x.yaml", text))
    before = document.constitution.principles
    for number in (0, len(document.own_ids) - 1):
        name = document.own_ids[number]
        edited = with_wording(document, name, words.strip())
        after = edited.constitution.principles
        assert after[number] == before[number].model_copy(update={"text": words.strip()})
        assert (after[:number], after[number + 1 :]) == (before[:number], before[number + 1 :])
        old, new = text.splitlines(keepends=True), edited.text.splitlines(keepends=True)
        start = next((n for n, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), 0)
        kept = [line for line in old if line.lstrip().startswith("#") and "part of the text" not in line]
        assert [line for line in new if line in kept] == kept
        assert new[:start] == old[:start]
    with pytest.raises(UserError, match="no principle 'nothing'"):
        with_wording(document, "nothing", "x")


def test_a_new_wording_leaves_the_lines_about_it_as_they_were(tmp_path: Path) -> None:
    document = open_document(write(tmp_path / "x.yaml", ODD))
    edited = with_wording(document, "a", "Choose the new one.").text
    assert "- id: a   # one\n  text: Choose the new one.\n# about b\n- {id: b" in edited.replace("\n\n", "\n")
    assert edited.startswith(ODD[: ODD.index("  text: >")])
