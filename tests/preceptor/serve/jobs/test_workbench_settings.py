"""Jobs of the workbench over the real server: what a job finds is what the command finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.preceptor.serve.jobs.conftest import Served
from tests.preceptor.serve.jobs.test_jobs import pairs

pytestmark = pytest.mark.slow


def test_a_job_of_the_workbench_is_the_command(served: Served, tmp_path: Path, preceptor: Preceptor) -> None:
    server = served.server
    rows, prompts = pairs(8, "bench"), "".join(json.dumps({"prompt": f"bench {n}"}) + "\n" for n in range(8))
    each = {"principles": "each", "tie": True}
    body = {"judge": "judge", "constitution": "front-desk"}
    labelled = server.ended(
        server.create({"kind": "label", "input": server.upload(rows), "settings": each, **body})["id"]
    )
    assert labelled["status"] == "succeeded", labelled
    files = server.results(labelled)
    (tmp_path / "labels").mkdir()
    for name, content in files.items():
        (tmp_path / "labels" / name).write_bytes(content)
    said = [json.loads(line) for line in files["labels.jsonl"].decode().splitlines()]
    told = [{"id": row["id"], "correction": "a" if n % 2 else "b"} for n, row in enumerate(said)]
    overrides = server.upload("".join(json.dumps(row) + "\n" for row in told))
    labels = {"labels": labelled["id"]}
    asked = (
        {"kind": "coverage", "input": server.upload(prompts), "constitution": "front-desk", **labels},
        {"kind": "replay", "settings": {"without": ["concise"]}, **labels},
        {"kind": "amend", "overrides": overrides, "model": "judge", "judge": "judge", **labels},
    )
    unplanned = server.client.post("/v1/jobs", params={"dry_run": "true"}, json=asked[0])
    assert (unplanned.status_code, unplanned.json()["error"]["code"]) == (422, "no_plan")
    covered, replayed, amended = [server.ended(server.create(one)["id"]) for one in asked]
    assert (covered["error"], replayed["error"], amended["error"]) == (None, None, None)
    (tmp_path / "prompts.jsonl").write_text(prompts)
    by_hand = preceptor(
        *("prompts", "coverage", tmp_path / "prompts.jsonl", "-c", "front-desk", "--json"),
        *("--labels", tmp_path / "labels"),
    )
    assert json.loads(by_hand.out) == covered["result"]
    by_hand = preceptor(
        *("constitution", "replay", tmp_path / "labels", "--without", "concise", "--json"),
        *("--out", tmp_path / "out"),
    )
    assert {**json.loads(by_hand.out), "out": "labels"} == replayed["result"]
    assert server.results(replayed)["labels.jsonl"] == (tmp_path / "out" / "labels.jsonl").read_bytes()
    assert amended["result"]["learn"] + amended["result"]["held_out"] == 8
    assert amended["result"]["from_ledger"] > 0  # the judge's answers are those of the labels
