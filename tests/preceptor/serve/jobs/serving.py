"""The real server as a process, for tests of what it does with jobs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[4]
PATIENCE_S = 900.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server in a folder, which can be killed and started again."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serve.yaml").write_text(config, encoding="utf-8")
        self.client = httpx.Client(base_url=self.url, timeout=600)
        self.log = folder / "server.log"
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none", "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "preceptor", "serve", "--config=serve.yaml", f"--port={self.port}"],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.wait(self._answers)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.running is not None
        self.running.send_signal(how)
        self.running.wait(PATIENCE_S)

    def close(self) -> None:
        """Stop it, and let go of its connections."""
        self.client.close()
        self.stop()

    def wait(self, ready: Callable[[], Any]) -> Any:
        """What `ready` says as soon as it is true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if found := ready():
                return found
            if self.running is not None and self.running.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"it did not come to that; the server said: {self.log.read_text()[-3000:]}")

    def upload(self, text: str, name: str = "rows.jsonl", purpose: str = "user_data") -> str:
        sent = self.client.post("/v1/files", files={"file": (name, text.encode())}, data={"purpose": purpose})
        assert sent.status_code == 200, sent.text
        return str(sent.json()["id"])

    def create(self, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        sent = self.client.post("/v1/jobs", json=body, **more)
        assert sent.status_code == 202, sent.text
        made: dict[str, Any] = sent.json()
        assert sent.headers["location"] == f"/v1/jobs/{made['id']}"
        return made

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/jobs/{name}").json()
        return found

    def ended(self, name: str) -> dict[str, Any]:
        """The job once it is at its end."""
        last = ("succeeded", "failed", "cancelled", "paused")
        made: dict[str, Any] = self.wait(lambda: (job := self.job(name))["status"] in last and job)
        return made

    def results(self, job: dict[str, Any]) -> dict[str, bytes]:
        return {
            file["filename"]: self.client.get(f"/v1/files/{file['id']}/content").content
            for file in job["result_files"]
        }

    def _answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False
