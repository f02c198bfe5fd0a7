"""Everything that the routes of the service share, opened once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import LedgerError
from preceptor.serve.config import DoorName, ServeConfig
from preceptor.serve.desk import Desk, open_desk
from preceptor.serve.keys import Keyring
from preceptor.serve.problems import Problem
from preceptor.serve.rewards import Rewards
from preceptor.serve.versions import Versions

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""How often a server looks for constitutions that another has saved."""


class Service:
    """What is served."""

    def __init__(
        self, config: ServeConfig, desk: Desk, rewards: Rewards, keys: Keyring, versions: Versions
    ) -> None:
        self.config, self.desk, self.rewards, self.keys, self.versions = config, desk, rewards, keys, versions
        self._given = config
        """As the file has it; `config` has the saved constitutions over its own."""
        self._saved: dict[str, str] = {}
        self._looking = asyncio.Lock()

    def take(self, config: ServeConfig) -> None:
        """Serve another configuration from now on: models, constitutions, rewards, doors, the cap. Address, database
        and the other limits stay until the next start. Raises UserError, and then nothing has changed."""
        before = self.config
        given, config = config, _over(config, self._saved)
        self.desk.take(config)
        try:
            self.rewards.take(config, self.desk)
        except BaseException:
            self.desk.take(before)
            raise
        self.config = config.model_copy(
            update={"database": before.database, "hosts": before.hosts, "folder": before.folder}
        )
        self._given = given

    async def look(self) -> None:
        """Serve the latest version of every constitution that was saved, here or by another server."""
        async with self._looking:
            before, saved = self._saved, await asyncio.to_thread(self.versions.sources)
            if saved == before:
                return
            self._saved = saved
            try:
                self.take(self._given)
            except BaseException:
                self._saved = before
                raise

    async def keep_looking(self) -> None:
        """`look`, every second."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (LedgerError, UserError, OSError) as error:
                log.error("the saved constitutions were not read: %s", error)

    def bound(self, door: DoorName) -> Sequence[str]:
        """The rewards to which a door leads. Raises Problem 404 where it is closed."""
        names = self.config.doors.get(door, ())
        if not names:
            raise Problem(
                404,
                "door_closed",
                f"the door {door} is bound to no reward; `doors` in the configuration does",
            )
        return names


@asynccontextmanager
async def open_service(config: ServeConfig, keys: Keyring) -> AsyncIterator[Service]:
    """Raises UserError, ProviderStopped, LedgerError where the configuration cannot be served."""
    async with AsyncExitStack() as stack:
        desk = await open_desk(config, keys, stack)
        rewards = Rewards(config, desk)
        stack.push_async_callback(rewards.close)
        versions = await asyncio.to_thread(Versions, config.database, Path(config.folder, "constitutions"))
        stack.callback(versions.close)
        opened = Service(config, desk, rewards, keys, versions)
        await opened.look()
        looking = asyncio.create_task(opened.keep_looking())
        try:
            yield opened
        finally:
            looking.cancel()
            await asyncio.wait([looking])


def _over(config: ServeConfig, saved: Mapping[str, str]) -> ServeConfig:
    """The configuration with saved constitutions in the place of its own."""
    return config.model_copy(update={"constitutions": {**config.constitutions, **saved}})


async def service(request: Request) -> Service:
    """What is served, as a dependency of a route."""
    found: Service = request.app.state.service
    return found


Served = Annotated[Service, Depends(service)]
