"""`preceptor serve` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[3]
MAIN = "from preceptor.cli.app import main; main()"
SCRIPT = (
    {"match": "MUMBLE", "text": "Who can say?"},
    {"match": "GOOD.*BAD", "text": "Verdict: A"},
    {"match": "BAD.*GOOD", "text": "Verdict: B"},
    {"match": "GOOD", "text": "It is good.\nScore: 9"},
    {"match": "BAD", "text": "It is bad.\nScore: 2"},
    {"match": "", "text": "It is what it is.\nScore: 5"},
)
"""A judge that knows good words from bad ones, and has nothing to say of MUMBLE."""


class Running(NamedTuple):
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    folder: Path
    client: httpx.Client

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def log(self) -> list[dict[str, Any]]:
        lines = (self.folder / "log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def write_script(folder: Path) -> Path:
    path = folder / "judge.jsonl"
    path.write_text("".join(json.dumps(rule) + "\n" for rule in SCRIPT))
    return path


@contextmanager
def running(folder: Path, config: str, *words: str) -> Iterator[Running]:
    """A server with this configuration, in this folder; its log goes to a file there."""
    (folder / "serve.yaml").write_text(config)
    command = [sys.executable, "-c", MAIN, "serve", "--port", "0", "--config", "serve.yaml", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-secret-of-the-provider"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), (folder / "log").read_text()
        with httpx.Client(base_url=url, timeout=600) as client:
            yield Running(url, process, folder, client)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(600)
        assert process.stdout is not None
        process.stdout.close()
