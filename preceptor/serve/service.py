"""Everything that the routes of the service share, opened once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request

from preceptor.serve.config import DoorName, ServeConfig
from preceptor.serve.desk import Desk, open_desk
from preceptor.serve.keys import Keyring
from preceptor.serve.problems import Problem
from preceptor.serve.rewards import Rewards

log = logging.getLogger(__name__)


class Service:
    """What is served."""

    def __init__(self, config: ServeConfig, desk: Desk, rewards: Rewards, keys: Keyring) -> None:
        self.config, self.desk, self.rewards, self.keys = config, desk, rewards, keys

    def take(self, config: ServeConfig) -> None:
        """Serve another configuration from now on: models, constitutions, rewards, doors, the cap. Address, database
        and the other limits stay until the next start. Raises UserError, and then nothing has changed."""
        before = self.config
        self.desk.take(config)
        try:
            self.rewards.take(config, self.desk)
        except BaseException:
            self.desk.take(before)
            raise
        self.config = config.model_copy(
            update={"database": before.database, "hosts": before.hosts, "folder": before.folder}
        )

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
        yield Service(config, desk, rewards, keys)


async def service(request: Request) -> Service:
    """What is served, as a dependency of a route."""
    found: Service = request.app.state.service
    return found


Served = Annotated[Service, Depends(service)]
