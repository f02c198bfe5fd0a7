"""Work that asks models, done where it is to be done: in this process, in the providers' batches, or on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from preceptor.asking import ray_engine, stages
from preceptor.asking.stages import AskingResult, AskJob, OnProgress
from preceptor.settings import Asking


def run_job(
    job: AskJob, asking: Asking, write: Callable[[Any], None], watch: OnProgress | None = None
) -> AskingResult:
    """Ask about every row and hand the outcomes to `write`, in order. What stopped it is handed back, not raised."""
    if asking.cluster is not None:
        return ray_engine.run_on_ray(lambda: job.rows, job.open, asking, write, watch or _unseen)
    context = job.open()
    # batches walk the dialogues once a round, each time from their beginning
    return asyncio.run(
        stages.run_dialogues(
            lambda: list(map(context.dialogue, job.rows)), context.models, asking, write, watch
        )
    )


def run_job_or_raise(
    job: AskJob, asking: Asking, write: Callable[[Any], None], watch: OnProgress | None = None
) -> AskingResult:
    """`run_job` for a stage whose file is written whole or not at all: what stopped it is raised.

    What it had asked is in the ledger, so the next try asks only the rest.
    """
    asked = run_job(job, asking, write, watch)
    if asked.stopped is not None:
        raise asked.stopped
    return asked


def _unseen(_: Any) -> None:
    """Progress that nobody looks at."""
