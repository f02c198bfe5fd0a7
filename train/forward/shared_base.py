"""Several reward models on one base in memory, each an adapter that acts while its model scores.

They are for one thread: which adapter acts is a state of the base.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.train.forward.reward_model import RewardModel, read_head
from preceptor.train.models.adapters import POLICY, adapt_from, add_adapter_from, base_of_adapter
from preceptor.train.models.base import Base, load_base, resolve_model

if TYPE_CHECKING:
    from peft import PeftModel


def source_of_base(folder: Path) -> str:
    """Folder or hub id of a reward model's base: where it is equal, the base can be shared. Raises CheckpointError."""
    source = resolve_model(base_of_adapter(folder))
    return str(Path(source).resolve()) if Path(source).is_dir() else source


class SharedBase:
    """A base, which is loaded for the first reward model, and an adapter for each."""

    def __init__(self) -> None:
        self._adapted: PeftModel | None = None
        self._base: Base | None = None
        self._count = 0

    def hold(self, folder: Path) -> RewardModel:
        """A folder's reward model, whose scores are those of `RewardModel.load`, to the bit. Raises CheckpointError."""
        stored = read_head(folder)
        self._count += 1
        name = POLICY if self._adapted is None else f"reward{self._count}"
        if self._base is None or self._adapted is None:
            base = load_base(base_of_adapter(folder))
            adapted = adapt_from(base, folder, frozen_reference=False)
        else:
            base, adapted = self._base, self._adapted
            add_adapter_from(adapted, base.source, folder, name)
        made = RewardModel.on(adapted, base, stored, folder)
        made.adapter = name
        self._base, self._adapted = base, adapted
        return made
