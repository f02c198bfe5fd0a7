"""A small real HTTP server that speaks what a model hub does for an upload: make a repository, take one commit.

`repositories` holds what was uploaded, `requests` what was asked.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Repository(NamedTuple):
    """A model on the hub."""

    private: bool
    files: dict[str, bytes]


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    authorization: str


class HubServer:
    """What the hub holds and has been asked; `refuse` is a status that every request gets instead."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Asked] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON body."""
        if self.refuse:
            return self.refuse, {"error": "you may not do that here"}
        route = path.partition("?")[0].removeprefix("/api/")
        if route == "repos/create":
            return self._create(json.loads(body))
        if route == "validate-yaml":
            return 200, {"warnings": [], "errors": []}
        name = "/".join(route.split("/")[1:3])
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"error": f"no repository {name}"}
        if "/preupload/" in route:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        if "/commit/" in route:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"commitUrl": f"{self.url}/{name}/commit/0", "commitOid": "0" * 40, "hookOutput": ""}
        if method == "GET":
            return 200, {"id": name, "private": repository.private, "siblings": []}
        return 404, {"error": f"no such route {route}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.repositories[name] = Repository(private, {})
        return 200, {"url": f"{self.url}/{name}", "name": name}


@contextmanager
def serve_hub(server: HubServer) -> Iterator[HubServer]:
    """Run `server` on a free port of this machine meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self._body()
            server.requests.append(Asked(self.command, self.path, self.headers.get("Authorization", "")))
            status, value = server.answer(self.command, self.path, body)
            raw = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = _handle  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            """Keep stderr for the test."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
