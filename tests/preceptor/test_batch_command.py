"""`--batch` as a person uses it: killed anywhere, stopped, capped, looked at."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from preceptor.judge.asking import batch_submit
from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import bill
from preceptor.prompts.rows import read_rows
from tests.command_line import Preceptor
from tests.preceptor.test_kill import ROOT, end, whole_bill, write_pairs
from tests.servers.batches import BatchServer, Plan
from tests.servers.llm import serve

QUICK = """
from preceptor.judge.asking import batch_submit as sending
sending.FIRST_POLL_S, sending.LAST_POLL_S, sending.SETTLE_S = 0.02, 0.05, 0.2
from preceptor.cli.app import main
main()
"""
OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"
BOTH = pytest.mark.parametrize("judge", [OPENAI, ANTHROPIC])
STEPS = [
    (OPENAI, "upload"),
    *((judge, step) for judge in (OPENAI, ANTHROPIC) for step in ("create", "poll", "results")),
]
"""Anthropic's API has no upload apart."""
PAIRS = 20


class Unbroken(NamedTuple):
    """A run without batches, over and done."""

    port: int
    """Of its server; a request's identity has it, so that those of other runs listen there too."""
    labels: bytes
    cost_usd: float


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Unbroken]:
    made = {}
    for judge in (OPENAI, ANTHROPIC):
        with pytest.MonkeyPatch.context() as here, serve(BatchServer()) as plain:
            here.chdir(tmp_path_factory.mktemp("unbroken"))
            write_pairs(PAIRS)
            ended = end(start(plain, judge, ()))
            assert ended.code == 0, ended.err
            port = int(plain.root.rpartition(":")[2])
            made[judge] = Unbroken(port, Path("out/labels.jsonl").read_bytes(), whole_bill().cost_usd)
    return made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs in this process are as quick as those of `start`, and leave its logging as it was."""
    for name, value in {"FIRST_POLL_S": 0.02, "LAST_POLL_S": 0.05, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(batch_submit, name, value)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    logger = logging.getLogger("preceptor.judge.asking.batch")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


def words(server: BatchServer, judge: str, *more: object) -> list[str]:
    url = server.url if judge == OPENAI else server.root
    asked = (
        "label",
        "pairs.jsonl",
        "-c",
        "style",
        "--judge",
        judge,
        "--base-url",
        url,
        "--out",
        "out",
        "--json",
    )
    return [*asked, *map(str, more)]


def start(
    server: BatchServer, judge: str, more: Sequence[object] = ("--batch",), program: str = QUICK
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *words(server, judge, *more)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def serving(at: Unbroken, **behaviour: Any) -> Iterator[BatchServer]:
    write_pairs(PAIRS)
    made = BatchServer(**behaviour)
    with serve(made, at.port):
        yield made


def require_once(server: BatchServer, wanted: Unbroken) -> None:
    """Every comparison answered once, all on the bill at the batch's price, and the labels those of the direct way."""
    stats = server.stats()
    assert (stats["answered"], stats["answered_twice"]) == (2 * PAIRS, 0)
    line = whole_bill()
    counted = (line.calls, line.tokens_in, line.tokens_out, line.lost)
    assert counted == (2 * PAIRS, stats["tokens_in"], stats["tokens_out"], 0)
    assert line.cost_usd == pytest.approx(wanted.cost_usd / 2)
    assert Path("out/labels.jsonl").read_bytes() == wanted.labels


@pytest.mark.parametrize(("judge", "step"), STEPS)
def test_killed_anywhere_it_sends_nothing_twice_and_forgets_nothing(
    judge: str, step: str, unbroken: dict[str, Unbroken], preceptor: Preceptor
) -> None:
    slow = [Plan(looks=10**6)] if step == "poll" else []
    with serving(unbroken[judge], stall=step, plans=slow) as server:
        running = start(server, judge)
        if step == "poll":
            wait_for(lambda: any(looks > 2 for looks in server.looks.values()))
        else:
            assert server.stalled.wait(600)
        assert end(running, signal.SIGKILL).code == -signal.SIGKILL
        server.stall = ""
        server.looks = dict.fromkeys(server.looks, 10**6)
        again = preceptor(*words(server, judge, "--batch"))
        assert again.code == 0, again.err
        require_once(server, unbroken[judge])
        assert len(server.made) == 1
        assert len([name for name, _, _ in server.files.values() if name.startswith("preceptor-")]) <= 1
        calls = json.loads(again.out)["calls"]
        assert (calls["asked"], calls["from_ledger"], calls["failed"]) == (2 * PAIRS, 0, 0)


ENDS_IN_ITS_RESULTS = """
import os, preceptor.judge.asking.batch as batch, preceptor.judge.ledger.batches as books
batch.AT_ONCE = 8
collect, times = books.collect, []
def killed(*args, **words):
    times.append(1)
    if len(times) == 3: os._exit(9)
    return collect(*args, **words)
books.collect = killed
"""


@BOTH
def test_killed_while_it_writes_results_down_it_pays_once(
    judge: str, unbroken: dict[str, Unbroken], preceptor: Preceptor
) -> None:
    """Between two transactions of the same batch's results."""
    with serving(unbroken[judge]) as server:
        assert end(start(server, judge, program=ENDS_IN_ITS_RESULTS + QUICK)).code == 9
        assert whole_bill().calls == 16
        again = preceptor(*words(server, judge, "--batch"))
        assert again.code == 0, again.err
        require_once(server, unbroken[judge])
        assert len(server.made) == 1
        calls = json.loads(again.out)["calls"]
        assert (calls["asked"], calls["from_ledger"]) == (2 * PAIRS - 16, 16)


@pytest.mark.parametrize(("judge", "how"), [(OPENAI, signal.SIGINT), (ANTHROPIC, signal.SIGTERM)])
def test_told_to_stop_it_leaves_the_batch_and_says_so(
    judge: str, how: signal.Signals, unbroken: dict[str, Unbroken], preceptor: Preceptor
) -> None:
    with serving(unbroken[judge], plans=[Plan(looks=10**6)]) as server:
        running = start(server, judge)
        wait_for(lambda: any(looks > 2 for looks in server.looks.values()))
        stopped = end(running, how)
        assert stopped.code == 130, stopped.err
        assert "1 batch is still with the provider: the same command goes on from there" in stopped.err
        server.looks = dict.fromkeys(server.looks, 10**6)
        again = preceptor(*words(server, judge, "--batch"))
        assert again.code == 0, again.err
        require_once(server, unbroken[judge])
        assert len(server.made) == 1


def test_two_processes_share_their_batches(unbroken: dict[str, Unbroken]) -> None:
    with serving(unbroken[OPENAI], plans=[Plan(looks=20)] * 4) as server:
        running = [start(server, OPENAI), start(server, OPENAI, ("--batch", "--out", "other"))]
        ended = [end(one) for one in running]
        assert [one.code for one in ended] == [0, 0], ended
        require_once(server, unbroken[OPENAI])
    assert Path("other/labels.jsonl").read_bytes() == Path("out/labels.jsonl").read_bytes()


def test_the_cap_holds_and_a_higher_one_goes_on(unbroken: dict[str, Unbroken], preceptor: Preceptor) -> None:
    with serving(unbroken[OPENAI]) as server:
        cap = unbroken[OPENAI].cost_usd / 2 * 0.7
        stopped = preceptor(*words(server, OPENAI, "--batch", "--max-cost", cap))
        assert stopped.code == 3, stopped.err
        assert "higher --max-cost" in stopped.err
        assert 0 < whole_bill().cost_usd <= cap
        again = preceptor(*words(server, OPENAI, "--batch"))
        assert again.code == 0, again.err
        require_once(server, unbroken[OPENAI])


def test_a_file_that_is_not_held_gives_the_same_and_a_faulty_row_in_it_costs_nothing(
    unbroken: dict[str, Unbroken], preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.label.run.AT_HAND", 3)
    with serving(unbroken[OPENAI], plans=[Plan("expired", undone=(0, 1, 2))]) as server:
        whole = Path("pairs.jsonl").read_text()
        Path("pairs.jsonl").write_text(whole + "{broken\n")
        broken = preceptor(*words(server, OPENAI, "--batch"))
        assert (broken.code, f"pairs.jsonl:{PAIRS + 1}" in broken.err, server.made) == (2, True, {})
        Path("pairs.jsonl").write_text(whole)
        assert preceptor(*words(server, OPENAI, "--batch")).code == 0
        require_once(server, unbroken[OPENAI])


def test_the_ledger_lists_them_and_bills_by_them(unbroken: dict[str, Unbroken], preceptor: Preceptor) -> None:
    with serving(unbroken[OPENAI], plans=[Plan("expired", undone=(0, 1, 2))]) as server:
        assert preceptor(*words(server, OPENAI, "--batch")).code == 0
    told = json.loads(preceptor("ledger", "batches", "--json").out)
    latest, first = told["batches"]
    assert (first["remote"], first["state"]) == ("batch_0", "ended")
    assert (first["requests"], first["answered"], first["failed"]) == (2 * PAIRS, 2 * PAIRS - 3, 3)
    assert first["problem"] == "the batch expired"
    assert (latest["requests"], latest["answered"], latest["problem"]) == (3, 3, None)
    shown = preceptor("ledger", "batches")
    assert "batch_0" in shown.err
    assert "the batch expired" in shown.err
    lines = json.loads(preceptor("ledger", "bill", "--by", "batch", "--json").out)["lines"]
    calls = {line["batch"]: line["calls"] for line in lines}
    assert calls == {first["token"]: 2 * PAIRS - 3, latest["token"]: 3}


def test_respond_revise_score_evaluate_and_audit_take_it(preceptor: Preceptor) -> None:
    made = BatchServer()
    rows = [
        {"prompt": f"q{n}", "chosen": f"one quality={n + 9}", "rejected": f"two quality={n}"}
        for n in range(3)
    ]
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(made):
        how = ("--base-url", made.url, "--batch", "--json")
        model = ("--model", OPENAI)
        judge = ("--judge", OPENAI, "-c", "style")
        sides = ("--policy", OPENAI, "--baseline", "openai/gpt-4o")
        for command, batches in (
            (("respond", "gold.jsonl", *model, "--samples", 2, "-o", "r.jsonl"), 1),
            (("revise", "r.jsonl", *model, "-c", "style", "--rounds", 1, "-o", "v.jsonl"), 2),
            (("score", "gold.jsonl", *judge, "-o", "s.jsonl"), 1),
            (("evaluate", *sides, "--prompts", "gold.jsonl", *judge), 3),
            (("audit", "gold.jsonl", *judge), 1),
        ):
            before = len(made.made)
            ended = preceptor(*command, *how)
            # the server's judge names a reply and gives no grade: no row of `score` is usable
            assert ended.code == (4 if command[0] == "score" else 0), ended.err
            assert len(made.made) == before + batches
        assert json.loads(ended.out)["accuracy"] == 1
    assert not [path for path in made.paths if path != "/v1/chat/completions"]
    assert len(list(read_rows("s.jsonl"))) == 6
    with reading(".preceptor/ledger.db") as connection:
        assert "" not in {line.of["batch"] for line in bill(connection, ("batch",))}


def wait_for(happened: Any, timeout_s: float = 600.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.01)
