"""`constitution import` and `export` as commands, by sight and by a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.constitution.files import load
from tests.command_line import Preceptor

PROSE = (
    "# Honesty\n\nNobody is told a lie. Reasons are given with every claim.\n\n# Care\n\nPeople come first.\n"
)


def script(path: Path, *rules: tuple[str, str]) -> str:
    path.write_text("".join(json.dumps({"match": match, "text": text}) + "\n" for match, text in rules))
    return f"scripted/{path}"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("prose.md").write_text(PROSE)
    return tmp_path


def test_out_and_in_again(preceptor: Preceptor) -> None:
    ended = preceptor("constitution", "export", "brief", "--to", "rubric", "--out", "rubric.json", "--json")
    assert ended.code == 0, ended.err
    assert "lost" in json.loads(ended.out)
    made = preceptor("constitution", "import", "rubric.json", "--name", "back", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["form"] == "rubric"
    assert [one.text for one in load(Path("back.yaml")).principles] == [
        one.text for one in load("brief").principles
    ]
    again = preceptor("constitution", "import", "rubric.json", "--name", "back")
    assert (again.code, "already there" in again.err) == (2, True)
    for words, said in (
        (("import", "rubric.json", "--out", "x.yaml", "--format", "icai"), "does not look like"),
        (("import", "none.json"), "cannot be read"),
        (("import", "rubric.json", "--out", "x.yaml", "--plan"), "--plan without --model"),
        (("import", "rubric.json", "--name", "No Name"), "a name of a-z"),
        (("export", "brief", "--to", "prose", "--out", "x"), "wanted critiques"),
    ):
        wrong = preceptor("constitution", *words)
        assert (wrong.code, said in wrong.err) == (2, True), wrong.err
    assert not Path("x.yaml").exists()


def test_a_model_words_the_principles_of_prose(preceptor: Preceptor) -> None:
    model = script(
        Path("model.jsonl"),
        (
            "Nobody is told",
            'Here they are:\n{"principle": "Choose the honest reply.", "quote": "Nobody is told a lie."}\n'
            '{"principle": "Choose the one with sources.", "quote": "Sources must be given."}\n'
            '{"principle": "", "quote": "Nobody is told a lie."}\nnot JSON {',
        ),
        ("People come", '{"principle": "choose the honest reply.", "quote": "People come first."}'),
    )
    words = ("constitution", "import", "prose.md", "--model", model, "--name", "mine")
    plan = preceptor(*words, "--plan", "--json")
    assert plan.code == 0, plan.err
    assert json.loads(plan.out)["rows"] == 2
    assert not Path("mine.yaml").exists()
    ended = preceptor(*words, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["principles"] == 1
    assert found["set_aside"] == {
        "proposals whose quote is not in the text": 1,
        "proposals without a principle": 1,
        "proposals that came twice": 1,
    }
    assert "# line 3: Nobody is told a lie." in Path("mine.yaml").read_text()
    Path("mine.yaml").unlink()
    again = preceptor(*words)
    assert "0 calls asked, 2 from the ledger" in again.err
    silent = script(Path("silent.jsonl"), (".", "none"))
    none = preceptor("constitution", "import", "prose.md", "--model", silent, "--name", "other")
    assert (none.code, "proposed no principle" in none.err) == (2, True), none.err


def test_a_principle_is_added_over_others(preceptor: Preceptor) -> None:
    Path("mine.yaml").write_text("name: mine\nprinciples:\n  - {id: brief, text: Choose the brief one.}\n")
    words = ("constitution", "add", "mine.yaml", "--id", "true", "--text", "Choose the true one.", "--over")
    wrong = preceptor(*words, "brif")
    assert (wrong.code, "'brief', perhaps" in wrong.err) == (2, True), wrong.err
    assert preceptor(*words, "brief").code == 0
    assert [one.over for one in load(Path("mine.yaml")).principles] == [(), ("brief",)]
    gone = preceptor("constitution", "remove", "mine.yaml", "brief")
    assert (gone.code, "over 'brief' of principle 'true'" in gone.err) == (2, True), gone.err
