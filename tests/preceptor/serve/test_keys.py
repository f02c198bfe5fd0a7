"""Whoever reaches the server from elsewhere needs a key, which may do what it was made for and no more."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import LedgerError
from preceptor.serve.auth import Doorkeeper
from preceptor.serve.keys import SCOPES, Keyring
from preceptor.serve.problems import Problem
from preceptor.serve.running import is_loopback
from tests.command_line import Preceptor
from tests.preceptor.serve.running import Running, running, write_script
from tests.servers.llm import LLMServer, serve

CONFIG = """
models:
  script: {{model: scripted/{script}}}
  paid: {{model: openai/gpt-4o-mini, base_url: "{url}", price: {{input: 1000, output: 1000}}}}
constitutions: {{main: helpful-harmless}}
rewards: {{good: {{judge: script, constitution: main}}, dear: {{judge: paid, constitution: main}}}}
doors: {{slime: [good, dear]}}
database: sqlite:///{database}
"""
OLDER = """CREATE TABLE IF NOT EXISTS service_keys (
    id VARCHAR(16) NOT NULL PRIMARY KEY, name TEXT NOT NULL, sha256 VARCHAR(64) NOT NULL, scopes TEXT NOT NULL,
    created_at FLOAT NOT NULL, expires_at FLOAT, revoked_at FLOAT, budget_usd FLOAT, spent_usd FLOAT NOT NULL,
    per_minute INTEGER)"""
"""How the table was made before."""
ITEM = {"prompt": "What is your name?", "response": "GOOD"}
PAIR = {"prompt": "p", "response_a": "one quality=1", "response_b": "other quality=2"}


class Guarded(NamedTuple):
    server: Running
    config: Path
    keys: dict[str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that anyone reaches, with keys of several kinds."""
    folder = tmp_path_factory.mktemp("guarded")
    database = folder / "keys.db"
    ring = Keyring(f"sqlite:///{database}")
    made = {
        "reward": ring.create("trainer", ["reward"])[1],
        "judge": ring.create("judge", ["judge"])[1],
        "admin": ring.create("me", ["admin"])[1],
        "poor": ring.create("poor", ["judge", "reward"], budget_usd=0.0001)[1],
        "rich": ring.create("rich", ["judge", "reward"], budget_usd=1000)[1],
        "slow": ring.create("slow", ["reward"], per_minute=1)[1],
        "old": ring.create("old", ["reward"], expires_at=time.time() - 1)[1],
    }
    ring.close()
    with serve(LLMServer()) as provider:
        config = CONFIG.format(script=write_script(folder), url=provider.url, database=database)
        with running(folder, config, "--host", "0.0.0.0") as server:
            client = httpx.Client(base_url=server.url.replace("0.0.0.0", "127.0.0.1"), timeout=600)
            yield Guarded(server._replace(client=client), folder / "serve.yaml", made)
            client.close()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def ask(guarded: Guarded, key: str, path: str = "/v1/reward", **body: Any) -> httpx.Response:
    given = body or {"items": [ITEM], "reward": "good"}
    return guarded.server.post(path, given, headers=bearer(guarded.keys.get(key, key)))


def test_without_keys_only_loopback_is_served(
    preceptor: Preceptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = preceptor("serve", "--host", "0.0.0.0", "--port", "0")
    assert ended.code == 2
    assert "preceptor keys create" in ended.err
    assert is_loopback("127.0.0.9")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("example.org")


def test_a_key_is_wanted_and_its_scope(guarded: Guarded) -> None:
    assert guarded.server.post("/v1/reward", {"items": [ITEM]}).status_code == 401
    assert ask(guarded, "pcp_0000_nothing").status_code == 401
    assert ask(guarded, "old").status_code == 401
    assert ask(guarded, "reward").status_code == 200
    assert ask(guarded, "admin").status_code == 200
    lacking = ask(guarded, "judge")
    assert (lacking.status_code, lacking.json()["error"]["code"]) == (403, "missing_scope")
    assert ask(guarded, "reward", "/v1/judge", items=[PAIR], judge="paid").status_code == 403
    assert guarded.server.client.get("/metrics").status_code == 401
    assert guarded.server.client.get("/healthz").status_code == 200


def test_basic_takes_the_key_as_password(guarded: Guarded) -> None:
    for name, status in (("reward", 200), ("old", 401)):
        coded = base64.b64encode(f"anyone:{guarded.keys[name]}".encode()).decode()
        answer = guarded.server.post(
            "/v1/reward", {"items": [ITEM], "reward": "good"}, headers={"authorization": f"Basic {coded}"}
        )
        assert answer.status_code == status


def test_a_keys_budget_holds_and_is_written_down(guarded: Guarded) -> None:
    poor = ask(guarded, "poor", "/v1/judge", items=[PAIR], judge="paid")
    assert (poor.status_code, poor.json()["error"]["code"]) == (402, "budget_exceeded")
    # another's empty budget is not this one's
    assert ask(guarded, "rich", "/v1/judge", items=[PAIR], judge="paid").status_code == 200
    bill = guarded.server.client.get("/v1/bill", headers=bearer(guarded.keys["admin"])).json()
    ring = Keyring(f"sqlite:///{guarded.config.parent / 'keys.db'}")
    until = time.monotonic() + 30
    while (spent := _spent(ring, "rich")) < bill["cost_usd"] * 0.999 and time.monotonic() < until:
        time.sleep(0.01)
    assert spent == pytest.approx(bill["cost_usd"])
    assert _spent(ring, "poor") == 0
    ring.close()
    # what is answered already costs nothing, and so needs no budget
    assert ask(guarded, "poor", "/v1/judge", items=[PAIR], judge="paid").status_code == 200


def test_a_door_says_503_where_a_trainer_would_give_up(guarded: Guarded) -> None:
    body = {"prompt": "What is your name?", "response": "something dear"}
    assert ask(guarded, "poor", "/doors/slime/dear", **body).status_code == 503
    assert ask(guarded, "slow").status_code == 200
    limited = ask(guarded, "slow")
    assert (limited.status_code, int(limited.headers["retry-after"]) > 0) == (429, True)
    assert ask(guarded, "slow", "/doors/slime/good", prompt="p", response="GOOD").status_code == 503


def test_keys_are_shown_once_and_kept_as_hashes(guarded: Guarded, preceptor: Preceptor) -> None:
    made = preceptor(
        "keys", "create", "new one", "--scope", "reward", "--days", "2", "--config", guarded.config, "--json"
    )
    assert made.code == 0, made.err
    key = json.loads(made.out)
    listed = preceptor("keys", "list", "--config", guarded.config, "--json")
    secret = key["key"].rpartition(f"{key['id']}_")[2]
    assert secret not in listed.out
    assert any(one["id"] == key["id"] and one["name"] == "new one" for one in json.loads(listed.out)["keys"])
    with sqlite3.connect(guarded.config.parent / "keys.db") as database:
        dump = "\n".join(database.iterdump())
    assert secret not in dump
    assert ask(guarded, key["key"]).status_code in (200, 401)  # known after a second at the latest
    assert preceptor("keys", "revoke", key["id"], "--config", guarded.config).code == 0
    assert preceptor("keys", "revoke", key["id"], "--config", guarded.config).code == 2
    until = time.monotonic() + 30
    while ask(guarded, key["key"]).status_code == 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert ask(guarded, key["key"]).status_code == 401
    text = (guarded.server.folder / "log").read_text()
    assert not any(key.split("_", 2)[2] in text for key in guarded.keys.values())


def test_scopes_are_those_that_there_are(tmp_path: Path) -> None:
    ring = Keyring(f"sqlite:///{tmp_path / 'keys.db'}")
    with pytest.raises(UserError, match="no scope of a key"):
        ring.create("x", ["everything"])
    keeper = Doorkeeper(ring, open_without_keys=True)
    assert keeper.caller(None).scopes == frozenset(SCOPES)
    key, _ = ring.create("x", ["reward"])
    with pytest.raises(Problem):
        keeper.caller(None)
    ring.revoke(key.id)
    with pytest.raises(Problem):  # a key that is revoked opens nothing
        keeper.caller(None)
    ring.close()


def test_a_database_that_fails_is_told_and_nothing_of_the_keys_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    ring = Keyring(f"sqlite:///{path}")
    key, shown = ring.create("x", ["reward"])
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE service_keys RENAME TO away")
    for fails in (
        ring.all,
        lambda: ring.create("y", ["reward"]),
        lambda: ring.revoke(key.id),
        lambda: ring.spend(key.id, 1.0),
        lambda: ring.spent_elsewhere(key.id),
    ):
        with pytest.raises(LedgerError, match="cannot be used"):
            fails()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE away RENAME TO service_keys")
    assert ring.found(shown) == key
    assert ring.spent_elsewhere(key.id) == 0
    ring.close()


def test_a_table_of_an_older_version_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    Keyring(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE service_keys")
        connection.execute(OLDER)
    ring = Keyring(f"sqlite:///{path}")
    key, shown = ring.create("x", ["judge", "reward"], budget_usd=2.0)
    ring.spend(key.id, 0.5)
    assert ring.all() == {key.id: key._replace(spent_usd=0.5)}
    assert ring.found(shown) is not None
    ring.close()


def _spent(ring: Keyring, name: str) -> float:
    return next(key.spent_usd for key in ring.all().values() if key.name == name)
