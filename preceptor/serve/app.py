"""The application: the rooms of the service put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from preceptor import __version__
from preceptor.serve import problems
from preceptor.serve.auth import Doorkeeper
from preceptor.serve.config import ServeConfig
from preceptor.serve.constitutions import router as constitutions
from preceptor.serve.doors import ROUTERS as DOORS
from preceptor.serve.gate import Gate
from preceptor.serve.jobs.routes import ROUTERS as JOBS
from preceptor.serve.jobs.routes import working
from preceptor.serve.keys import Keyring
from preceptor.serve.native import router as native
from preceptor.serve.operations import router as operations
from preceptor.serve.pages import route as page_route
from preceptor.serve.pages.routes import ROUTERS as PAGES
from preceptor.serve.pages.routes import reading_rooms
from preceptor.serve.service import Service, open_service

ROUTERS: tuple[APIRouter, ...] = (operations, native, constitutions, *JOBS, *DOORS, *PAGES)
"""Every part of the service that has routes."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def create_app(
    config: ServeConfig,
    *,
    keys: Keyring | None = None,
    service: Service | None = None,
    open_without_keys: bool = True,
    host: str = LOOPBACK[0],
    routers: Sequence[APIRouter] = ROUTERS,
) -> FastAPI:
    """The service. `app.state` has `config`, `keys`, `doorkeeper` and, once it runs, `service`.

    keys, service: opened and closed by who calls; else opened and closed with the application. open_without_keys:
    whether everybody may enter as long as no key was ever made, which is for loopback alone. host: the address that it
    listens at.

    Raises LedgerError where the database cannot be used.
    """
    keyring = keys or Keyring(config.database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service is not None:
            app.state.service = service
            async with working(app, config), reading_rooms(app, config):
                yield
            return
        try:
            async with open_service(config, keyring) as opened:
                app.state.service = opened
                async with working(app, config), reading_rooms(app, config):
                    yield
        finally:
            keyring.close()

    app = FastAPI(
        title="Preceptor",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from a network of others
        redoc_url=None,
        responses=problems.documented(*problems.EVERYWHERE),
    )
    app.state.config = config
    app.state.keys = keyring
    app.state.doorkeeper = Doorkeeper(
        keyring, open_without_keys=open_without_keys, max_per_key=config.limits.max_per_key
    )
    problems.install(app)
    page_route.install(app)
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, limits=config.limits, hosts=(*LOOPBACK, host, *config.hosts))
    return app
