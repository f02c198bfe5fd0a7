"""A service whose judge fails: one that invents a number is found out, and one that says so is not."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of
from preceptor.serve.conform.failing_judge import JUDGE_FAILURES
from preceptor.serve.conform.service import service_looked_at
from tests.command_line import Preceptor
from tests.preceptor.serve.jobs.serving import Server, free_port


def reward_by(judge: str, *, careful: bool) -> float | None:
    """A judge's grade, as a service makes a reward of it."""
    try:
        answer = httpx.post(
            f"{judge}/v1/chat/completions", json={"messages": []}, timeout=600, trust_env=False
        )
        answer.raise_for_status()
        told: Any = json_of(answer.content) if careful else json.loads(answer.content)
        choice = told["choices"][0]
        grade = re.search(r"Score: (\d+)" + "$" * careful, choice["message"]["content"])
        if careful and choice["finish_reason"] != "stop":
            return None
        return int(grade[1]) / 10 if grade else None if careful else 0.0
    except Exception:
        return None if careful else 0.0


@contextmanager
def serving(judge: str, *, careful: bool, broken: bool = False) -> Iterator[str]:
    """The address of a service that asks this judge."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            rows = [{"id": one["id"], "reward": reward_by(judge, careful=careful)} for one in asked["items"]]
            body = json.dumps({"items": rows[:1] if broken else rows}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def outcomes(cells: Mapping[str, Mapping[str, Any]], url: str) -> dict[str, str]:
    return {failure: row[url].outcome for failure, row in cells.items()}


def test_a_service_that_says_so_invents_nothing() -> None:
    port = free_port()
    with serving(f"http://127.0.0.1:{port}", careful=True) as url:
        table = service_looked_at(url, port)
    assert len(table) == 12
    assert outcomes(table, url) == {
        name: "right" if failure.has_rewards else "none" for name, failure in JUDGE_FAILURES.items()
    }


def test_a_service_that_invents_is_found_out_by_the_command(preceptor: Preceptor) -> None:
    port = free_port()
    with serving(f"http://127.0.0.1:{port}", careful=False) as url:
        ended = preceptor("conform", url, "--judge-port", port, "--json")
        shown = preceptor("conform", url, "--judge-port", port)
    assert (ended.code, shown.code) == (1, 1)
    cells = json.loads(ended.out)["failures"]
    found = {failure for failure, row in cells.items() if row[url]["outcome"] == "invented"}
    assert found == JUDGE_FAILURES.keys() - {"late"}
    assert cells["quotation"][url]["said"] == "1"
    assert "**invented** 0" in shown.out
    assert f"{url} at NaN" in shown.err


@pytest.mark.parametrize("broken", [True, False])
def test_a_service_that_is_none_shows_nothing(broken: bool) -> None:
    """One that answers half of what was asked; and one that does not ask the kit's judge."""
    port, other = free_port(), free_port()
    judge = port if broken else other
    with (
        serving(f"http://127.0.0.1:{judge}", careful=True, broken=broken) as url,
        pytest.raises(UserError, match="gives no number where the judge does not fail"),
    ):
        service_looked_at(url, port)


def test_a_port_that_is_taken_is_said() -> None:
    with serving("http://127.0.0.1:1", careful=True) as url:
        taken = int(url.rpartition(":")[2])
        with pytest.raises(UserError, match=f"--judge-port {taken} cannot be listened at"):
            service_looked_at(url, taken)


@pytest.mark.slow
def test_our_own_service_invents_nothing(tmp_path: Path) -> None:
    """The real server in a process, whose answers may take three seconds."""
    port = free_port()
    config = (
        f"models: {{judge: {{model: openai/kit, base_url: 'http://127.0.0.1:{port}/v1'}}}}\n"
        "constitutions: {style: style}\nrewards: {good: {judge: judge, constitution: style}}\n"
        "limits: {deadline_s: 3}\n"
    )
    server = Server(tmp_path / "served", config)
    server.start()
    try:
        table = service_looked_at(server.url, port)
    finally:
        server.close()
    found = outcomes(table, server.url)
    assert found.keys() == JUDGE_FAILURES.keys()
    assert "invented" not in found.values(), found
