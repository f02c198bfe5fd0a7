"""Servers whose pages are looked at: one that is open on loopback, with the corpus in every field; one with keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from preceptor.constitution.files import load
from preceptor.serve.jobs.store import JobStore, Work
from preceptor.serve.keys import Keyring
from preceptor.serve.pages.session import COOKIE
from preceptor.serve.versions import Versions
from tests.preceptor.serve.pages.corpus import evil, hostile_drift, hostile_label, hostile_run
from tests.preceptor.serve.running import Running, running, write_script

CONFIG = """
models: {{script: {{model: scripted/{script}}}}}
constitutions: {{own: own.yaml, other: style}}
rewards: {{good: {{judge: script, constitution: own}}}}
labels: {{first: {{path: labels.jsonl, ledger: here.db, constitution: own}}, evil: {{path: evil.jsonl}}}}
runs: {{taught: run}}
drift: {{watched: {{labels: drifted, every: 10000}}}}
database: sqlite:///here.db
"""
OWN = """# ours
name: front-desk
principles:
  - id: short
    text: Choose the reply that is shorter.
  - id: polite
    text: Choose the reply that is politer.
"""
ITEMS = [
    {
        "id": f"lift-{number}",
        "prompt": f"When does the lift run again on floor {number}?",
        "response_a": "GOOD: at nine, take the stairs." if number % 3 else "BAD: who knows.",
        "response_b": "BAD: who knows." if number % 3 else "GOOD: at nine, take the stairs.",
        "tags": ["lift"] if number % 2 else ["lift", "odd"],
    }
    for number in range(60)
]


class Site(NamedTuple):
    """A server, and a browser without JavaScript that has signed in."""

    server: Running
    browser: httpx.Client
    job: str
    """A job that has failed with the corpus."""

    def get(self, path: str) -> httpx.Response:
        return self.browser.get(path)

    def send(self, path: str, fields: dict[str, Any]) -> httpx.Response:
        return self.browser.post(path, data=fields, headers={"origin": self.server.url})


def _browser(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=600, follow_redirects=True, headers={"accept": "text/html,*/*"})


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """On loopback, without keys."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "own.yaml").write_text(OWN)
    (folder / "labels.jsonl").touch()
    own = load(str(folder / "own.yaml"))
    (folder / "evil.jsonl").write_text(f"no label\n{hostile_label(own.identity).line()}\n")
    hostile_run(folder / "run")
    hostile_drift(folder / "drifted")
    database = f"sqlite:///{folder / 'here.db'}"
    job = _fill(database, folder)
    config = CONFIG.format(script=write_script(folder).name)
    with running(folder, config) as server, _browser(server.url) as browser:
        asked = {"items": ITEMS, "constitution": "own", "settings": {"orders": "both", "principles": "each"}}
        made = server.post("/v1/judge", asked)
        made.raise_for_status()
        rows = (
            made.text.removeprefix('{"items":[').removesuffix("]}").replace('},{"id":"lift', '}\n{"id":"lift')
        )
        (folder / "labels.jsonl").write_text(f"{rows}\n")
        found = Site(server, browser, job)
        assert found.send("/sign-in", {"name": evil("person")[:60]}).status_code == 200
        yield found


def _fill(database: str, folder: Path) -> str:
    """What a client could have left in the database."""
    store = JobStore(database, folder / "preceptor-serve")
    store.add_file("", "user_data", evil("filename")[:255], iter([b"x"]))
    request = {"kind": "label", "metadata": {evil("metadata"): evil("metadata")}}
    work = Work(("label",), {}, {}, "labels")
    job = store.add_job("", "job", "label", request, work, "job-evil", evil("job-problem"))
    store.tell(job.id, evil("event"), data={"step": 1, "loss": 1.0})
    store.tell(job.id, evil("event"), data={"step": 2, "loss": 0.5})
    store.add_job("", "job", "score", {"kind": "score"}, work, "job-again")
    again = store.claim("somebody")
    assert again is not None
    calls = {"asked": 2, "from_ledger": 6, "failed": 0, "cost_usd": 0.01}
    store.finish(again, "somebody", 0, None, {"calls": calls}, {})
    store.close()
    versions = Versions(database, folder / "preceptor-serve" / "constitutions")
    text = f"# in-comment {evil('yaml').encode('ascii', 'ignore').decode().translate(_PLAIN)}\n{OWN}"
    versions.add("saved", None, text, evil("key"), evil("version-reason"))
    versions.close()
    return job.id


_PLAIN = dict.fromkeys(range(32))
"""YAML takes no control characters."""


class Keyed(NamedTuple):
    """A server with keys, and their words."""

    server: Running
    admin: str
    reader: str
    weak: str

    @contextmanager
    def browser(self, key: str, name: str = "") -> Iterator[httpx.Client]:
        """One that has signed in."""
        with _browser(self.server.url) as made:
            made.post("/sign-in", data={"key": key, "name": name}, headers={"origin": self.server.url})
            assert COOKIE in made.cookies
            yield made


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys of several kinds."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "own.yaml").write_text(OWN)
    own = load(str(folder / "own.yaml"))
    (folder / "labels.jsonl").write_text(f"{hostile_label(own.identity).line()}\n")
    (folder / "evil.jsonl").write_text("")
    (folder / "run").mkdir()
    hostile_drift(folder / "drifted")
    database = f"sqlite:///{folder / 'here.db'}"
    ring = Keyring(database)
    shown = [
        ring.create(evil("admin-key"), ["admin"])[1],
        ring.create("reader", ["jobs:read"])[1],
        ring.create("weak", ["reward"])[1],
    ]
    ring.close()
    with running(folder, CONFIG.format(script=write_script(folder).name)) as server:
        yield Keyed(server, *shown)
