"""What a command needs is found before it asks anybody."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.constitution.files import load
from preceptor.judge.audit.audit import AGREEMENT, FIGURES, audit
from preceptor.judge.label import label
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.panel import require_dawid_skene
from preceptor.prompts.rows import read_rows
from tests.command_line import Preceptor
from tests.judge.canned import Absent, drive, pair, says
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]
OWN = """---
kind: score
verdict: {1: "Score: 1", 2: "Score: 2", 3: "Score: 3", 4: "Score: 4", 5: "Score: 5", 6: "Score: 6", 7: "Score: 7",
  8: "Score: 8", 9: "Score: 9", 10: "Score: 10"}
---
Score {{ response }}
"""
ROW = {"prompt": "q", "response_a": "quality=1", "response_b": "quality=2"}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, more in (("gold", {"preferred": "b"}), ("plain", {})):
        rows = [json.dumps({**ROW, "id": f"{n}", "prompt": f"q{n}", **more}) + "\n" for n in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "q"}) + "\n")
    return tmp_path


def test_the_figures_of_a_gate_are_those_of_an_audit() -> None:
    rules = load("style")
    made, _ = drive(
        label(pair().model_copy(update={"preferred": "a"}), rules, Absent(), None, LabelSettings()),
        lambda _: says("Verdict: A"),
    )
    figures = audit([made], rules, cost_usd=0.0)
    nested = {name for name, value in figures.items() if isinstance(value, (dict, list))}
    assert set(FIGURES) == set(figures) - nested - {"ci95", "kappa_ci95", "ece_ci95"}
    without_gold = audit([made.model_copy(update={"preferred": None})], rules)
    assert all(not without_gold[name] for name in AGREEMENT)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("file", "flags", "words"),
    [
        ("gold", ("--fail-if", "acuracy < 1"), "'acuracy' in 'acuracy < 1' is no figure"),
        ("gold", ("--fail-if", "accuracy <"), "is no expression"),
        ("gold", ("--fail-if", "attack_rate > 0"), "attack_rate in 'attack_rate > 0' needs --"),
        ("gold", ("--fail-if", "drift_rate > 0"), "needs --recheck"),
        ("gold", ("--fail-if", "alpha < 1"), "needs several judges"),
        (
            "gold",
            ("--escalate-to", "openai/y", "--when", "marign < 1"),
            "'marign' in 'marign < 1' is no figure",
        ),
        ("gold", ("--judge", "openai/x"), "openai/x judges twice"),
        ("gold", ("--template", "none.jinja"), "none.jinja"),
    ],
)
@pytest.mark.parametrize("command", ["label", "audit"])
def test_a_faulty_flag_costs_nothing(
    command: str, file: str, flags: tuple[str, ...], words: str, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    out = ("--out", "out") if command == "label" else ()
    ended = preceptor(
        *(command, f"{file}.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url),
        *flags,
        *out,
    )
    assert (ended.code, words in ended.err) == (2, True), ended.err
    assert server.stats()["requests"] == 0
    assert not Path("out").exists()


def test_a_gate_over_gold_that_the_rows_do_not_have_costs_nothing(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = ("-c", "style", "--judge", "openai/x", "--base-url", server.url, "--out", "out")
    ended = preceptor("label", "plain.jsonl", *words, "--fail-if", "accuracy < 1")
    assert (ended.code, "needs rows with `preferred`" in ended.err) == (2, True), ended.err
    assert server.stats()["requests"] == 0
    assert preceptor("label", "plain.jsonl", *words, "--fail-if", "flip_rate > 1").code == 0
    assert preceptor("label", "gold.jsonl", *words, "--fail-if", "accuracy < 1").code == 0
    assert (place / "out" / "manifest.json").exists()


def test_a_combination_without_its_library_costs_nothing(
    place: Path, preceptor: Preceptor, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "crowdkit", None)
    server = start_server()
    ended = preceptor(
        *("label", "gold.jsonl", "-c", "style", "--judge", "openai/x", "--judge", "openai/y"),
        *("--base-url", server.url, "--combine", "dawid-skene", "--out", "out"),
    )
    assert (ended.code, "pip install 'preceptor[panel]'" in ended.err) == (2, True), ended.err
    assert server.stats()["requests"] == 0
    assert not (place / "out").exists()


def test_no_command_writes_over_its_input(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    server = start_server()
    asked = ("--base-url", server.url)
    before = {path.name: path.read_bytes() for path in place.glob("*.jsonl")}
    (place / "out").mkdir()
    (place / "out" / "labels.jsonl").write_bytes(before["gold.jsonl"])
    score = ("score", "gold.jsonl", "-c", "style", "--judge", "openai/x", *asked)
    judged = ("-c", "style", "--judge", "openai/x", *asked)
    for words, said in (
        (
            ("respond", "prompts.jsonl", "--model", "openai/x", *asked, "--out", "./prompts.jsonl"),
            "is the input",
        ),
        ((*score, "--out", "gold.jsonl"), "is the input"),
        ((*score, "--out", "out"), "it is a folder"),
        (("label", "gold.jsonl", *judged, "--out", "plain.jsonl"), "is a file; wanted a folder"),
        (("label", "out/labels.jsonl", *judged, "--out", "out"), "would be written over"),
    ):
        ended = preceptor(*words)
        assert (ended.code, said in ended.err) == (2, True), (words, ended.err)
    assert server.stats()["requests"] == 0
    assert {path.name: path.read_bytes() for path in place.glob("*.jsonl")} == before


def test_a_comparison_whose_judge_cannot_judge_costs_no_reply(
    place: Path, preceptor: Preceptor, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    words = ("evaluate", "--policy", "openai/x", "--baseline", "openai/y", "--prompts", "prompts.jsonl")
    rules = "name: bare\nversion: 1.0.0\ndescription: none\nprinciples:\n  - {id: one, text: Choose one.}\n"
    (place / "bare.yaml").write_text(rules)
    unchecked = preceptor(*words, "-c", "bare.yaml", "--judge", "checks")
    assert (unchecked.code, "has no machine checks" in unchecked.err) == (2, True), unchecked.err
    keyless = preceptor(*words, "-c", "style", "--judge", "anthropic/x")
    assert keyless.code == 4, keyless.err
    assert server.stats()["requests"] == 0


def test_the_library_is_there_where_it_is_installed() -> None:
    pytest.importorskip("crowdkit")
    require_dawid_skene()


def test_labels_are_looked_at_and_planned_without_a_folder_and_not_made(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = ("label", "gold.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url)
    assert preceptor(*words, "--show").code == 0
    planned = preceptor(*words, "--plan", "--json")
    assert json.loads(planned.out)["models"][0]["to_ask"] == 8
    ended = preceptor(*words)
    assert (ended.code, "--out is missing" in ended.err) == (2, True)
    assert server.stats()["requests"] == 0
    assert not list(place.rglob("labels.jsonl"))


def test_a_diff_knows_the_prices_of_the_labels_that_it_reads(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    rules = "name: one\nversion: 1.0.0\ndescription: none\nprinciples:\n  - {id: one, text: Choose one.}\n"
    (place / "old.yaml").write_text(rules)
    (place / "new.yaml").write_text(rules.replace("Choose one.", "Choose another."))
    words = ("-c", "old.yaml", "--judge", "openai/x", "--base-url", server.url, "--price", "1000,2000")
    made = preceptor("label", "gold.jsonl", *words, "--out", "out")
    assert made.code == 0, made.err
    same = ("constitution", "diff", "old.yaml", "new.yaml", "--on", "out", "--json")
    ended = preceptor(*same)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["on"]
    assert found["calls"] == 8
    assert found["cost_usd"] > 0
    dearer = json.loads(preceptor(*same, "--price", "2000,4000").out)["on"]
    assert dearer["cost_usd"] == pytest.approx(2 * found["cost_usd"])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "words",
    [
        "respond prompts.jsonl --model openai/x --out prompts.jsonl",
        "respond prompts.jsonl --model openai/x -o ./prompts.jsonl",
        "respond prompts.jsonl --model openai/x --ledger gold.jsonl --out=gold.jsonl",
        "score plain.jsonl -c style --judge openai/x --out ../{here}/plain.jsonl",
        "train dpo gold.jsonl --model embedded --out gold.jsonl",
        "ledger export --ledger gold.jsonl --out gold.jsonl",
    ],
)
def test_no_command_writes_over_what_it_reads(words: str, preceptor: Preceptor) -> None:
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    ended = preceptor(*words.format(here=Path().absolute().name).split())
    assert ended.code == 2
    assert "is the input" in ended.err
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "out"),
    [
        ("respond prompts.jsonl --model scripted/s.jsonl --out", "s.jsonl"),
        ("respond prompts.jsonl --model scripted/s.jsonl --out", "link.jsonl"),
        ("respond prompts.jsonl --model scripted/s.jsonl -o", "ledger.db"),
        ("respond prompts.jsonl --model scripted/s.jsonl -o", "ledger.db-wal"),
        ("score plain.jsonl -c child.yaml --judge scripted/s.jsonl --out", "parent.yaml"),
        ("score plain.jsonl -c child.yaml --judge scripted/s.jsonl --out", "prices.yaml"),
        (
            "score plain.jsonl -c child.yaml --judge scripted/s.jsonl --template own.jinja --out",
            "own.jinja",
        ),
        ("respond prompts.jsonl --model hf/model --out", "model/config.json"),
        ("prompts dedupe prompts.jsonl --out deduped.jsonl --dropped", "prompts.jsonl"),
    ],
)
def test_nothing_that_is_read_on_the_way_is_written_over(
    words: str, out: str, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRECEPTOR_PRICES", "prices.yaml")
    rules = "principles:\n  - {id: one, text: Choose one.}\n"
    for name, text in {
        "s.jsonl": '{"text": "Score: 7"}\n' * 9,
        "parent.yaml": f"name: parent\n{rules}",
        "child.yaml": "name: child\nextends: [parent.yaml]\n",
        "prices.yaml": "scripted/s.jsonl: {input: 1, output: 2}\n",
        "own.jinja": OWN,
        "model/config.json": "{}",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    Path("link.jsonl").hardlink_to("s.jsonl")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    ended = preceptor(*words.split(), out, *(() if "dedupe" in words else ("--ledger", "ledger.db")))
    assert (ended.code, f"{out} is the input" in ended.err) == (2, True), ended.err
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert {path: text for path, text in after.items() if not path.name.startswith("ledger.db")} == before


@pytest.mark.usefixtures("place")
def test_what_a_command_wrote_before_it_writes_again(preceptor: Preceptor) -> None:
    Path("s.jsonl").write_text('{"text": "yes"}\n' * 9)
    words = ["respond", "prompts.jsonl", "--model", "scripted/s.jsonl", "--out", "replies.jsonl", "--ledger"]
    assert [preceptor(*words, f"{name}.db").code for name in "aab"] == [0, 0, 0]
    assert len(list(read_rows("replies.jsonl"))) == 4


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("canaries", "code"), [("2%", 2), ("0", 0)])
def test_a_row_that_would_pass_for_a_canary_is_found_before_anything_is_asked(
    canaries: str, code: int, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    Path("own.jsonl").write_text(json.dumps({**ROW, "id": "canary-1", "tags": ["canary"]}) + "\n")
    flags = ("--canaries", canaries) if code else ()
    ended = preceptor(
        *("label", "own.jsonl", "-c", "helpful-harmless", "--judge", "openai/x", "--base-url", server.url),
        *("--out", "out", *flags),
    )
    assert ended.code == code, ended.err
    if code:
        assert server.bodies == []
        assert "has the id and the tag of a planted canary" in ended.err
    else:
        assert len(Path("out/labels.jsonl").read_text().splitlines()) == 1


@pytest.mark.usefixtures("place")
def test_a_gate_that_compares_a_text_with_a_number_is_found_at_once(preceptor: Preceptor) -> None:
    ended = preceptor(
        *(
            "label",
            "gold.jsonl",
            "-c",
            "style",
            "--judge",
            "openai/x",
            "--out",
            "out",
            "--fail-if",
            "flip_rate > 'a'",
        )
    )
    assert ended.code == 2
    assert "texts are compared" in ended.err
    assert not Path("out").exists()


@pytest.mark.parametrize("model", ["openai/gpt-6-luna", "anthropic/claude-haiku-5-5"])
def test_a_plan_wants_no_key_and_asking_does(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """The plan asks nobody, and what a call costs is known without the provider."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    judging = ("-c", "style", "--judge", model)
    (place / "run.yaml").write_text(
        json.dumps(
            {
                "out": "out",
                "model": "embedded",
                "judge": model,
                "constitution": "style",
                "prompts": {"file": "starter"},
            }
        )
    )
    commands = [
        ("label", "plain.jsonl", *judging, "--out", "labels"),
        ("score", "plain.jsonl", *judging, "--out", "scores.jsonl"),
        ("respond", "prompts.jsonl", "--model", model, "--out", "replies.jsonl"),
        ("audit", "gold.jsonl", *judging),
        ("run", "run.yaml"),
    ]
    for words in commands:
        planned = preceptor(*words, "--plan", "--json")
        assert planned.code == 0, (words, planned.err)
        assert json.loads(planned.out)["models"], words
    for words in commands[:-1]:
        asked = preceptor(*words)
        assert (asked.code, "_API_KEY is not set" in asked.err) == (4, True), (words, asked.err)
    assert not any((place / name).exists() for name in ("labels", "scores.jsonl", "replies.jsonl"))


def test_labels_do_not_go_into_a_folder_that_holds_something_else(place: Path, preceptor: Preceptor) -> None:
    (place / "policy").mkdir()
    (place / "policy" / "manifest.json").write_text('{"kind": "dpo"}')
    ended = preceptor("label", "plain.jsonl", "-c", "style", "--judge", "checks", "--out", "policy")
    assert (ended.code, "policy holds something else" in ended.err) == (2, True), ended.err
    assert [path.name for path in (place / "policy").iterdir()] == ["manifest.json"]


def test_a_training_does_not_go_into_a_folder_of_labels(place: Path, preceptor: Preceptor) -> None:
    labelled = preceptor("label", "plain.jsonl", "-c", "style", "--judge", "checks", "--out", "labels")
    assert labelled.code == 0, labelled.err
    before = (place / "labels" / "manifest.json").read_bytes()
    rows = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(4)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = preceptor("train", "dpo", "pairs.jsonl", "--model", "embedded", "--out", "labels")
    assert (ended.code, "labels already holds something else" in ended.err) == (2, True), ended.err
    assert len(ended.err) < 400
    assert (place / "labels" / "manifest.json").read_bytes() == before
