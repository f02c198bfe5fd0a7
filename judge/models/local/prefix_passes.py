"""Logits at the ends of many prompts, in as few tokens as the model allows.

Nothing in a config says for sure what an architecture does with a mask and positions of ours. So the first packed row
of every model goes through it both ways, and where the two differ, prompts are read in rows of their own from then on,
and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from preceptor.constitution.errors import UserError
from preceptor.judge.models.local.branch_mask import (
    PackableRow,
    PackedRow,
    batches,
    mask_of,
    pack,
    places,
    rows_of,
)
from preceptor.judge.models.local.lm_head import head_of
from preceptor.judge.models.local.side_by_side import SidePrompt, side_rows

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FoundT = TypeVar("FoundT")
TOLERANCE = {"float32": 1e-4, "float64": 1e-8}
"""Largest difference of a logit, in parts of their spread, between packed and plain, by precision."""
COARSE = 0.1
"""The same in half precision, where two right ways of computing differ by some hundredths."""
MASK_CELLS = 2**27
"""Most cells of a batch's mask: half a gibibyte in float32."""


class Passes:
    """A model and what is known of how it can be asked; one for each model in memory."""

    def __init__(self, name: str, model: Any, budget: int) -> None:
        """budget: most tokens of a batch, padding counted."""
        self._name = name
        inner = getattr(model, "get_base_model", None)
        self._model = inner() if inner is not None else model  # an adapter's layers are in it
        self._budget = budget
        self._head = head_of(self._model)
        self._shares: bool | None = None if self._head else False
        """Whether prompts may share a trunk; None: not tried yet."""

    def ends(
        self,
        prompts: Sequence[tuple[int, ...]],
        keep: Sequence[int],
        reduce: Callable[[int, torch.Tensor], FoundT],
    ) -> list[FoundT]:
        """For each prompt what `reduce(prompt, logits)` makes of the logits (keep, V) float32 after its last `keep`
        tokens, so that no more than a batch's are in memory.

        A batch for which memory does not suffice is halved, and so are those after it.
        """
        rows = rows_of(prompts, apart=self._shares is False)
        if self._shares is None and (tried := next((row for row in rows if len(row.branches) > 1), None)):
            self._shares = self._agrees(tried)
            rows = rows_of(prompts, apart=not self._shares)
        found = self._walk(rows, keep, reduce)
        return [found[prompt] for prompt in range(len(prompts))]

    def side_by_side(
        self,
        prompts: Sequence[SidePrompt],
        keep: Sequence[int],
        reduce: Callable[[int, torch.Tensor], FoundT],
    ) -> list[FoundT]:
        """As `ends`, of prompts whose two replies stand side by side; `keep` is at most what follows the names.

        Raises UserError for a model that computes something else under such a mask.
        """
        if self._shares is None:
            first = prompts[0]
            self._shares = self._agrees(PackedRow(first.before, first.replies, (0, 1)))
        if not self._shares:
            finer = (
                ""
                if "float32" in str(self._model.dtype)
                else ", or try float32 (--dtype float32; in training --precision fp32)"
            )
            raise UserError(
                f"{self._name} takes no mask that hides one reply from the other, so that it cannot read them side by "
                f"side; ask it in both orders: leave out --orders none{finer}"
            )
        found = self._walk(side_rows(prompts), keep, reduce)
        return [found[prompt] for prompt in range(len(prompts))]

    def _walk(
        self, rows: Sequence[PackableRow], keep: Sequence[int], reduce: Callable[[int, torch.Tensor], FoundT]
    ) -> dict[int, FoundT]:
        """Prompt -> what `reduce` makes of its logits, of all prompts in the rows."""
        found: dict[int, FoundT] = {}
        waiting = list(batches(rows, self._budget))[::-1]
        while waiting:
            batch = waiting.pop()
            if len(batch) > 1 and len(batch) * batch[0].size ** 2 > MASK_CELLS:
                waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                continue
            try:
                for prompt, logits in self._run(batch, keep):
                    found[prompt] = reduce(prompt, logits)
            except (RuntimeError, MemoryError) as exc:
                if not _no_memory(exc) or len(batch) == 1:
                    raise
                waiting = self._halved([batch, *waiting[::-1]])
        return found

    def _halved(self, left: Sequence[Sequence[PackableRow]]) -> list[list[PackableRow]]:
        """What is left in batches of half the size, the next one last."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._budget = max(1, len(left[0]) * left[0][0].size // 2)
        log.warning(
            "%s: memory did not suffice; batches hold %d tokens from now on", self._name, self._budget
        )
        return list(batches([row for batch in left for row in batch], self._budget))[::-1]

    def _run(self, rows: Sequence[PackableRow], keep: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """(prompt, logits after its last tokens) of one batch, by the model's output layer at these places only."""
        import torch

        if self._head is None:
            for row in rows:
                assert isinstance(
                    row, PackedRow
                )  # others are for models that share trunks, which have a head
                yield from self._plainly(row, keep)
            return
        packed = pack(rows, self._model.device)
        if all(len(row.parts) == 2 for row in rows):
            mask: Any = (packed.part <= 1).long()  # padding is the second branch
        else:
            mask = mask_of(packed.part, packed.positions, self._model.config, self._model.dtype, packed.sees)
        with torch.inference_mode():
            hidden = self._model.base_model(
                input_ids=packed.ids, attention_mask=mask, position_ids=packed.positions, use_cache=False
            ).last_hidden_state  # (R, T, H)
            for prompt, cells in places(rows, keep):
                rows_at, places_at = zip(*cells, strict=True)
                yield prompt, self._head.logits(hidden[list(rows_at), list(places_at)])

    def _plainly(self, row: PackedRow, keep: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """The same by the model's own forward, each prompt alone."""
        import torch

        for prompt, branch in zip(row.prompts, row.branches, strict=True):
            ids = torch.tensor([row.trunk + branch], device=self._model.device)
            with torch.inference_mode():
                yield prompt, self._model(input_ids=ids, use_cache=False).logits[0, -keep[prompt] :].float()

    def _agrees(self, row: PackedRow) -> bool:
        """Whether a packed row gives the logits that its first and last prompt give alone."""
        import torch

        packed_row = row._replace(prompts=tuple(range(len(row.branches))))
        keep, ends = [1] * len(row.branches), (0, len(row.branches) - 1)
        alone = PackedRow(row.trunk, tuple(row.branches[i] for i in ends), ends)
        plain = dict(self._plainly(alone, keep))
        try:
            packed = dict(self._run([packed_row], keep))
        except torch.OutOfMemoryError:
            raise
        except Exception as exc:  # whatever an architecture makes of a mask that it does not know
            said = str(exc).strip().splitlines() or [type(exc).__name__]
            return self._apart(f"it does not take the mask of a shared trunk ({said[0]})")
        worst = max(
            ((packed[i] - plain[i]).abs().max() / plain[i].std().clamp_min(1e-6)).item() for i in ends
        )
        if worst <= TOLERANCE.get(str(self._model.dtype).removeprefix("torch."), COARSE):
            return True
        return self._apart(f"it computes something else under the mask of a shared trunk (by {worst:.1e})")

    def _apart(self, why: str) -> bool:
        log.warning(
            "%s: each question is read in a prompt of its own, at several times the cost: %s", self._name, why
        )
        return False


def _no_memory(exc: BaseException) -> bool:
    said = str(exc).lower()
    return isinstance(exc, MemoryError) or "out of memory" in said or "not enough memory" in said
