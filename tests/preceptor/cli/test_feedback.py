"""respond, revise, label and audit as commands, over real HTTP: resumed, planned, capped, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Preceptor
from tests.servers.llm import LLMServer
from tests.servers.recordings import pairs, recordings

Start = Callable[..., LLMServer]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    rows = [
        {"prompt": f"question {n}", "response_a": f"quality={n}", "response_b": f"quality={5 * (n % 2) + 3}"}
        for n in range(1, 9)
    ]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(3)))
    return place


def label(server: LLMServer, *more: object) -> tuple[object, ...]:
    return ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/fake", "--base-url", server.url, *more)


def test_label_twice_asks_once_and_writes_the_same(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    first = preceptor(*label(server, "--out", "one", "--json"))
    assert (first.code, server.stats()["requests"]) == (0, 16), first.err
    report = json.loads(first.out)
    assert (
        report["pairs"]
        == 8
        == sum(report[name] for name in ("ok", "tie", "inconsistent", "refused", "unparsed"))
    )
    again = preceptor(*label(server, "--out", "two", "--json"))
    assert server.stats()["requests"] == 16
    assert json.loads(again.out)["calls"] == {"asked": 0, "from_ledger": 16, "failed": 0, "cost_usd": 0.0}
    for name in ("labels.jsonl", "preferences.jsonl"):
        assert (place / "one" / name).read_bytes() == (place / "two" / name).read_bytes()
    assert preceptor("verify", "one").code == 0
    (place / "one" / "labels.jsonl").write_text("")
    tampered = preceptor("verify", "one")
    assert (tampered.code, "labels.jsonl: its SHA-256" in tampered.out) == (1, True)


@pytest.mark.parametrize(
    "reply", ["fine", [{"role": "assistant", "content": "fine"}]], ids=["text", "message"]
)
def test_score_reads_single_replies(
    place: Path, preceptor: Preceptor, start_server: Start, reply: object
) -> None:
    server = start_server(verdict="Score: 7")
    rows = [{"prompt": "Hi", "response": reply}, {"question": "Hi", "answer": reply, "id": "mine"}]
    for number, (row, names) in enumerate(
        zip(rows, [(), ("--map", "prompt=question", "--map", "response=answer")], strict=True)
    ):
        (place / "one.jsonl").write_text(json.dumps(row) + "\n")
        words = ("score", "one.jsonl", "-c", "style", "--judge", "openai/fake", "--base-url", server.url)
        ended = preceptor(*words, "--out", f"s{number}.jsonl", *names)
        assert ended.code == 0, ended.err
    plain, mapped = (json.loads((place / f"s{number}.jsonl").read_text()) for number in (0, 1))
    assert plain["text"] == mapped["text"] == "fine"
    assert plain["score"] == 7
    assert (plain["prompt"], mapped["id"]) == (mapped["prompt"], "mine")


@pytest.mark.parametrize("reply", [3, [{"role": "user", "content": "Hi"}]])
def test_a_reply_that_is_none_is_that_rows_fault(place: Path, preceptor: Preceptor, reply: object) -> None:
    (place / "one.jsonl").write_text(json.dumps({"prompt": "Hi", "response": reply}) + "\n")
    ended = preceptor("score", "one.jsonl", "-c", "style", "--judge", "openai/fake", "--out", "s.jsonl")
    assert (ended.code, "one.jsonl:1: response is " in ended.err) == (2, True), ended.err
    assert not (place / "s.jsonl").exists()


def test_score_reads_what_label_reads(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    """Columns under other names, layouts of the field, and samples that were cut at their length, of which it tells."""
    server = start_server(verdict="Score: 7")

    def scored(file: str, *more: object) -> list[str]:
        words = ("score", file, "-c", "style", "--judge", "openai/fake", "--base-url", server.url)
        ended = preceptor(*words, "--out", "s.jsonl", *more)
        assert ended.code == 0, ended.err
        said.append(ended.err)
        rows = (place / "s.jsonl").read_text().splitlines()
        return [json.loads(line)["text"] for line in rows]

    said: list[str] = []
    named = {"question": "Hi", "good": "quality=9 hello", "bad": "quality=1 go"}
    (place / "named.jsonl").write_text(json.dumps(named) + "\n")
    names = ("--map", "prompt=question", "--map", "chosen=good", "--map", "rejected=bad")
    assert sorted(scored("named.jsonl", *names)) == ["quality=1 go", "quality=9 hello"]
    talks = {"chosen": "\n\nHuman: Hi\n\nAssistant: hello", "rejected": "\n\nHuman: Hi\n\nAssistant: go"}
    (place / "hh.jsonl").write_text(json.dumps(talks) + "\n")
    assert sorted(scored("hh.jsonl", "--format", "hh")) == ["go", "hello"]
    row = {"prompt": {"id": "p", "messages": [{"role": "user", "content": "Hi"}]}, "model": "m", "call": "0"}
    cut = [
        {**row, "id": f"r{n}", "text": text, "sample": n, "status": status}
        for n, (text, status) in enumerate([("whole", "ok"), ("hal", "truncated"), ("", "empty")])
    ]
    (place / "replies.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cut))
    assert scored("replies.jsonl") == ["whole", "hal"]
    assert "1 of 3 samples were cut at --max-tokens, and are kept: --truncated drop" in said[-1]
    assert scored("replies.jsonl", "--truncated", "drop") == ["whole"]
    assert "1 of 3 samples were cut at --max-tokens, and are left out: --truncated keep" in said[-1]


def test_a_plan_asks_nothing(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    server = start_server()
    ended = preceptor(*label(server, "--out", "out", "--plan", "--json"))
    plan = json.loads(ended.out)
    assert (plan["rows"], plan["models"][0]["to_ask"], plan["models"][0]["in_ledger"]) == (8, 16, 0)
    assert server.stats()["requests"] == 0
    assert not (place / "out").exists()


def test_the_cap_stops_with_3_and_a_higher_one_goes_on(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", server.url)
    tight = preceptor(*words, "--out", "out", "--concurrency", 1, "--max-cost", "0.0004", "--json")
    assert tight.code == 3, tight.err
    partial = json.loads(tight.out)
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    rows = len((place / "out" / "labels.jsonl").read_text().splitlines())
    assert (partial["complete"], manifest["complete"]) == (False, False)
    assert 0 < rows < 8
    assert partial["calls"]["cost_usd"] <= 0.0004
    done = preceptor(*words, "--out", "out", "--max-cost", "1", "--json")
    assert (done.code, json.loads(done.out)["complete"]) == (0, True)
    assert server.stats()["answered_twice"] == 0


@pytest.mark.usefixtures("place")
def test_an_unknown_price_under_a_cap_is_an_error(preceptor: Preceptor, start_server: Start) -> None:
    ended = preceptor(*label(start_server(), "--out", "out", "--max-cost", 1))
    assert ended.code == 2
    assert "price" in ended.err


def test_ctrl_c_leaves_a_valid_part_and_goes_on(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server(latency_s=0.15, reach=6)
    words = [str(word) for word in label(server, "--out", "out", "--concurrency", 2)]
    code = "from preceptor.cli.app import main; main()"
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=place, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert server.reached.wait(600)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "run the same command again" in said
    for line in (place / "out" / "labels.jsonl").read_text().splitlines():
        assert json.loads(line)["status"]
    assert preceptor(*label(server, "--out", "out")).code == 0
    assert server.stats()["answered_twice"] <= 2  # what was in flight
    assert len((place / "out" / "labels.jsonl").read_text().splitlines()) == 8


@pytest.mark.usefixtures("place")
def test_respond_revise_label(preceptor: Preceptor, start_server: Start) -> None:
    server = start_server()
    model = ("--model", "openai/fake", "--base-url", server.url)
    ended = preceptor(
        "respond", "prompts.jsonl", *model, "--samples", 2, "--out", "responses.jsonl", "--json"
    )
    assert json.loads(ended.out)["responses"] == {"ok": 6}
    revise = preceptor(
        "revise", "responses.jsonl", *model, "-c", "style", "--rounds", 1, "--out", "rev.jsonl", "--json"
    )
    assert json.loads(revise.out)["revisions"] == {"ok": 6}
    judge = ("-c", "style", "--judge", "openai/fake", "--base-url", server.url, "--json")
    for source, count in (("responses.jsonl", 3), ("rev.jsonl", 6)):
        labelled = preceptor("label", source, *judge, "--out", f"labels-{count}")
        assert json.loads(labelled.out)["pairs"] == count, labelled.err


def test_checks_judge_without_a_key(place: Path, preceptor: Preceptor) -> None:
    row = {"prompt": "as JSON", "tags": ["json"], "response_a": "{}", "response_b": "no", "preferred": "a"}
    (place / "gold.jsonl").write_text(json.dumps(row) + "\n")
    ended = preceptor("audit", "gold.jsonl", "-c", "style", "--judge", "checks", "--json")
    figures = json.loads(ended.out)
    assert (figures["n"], figures["accuracy"], figures["cost_usd"]) == (1, 1.0, 0.0)
    gated = preceptor(
        "audit", "gold.jsonl", "-c", "style", "--judge", "checks", "--fail-if", "accuracy > 0.5"
    )
    assert (gated.code, "the gate failed: accuracy > 0.5" in gated.err) == (1, True)
    unknown = preceptor(
        "audit", "gold.jsonl", "-c", "style", "--judge", "checks", "--fail-if", "acuracy > 0.5"
    )
    assert (unknown.code, "acuracy" in unknown.err) == (2, True)


def test_audit_in_the_wording_of_llmbar(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    """The published counts of GPT-4 with CoT on LLMBar Natural, through the command, with one's own template."""
    rows: list[dict[str, Any]] = list(pairs("Natural"))
    (place / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "own.jinja").write_text(
        '---\nkind: compare\nverdict: {a: "Output (a)", b: "Output (b)"}\n---\n'
        "{% block user %}{% for principle in principles %}{{ principle.text }}{% endfor %}\n"
        "{% for message in messages %}{{ message.content | defuse }}{% endfor %}\n"
        "# Output (a):\n{{ response_a | defuse }}\n# Output (b):\n{{ response_b | defuse }}\n{% endblock %}\n"
    )
    server = start_server(recordings=recordings("Natural"), verdict="Output ({letter}) is better.")
    words = (
        "audit",
        "gold.jsonl",
        "-c",
        "helpful-harmless",
        "--judge",
        "openai/gpt-4",
        "--base-url",
        server.url,
    )
    ended = preceptor(*words, "--template", "own.jinja", "--reasoning", "--json")
    figures = json.loads(ended.out)
    counts = ("n", "correct_original", "correct_swapped", "correct_both", "orders_agree", "unparsed")
    assert [figures[name] for name in counts] == [100, 94, 95, 90, 91, 0]


def test_transcripts(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    start = "\n\nHuman: hello\n\nAssistant: "
    (place / "hh.jsonl").write_text(
        json.dumps({"chosen": start + "quality=9", "rejected": start + "quality=1"}) + "\n"
    )
    server = start_server()
    words = (
        "audit",
        "hh.jsonl",
        "--format",
        "hh",
        "-c",
        "style",
        "--judge",
        "openai/x",
        "--base-url",
        server.url,
    )
    figures = json.loads(preceptor(*words, "--json").out)
    assert (figures["n"], figures["correct_both"]) == (1, 1)


def test_every_command_that_asks_plans_and_asks_nothing(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    """Calls, tokens and dollars by model, also as a batch; later rounds of revising and judging included."""
    server = start_server()
    at = ("--base-url", server.url)
    assert preceptor("respond", "prompts.jsonl", "--model", "openai/m", *at, "-o", "r.jsonl").code == 0
    lines = (place / "pairs.jsonl").read_text().splitlines()
    (place / "gold.jsonl").write_text("".join(line[:-1] + ', "preferred": "a"}\n' for line in lines))
    asked = server.stats()["requests"]
    j, c = ("--judge", "openai/gpt-4o-mini"), ("-c", "style")
    trained = ("--policy", f"scripted/{place}/s.jsonl", "--baseline", f"scripted/{place}/t.jsonl")
    for name in ("s", "t"):
        (place / f"{name}.jsonl").write_text('{"text": ""}\n')
    commands: dict[str, tuple[object, ...]] = {
        "respond": ("respond", "prompts.jsonl", "--model", "openai/gpt-4o-mini", "-o", "x"),
        "revise": ("revise", "r.jsonl", "--model", "openai/gpt-4o-mini", *c, "-o", "x"),
        "label": ("label", "pairs.jsonl", *j, *c, "-o", "x"),
        "score": ("score", "r.jsonl", *j, *c, "-o", "x"),
        "audit": ("audit", "gold.jsonl", *j, *c),
        "test": ("constitution", "test", "style", *j),
        "ablate": ("constitution", "ablate", "style", "pairs.jsonl", *j),
        "evaluate": ("evaluate", *trained, "--prompts", "prompts.jsonl", *j, *c),
    }
    may_ask = {}
    for name, words in commands.items():
        ended = preceptor(*words, *at, "--plan", "--json")
        assert ended.code == 0, (name, ended.err)
        (line,) = [one for one in json.loads(ended.out)["models"] if one["model"].startswith("openai/")]
        may_ask[name] = line["may_ask"]
        assert line["to_ask"] + line["may_ask"] > 0, name
        assert 0 < line["batch_cost_usd"] == pytest.approx(line["cost_usd"] / 2), name
        assert "batch ≤" in preceptor(*words, *at, "--plan").err
    assert {name for name, count in may_ask.items() if count} == {"revise", "evaluate"}
    assert server.stats()["requests"] == asked
    assert not (place / "x").exists()


def test_a_price_by_flag_or_file_holds_a_cap(
    place: Path, preceptor: Preceptor, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()

    def cost(*more: object) -> float:
        ended = preceptor(*label(server, "--out", "out", "--plan", "--json", *more))
        return float(json.loads(ended.out)["models"][0]["cost_usd"])

    by_flag = cost("--price", "1,2")
    assert cost("--price", "openai/fake=2,4") == pytest.approx(2 * by_flag)
    own = Path.home() / ".config" / "preceptor" / "prices.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("openai/fake: {input: 1, output: 2}\n")
    assert cost() == pytest.approx(by_flag)
    (place / "elsewhere.yaml").write_text("openai/fake: {input: 3, output: 6}\n")
    monkeypatch.setenv("PRECEPTOR_PRICES", "elsewhere.yaml")
    assert cost() == pytest.approx(3 * by_flag)
    assert preceptor(*label(server, "--out", "out", "--max-cost", "0.0000001")).code == 3
    monkeypatch.setenv("PRECEPTOR_PRICES", "nowhere.yaml")
    refused = preceptor(*label(server, "--out", "out", "--plan"))
    assert (refused.code, "PRECEPTOR_PRICES names nowhere.yaml" in refused.err) == (2, True)


def test_a_finished_folder_is_known_by_its_hashes(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    """Without the ledger and without a call; and is made anew where anything about it changed."""
    server = start_server()
    words = label(server, "--out", "out", "--json")
    assert preceptor(*words).code == 0
    before = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
    for path in (place / ".preceptor").iterdir():
        path.unlink()
    again = preceptor(*words)
    assert json.loads(again.out)["pairs"] == 8
    assert json.loads(again.out)["calls"] == {"asked": 0, "from_ledger": 0, "failed": 0, "cost_usd": 0.0}
    assert server.stats()["requests"] == 16
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir()} == before
    for change in (
        lambda: (place / "out" / "labels.jsonl").write_text(""),
        lambda: (place / "out" / "card.md").unlink(),
        lambda: (place / "pairs.jsonl").write_text((place / "pairs.jsonl").read_text().replace("3", "4")),
    ):
        change()
        assert preceptor(*words).code == 0
        assert preceptor("verify", "out").code == 0
        assert len((place / "out" / "labels.jsonl").read_text().splitlines()) == 8
    assert server.stats()["requests"] > 16
    other = preceptor(*words, "--tie")
    assert json.loads(other.out)["calls"]["asked"] > 0


def test_a_file_that_is_streamed_gives_the_same_as_one_that_is_held(
    place: Path, preceptor: Preceptor, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    assert preceptor(*label(server, "--out", "held")).code == 0
    monkeypatch.setattr("preceptor.label.run.AT_HAND", 3)
    assert preceptor(*label(server, "--out", "streamed")).code == 0
    for name in ("labels.jsonl", "preferences.jsonl", "preferences.parquet", "card.md"):
        assert (place / "held" / name).read_bytes() == (place / "streamed" / name).read_bytes(), name
    with (place / "pairs.jsonl").open("a") as file:
        file.write("{broken\n")
    broken = preceptor(*label(server, "--out", "streamed"))
    assert (broken.code, "pairs.jsonl:9" in broken.err) == (2, True)
