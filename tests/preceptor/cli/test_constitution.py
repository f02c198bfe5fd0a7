"""`preceptor constitution`: results on stdout alone, exit codes of the contract, files changed or left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from preceptor.cli.constitution import app
from preceptor.constitution.checks import catalogue
from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.files import load, shipped

BAD = """\
name: bad
principles:
  - {id: refuse, text: Choose the reply that declines., check: {refusal: present}}
  - {id: answer, text: Choose the reply that answers it all., check: {refusal: absent}}
"""
ROOT = Path(__file__).parents[3]
VAGUE = "name: vague\nprinciples:\n  - {id: nice, text: Be nice.}\n"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> str:
    """What a command that succeeds prints to stdout; nothing goes to stderr."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def failure(*arguments: str | Path) -> UserError:
    """The error that the program's main turns into one message and exit code 2."""
    result = invoke(*arguments)
    assert isinstance(result.exception, UserError), result.output
    assert result.stdout == ""
    assert result.exception.exit_code == 2
    return result.exception


def test_list_names_every_shipped_constitution() -> None:
    assert [line.split()[0] for line in done("list").splitlines()] == list(shipped())
    rows = json.loads(done("list", "--json"))["constitutions"]
    assert [row["identity"] for row in rows] == [load(name).identity for name in shipped()]


def test_show_prints_a_file_that_loads_to_the_same(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(done("show", "style"))
    assert load(copy).identity == load("style").identity
    data = json.loads(done("show", "style", "--json"))
    assert data["identity"] == load("style").identity
    assert len(data["principles"]) == len(load("style").principles)


def test_new_writes_a_file_that_lints_clean_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert done("new", "mine") == "mine.yaml\n"
    assert load(tmp_path / "mine.yaml").name == "mine"
    assert done("lint", "mine.yaml", "--revising", "--strict").endswith(": 0 errors, 0 warnings\n")
    before = (tmp_path / "mine.yaml").read_text()
    assert "is already there; wanted a new file" in str(failure("new", "mine"))
    assert (tmp_path / "mine.yaml").read_text() == before
    assert "wanted a-z, 0-9 and single hyphens" in str(failure("new", "My File"))
    assert "cannot write" in str(failure("new", "mine", "--out", tmp_path / "nowhere" / "mine.yaml"))


def test_add_and_remove_leave_the_rest_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    done("new", "mine", "--out", path)
    before = path.read_text()
    identity = done(
        "add", path, "--id", "kind", "--text", "Choose the kinder reply.", "--critique", "Say where.", "--revision",
        "Mend it.", "--weight", "2", "--tag", "a", "--tag", "b", "--applies-to", "chat", "--check", "{max_words: 9}",
    )  # fmt: skip
    added = load(path).principles[-1]
    assert identity == f"{load(path).identity}\n"
    assert (added.id, added.text, added.critique, added.revision) == (
        "kind", "Choose the kinder reply.", "Say where.", "Mend it.",
    )  # fmt: skip
    assert (added.weight, added.tags, added.applies_to, added.check) == (
        2,
        ("a", "b"),
        ("chat",),
        {"max_words": 9},
    )
    assert path.read_text().startswith(before)
    done("remove", path, "kind")
    assert path.read_text() == before


def test_a_bad_edit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(VAGUE)
    assert "weight of principle 'b' is 0.0" in str(
        failure("add", path, "--id", "b", "--text", "x", "--weight", "0")
    )
    assert "already has a principle 'nice'" in str(failure("add", path, "--id", "nice", "--text", "x"))
    assert "has no principle 'b'" in str(failure("remove", path, "b"))
    assert "wanted one to be left" in str(failure("remove", path, "nice"))
    assert path.read_text() == VAGUE


def test_lint_exits_with_1_for_errors_and_with_strict_for_warnings(tmp_path: Path) -> None:
    bad, vague = tmp_path / "bad.yaml", tmp_path / "vague.yaml"
    bad.write_text(BAD)
    vague.write_text(VAGUE)
    result = invoke("lint", bad)
    assert result.exit_code == 1
    assert result.stdout.startswith("error: answer: refusal absent against refusal present, with 'refuse'")
    assert invoke("lint", vague).exit_code == 0
    assert invoke("lint", vague, "--strict").exit_code == 1
    report = json.loads(invoke("lint", bad, "--json").stdout)
    assert (report["errors"], report["warnings"], report["remarks"][0]["principle"]) == (1, 0, "answer")


def test_lint_with_known_tags() -> None:
    assert "applies to prompts tagged 'json'" in done("lint", "style", "--known-tag", "list")


def test_lint_of_a_broken_file_shows_all_faults(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: X\nprinciples:\n  - {id: a}\n")
    error = failure("lint", path)
    assert isinstance(error, ConstitutionError)
    assert len(error.faults) == 2
    assert "no such file" in str(failure("lint", "nowhere"))


def test_checks_and_schema() -> None:
    names = [info.name for info in catalogue()]
    assert [line.split(":")[0] for line in done("checks").splitlines()[::3]] == names
    assert [row["name"] for row in json.loads(done("checks", "--json"))["checks"]] == names
    assert json.loads(done("schema"))["title"] == "ConstitutionFile"


def test_importing_the_commands_loads_nothing_heavy() -> None:
    code = "import sys, preceptor.cli.constitution; print(sorted({*sys.modules} & set(sys.argv[1:])))"
    heavy = ["ruamel.yaml", "phonenumbers", "rapidfuzz", "regex", "torch", "openai", "anthropic"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
