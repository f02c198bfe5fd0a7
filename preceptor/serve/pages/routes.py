"""What of pages has routes, and what they need while the server runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from preceptor.serve.config import ServeConfig
from preceptor.serve.pages import (
    blind_check,
    editor,
    entry,
    job_pages,
    judge_pages,
    key_pages,
    pairs,
    playground,
    run_pages,
    workbench_pages,
)
from preceptor.serve.pages.label_index import LabelIndexes
from preceptor.serve.pages.opinion_store import OpinionStore

ROUTERS = tuple(
    room.router
    for room in (
        *(entry, pairs, blind_check, editor, playground),
        *(workbench_pages, job_pages, run_pages, judge_pages, key_pages),
    )
)


@asynccontextmanager
async def reading_rooms(app: FastAPI, config: ServeConfig) -> AsyncIterator[None]:
    """Have `app.state` hold the indexes of labels and what people say of them. Raises LedgerError."""
    app.state.indexes = LabelIndexes(Path(config.folder, "indexes"))
    app.state.opinions = OpinionStore(config.database)
    try:
        yield
    finally:
        app.state.indexes.close()
        app.state.opinions.close()
