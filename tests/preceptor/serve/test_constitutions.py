"""Constitutions over HTTP: changed by who knows what they change, with versions, differences and a price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from preceptor.constitution.files import load, load_text, shipped_text
from preceptor.serve.keys import Keyring
from preceptor.serve.versions import OtherSavedError, Versions
from tests.preceptor.serve.running import Running, running
from tests.servers.llm import LLMServer, serve

CONFIG = """
models: {{paid: {{model: openai/gpt-4o-mini, base_url: "{url}"}}}}
constitutions: {{main: helpful-harmless, own: own.yaml, other: style}}
rewards: {{good: {{judge: paid, constitution: own}}}}
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
CHANGED = OWN.replace("shorter", "shorter by far")
PAIR = {"prompt": "p", "response_a": "one quality=1", "response_b": "other quality=2"}


class Opened(NamedTuple):
    """A server, its provider, and a client for each of two keys."""

    server: Running
    provider: LLMServer
    admin: httpx.Client
    judge: httpx.Client
    admin_key: str


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("constitutions")
    (folder / "own.yaml").write_text(OWN)
    ring = Keyring(f"sqlite:///{folder / 'here.db'}")
    (admin, shown), (_, judge) = ring.create("me", ["admin"]), ring.create("judge", ["judge"])
    ring.close()
    with serve(LLMServer()) as provider, running(folder, CONFIG.format(url=provider.url)) as server:
        clients = [
            httpx.Client(base_url=server.url, timeout=600, headers={"authorization": f"Bearer {key}"})
            for key in (shown, judge)
        ]
        yield Opened(server, provider, *clients, admin.id)
        for client in clients:
            client.close()


def got(opened: Opened, name: str) -> tuple[dict[str, Any], str]:
    answer = opened.judge.get(f"/v1/constitutions/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers["etag"]


def put(opened: Opened, name: str, text: str, **headers: str) -> httpx.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return opened.admin.put(f"/v1/constitutions/{name}?reason=why", content=text, headers=named)


def test_what_there_is_is_shown_as_json_and_as_yaml(opened: Opened) -> None:
    listed = opened.judge.get("/v1/constitutions").json()["data"]
    assert {row["id"]: row["identity"] for row in listed}["main"] == load("helpful-harmless").identity
    told, etag = got(opened, "main")
    assert (told["text"], told["etag"]) == (shipped_text("helpful-harmless"), etag)
    assert told["constitution"]["name"] == "helpful-harmless"
    yaml = opened.judge.get("/v1/constitutions/main", headers={"accept": "application/yaml"})
    assert (yaml.text, yaml.headers["etag"]) == (told["text"], etag)
    assert opened.judge.get("/v1/constitutions/nobody").status_code == 404
    assert opened.server.client.get("/v1/constitutions").status_code == 401


def test_a_change_says_what_it_was_made_of(opened: Opened) -> None:
    told, etag = got(opened, "other")
    assert put(opened, "other", OWN).status_code == 428
    assert put(opened, "other", OWN, if_match='"another"').status_code == 412
    assert put(opened, "other", OWN, if_none_match="*").status_code == 412
    assert put(opened, "nobody", OWN, if_match="*").status_code == 412
    assert opened.judge.put("/v1/constitutions/other", content=OWN).status_code == 403
    assert got(opened, "other") == (told, etag)
    saved = put(opened, "other", OWN, if_match=etag)
    assert (saved.status_code, saved.json()["version"]) == (200, 2)
    assert put(opened, "other", CHANGED, if_match=etag).status_code == 412  # made of what is no more
    again = put(opened, "other", CHANGED, if_match=saved.headers["etag"])
    assert again.json()["version"] == 3
    assert got(opened, "other")[0]["text"] == CHANGED


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (OWN.replace("  - id: polite", "  - id: short"), 6, "a second time"),
        (OWN.replace("text: Choose the reply that is politer", "txt: Choose"), 6, "without 'text'"),
        ("extends: [style, ../own.yaml]\n" + OWN, 1, "'../own.yaml'"),
        ("extends: [own.yaml]\n" + OWN, 1, "'own.yaml'"),
        ("name: [", 1, "broken YAML"),
        ("\0", 0, "broken YAML"),
    ],
)
def test_faults_come_with_their_lines(opened: Opened, text: str, line: int, said: str) -> None:
    before = got(opened, "main")
    answer = put(opened, "main", text, if_match=before[1])
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_constitution")
    faults = answer.json()["errors"]
    assert any(fault["line"] == line and said in fault["detail"] for fault in faults), faults
    assert got(opened, "main") == before


def test_every_version_is_kept_and_what_differs(opened: Opened) -> None:
    made = put(opened, "fresh", OWN, if_none_match="*")
    assert made.status_code == 200, made.text
    assert put(opened, "not a name", OWN, if_none_match="*").status_code == 422
    assert put(opened, "fresh", CHANGED, if_match=made.headers["etag"]).status_code == 200
    kept = opened.judge.get("/v1/constitutions/fresh/versions").json()["data"]
    assert [(row["version"], row["key"], row["reason"]) for row in kept] == [
        (2, opened.admin_key, "why"),
        (1, opened.admin_key, "why"),
    ]
    first = opened.judge.get("/v1/constitutions/fresh/versions/1").json()
    assert first["text"] == OWN
    told = opened.judge.get("/v1/constitutions/fresh/diff?from=1&to=2").json()
    (change,) = told["changes"]
    assert (change["principle"], change["kind"], change["asks_again"]) == ("short", "changed", True)
    assert opened.judge.get("/v1/constitutions/fresh/diff").json() == told
    turned = opened.judge.get("/v1/constitutions/fresh/diff?from=2&to=1").json()
    assert (turned["old"], turned["new"]) == (told["new"], told["old"])
    assert opened.judge.get("/v1/constitutions/fresh/diff?from=1&to=7").status_code == 404


def test_what_is_saved_holds_and_was_priced_before(opened: Opened) -> None:
    """For requests, for jobs, after a reload, and its price is what the change then costs."""
    file = opened.admin.post(
        "/v1/files",
        files={"file": ("rows.jsonl", json.dumps(PAIR).encode())},
        data={"purpose": "user_data"},
    ).json()
    job = opened.admin.post(
        "/v1/jobs", json={"kind": "label", "input": file["id"], "judge": "paid", "constitution": "own"}
    ).json()
    while job["status"] not in ("succeeded", "failed"):
        job = opened.admin.get(f"/v1/jobs/{job['id']}").json()
    assert job["status"] == "succeeded", job
    before, etag = got(opened, "own")
    assert before["text"] == OWN
    same = opened.admin.post("/v1/constitutions/own/price", content=OWN).json()
    assert (same["calls"], same["cost_usd"], same["changes"]) == (0, 0, [])
    url = f"/v1/constitutions/own/price?job={job['id']}"
    price = opened.admin.post(url, content=CHANGED).json()
    assert price["jobs"][0]["job"] == job["id"]
    assert (price["labels"], price["calls"]) == (1, 2)
    assert price["cost_usd"] > 0
    assert got(opened, "own") == (before, etag)  # asking the price changes nothing
    assert opened.admin.post("/v1/constitutions/own/price?job=job-0", content=OWN).status_code == 404
    asked = opened.provider.stats()["answered"]
    assert put(opened, "own", CHANGED, if_match=etag).status_code == 200
    body = {"items": [PAIR], "judge": "paid", "constitution": "own"}
    label = opened.admin.post("/v1/judge", json=body).json()["items"][0]
    assert label["constitution"] == load_text(CHANGED, Path("own.yaml")).identity
    assert opened.provider.stats()["answered"] - asked == price["calls"]
    plan = opened.admin.post(
        "/v1/jobs?dry_run=true",
        json={"kind": "label", "input": file["id"], "judge": "paid", "constitution": "own"},
    ).json()
    assert [line["to_ask"] for line in plan["plan"]["models"]] == [0]  # the job asks what was just asked


def test_of_two_servers_the_slower_is_told(tmp_path: Path) -> None:
    here, there = (Versions(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / name) for name in ("a", "b"))
    assert here.add("main", OWN, CHANGED, "k", "why").number == 2
    with pytest.raises(OtherSavedError):
        there.add("main", OWN, OWN + "#\n", "k", "why")
    with pytest.raises(OtherSavedError):
        there.add("main", None, OWN, "k", "why")
    assert Path(there.sources()["main"]).read_text() == CHANGED
    assert [version.number for version in there.of("main")] == [2, 1]
    here.close()
    there.close()
