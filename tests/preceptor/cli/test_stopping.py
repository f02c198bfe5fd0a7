"""SIGTERM stops a command wherever it was started, also where a shell has had SIGINT ignored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.prompts.rows import read_rows, write_rows
from tests.command_line import Preceptor
from tests.servers.llm import LLMServer
from tests.train.conftest import tiny  # noqa: F401 a fixture
from tests.train.tiny import preference

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
MAIN = "from preceptor.cli.app import main; main()"
BEFORE = {
    "in the foreground": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    "in the background": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
}
STARTED = pytest.mark.parametrize("how", BEFORE)


def start(how: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=BEFORE[how],
    )


def end(running: subprocess.Popen[str], *signals: signal.Signals) -> tuple[int, str]:
    for one in signals:
        running.send_signal(one)
    try:
        _, said = running.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        running.kill()
        _, said = running.communicate()
        raise AssertionError(f"it went on; it said: {said}") from None
    assert "Traceback" not in said
    return running.returncode, said


def test_a_stop_before_the_command_itself_is_told_in_words(
    preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("preceptor.preflight.check_words", stopped)
    ended = preceptor("convert", "pairs.jsonl", "--to", "rows", "--out", "out.jsonl")
    assert ended.code == 130
    assert ended.err.strip() == "interrupted; nothing is lost: run the same command again to go on"


@STARTED
def test_asking_finishes_what_is_in_flight(how: str, start_server: Callable[..., LLMServer]) -> None:
    rows = ({"prompt": f"{n}?", "response_a": f"a {n}", "response_b": f"b {n}"} for n in range(200))
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = start_server(latency_s=0.05, reach=60)
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", server.url)
    running = start(how, *words, "--out", "out")
    assert server.reached.wait(600), end(running, signal.SIGKILL)
    code, said = end(running, signal.SIGTERM)
    assert (code, "run the same command again" in said) == (130, True), said
    assert server.stats()["answered"] < 400
    code, said = end(start(how, *words, "--out", "out"))
    assert code == 0, said
    assert "in flight" not in said, "nothing was lost"
    assert (server.stats()["answered"], server.stats()["answered_twice"]) == (400, 0)
    assert len(list(read_rows("out/labels.jsonl"))) == 200


def test_the_ctrl_c_of_somebody_else_does_not_reach_the_background(
    start_server: Callable[..., LLMServer],
) -> None:
    """As the shell wants it; and SIGTERM still does."""
    rows = ({"prompt": f"{n}?", "response_a": f"a {n}", "response_b": f"b {n}"} for n in range(200))
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = start_server(latency_s=0.05, reach=40)
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", server.url)
    running = start("in the background", *words, "--out", "out")
    assert server.reached.wait(600), end(running, signal.SIGKILL)
    running.send_signal(signal.SIGINT)
    before = server.stats()["answered"]
    assert server.wait_for(before + 100)
    assert running.poll() is None
    assert end(running, signal.SIGTERM)[0] == 130


@STARTED
def test_a_training_stops_and_goes_on(how: str, tiny: Path) -> None:  # noqa: F811 the fixture
    write_rows("rows.jsonl", [preference(number) for number in range(48)])
    given = f"train dpo rows.jsonl --model {tiny} --batch-size 4 --epochs 20 --rank 4 --checkpoint-every 3 --out out"
    running = start(how, *given.split())
    metrics = Path("out/metrics.jsonl")
    while running.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 6):
        time.sleep(0.005)
    code, said = end(running, signal.SIGTERM)
    assert (code, "run the same command again" in said) == (130, True), said
    done = len(metrics.read_text().splitlines())
    assert 6 < done < 240
    again = start(how, *given.split())
    while again.poll() is None and len(metrics.read_text().splitlines()) <= done:  # past where it was stopped
        time.sleep(0.005)
    assert end(again, signal.SIGTERM)[0] == 130
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()][:done] == list(
        range(1, done + 1)
    )
