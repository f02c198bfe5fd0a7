"""`preceptor ledger`: the calls, the bill, the export and the pruning, of what a real run wrote."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from preceptor.judge.models.protocol import Request
from tests.command_line import Preceptor
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]
SECRET = "sk-abc-123"


@pytest.fixture
def server(preceptor: Preceptor, start_server: Start, monkeypatch: pytest.MonkeyPatch) -> LLMServer:
    """A server that has judged 4 pairs in both orders and been asked for 3 replies, one of which it refused to give."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    rows = [
        {"prompt": f"question {n}", "response_a": "quality=1", "response_b": f"quality={n}"}
        for n in range(2, 6)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(3)))
    server = start_server(faults=["ok"] * 8 + ["400"])
    address = f"{server.url}?key=hidden"
    labelled = preceptor(
        *("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", address),
        *("--out", "out", "--concurrency", 1),
    )
    assert labelled.code == 0, labelled.err
    replied = preceptor(
        *("respond", "prompts.jsonl", "--model", "openai/unpriced", "--samples", 1, "--base-url", address),
        *("--out", "responses.jsonl", "--concurrency", 1),
    )
    assert replied.code == 0, replied.err
    return server


@pytest.mark.usefixtures("server")
def test_show_lists_filters_and_gives_one_call_in_full(preceptor: Preceptor) -> None:
    shown = json.loads(preceptor("ledger", "show", "--json").out)
    assert shown["by_status"] == {"answered": 10, "failed": 1}
    assert len(shown["calls"]) == 11
    only = json.loads(preceptor("ledger", "show", "--stage", "label", "--limit", 2, "--json").out)
    assert (only["by_status"], len(only["calls"])) == ({"answered": 8}, 2)
    (failed,) = json.loads(preceptor("ledger", "show", "--status", "failed", "--json").out)["calls"]
    assert "planned 400" in failed["problem"]
    one = only["calls"][0]
    whole = json.loads(preceptor("ledger", "show", one["key"][:20]).out)
    assert whole == one
    assert whole["completion"]["text"].startswith("The marks decide.")
    table = preceptor("ledger", "show", "--principle", one["principle"])
    assert (table.out, one["key"][:8] in table.err) == ("", True)
    for prefix, said in (("", "11 calls"), ("zz", "0 calls"), ("%", "0 calls")):
        ended = preceptor("ledger", "show", prefix)
        assert (ended.code, said in ended.err) == (2, True), ended.err


@pytest.mark.usefixtures("server")
def test_no_secret_is_shown_and_the_rest_is_as_it_was_asked(preceptor: Preceptor) -> None:
    for words in (("show", "--json"), ("export",), ("bill", "--json"), ("show",)):
        ended = preceptor("ledger", *words)
        assert ended.code == 0
        for secret in (SECRET, "hidden"):
            assert secret not in ended.out + ended.err
    row = json.loads(preceptor("ledger", "show", "--json", "--limit", 1).out)["calls"][0]
    assert Request.model_validate(row["request"]).messages[-1].content == "say 2"


def test_the_bill_is_the_servers_count_however_it_is_broken_down(
    preceptor: Preceptor, server: LLMServer
) -> None:
    stats = server.stats()
    for by in ("run", "model", "stage", "principle", "run,model,stage,principle"):
        told = json.loads(preceptor("ledger", "bill", "--by", by, "--json").out)
        assert (
            told["total"]["tokens_in"]
            == sum(line["tokens_in"] for line in told["lines"])
            == stats["tokens_in"]
        )
        assert told["total"]["tokens_out"] == stats["tokens_out"]
        assert (told["total"]["calls"], told["total"]["failed"], told["total"]["unpriced"]) == (10, 1, 2)
    stages = {line["stage"]: line for line in json.loads(preceptor("ledger", "bill", "--json").out)["lines"]}
    assert stages["label"]["cost_usd"] > 0 == stages["respond"]["cost_usd"]
    table = preceptor("ledger", "bill")
    assert table.out == ""
    assert "2 of unknown price" in table.err
    wrong = preceptor("ledger", "bill", "--by", "colour")
    assert (wrong.code, "wanted some of run, model, stage, principle" in wrong.err) == (2, True)


@pytest.mark.usefixtures("server")
def test_export_writes_every_call(preceptor: Preceptor) -> None:
    lines = preceptor("ledger", "export").out.splitlines()
    assert len(lines) == 11
    assert preceptor("ledger", "export", "--out", "all.jsonl.gz").code == 0
    assert gzip.decompress(Path("all.jsonl.gz").read_bytes()).decode().splitlines() == lines
    assert len(preceptor("ledger", "export", "--status", "failed").out.splitlines()) == 1


def test_prune_counts_first_and_keeps_the_bill(preceptor: Preceptor, server: LLMServer) -> None:
    bill = preceptor("ledger", "bill", "--json").out
    counted = json.loads(preceptor("ledger", "prune", "--failed", "--json").out)
    assert (counted["calls"], counted["answered"], counted["done"]) == (1, 0, False)
    assert len(preceptor("ledger", "export").out.splitlines()) == 11
    assert json.loads(preceptor("ledger", "prune", "--failed", "--yes", "--json").out)["done"]
    assert len(preceptor("ledger", "export").out.splitlines()) == 10
    assert json.loads(preceptor("ledger", "prune", "--older-than", 1, "--yes", "--json").out)["calls"] == 0
    gone = preceptor("ledger", "prune", "--older-than", 0, "--stage", "label", "--yes")
    assert "thrown away: 8 calls, 8 of them answered" in gone.err
    assert preceptor("ledger", "bill", "--json").out == bill
    before = server.stats()["answered"]
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini")
    again = preceptor(*words, "--base-url", f"{server.url}?key=hidden", "--out", "again")
    assert (again.code, server.stats()["answered"] - before) == (0, 8)


def test_what_cannot_be_done_is_said(preceptor: Preceptor) -> None:
    for words in (("show",), ("bill",), ("export",), ("prune", "--failed")):
        ended = preceptor("ledger", *words)
        assert (ended.code, "there is no ledger here" in ended.err) == (2, True)
    assert not Path(".preceptor").exists()
    ended = preceptor("ledger", "prune")
    assert (ended.code, "nothing says what can go" in ended.err) == (2, True)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("column", ["completion", "request"])
def test_a_call_that_is_not_as_it_was_written_is_named(column: str, preceptor: Preceptor) -> None:
    with closing(sqlite3.connect(".preceptor/ledger.db")) as ledger, ledger:
        ledger.execute(f"UPDATE calls SET {column} = '{{broken'")
    for command in ("show", "export"):
        ended = preceptor("ledger", command)
        assert ended.code == 2
        assert "in the ledger is not as it was written" in ended.err


def test_a_folder_is_no_ledger(preceptor: Preceptor) -> None:
    for command in ("show", "bill", "export"):
        ended = preceptor("ledger", command, "--ledger", ".")
        assert (ended.code, "is a folder" in ended.err) == (2, True)
