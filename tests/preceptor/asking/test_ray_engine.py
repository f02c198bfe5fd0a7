"""Many machines: a real Ray cluster of two nodes, a real PostgreSQL, a real server that counts what it is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.json as json_rows
import pytest
from pyarrow import parquet

from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import bill
from preceptor.label.run import AT_HAND
from preceptor.prompts.rows import read_rows
from tests.preceptor.ray_cluster import ROOT, TwoNodes, two_nodes
from tests.preceptor.test_kill import MAIN, Ended, whole_bill, write_pairs
from tests.servers.llm import LLMServer, serve

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'preceptor[ray]'"
    ),
]
IN_FLIGHT = 16
WORKERS = 2


@pytest.fixture
def ledger(postgres_place: str) -> str:
    """The URL of an empty database."""
    return postgres_place


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    """Whole: for tests that leave it so."""
    with two_nodes() as running:
        yield running


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(running: subprocess.Popen[str]) -> Ended:
    out, err = running.communicate(timeout=900)
    return Ended(running.returncode, out, err)


def labelling(server: LLMServer, out: str, *more: object) -> tuple[object, ...]:
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", server.url)
    return (*words, "--out", out, "--concurrency", IN_FLIGHT, "--json", *more)


def on(cluster: TwoNodes, ledger: str) -> tuple[object, ...]:
    where = ("--engine", "ray", "--address", cluster.address, "--workers", WORKERS)
    return (*where, "--ledger", ledger)


def require_equal(one: str, other: str) -> None:
    for name in ("labels.jsonl", "preferences.jsonl"):
        assert Path(one, name).read_bytes() == Path(other, name).read_bytes()


def test_a_node_is_removed_and_every_row_is_there_once(ledger: str) -> None:
    """At most what the removed node had in flight is asked again, and no more was in flight than allowed."""
    write_pairs(300)
    with two_nodes() as cluster, serve(LLMServer(latency_s=0.2)) as server:
        local = end(start(*labelling(server, "local")))
        assert local.code == 0, local.err
        before = len(server.bodies)
        running = start(*labelling(server, "ray", *on(cluster, ledger)))
        assert server.wait_for(before + 150), end(running).err
        cluster.remove_second()
        ended = end(running)
        assert ended.code == 0, ended.err
        stats = server.stats()
        line = whole_bill(ledger)
    require_equal("local", "ray")
    rows = [row.fields for row in read_rows("ray/labels.jsonl")]
    assert len({row["id"] for row in rows}) == len(rows) == 300
    # every body is answered once for the local run, and once for the other but for what was in flight
    again = stats["answered"] - 2 * 600
    assert 0 <= again <= line.lost <= IN_FLIGHT
    assert stats["answered_most"] <= 2 + 1
    assert line.calls == 600
    assert stats["max_concurrency"] <= IN_FLIGHT + line.lost


def test_the_budget_holds_over_all_workers(cluster: TwoNodes, ledger: str) -> None:
    write_pairs(200)
    cap_usd = 0.01
    with serve(LLMServer(latency_s=0.02)) as server:
        first = end(start(*labelling(server, "out", *on(cluster, ledger), "--max-cost", cap_usd)))
        assert first.code == 3, first.err
        stats = server.stats()
        with reading(ledger) as connection:
            (line,) = bill(connection, ())
        assert line.cost_usd is not None
        assert 0.8 * cap_usd < line.cost_usd <= cap_usd
        assert (line.calls, line.tokens_in) == (stats["answered"], stats["tokens_in"])
        assert 0 < len(list(read_rows("out/labels.jsonl"))) < 200
        last = end(start(*labelling(server, "out", *on(cluster, ledger))))
        assert last.code == 0, last.err
        assert (server.stats()["answered"], server.stats()["answered_twice"]) == (400, 0)
        assert json.loads(last.out)["calls"]["asked"] == 400 - line.calls
        end(start(*labelling(server, "local")))
    require_equal("local", "out")


def test_the_rate_is_held_over_all_workers(cluster: TwoNodes, ledger: str) -> None:
    """600 a minute is ten a second, after one second's worth at once; were it each worker's, twice as many."""
    write_pairs(40)
    came: list[float] = []

    def note() -> dict[str, str]:
        came.append(time.monotonic())
        return {}

    with serve(LLMServer(headers=note)) as server:
        ended = end(start(*labelling(server, "out", *on(cluster, ledger), "--rpm", 600)))
        assert ended.code == 0, ended.err
    assert len(came) == 80
    # seven seconds lie between the first and the last, less what the first took to get here; were the rate each
    # worker's, three would
    assert came[-1] - came[0] > 4.5


def test_an_interrupt_finishes_what_is_in_flight(cluster: TwoNodes, ledger: str) -> None:
    write_pairs(300)
    with serve(LLMServer(latency_s=0.1)) as server:
        running = start(*labelling(server, "out", *on(cluster, ledger)))
        assert server.wait_for(100), end(running).err
        running.send_signal(signal.SIGTERM)
        stopped = end(running)
        assert stopped.code == 130, stopped.err
        assert server.stats()["answered"] < 600
        again = end(start(*labelling(server, "out", *on(cluster, ledger))))
        assert again.code == 0, again.err
        assert (server.stats()["answered"], server.stats()["answered_twice"]) == (600, 0)


def test_faults_end_as_in_one_process(cluster: TwoNodes, ledger: str) -> None:
    write_pairs(50)
    with serve(LLMServer(faults=["401"])) as server:
        refused = end(start(*labelling(server, "out", *on(cluster, ledger))))
    assert refused.code == 4, refused.err
    assert "Traceback" not in refused.err
    with Path("pairs.jsonl").open("a") as file:
        file.write("{}\n")
    bad = end(start(*labelling(LLMServer(), "out", *on(cluster, ledger))))
    assert (bad.code, "pairs.jsonl:51" in bad.err) == (2, True), bad.err
    write_pairs(1)
    shared = end(start(*labelling(LLMServer(), "out", *on(cluster, "here.db"))))
    assert (shared.code, "postgresql://" in shared.err) == (2, True), shared.err


def test_a_file_that_is_too_large_to_hold_is_read_as_it_goes(cluster: TwoNodes, ledger: str) -> None:
    """From Parquet as from JSON Lines."""
    write_pairs(AT_HAND + 1000)
    parquet.write_table(json_rows.read_json("pairs.jsonl"), "pairs.parquet")
    words = ("-c", "front-desk", "--judge", "checks", "--json")
    local = end(start("label", "pairs.jsonl", *words, "--out", "local"))
    assert local.code == 0, local.err
    ended = end(start("label", "pairs.parquet", *words, "--out", "ray", *on(cluster, ledger)))
    assert ended.code == 0, ended.err
    require_equal("local", "ray")
    with Path("pairs.jsonl").open("a") as file:
        file.write("{}\n")
    bad = end(start("label", "pairs.jsonl", *words, "--out", "bad", *on(cluster, ledger)))
    assert (bad.code, f"pairs.jsonl:{AT_HAND + 1001}" in bad.err) == (2, True), bad.err


def test_replies_and_revisions_too(cluster: TwoNodes, ledger: str) -> None:
    prompts = [{"prompt": f"question {n}"} for n in range(12)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    with serve(LLMServer()) as server:
        model = ("--model", "openai/gpt-4o-mini", "--base-url", server.url)
        for out, where in (("local", ("--ledger", "local.db")), ("ray", on(cluster, ledger))):
            replies = ("respond", "prompts.jsonl", *model, "--samples", 2, "--out", f"{out}-1.jsonl", *where)
            ended = end(start(*replies))
            assert ended.code == 0, ended.err
            revised = ("revise", f"{out}-1.jsonl", *model, "-c", "style", "--out", f"{out}-2.jsonl", *where)
            ended = end(start(*revised))
            assert ended.code == 0, ended.err
    with serve(LLMServer(verdict="Score: 7")) as server:
        judge = ("--judge", "openai/gpt-4o-mini", "--base-url", server.url)
        for out, where in (("local", ("--ledger", "local.db")), ("ray", on(cluster, ledger))):
            scored = ("score", f"{out}-1.jsonl", *judge, "-c", "style", "--out", f"{out}-3.jsonl", *where)
            ended = end(start(*scored))
            assert ended.code == 0, ended.err
    for number in (1, 2, 3):
        assert Path(f"local-{number}.jsonl").read_bytes() == Path(f"ray-{number}.jsonl").read_bytes()
