"""`preceptor work` over PostgreSQL: workers that share the jobs out between them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.serve.jobs.store import JobStore, Work
from tests.preceptor.serve.jobs.serving import ROOT
from tests.preceptor.serve.jobs.test_jobs import pairs
from tests.servers.llm import LLMServer, serve


@pytest.mark.slow
def test_workers_share_jobs_out_between_them(postgres_place: str, tmp_path: Path) -> None:
    store = JobStore(postgres_place, tmp_path / "data")
    with serve(LLMServer()) as provider:
        made = []
        for number in range(2):
            file = store.add_file("", "user_data", "x", iter([pairs(3, f"job {number}").encode()]))
            words = ("label", "pairs.jsonl", "--judge=openai/gpt-4o-mini", "--constitution=style")
            words += (f"--base-url={provider.url}", "--out=labels")
            with store.creation("", None, {}) as creation:
                work = Work(words, {"pairs.jsonl": file.id}, {}, "labels")
                made.append(creation.make("job", "label", {}, work, "job-"))
        start = (sys.executable, "-m", "preceptor", "work", "--until-idle")
        workers = [
            subprocess.Popen(
                [*start, f"--database={postgres_place}", f"--data={tmp_path / 'data'}"],
                env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        told = [worker.communicate(timeout=600)[1] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], told
        taken = [int(re.search(r"(\d+) jobs taken", one)[1]) for one in told]  # type: ignore[index]
        stats = provider.stats()
    assert sum(taken) == 2
    assert (stats["answered"], stats["answered_twice"]) == (12, 0)
    for job in made:
        found = store.job(job.id)
        assert found is not None
        assert found.status == "succeeded", store.events(job.id)
        assert "labels.jsonl" in [file.filename for file in store.files("", job.id)]
    store.close()
