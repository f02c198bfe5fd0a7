"""Files and jobs over HTTP: the real server, a worker of its own, and the commands in processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import bill
from tests.preceptor.serve.jobs.conftest import Served, configuration
from tests.preceptor.serve.jobs.serving import ROOT, Server
from tests.servers.llm import LLMServer, serve

pytestmark = pytest.mark.slow
LABEL = {"kind": "label", "judge": "judge", "constitution": "style"}


def pairs(count: int, of: str = "question") -> str:
    rows = (
        {
            "prompt": f"{of} {n}",
            "response_a": f"one quality={n % 9}",
            "response_b": f"other quality={7 * n % 11}",
        }
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def by_hand(folder: Path, rows: str, provider: LLMServer, *more: str) -> dict[str, bytes]:
    """What the command writes, run by a person."""
    folder.mkdir()
    (folder / "pairs.jsonl").write_text(rows)
    words = ("label", "pairs.jsonl", "--judge=openai/gpt-4o-mini", "--constitution=style")
    words += (f"--base-url=openai/gpt-4o-mini={provider.url}", "--out=labels", *more)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}
    subprocess.run(
        [sys.executable, "-m", "preceptor", *words],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    return {path.name: path.read_bytes() for path in (folder / "labels").iterdir()}


SAME = ("labels.jsonl", "preferences.jsonl", "preferences.parquet")
"""Files that hold no time and no cost."""


def test_files_go_by_their_ids(served: Served) -> None:
    server = served.server
    name = server.upload("one\n", "../../etc/passwd", "fine-tune")
    told = server.client.get(f"/v1/files/{name}").json()
    assert (told["bytes"], told["purpose"], told["object"]) == (4, "fine-tune", "file")
    assert server.client.get(f"/v1/files/{name}/content").content == b"one\n"
    listed = server.client.get("/v1/files", params={"limit": 1, "purpose": "fine-tune"}).json()
    assert [file["id"] for file in listed["data"]] == [name]
    assert [path.name for path in (server.folder / "preceptor-serve/files").iterdir()].count(name) == 1
    assert server.client.delete(f"/v1/files/{name}").json()["deleted"] is True
    gone = server.client.get(f"/v1/files/{name}/content")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    assert not (server.folder / "preceptor-serve/files" / name).exists()
    other = server.client.post("/v1/files", files={"file": ("x", b"x")}, data={"purpose": "harm"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "invalid_purpose")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({**LABEL, "input": "../../etc/passwd"}, ["/input"]),
        ({**LABEL, "input": "FILE", "judge": "openai/gpt-4o-mini"}, ["/judge"]),
        ({**LABEL, "input": "FILE", "constitution": "/etc/passwd"}, ["/constitution"]),
        ({**LABEL, "input": "FILE", "constitution": "../house.yaml"}, ["/constitution"]),
        ({**LABEL, "input": "FILE", "settings": {"base_url": "http://x"}}, ["/settings/base_url"]),
        ({**LABEL, "input": "FILE", "settings": {"template": "/etc/passwd"}}, ["/settings/template"]),
        ({**LABEL, "input": "FILE", "settings": {"concurrency": 0}}, ["/settings/concurrency"]),
        ({**LABEL, "input": "FILE", "settings": {"format": "--x y"}}, ["/settings/format"]),
        ({"kind": "label", "input": "FILE"}, ["/judge", "/constitution"]),
        ({"kind": "sft", "input": "FILE", "model": "embedded", "max_cost_usd": 1}, ["/max_cost_usd"]),
        ({"kind": "dpo", "input": "FILE", "model": "hf/../../home"}, ["/model"]),
        ({"kind": "export", "input": "job-x", "settings": {"format": "vllm"}}, ["/input"]),
        (
            {
                **LABEL,
                "kind": "run",
                "input": "FILE",
                "model": "embedded",
                "settings": {"stages": {}, "dpo": {"adapter": "/"}, "prompts": {"held_out": "/etc/passwd"}},
            },
            ["/settings/stages", "/settings/dpo/adapter", "/settings/prompts/held_out"],
        ),
    ],
)
def test_what_a_client_names_is_looked_up_and_never_a_path(
    served: Served, body: dict[str, Any], pointers: list[str]
) -> None:
    if body["input"] == "FILE":
        body = {**body, "input": served.server.upload("{}\n")}
    refused = served.server.client.post("/v1/jobs", json=body)
    assert refused.status_code == 422, refused.text
    told = refused.json()
    assert [error["pointer"] for error in told["errors"]] == pointers
    assert told["error"]["code"] == "invalid_request"
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_job_is_the_command(served: Served, tmp_path: Path) -> None:
    """Plan first, then the work: byte for byte what a person at the command line gets."""
    server, provider = served
    asked = provider.stats()["requests"]
    body = {**LABEL, "input": server.upload(pairs(6), "mine.jsonl"), "metadata": {"for": "us"}}
    planned = server.client.post("/v1/jobs", params={"dry_run": "true"}, json=body)
    assert planned.status_code == 200, planned.text
    (line,) = planned.json()["plan"]["models"]
    assert (line["to_ask"], line["in_ledger"]) == (12, 0)
    assert line["cost_usd"] > 0
    assert provider.stats()["requests"] == asked
    key = {"Idempotency-Key": "first"}
    made = server.create(body, headers=key)
    again = server.create(body, headers=key)
    assert again["id"] == made["id"]
    other = server.client.post("/v1/jobs", json={**body, "metadata": {}}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    job = server.ended(made["id"])
    assert job["status"] == "succeeded", job
    assert job["metadata"] == {"for": "us"}
    assert job["result"]["calls"]["asked"] == 12
    results = server.results(job)
    hand = by_hand(tmp_path / "hand", pairs(6), provider)
    assert {*results} == {*hand}
    for name in SAME:
        assert results[name] == hand[name], name
    in_use = server.client.delete(f"/v1/files/{body['input']}")
    assert in_use.status_code == 200  # the job has ended
    events = server.client.get(f"/v1/jobs/{job['id']}/events").json()
    assert [events["data"][0]["message"], events["data"][-1]["message"]] == [
        "the job waits for a worker",
        "the job has succeeded",
    ]
    assert events["has_more"] is False
    first = events["data"][0]["id"]
    stream = server.client.get(
        f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": first}
    ).text
    sent = [line.removeprefix("id: ") for line in stream.splitlines() if line.startswith("id: ")]
    assert sent[:-1] == [event["id"] for event in events["data"][1:]]
    assert stream.rstrip().endswith('{"status": "succeeded"}')


def test_a_job_is_paused_resumed_and_cancelled(served: Served) -> None:
    server, provider = served
    provider.latency_s = 0.2
    before = provider.stats()
    try:
        body = {**LABEL, "input": server.upload(pairs(30, "pause")), "settings": {"concurrency": 2}}
        made = server.create(body)
        waiting = server.create({**body, "settings": {"concurrency": 3}})
        assert provider.wait_for(provider.stats()["requests"] + 4)
        assert server.client.delete(f"/v1/files/{body['input']}").status_code == 409
        server.client.post(f"/v1/jobs/{waiting['id']}/pause").raise_for_status()
        server.client.post(f"/v1/jobs/{made['id']}/pause").raise_for_status()
        assert server.ended(made["id"])["status"] == "paused"
        assert server.job(waiting["id"])["status"] == "paused"
        done = provider.stats()["answered"] - before["answered"]
        assert 0 < done < 60
        listed = server.client.get("/v1/jobs", params={"limit": 1}).json()
        assert (listed["has_more"], listed["data"][0]["id"]) == (True, waiting["id"])
        rest = server.client.get("/v1/jobs", params={"after": waiting["id"], "limit": 1}).json()
        assert rest["data"][0]["id"] == made["id"]
        server.client.post(f"/v1/jobs/{made['id']}/resume").raise_for_status()
        assert provider.wait_for(provider.stats()["requests"] + 2)
        server.client.post(f"/v1/jobs/{made['id']}/cancel").raise_for_status()
        assert server.ended(made["id"])["status"] == "cancelled"
        assert server.client.post(f"/v1/jobs/{made['id']}/cancel").json()["status"] == "cancelled"
        assert server.client.post(f"/v1/jobs/{waiting['id']}/cancel").json()["status"] == "cancelled"
        refused = server.client.post(f"/v1/jobs/{made['id']}/resume")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "wrong_status")
        assert provider.stats()["answered_twice"] == before["answered_twice"]
    finally:
        provider.latency_s = 0.0


def test_a_job_that_cannot_be_done_says_why(served: Served) -> None:
    server = served.server
    body = {**LABEL, "input": server.upload('{"prompt": "x"}\n')}
    refused = server.client.post("/v1/jobs", params={"dry_run": "true"}, json=body)
    assert refused.status_code == 422
    assert "no layout of pairs that is known" in refused.json()["error"]["message"]
    job = server.ended(server.create(body)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
    assert "no layout of pairs that is known" in job["error"]["message"]


def test_a_job_stops_at_its_budget_and_keeps_what_is_done(served: Served) -> None:
    server, provider = served
    before = provider.stats()["answered"]
    cap = 0.0008
    body = {
        **LABEL,
        "input": server.upload(pairs(20, "cap")),
        "max_cost_usd": cap,
        "settings": {"concurrency": 1},
    }
    job = server.ended(server.create(body)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "budget_exceeded")
    answered = provider.stats()["answered"] - before
    assert 0 < answered < 40
    with reading(str(server.folder / "preceptor.db")) as connection:
        line = next(line for line in bill(connection, ("run",)) if line.of["run"] == job["id"])
    assert (line.calls, line.cost_usd <= cap) == (answered, True)
    assert "labels.jsonl" in server.results(job)


def test_the_result_of_a_job_is_the_next_one_s_input(served: Served) -> None:
    """Replies, revised, graded; and an audit, whose figures are its result."""
    server = served.server
    judging = {"judge": "judge", "constitution": "style"}
    prompts = server.upload("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(2)))
    replies = server.create(
        {"kind": "respond", "input": prompts, "model": "judge", "settings": {"samples": 2}}
    )
    gold = "".join(json.dumps({**json.loads(row), "preferred": "a"}) + "\n" for row in pairs(2).splitlines())
    audit = server.create({"kind": "audit", "input": server.upload(gold), **judging})
    (responses,) = server.ended(replies["id"])["result_files"]
    assert responses["filename"] == "responses.jsonl"
    revise = {"kind": "revise", "model": "judge", "constitution": "style", "settings": {"rounds": 1}}
    revised = server.create({**revise, "input": responses["id"]})
    scored = server.create({"kind": "score", "input": responses["id"], **judging})
    figures = server.ended(audit["id"])
    assert figures["result"]["n"] == 2
    (printed,) = server.results(figures).values()
    assert json.loads(printed) == figures["result"]
    ended = server.ended(revised["id"])
    assert ended["status"] == "succeeded", ended["error"]
    assert len(server.results(ended)["revisions.jsonl"].splitlines()) == 4
    ended = server.ended(
        scored["id"]
    )  # the provider of the tests gives verdicts and no grades: no number is made up
    assert (ended["status"], ended["error"]["code"]) == ("failed", "provider_stopped")
    assert "no row is usable" in ended["error"]["message"]


def worker_of(server: Server) -> int:
    """The process number of the worker that has a job; 0: none has."""
    with reading(str(server.folder / "preceptor.db")) as connection:
        found = connection.exec_driver_sql("SELECT worker FROM service_jobs WHERE worker IS NOT NULL").first()
    return int(found[0].split(":")[1]) if found else 0


def test_killed_servers_and_workers_lose_nothing(tmp_path: Path) -> None:
    """The job goes on where it was; every call is asked once, and the bill is the provider's own count."""
    count = 40
    with serve(LLMServer()) as plain:
        hand = by_hand(tmp_path / "hand", pairs(count), plain)
        port = int(plain.root.rpartition(":")[2])
    with serve(LLMServer(latency_s=0.1), port) as provider:
        server = Server(tmp_path / "served", configuration(provider))
        server.start()
        body = {**LABEL, "input": server.upload(pairs(count)), "settings": {"concurrency": 3}}
        made = server.create(body)
        for point, all_of_it in ((10, False), (35, True)):
            assert provider.wait_for(point), server.log.read_text()
            os.kill(worker_of(server), signal.SIGKILL)
            if all_of_it:
                server.stop(signal.SIGKILL)
                server.start()
        job = server.ended(made["id"])
        assert job["status"] == "succeeded", job
        results = server.results(job)
        server.close()
        stats = provider.stats()
    for name in SAME:
        assert results[name] == hand[name], name
    assert (stats["answered"], stats["answered_twice"]) == (2 * count, 0)
    with reading(str(server.folder / "preceptor.db")) as connection:
        (line,) = bill(connection, ())
    assert (line.calls, line.lost) == (2 * count, 0)
    assert (line.tokens_in, line.tokens_out) == (stats["tokens_in"], stats["tokens_out"])
