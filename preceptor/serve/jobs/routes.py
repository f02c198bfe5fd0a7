"""What of jobs has routes, and what they need while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from preceptor.serve.config import ServeConfig
from preceptor.serve.jobs import batches, chat, drift, native, tuning
from preceptor.serve.jobs.crew import Crew

ROUTERS = (native.router, tuning.router, chat.router, batches.router)


@asynccontextmanager
async def working(app: FastAPI, config: ServeConfig) -> AsyncIterator[None]:
    """Have `app.state` hold the jobs and the models of chat while the server runs. Raises LedgerError."""
    app.state.crew = Crew(config)
    app.state.house = chat.ModelHouse()
    try:
        async with app.state.crew.working():
            looking = asyncio.create_task(
                drift.keep_looking(app.state.crew, lambda: app.state.service.config.drift)
            )
            try:
                yield
            finally:
                looking.cancel()
                await asyncio.wait([looking])
    finally:
        await app.state.house.close()
