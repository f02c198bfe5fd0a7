"""Bad input gets one clear message, the contract's exit code, and leaves nothing half-written."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from preceptor.cli import console
from preceptor.run.config import load
from preceptor.train.embedded import WEIGHTS
from tests.command_line import Preceptor

PAIR = '{"prompt": "hi", "response_a": "yes", "response_b": "no"}\n'
FIVE_FAULTS = """\
name: five-faults
principles:
  - id: Not A Slug
    text: one
  - id: twice
    text: two
  - id: twice
    text: three
    weight: -1
  - id: four
    txt: four
  - id: five
    text: five
    check: {max_wrds: 3}
"""

FILES: dict[str, bytes] = {
    "broken.jsonl": b'{"prompt": "a"}\n{broken\n',
    "type.jsonl": b'{"prompt": 3}\n',
    "column.jsonl": b'{"promt": "a"}\n',
    "empty.jsonl": b"",
    "cut.jsonl.gz": gzip.compress(b'{"prompt": "a"}\n' * 50)[:20],
    "latin.jsonl": b'{"prompt": "\xff"}\n',
    "ok.jsonl": b'{"prompt": "hi"}\n',
    "pairs.jsonl": PAIR.encode(),
    "deep.yaml": b"model: " + b"[" * 3000,
    "five.yaml": FIVE_FAULTS.encode(),
    "run.yaml": b"out: out\nmodel: embedded\njudge: embedded\nconstitution: style\nprompts: {file: ok.jsonl}\n",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the bad files in it."""
    place = tmp_path / "bad"
    place.mkdir()
    monkeypatch.chdir(place)
    for name, content in FILES.items():
        (place / name).write_bytes(content)
    (place / "folder").mkdir()
    shutil.copytree(WEIGHTS, place / "no-weights")
    (place / "no-weights" / "model.safetensors").unlink()
    return place


LABEL = ("label", "pairs.jsonl", "--out", "out")
CASES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "broken line": (
        ("respond", "broken.jsonl", "--model", "embedded", "--out", "out"),
        2,
        ("broken.jsonl:2: broken JSON", "wanted one JSON object on the line"),
    ),
    "column type": (
        ("respond", "type.jsonl", "--model", "embedded", "--out", "out"),
        2,
        ("type.jsonl:1: prompt is a number; wanted a text or a list of {role, content}",),
    ),
    "missing column": (
        ("respond", "column.jsonl", "--model", "embedded", "--out", "out"),
        2,
        ("column.jsonl:1",),
    ),
    "empty file": (
        ("respond", "empty.jsonl", "--model", "embedded", "--out", "out"),
        2,
        ("empty.jsonl: holds no rows; wanted at least one",),
    ),
    "directory": (
        ("respond", "folder", "--model", "embedded", "--out", "out"),
        2,
        ("folder: a directory that is no dataset; wanted a file",),
    ),
    "no file": (
        ("respond", "none.jsonl", "--model", "embedded", "--out", "out"),
        2,
        ("there is no such file",),
    ),
    "gzip cut short": (
        ("respond", "cut.jsonl.gz", "--model", "embedded", "--out", "out"),
        2,
        ("cut.jsonl.gz", "cut short", "fetch or write the file again"),
    ),
    "not UTF-8": (
        ("respond", "latin.jsonl", "--model", "embedded", "--out", "out"),
        2,
        ("latin.jsonl:1", "not UTF-8; wanted text in UTF-8"),
    ),
    "five faults": (
        (*LABEL, "-c", "five.yaml", "--judge", "checks"),
        2,
        ("five.yaml:3", "five.yaml:7", "five.yaml:9", "'text', perhaps", "'max_words', perhaps"),
    ),
    "model with a typo": (
        (*LABEL, "-c", "style", "--judge", "opnai/gpt-5-mini"),
        2,
        ("no provider answers to 'opnai/gpt-5-mini'; did you mean openai/",),
    ),
    "missing key": (
        (*LABEL, "-c", "style", "--judge", "openai/gpt-5-mini"),
        4,
        ("OPENAI_API_KEY is not set", "export it, or name another server with --base-url"),
    ),
    "nothing listens": (
        (*LABEL, "-c", "style", "--judge", "openai/x", "--base-url", "http://127.0.0.1:9/v1"),
        4,
        ("nothing answers at http://127.0.0.1:9/v1", "start the server or check --base-url"),
    ),
    "not writable": (
        ("respond", "ok.jsonl", "--model", "embedded", "--out", "ok.jsonl/out"),
        2,
        ("ok.jsonl/out: cannot be written", "choose another place"),
    ),
    "missing weights": (
        ("respond", "ok.jsonl", "--model", "hf/./no-weights", "--out", "out"),
        2,
        ("no-weights cannot be loaded", "wanted a folder or hub id with config.json, safetensors weights"),
    ),
    "wrong choice": ((*LABEL, "-c", "style", "--judge", "checks", "--principles", "foo"), 2, ("foo",)),
    "wrong flag": ((*LABEL, "-c", "style", "--judge", "checks", "--colour"), 2, ("--colour",)),
    "audit without gold": (
        ("audit", "pairs.jsonl", "-c", "style", "--judge", "checks"),
        2,
        ("no row has `preferred`; an audit wants pairs whose better reply is known",),
    ),
    "no run file": (("run", "none.yaml"), 2, ("none.yaml: no such run file",)),
    "a run file nested without end": (
        ("run", "deep.yaml"),
        2,
        ("deep.yaml: cannot be read (it is nested too deep)",),
    ),
    "an override that is no YAML": (("run", "run.yaml", "label={"), 2, ("'label={' on the command line",)),
    "an override nested without end": (
        ("run", "run.yaml", "label=" + "[" * 3000),
        2,
        ("on the command line",),
    ),
    "more samples than anybody wants": (
        ("respond", "ok.jsonl", "--model", "embedded", "--out", "out", "--samples", "1000000000", "--plan"),
        2,
        ("--samples",),
    ),
    "no run folder": (
        ("verify", "folder"),
        2,
        ("folder has no manifest.json; wanted the folder of a finished run",),
    ),
    "prompts as preferences": (("train", "dpo", "ok.jsonl", "--out", "out"), 2, ("ok.jsonl",)),
}


@pytest.mark.parametrize(("words", "code", "said"), CASES.values(), ids=CASES.keys())
def test_one_clear_message_and_nothing_left_behind(
    words: tuple[str, ...], code: int, said: tuple[str, ...], place: Path, preceptor: Preceptor
) -> None:
    ended = preceptor(*words)
    assert ended.code == code, ended.err
    for part in said:
        assert part in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert list((place / "out").glob("*")) == []


def test_a_run_file_shows_all_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "out: x\nmodel: embedded\nconstitution: style\nprompts: {flie: a, file: b}\ndpo: {beta: -1}\n"
    )
    with pytest.raises(Exception, match="the run file cannot be used") as caught:
        load(file, ["colour=red"])
    for part in (
        "judge: missing",
        "prompts.flie: unknown key; did you mean file?",
        "dpo.beta: -1",
        "colour: unknown key",
    ):
        assert part in str(caught.value)


def test_names_that_look_like_markup_are_shown_as_they_are(place: Path, preceptor: Preceptor) -> None:
    (place / "[").mkdir()
    (place / "[" / "]s.jsonl").write_text('{"text": "yes"}\n')
    model = "scripted/[/]s.jsonl"
    made = preceptor("respond", "ok.jsonl", "--model", model, "--out", "[/]out.jsonl")
    assert made.code == 0, made.err
    assert "[/]out.jsonl" in made.err
    for by in ((), ("--by", "model"), ("--by", "model,stage")):
        bill = preceptor("ledger", "bill", *by)
        assert bill.code == 0, bill.err
        assert not by or model in bill.out + bill.err
    shown = preceptor("ledger", "show")
    assert shown.code == 0, shown.err
    assert model in shown.out + shown.err


def test_a_screen_shows_words_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("[/]", "[red]x[/red]", ":smile:", "[link=http://x]y[/link]", "[/nothing"):
        console.screen().print(words)
        console.table(words, [words, words], [[words, words]])
        said = capsys.readouterr()
        assert said.out.strip() == words
        assert said.err.count(words) == 5
