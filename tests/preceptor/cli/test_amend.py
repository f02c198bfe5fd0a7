"""constitution edit, test, ablate and diff as commands, with real editors, terminals and servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.servers.llm import LLMServer
from tests.servers.terminal import at_a_terminal

Start = Callable[..., LLMServer]

MINE = """# my rules
name: mine
version: 1.0.0
description: two rules
principles:
  - id: kind   # the first one
    text: Choose the reply that is kind to whoever asks.
    examples:
      - {prompt: Hi, better: "quality=9 hello", worse: "quality=1 go"}
  - id: short
    text: Choose the reply that says it in fewer words.
    weight: 2.0
    check: {max_words: 3}
    examples:
      - {prompt: Hi, better: "Hello there", worse: "Hello there to you and everybody"}
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    rows = [
        {
            "id": f"p{n}",
            "prompt": f"q {n}",
            "response_a": f"quality={n} x y z",
            "response_b": "quality=5",
            "preferred": "a",
        }
        for n in (1, 3, 7, 9)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def editor(place: Path, body: str) -> str:
    """A program that edits the file it is given: `n` is how often it was called, `text` what the file holds."""
    script = place / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        f"count = pathlib.Path({str(place / 'count')!r})\n"
        "n = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(n))\n"
        f"pathlib.Path({str(place / 'args')!r}).write_text(' '.join(sys.argv[1:]))\n"
        "file = pathlib.Path(sys.argv[-1])\n"
        "text = file.read_text()\n"
        f"{body}\n"
        "file.write_text(text)\n"
    )
    return f"{sys.executable} {script}"


def test_an_edit_keeps_comments_and_shows_what_changed(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", editor(place, "text = text.replace('weight: 2.0', 'weight: 3.0')"))
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert ended.code == 0, ended.err
    assert (place / "mine.yaml").read_text() == MINE.replace("2.0", "3.0")
    assert "-    weight: 2.0" in ended.out
    assert "short" in ended.err
    assert "weight" in ended.err
    assert sorted(path.name for path in place.glob(".mine*")) == []


def test_an_editor_that_changes_nothing_changes_nothing(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", editor(place, "pass"))
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert (ended.code, ended.out) == (0, "")
    assert "nothing was changed" in ended.err


@pytest.mark.parametrize(
    ("visual", "said"),
    [
        ("no-such-editor", "which is not there"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "ended with 3"),
    ],
)
def test_an_editor_that_fails(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch, visual: str, said: str
) -> None:
    monkeypatch.setenv("VISUAL", visual)
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert (place / "mine.yaml").read_text() == MINE
    assert sorted(path.name for path in place.glob(".mine*")) == []


def test_a_shipped_one_is_not_yours_to_edit(place: Path, preceptor: Preceptor) -> None:
    ended = preceptor("constitution", "edit", "style")
    assert (ended.code, "extends: [style]" in ended.err) == (2, True)
    assert not list(place.glob("*style*"))


def test_a_second_editor_is_warned_and_a_dead_ones_lock_is_not(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", editor(place, "text += '# more\\n'"))
    (place / ".mine.yaml.lock").write_text(str(os.getppid()))
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert (ended.code, "is being edited by process" in ended.err) == (0, True)
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (place / ".mine.yaml.lock").write_text(str(done.pid))
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert (ended.code, "is being edited by process" in ended.err) == (0, False)


def test_who_saves_second_is_told_and_loses_nothing(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"pathlib.Path({str(place / 'mine.yaml')!r}).open('a').write('# theirs\\n'); text += '# ours\\n'"
    monkeypatch.setenv("VISUAL", editor(place, other))
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert (ended.code, "changed by somebody else" in ended.err) == (2, True), ended.err
    assert (place / "mine.yaml").read_text() == MINE + "# theirs\n"
    (copy,) = place.glob(".mine.edit-*.yaml")
    assert copy.read_text() == MINE + "# ours\n"
    assert copy.name in ended.err


BREAK_THEN_MEND = """
if n == 1:
    text = text.replace('id: kind', 'id: Not An Id')
else:
    text = text.replace('id: Not An Id', 'id: good')
"""


def test_a_broken_file_opens_again_at_its_fault_and_never_takes_the_place(place: Path) -> None:
    vi = place / "vi"
    vi.write_text(f'#!/bin/sh\nexec {editor(place, BREAK_THEN_MEND)} "$@"\n')
    vi.chmod(0o755)
    code, screen = at_a_terminal(
        ["constitution", "edit", "mine.yaml"], "e", place, "g: give up", VISUAL=str(vi)
    )
    assert code == 0, screen
    assert "mine.yaml:6" in screen
    assert "+6" in (place / "args").read_text()
    assert (place / "mine.yaml").read_text() == MINE.replace("id: kind", "id: good")


def test_a_change_can_be_given_up(place: Path) -> None:
    code, screen = at_a_terminal(
        ["constitution", "edit", "mine.yaml"],
        "g",
        place,
        "g: give up",
        VISUAL=editor(place, "text = 'broken: ['"),
    )
    assert (code, "nothing was changed" in screen) == (0, True), screen
    assert (place / "mine.yaml").read_text() == MINE
    assert not list(place.glob(".mine*"))


def test_what_cannot_be_saved_is_kept(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal to ask at, and where the editor fails the second time."""
    monkeypatch.setenv("VISUAL", editor(place, "text = text.replace('id: kind', 'id: Not An Id')"))
    ended = preceptor("constitution", "edit", "mine.yaml")
    assert (ended.code, "no terminal to ask at" in ended.err) == (2, True), ended.err
    (copy,) = place.glob(".mine.edit-*.yaml")
    assert f"your text is kept in {copy.name}" in ended.err
    assert "Not An Id" in copy.read_text()
    assert (place / "mine.yaml").read_text() == MINE
    copy.unlink()
    (place / "count").unlink()
    fails = editor(place, "if n > 1: raise SystemExit(3)\ntext += 'broken: ['")
    code, screen = at_a_terminal(
        ["constitution", "edit", "mine.yaml"], "e", place, "g: give up", VISUAL=fails
    )
    assert (code, "ended with 3" in screen, "your text is kept" in screen) == (2, True, True), screen


def test_text_that_is_no_utf8_is_no_constitution(place: Path) -> None:
    script = place / "latin.py"
    script.write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[-1])\n"
        "file.write_bytes(file.read_bytes().replace(b'my rules', b'my r\\xe9gles'))\n"
    )
    code, screen = at_a_terminal(
        ["constitution", "edit", "mine.yaml"], "g", place, "g: give up", VISUAL=f"{sys.executable} {script}"
    )
    assert (code, "mine.yaml:1: not UTF-8" in screen) == (0, True), screen
    assert (place / "mine.yaml").read_text() == MINE


SAME = "  - id: twin\n    text: Choose the reply that is kind to whoever asks.\n"
ALIKE = "  - id: cousin\n    text: Choose the reply that is kind to whoever is asking.\n"


@pytest.mark.parametrize(("added", "usable"), [(SAME, False), (ALIKE, True)])
def test_only_warnings_can_be_kept(place: Path, added: str, usable: bool) -> None:
    """Equal principles are an error of lint's, and `k` is not offered for it; similar ones are a warning."""
    code, screen = at_a_terminal(
        ["constitution", "edit", "mine.yaml"],
        "kg",
        place,
        "g: give up",
        VISUAL=editor(place, f"text += {added!r}"),
    )
    assert code == 0, screen
    assert ("k: keep it so" in screen) is usable, screen
    assert ((place / "mine.yaml").read_text() == MINE + added) is usable


def test_examples_are_tests_of_the_judge(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    server = start_server()
    words = ("constitution", "test", "mine.yaml", "--judge", "openai/x", "--base-url", server.url)
    ended = preceptor(*words, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["passed"] == 2
    assert server.stats()["requests"] == 2  # one principle in both orders; the other has a machine check
    (place / "mine.yaml").write_text(MINE.replace("quality=9", "quality=0"))
    failed = preceptor(*words)
    assert failed.code == 1
    assert "kind[1] FAILED" in failed.out
    assert "1 passed, 1 failed" in failed.out


def test_a_judge_that_always_says_a_flips(place: Path, preceptor: Preceptor) -> None:
    (place / "script.jsonl").write_text('{"match": "", "text": "Verdict: A"}\n')
    ended = preceptor("constitution", "test", "mine.yaml", "--judge", "scripted/script.jsonl")
    assert (ended.code, "kind[1] FLIPPED" in ended.out) == (1, True), ended.out


@pytest.mark.usefixtures("place")
def test_leaving_a_principle_out_asks_nobody_again_where_each_was_judged(
    preceptor: Preceptor, start_server: Start
) -> None:
    """`short` passes b alone and outweighs the judge; without it the judge's own verdicts decide."""
    server = start_server()
    words = (
        "constitution",
        "ablate",
        "mine.yaml",
        "pairs.jsonl",
        "--judge",
        "openai/x",
        "--base-url",
        server.url,
    )
    found = json.loads(preceptor(*words, "--json").out)
    assert server.stats()["requests"] == 8
    by_id = {one["principle"]: one for one in found["ablations"]}
    assert by_id["short"]["flipped"] == ["p7", "p9"]
    assert (by_id["short"]["accuracy"], by_id["short"]["change"]) == (0.5, 0.5)
    assert by_id["kind"]["change"] == 0.0
    (clash,) = found["clashes"]
    assert (clash["one"], clash["other"], clash["one_wins"], clash["other_wins"]) == ("kind", "short", 0, 2)
    assert json.loads(preceptor(*words, "--json").out)["calls"] == 0
    checked = preceptor(*words[:4], "--judge", "checks", "--principles", "joint", "--json")
    assert checked.code == 0, checked.err
    joint = json.loads(preceptor(*words, "--principles", "joint", "--json").out)
    assert (
        joint["in_ledger"] > 0
    )  # one judged principle alone is asked about as it is among others with checks
    assert all("cost_usd" in one for one in joint["ablations"])
    assert {one["principle"]: one["flipped"] for one in joint["ablations"]}["short"] == ["p7", "p9"]


def test_leaving_out_reads_what_label_reads(place: Path, preceptor: Preceptor) -> None:
    (place / "named.jsonl").write_text(json.dumps({"question": "Hi", "good": "go", "bad": "a b c d"}) + "\n")
    names = ("--map", "prompt=question", "--map", "chosen=good", "--map", "rejected=bad")
    words = ("constitution", "ablate", "mine.yaml", "named.jsonl", "--judge", "checks", "--json")
    ended = preceptor(*words, *names)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["accuracy"] == 1.0


def test_a_diff_says_what_would_be_asked_again(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    label = (
        "label",
        "pairs.jsonl",
        "-c",
        "mine.yaml",
        "--principles",
        "each",
        "--judge",
        "openai/gpt-4o-mini",
    )
    assert preceptor(*label, "--base-url", server.url, "--out", "out").code == 0
    third = "  - id: third\n    text: Choose the third.\n"
    (place / "new.yaml").write_text(MINE.replace("kind to whoever", "warm to whoever") + third)
    ended = preceptor("constitution", "diff", "mine.yaml", "new.yaml", "--on", "out", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    changes = {one["principle"]: (one["kind"], one["asks_again"]) for one in found["changes"]}
    assert changes == {"kind": ("changed", True), "third": ("added", True)}
    nowhere = preceptor("constitution", "diff", "mine.yaml", "new.yaml", "--on", ".")
    assert (nowhere.code, "a folder that `preceptor label` has finished" in nowhere.err) == (2, True)
    assert (found["on"]["labels"], found["on"]["calls"]) == (4, 16)
    assert found["on"]["cost_usd"] > 0
    same = json.loads(
        preceptor("constitution", "diff", "mine.yaml", "mine.yaml", "--on", "out", "--json").out
    )
    assert (same["changes"], same["on"]["calls"], same["on"]["in_ledger"]) == ([], 0, 8)
    assert server.stats()["requests"] == 8


def test_an_example_that_another_check_decides_otherwise_is_told(place: Path, preceptor: Preceptor) -> None:
    clashing = MINE.replace('better: "quality=9 hello"', 'better: "quality=9 hello to you there"')
    (place / "clashing.yaml").write_text(clashing)
    found = json.loads(preceptor("constitution", "test", "clashing.yaml", "--json").out)
    assert found["clashes"] == [{"principle": "kind", "number": 1, "other": "short"}]
    said = preceptor("constitution", "test", "clashing.yaml").out
    assert "kind[1] clashes: the check of short prefers the worse reply" in said
