"""Constitution files: what loads, what extends does, and every fault at once with its line."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.checks import catalogue
from preceptor.constitution.errors import ConstitutionError
from preceptor.constitution.files import dump, json_schema, load, load_text, shipped, shipped_text, yaml_text
from preceptor.constitution.principle import Constitution, Example, Principle
from preceptor.constitution.reading import parse
from preceptor.constitution.starter import starter

HERE = Path("mine.yaml")


def faults(text: str, path: Path = HERE) -> list[tuple[int, str, str]]:
    with pytest.raises(ConstitutionError) as caught:
        load_text(text, path)
    return [(fault.line, fault.came, fault.wanted) for fault in caught.value.faults]


FIVE_FAULTS = """\
name: Front Desk
wieght: 2
principles:
  - id: short
    text: Choose the short reply.
    weight: 0
    check: {max_word: 60}
  - id: short
    text: Choose the polite reply.
"""


def test_five_faults_are_shown_at_once_in_file_order() -> None:
    assert faults(FIVE_FAULTS) == [
        (1, "name of the file is 'Front Desk'", "a name of a-z, 0-9 and single hyphens, as front-desk"),
        (2, "unknown key 'wieght' in the file", "one of name, version, description, extends, principles"),
        (6, "weight of principle 'short' is 0", "a number above 0"),
        (7, "unknown check 'max_word' in principle 'short'", "'max_words', perhaps"),
        (8, "the id 'short' a second time, after line 4", "an id of its own"),
    ]


def test_the_message_names_file_line_what_came_and_what_was_wanted(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FIVE_FAULTS)
    with pytest.raises(ConstitutionError) as caught:
        load(path)
    first, second, *rest = str(caught.value).splitlines()
    assert first == "the constitution has 5 faults:"
    assert second.startswith(f"  {path}:1: name of the file is 'Front Desk'; wanted a name of")
    assert len(rest) == 4
    assert caught.value.exit_code == 2


def principle(lines: str) -> str:
    """A file whose one principle has these lines, from line 5 on."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return f"name: x\nprinciples:\n  - id: a\n    text: Choose the good reply.\n{indented}"


@pytest.mark.parametrize(
    ("text", "line", "came", "wanted"),
    [
        ("", 0, "an empty file", "a mapping with name and principles"),
        ("[1]", 0, "a file that holds a list", "a mapping"),
        ("just words", 0, "a file that holds text", "a mapping"),
        ("a: b: c", 1, "broken YAML (mapping values are not allowed here)", "YAML that parses"),
        ("name: x\nname: y", 2, "broken YAML (while constructing a mapping found duplicate key", "YAML"),
        (
            "name: x\n\tversion: y",
            2,
            "broken YAML (while scanning for the next token found character '\\t'",
            "YAML",
        ),
        ("name: x\n---\nname: y", 2, "broken YAML (expected a single document", "YAML"),
        ("name: \x00", 0, "broken YAML (unacceptable character", "YAML"),
        (
            'name: x\nversion: "\\ud800"\nextends: [style]',
            1,
            "text that cannot be written down",
            "plain Unicode",
        ),
        ("name: x", 0, "a constitution without principles", "at least one"),
        ("name: x\nprinciples: []", 2, "a constitution without principles", "at least one"),
        ("name: x\nprinciples:", 2, "principles of the file is empty", "a list of principles"),
        (
            "name: x\nversion: 1.0\nextends: [style]",
            2,
            "version of the file is 1.0",
            'text, as "1.0.0" in quotes',
        ),
        ("name: x\nextends: style", 2, "extends of the file is 'style'", "a list of shipped names or paths"),
        ("name: x\nextends: [3]", 2, "entry 1 of extends of the file is 3", "text"),
        ("name: x\nextends: [stile]", 2, "extends 'stile': no such file", "('style', perhaps)"),
        ("extends: [style]", 1, "the file without 'name'", "name: a name of a-z"),
        (
            "name: x\nprinciples:\n  - 7",
            3,
            "entry 1 of principles of the file is 7",
            "a mapping with id and text",
        ),
        ("name: x\nprinciples:\n  - {id: a}", 3, "principle 'a' without 'text'", "text: text, as"),
        ("name: x\nprinciples:\n  - {text: a}", 3, "principle 1 without 'id'", "id: a name of a-z"),
        (principle("weight: true"), 5, "weight of principle 'a' is True", "a number above 0"),
        (principle('weight: "2"'), 5, "weight of principle 'a' is '2'", "a number above 0"),
        (principle("weight: .nan"), 5, "weight of principle 'a' is nan", "a number above 0"),
        (principle("weight: .inf"), 5, "weight of principle 'a' is inf", "a number above 0"),
        (principle("weight: -1"), 5, "weight of principle 'a' is -1", "a number above 0"),
        (principle("critique:"), 5, "critique of principle 'a' is empty", "text"),
        (principle("critik: x"), 5, "unknown key 'critik' in principle 'a'", "'critique', perhaps"),
        (principle("tags: honesty"), 5, "tags of principle 'a' is 'honesty'", "a list of words"),
        (principle("tags: [a, 1]"), 5, "entry 2 of tags of principle 'a' is 1", "text"),
        (principle("check: [1]"), 5, "check of principle 'a' is a list", "a mapping, as {max_words: 60}"),
        (
            principle("check:\n  max_words: many"),
            6,
            "check max_words with 'many' in principle 'a'",
            "a whole number",
        ),
        (
            principle("check: {forbid: ['(']}"),
            5,
            "check forbid with '('",
            "a regular expression that compiles",
        ),
        (principle("examples: [3]"), 5, "entry 1 of examples of principle 'a' is 3", "a mapping with prompt"),
        (
            principle("examples:\n  - prompt: p\n    better: b\n    wrose: w\n    worse: w"),
            8,
            "unknown key 'wrose' in example 1 of principle 'a'",
            "'worse', perhaps",
        ),
        (
            principle("examples:\n  - {prompt: p, better: b}"),
            6,
            "example 1 of principle 'a' without 'worse'",
            "worse",
        ),
        (
            "name: x\nprinciples:\n  - id: A b\n    text: c",
            3,
            "id of principle 'A b' is 'A b'",
            "a name of a-z",
        ),
        (
            "name: x\nprinciples:\n  - id: a\n    text: ' '",
            4,
            "text of principle 'a' is ''",
            "Choose the reply that ...",
        ),
    ],
)
def test_a_fault_says_where_what_came_and_what_was_wanted(
    text: str, line: int, came: str, wanted: str
) -> None:
    (found,) = faults(text)
    assert found[0] == line
    assert found[1].startswith(came)
    assert wanted in found[2]


def test_an_alias_that_multiplies_itself_is_refused() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    ((_, came, _),) = faults(f"a0: &a0 [x]\n{levels}")
    assert came == "aliases that make more than 20000 values"


@pytest.mark.parametrize(
    ("make", "came"),
    [
        (lambda path: path.mkdir(), "a directory"),
        (lambda path: path.write_bytes(b"name: x\n# caf\xe9\n"), "the byte 0xe9, which is not UTF-8"),
        (lambda _: None, "no such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, make: Any, came: str) -> None:
    path = tmp_path / "mine.yaml"
    make(path)
    with pytest.raises(ConstitutionError) as caught:
        load(path)
    (fault,) = caught.value.faults
    assert fault.came == came
    assert fault.line == (2 if "byte" in came else 0)


def test_a_mistyped_shipped_name_is_met_with_the_nearest() -> None:
    with pytest.raises(
        ConstitutionError, match=r"helpful-harmles: no such file; .*\('helpful-harmless', perhaps\)"
    ):
        load("helpful-harmles")
    with pytest.raises(ConstitutionError, match="no such file"):
        shipped_text("../principle")


PARENT = """\
name: parent
principles:
  - {id: a, text: parent a}
  - {id: b, text: parent b}
"""
CHILD = """\
name: child
extends: [./parent.yaml]
principles:
  - {id: c, text: child c}
  - {id: a, text: child a}
"""


def test_parents_come_first_and_a_child_replaces_in_place(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "child.yaml").write_text(CHILD)
    constitution = load(tmp_path / "child.yaml")
    assert [one.text for one in constitution.principles] == ["child a", "parent b", "child c"]
    assert constitution.name == "child"
    assert constitution.extends == ()


def test_extending_two_without_a_principle_of_ones_own() -> None:
    joined = load_text("name: both\nextends: [style, anti-hacking]", HERE)
    assert joined.principles == load("style").principles + load("anti-hacking").principles


def test_one_parent_by_two_ways_counts_once(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT)
    for name in ("left", "right"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nextends: [parent.yaml]")
    child = load_text("name: child\nextends: [left.yaml, right.yaml]", tmp_path / "child.yaml")
    assert [one.id for one in child.principles] == ["a", "b"]


def test_a_circle_of_extends_is_a_fault_that_shows_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nextends: [b.yaml]")
    (tmp_path / "b.yaml").write_text("name: b\n\nextends:\n  - a.yaml")
    with pytest.raises(ConstitutionError) as caught:
        load(tmp_path / "a.yaml")
    (fault,) = caught.value.faults
    assert (Path(fault.file).name, fault.line) == ("b.yaml", 4)
    assert fault.came.count("a.yaml") == 2
    assert "b.yaml -> " in fault.came


def test_faults_of_parent_and_child_are_shown_together(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("name: parent\nprinciples:\n  - {id: a}\n")
    found = faults("name: child\nextends: [parent.yaml, nowhere.yaml]", tmp_path / "child.yaml")
    assert [came for _, came, _ in found] == [
        "principle 'a' without 'text'",
        "extends 'nowhere.yaml': no such file",
    ]


def test_block_text_loses_its_line_break_and_patterns_keep_their_spaces() -> None:
    one = load_text(principle("critique: >\n  Say\n  it.\ncheck: {forbid: ['a ']}"), HERE).principles[0]
    assert one.critique == "Say it."
    assert one.check == {"forbid": ["a "]}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_constitution_dumps_to_its_own_identity(name: str) -> None:
    constitution = load(name)
    assert constitution.name == name
    text = dump(constitution)
    assert text.startswith(f"# {constitution.identity}")
    assert load_text(text, HERE).identity == constitution.identity


def test_what_ships() -> None:
    assert {"anti-hacking", "brief", "front-desk", "helpful-harmless", "style"} <= set(shipped())
    for name in ("anti-hacking", "helpful-harmless", "style"):
        principles = load(name).principles
        assert all(one.critique and one.revision and one.tags and one.examples for one in principles), name
        assert all(one.text.startswith("Choose the reply") for one in principles), name
        assert "own" in shipped_text(name).partition("name:")[0], "the head names the sources of the ideas"
    assert len(load("helpful-harmless").principles) == 16


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text == text.strip() and text != ""
)
PRINCIPLES = st.builds(
    Principle,
    id=st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)?", fullmatch=True),
    text=WORDS,
    critique=st.just("") | WORDS,
    weight=st.floats(min_value=1e-6, max_value=1e6),
    tags=st.lists(WORDS, max_size=2).map(tuple),
    check=st.sampled_from([{}, {"max_words": 3}, {"forbid": [" a", "yes"]}]),
    examples=st.lists(st.builds(Example, prompt=WORDS, better=WORDS, worse=WORDS), max_size=1).map(tuple),
)


@settings(max_examples=30)
@given(st.lists(PRINCIPLES, min_size=1, max_size=3, unique_by=lambda one: one.id), WORDS)
def test_any_constitution_survives_its_file(principles: list[Principle], description: str) -> None:
    """Whatever the text: quotes, colons, `yes`, `1.0`, line separators, emoji."""
    constitution = Constitution(name="any", description=description, principles=tuple(principles))
    back = load_text(dump(constitution), HERE)
    assert back == constitution
    assert back.identity == constitution.identity


def test_a_changed_copy_has_an_identity_of_its_own() -> None:
    whole = load("style")
    before = whole.identity
    less = whole.model_copy(update={"principles": whole.principles[1:]})
    assert less.identity != before
    assert less == Constitution.model_validate(less.model_dump())
    assert less.identity == Constitution.model_validate(less.model_dump()).identity
    assert whole.identity == before


def test_the_identity_is_of_the_content() -> None:
    """Comments, quotes and order of keys change nothing; one letter of one principle does."""
    one = load_text("name: x\nprinciples: [{id: a, text: Choose.}]", HERE)
    same = load_text('# c\nprinciples:\n  - text: "Choose."\n    id: a\nname: x', HERE)
    other = load_text("name: x\nprinciples: [{id: a, text: Choose!}]", HERE)
    assert one.identity == same.identity != other.identity


def test_the_schema_takes_what_loads_and_refuses_what_does_not() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    plain = [json.loads(json.dumps(parse(shipped_text(name)))) for name in shipped()]
    assert len(plain) >= 4
    assert all(valid(data) for data in plain)
    assert valid(parse(starter("mine")))
    assert not valid({"name": "x", "principles": [{"id": "a", "text": "b", "weight": 0}]})
    assert not valid({"name": "x", "principles": [{"id": "a", "text": "b", "check": {"max_word": 3}}]})
    assert not valid({"name": "x", "wieght": 2})
    checks = schema["$defs"]["Principle"]["properties"]["check"]["properties"]
    assert list(checks) == [info.name for info in catalogue()]


def test_yaml_text_writes_the_house_style() -> None:
    assert yaml_text({"a": [{"b": 1}]}) == "a:\n  - b: 1\n"


def test_five_thousand_principles_are_no_bomb(tmp_path: Path) -> None:
    principles = "".join(
        f"  - id: p{n}\n    text: Choose number {n}.\n    tags: [a, b]\n" for n in range(5000)
    )
    (tmp_path / "big.yaml").write_text(f"name: big\nprinciples:\n{principles}")
    assert len(load(tmp_path / "big.yaml").principles) == 5000


def test_a_file_that_many_extend_is_read_once(tmp_path: Path) -> None:
    """Forty layers of two, each of which extends both of the layer before: 2^40 ways."""
    for layer in range(40):
        for side in "ab":
            below = f"extends: [a{layer - 1}.yaml, b{layer - 1}.yaml]\n" if layer else ""
            text = f"name: x\n{below}principles: [{{id: {side}{layer}, text: Choose.}}]\n"
            (tmp_path / f"{side}{layer}.yaml").write_text(text)
    assert len(load(tmp_path / "a39.yaml").principles) == 79
    (tmp_path / "b0.yaml").write_text("name: x\nprinciples: [{id: B, text: Choose.}]\n")
    with pytest.raises(ConstitutionError) as caught:
        load(tmp_path / "a39.yaml")
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    "entry", ["/etc/passwd", "../secret.yaml", "link.yaml", "\x00", "loop.yaml", "a" * 5000]
)
def test_extends_stays_beside_its_file_and_quotes_nothing_of_others(tmp_path: Path, entry: str) -> None:
    place = tmp_path / "house"
    place.mkdir()
    (tmp_path / "secret.yaml").write_text("rhubarb:x:0:0\n")
    (place / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (place / "loop.yaml").symlink_to(place / "loop.yaml")
    (place / "own.yaml").write_text(f"name: own\nextends: [{json.dumps(entry)}]\nprinciples: []\n")
    with pytest.raises(ConstitutionError) as caught:
        load(place / "own.yaml")
    assert "x:0:0" not in str(caught.value)
    assert "own.yaml:2" in str(caught.value)


def test_a_long_row_of_files_is_refused(tmp_path: Path) -> None:
    for n in range(200):
        (tmp_path / f"f{n}.yaml").write_text(f"name: x\nextends: [f{n + 1}.yaml]\nprinciples: []\n")
    with pytest.raises(ConstitutionError, match="files deep"):
        load(tmp_path / "f0.yaml")


def test_a_pipe_or_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for place in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(ConstitutionError, match="a pipe or device"):
            load(place)


def with_pattern(place: Path, pattern: str) -> Path:
    check = json.dumps({"forbid": [pattern]})
    place.write_text(f"name: x\nprinciples:\n  - {{id: a, text: Choose., check: {check}}}\n")
    return place


@pytest.mark.parametrize("pattern", ["(" * 3000 + "a" + ")" * 3000, "[", "a" * 1001])
def test_a_pattern_that_cannot_be_compiled_is_a_fault(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConstitutionError) as caught:
        load(with_pattern(tmp_path / "x.yaml", pattern))
    assert len(str(caught.value)) < 500


def test_a_pattern_nested_deep_is_compiled_or_refused(tmp_path: Path) -> None:
    with contextlib.suppress(ConstitutionError):
        load(with_pattern(tmp_path / "x.yaml", "(" * 400 + "a" + ")" * 400))


RANKED = """\
name: ranked
principles:
  - id: one
    text: Choose the first.
    over: [two{more}]
  - id: two
    text: Choose the second.
    over: [{back}]
"""


def test_priorities_are_read_written_and_kept_by_dump() -> None:
    rules = load_text(RANKED.format(more="", back=""), HERE)
    assert [one.over for one in rules.principles] == [("two",), ()]
    assert load_text(dump(rules), HERE) == rules
    assert "over" not in dump(rules.model_copy(update={"principles": rules.principles[1:]}))


def test_priorities_that_cannot_be_are_told_with_their_lines() -> None:
    assert faults(RANKED.format(more=", tow", back="")) == [
        (5, "over 'tow' of principle 'one'", "'two', perhaps")
    ]
    ((line, came, wanted),) = faults(RANKED.format(more="", back="one"))
    assert (line, wanted) == (5, "an order without a circle")
    assert came.startswith("principles that outrank one another: ")
    ((line, came, _),) = faults(RANKED.format(more="", back="two"))
    assert line in (5, 8)
    assert "two < two" in came


def test_a_file_may_outrank_what_it_extends_and_close_no_circle(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(RANKED.format(more="", back="").replace("name: ranked", "name: base"))
    head = "name: child\nextends: [base.yaml]\nprinciples:\n"
    child = f"{head}  - id: three\n    text: Choose the third.\n    over: [one]\n"
    rules = load_text(child, tmp_path / "child.yaml")
    assert [one.over for one in rules.principles] == [("two",), (), ("one",)]
    ((line, came, _),) = faults(child.replace("id: three", "id: two"), tmp_path / "child.yaml")
    assert (line, "outrank one another" in came) == (6, True)
