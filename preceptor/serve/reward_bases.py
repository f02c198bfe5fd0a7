"""The bases of the trained reward models that are served: each in memory once, and used by one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.judge.score import ReplyToScore

if TYPE_CHECKING:
    from preceptor.train.evaluation.rating import Rated
    from preceptor.train.forward.reward_model import RewardModel
    from preceptor.train.forward.shared_base import SharedBase


class HeldBase:
    """A base, the reward models on it, and the thread that asks them."""

    def __init__(self, source: str) -> None:
        self._thread = ThreadPoolExecutor(1, f"reward {Path(source).name}")
        self._shared: SharedBase | None = None
        self._models: dict[Path, tuple[RewardModel, str]] = {}
        """Folder -> its model, and the name under which it scores."""

    async def rated(self, folder: Path, replies: Sequence[ReplyToScore], batch_size: int) -> list[Rated]:
        """Replies by the reward model in a folder, which is loaded if it is not yet. Raises CheckpointError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._rated, folder, replies, batch_size)

    async def close(self) -> None:
        """Let go of the base, after what is being scored."""
        await asyncio.to_thread(self._thread.shutdown)

    def _rated(self, folder: Path, replies: Sequence[ReplyToScore], batch_size: int) -> list[Rated]:
        from preceptor.judge.models.local.weights_hash import weights_name
        from preceptor.train.evaluation.rating import rated
        from preceptor.train.forward.shared_base import SharedBase

        if folder not in self._models:
            self._shared = self._shared or SharedBase()
            self._models[folder] = (self._shared.hold(folder), weights_name(folder))
        model, name = self._models[folder]
        return list(rated(model, replies, name, batch_size))


class RewardBases:
    """Every base that a reward model was asked on."""

    def __init__(self) -> None:
        self._held: dict[str, HeldBase] = {}
        self._sources: dict[Path, str] = {}
        self._lock = threading.Lock()

    def of(self, folder: Path) -> HeldBase:
        """The base of the reward model in a folder. Raises CheckpointError."""
        from preceptor.train.forward.shared_base import source_of_base

        with self._lock:
            if folder not in self._sources:
                self._sources[folder] = source_of_base(folder)
            source = self._sources[folder]
            if source not in self._held:
                self._held[source] = HeldBase(source)
            return self._held[source]

    async def close(self) -> None:
        """Let go of all of them."""
        for held in self._held.values():
            await held.close()
