"""What is shown goes out by one door for each kind of place; nothing prints, draws or renders around it."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.dataset.card import card
from preceptor.prompts.shown import (
    CSP,
    csv_cell,
    csv_text,
    escaped_json,
    html_page,
    json_text,
    markdown,
    markdown_code,
    one_line,
    printable,
)
from preceptor.train.evaluation.plots import CSS, blank, svg

ROOT = Path(__file__).parent.parent
CODE = ("constitution", "prompts", "judge", "train", "preceptor")
TERMINAL = {"preceptor/cli/console.py", "judge/models/human.py"}
"""Where text is written to the terminal; the second shows one text to the person who judges."""
DOORS: dict[str, set[str]] = {
    "print": set(),
    "typer.echo": TERMINAL | {"preceptor/cli/app.py"},
    "typer.secho": set(),
    "click.echo": set(),
    "sys.stdout.write": {
        "preceptor/reference/commands.py",
        "preceptor/reference/formats.py",  # pages of docs, of our own words
        "preceptor/serve/jobs/batch_run.py",  # counts, which the server reads
    },
    "sys.stderr.write": TERMINAL | {"preceptor/serve/jobs/batch_run.py"},  # made printable, for a log file
    "Console": set(),  # but for the safe kind of `preceptor.cli.console`
    "Markup": {"prompts/shown.py"},
    "jinja2.Environment": {"prompts/shown.py"},
    "savefig": {"train/evaluation/plots.py"},
    "csv.writer": set(),
    "csv.DictWriter": {"prompts/layouts/conversion.py", "preceptor/serve/pages/spreadsheet.py"},
}
"""A call -> the files that may make it."""
HOSTILE = "\x1b]0;owned\x07\x1b[2J[/]<script>alert(1)</script>\u202egpj.exe\u2066\x00\x9b31m$x_$`|*a*|=1+1 ![x](http://x/y)"
quick = settings(max_examples=60, deadline=None)
text = st.text(st.characters(codec=None, categories=None), max_size=40) | st.sampled_from(
    [HOSTILE, "", "`", "``|`"]
)


@cache
def calls() -> tuple[tuple[str, str, int], ...]:
    """(file, what is called, line) of all our code."""
    return tuple(_calls())


def _calls() -> Iterator[tuple[str, str, int]]:
    for package in CODE:
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if any(part.is_symlink() for part in path.parents):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield name, dotted(node.func), node.lineno


def dotted(node: ast.expr) -> str:
    """A name with its attributes, as far as it has some."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_call_of(what: str, door: str) -> bool:
    """`print` is a function, and a method of consoles, which are made behind a door."""
    return what == door or (door != "print" and what.endswith(f".{door}"))


def test_nothing_is_shown_around_the_doors() -> None:
    wrong = [
        f"{name}:{line} calls {what}"
        for name, what, line in calls()
        for door, allowed in DOORS.items()
        if is_call_of(what, door) and name not in allowed
    ]
    assert wrong == []


def test_every_door_is_there() -> None:
    """Else the test above would hold of nothing."""
    found = {(name, what) for name, what, _ in calls()}
    for door, allowed in DOORS.items():
        for name in allowed - {"judge/models/human.py"}:
            if door != "sys.stderr.write":
                assert any(at == name and is_call_of(what, door) for at, what in found), door


def steers(words: str) -> list[str]:
    return [
        mark
        for mark in words
        if mark not in "\n\t\u200c\u200d\u00ad"
        and unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    ]


@quick
@given(text)
def test_no_text_steers_a_terminal(words: str) -> None:
    shown = printable(words)
    assert steers(shown) == []
    assert len(shown) == len(words)
    assert printable(shown) == shown
    assert "\n" not in one_line(words)


@quick
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text, lambda x: st.lists(x) | st.dictionaries(text, x)
    )
)
def test_json_reads_back_as_it_was_and_steers_nothing(value: object) -> None:
    assert steers(json_text(value)) == []
    assert json.loads(json_text(value)) == value
    assert json.loads(escaped_json(json.dumps(value, ensure_ascii=False))) == value


@quick
@given(text)
def test_markdown_is_words_alone(words: str) -> None:
    shown = markdown(words)
    assert steers(shown) == []
    assert not re.search(r"[<>]", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|!$]", shown)
    code = markdown_code(words)
    assert "\n" not in code
    assert not re.search(r"[<>]", code)
    fence = re.match("`+", code)
    assert fence is not None
    assert code.endswith(fence.group())
    inner = code[len(fence.group()) : -len(fence.group())]
    assert fence.group() not in re.findall("`+", inner)
    assert "|" not in inner.replace(r"\|", "")


def test_code_that_a_page_of_markdown_shows_is_what_it_was() -> None:
    assert markdown_code("openai/gpt-6-luna") == "`openai/gpt-6-luna`"
    assert markdown_code("a`b") == "``a`b``"
    assert markdown("plain words, 3.5 of them.") == "plain words, 3.5 of them."


def test_a_dataset_card_holds_no_markup_of_others() -> None:
    constitution = Constitution(name="x", principles=(Principle(id="one", text=f"{HOSTILE}\n## x"),))
    figures = {
        "by_tag": {HOSTILE: dict.fromkeys(("n", "accuracy", "flip_rate", "first_share", "longer_share"))}
    }
    made = card(constitution, HOSTILE, {"template": HOSTILE}, {"ok": 1}, figures)
    assert steers(made) == []
    assert "<script" not in made
    assert "\n## x" not in made
    assert not re.search(r"(?<!\\)!\[x", re.sub(r"(`+).*?\1", "", made))


@quick
@given(text)
def test_a_page_escapes_everything(words: str) -> None:
    template = Path("page.html")
    template.write_text('<meta content="{{ csp }}"><style>{{ css }}</style><p title="{{ it }}">{{ it }}</p>')
    page = html_page(template, CSS, {"it": words + HOSTILE})
    body = page.partition("<p ")[2]
    assert steers(body) == []
    assert body.count("<") == 1
    assert body.count('"') == 2


@pytest.mark.parametrize(
    "name", ["preceptor/report/report.html", "train/guard/guard.html", "train/evaluation/card.html"]
)
def test_pages_may_load_and_run_nothing(name: str) -> None:
    page = (ROOT / name).read_text()
    assert '<meta http-equiv="Content-Security-Policy" content="{{ csp }}">' in page
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert "default-src 'none'" in CSP
    for what in ("<script", "src=", "onclick", "@import", "url("):
        assert what not in page


@pytest.mark.parametrize("name", ["$", "$$", "$x_$", r"$\frac{$", HOSTILE, r"\$"])
def test_names_in_plots_are_words_and_never_formulas(name: str) -> None:
    figure, axes = blank(3, 2)
    axes.set_yticks([0, 1], [name, "b"])
    axes.set_xlabel(name)
    axes.set_title(name)
    axes.plot([0, 1], [0, 1], label=name)
    axes.legend()
    axes.text(0, 0, name)
    assert steers(svg(figure)) == []


@quick
@given(text)
def test_a_cell_is_no_formula_and_reads_back(words: str) -> None:
    cell = csv_cell(words)
    assert isinstance(cell, str)
    assert not re.match(r"[=@\t\r]|[+-][^\s\d.]", cell)
    assert csv_text(cell) == words or words.startswith("'")


@pytest.mark.parametrize("words", ["- a list", "-5", "+3.5e10", "plain", "'tis", "-", "1-2"])
def test_plain_words_of_a_cell_stay(words: str) -> None:
    assert csv_cell(words) == words
    assert csv_text(words) == words
