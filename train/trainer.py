"""transformers' Trainer over pairs: batches by length, a step in one pass or several, a loss given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

from train.batches import GroupedBatches, passes
from train.halving import save_parts, saved_parts, too_long, until_it_fits
from train.layout import PairBatch, collate_pairs
from train.logprobs import row_tokens
from train.pairs import PairTokens

Losses = tuple[Tensor, dict[str, Tensor]]
"""The loss of each pair of a pass (B,), and figures (B,) to be shown beside it."""


class Stage(NamedTuple):
    """What a stage gives its trainer."""

    pairs: Sequence[PairTokens]
    pad_id: int
    shared: bool
    """The layout that its model can take (`train.selftest`)."""
    pass_tokens: int
    """Tokens that go through the model at a time."""
    loss: Callable[[nn.Module, PairBatch], Losses]
    save: Callable[[Path], None]
    restore: Callable[[Path], None]


class PairTrainer(Trainer):
    """transformers' Trainer over PairBatches."""

    def __init__(self, model: nn.Module, stage: Stage, **options: Any) -> None:
        super().__init__(model=model, train_dataset=_Numbers(len(stage.pairs)), **options)
        self.args._n_gpu = min(self.args.n_gpu, 1)  # several GPUs: one process each, never DataParallel
        self._stage = stage
        self._figures: list[dict[str, Tensor]] = []
        self.pass_tokens = stage.pass_tokens
        self.notes: list[str] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of like length, drawn by seed and epoch alone."""
        lengths = [pair.tokens for pair in self._stage.pairs]  # in either layout: the same steps
        sampler = GroupedBatches(lengths, self.args.per_device_train_batch_size, self.args.seed)
        loader: DataLoader[Any] = DataLoader(
            _Numbers(len(lengths)), batch_sampler=sampler, collate_fn=_numbered
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - the trainer passes it
    ) -> Tensor:
        """Mean loss over the step's pairs; its passes' gradients are added. The figures wait for the next log.

        Where memory runs out, the step is begun again with passes of half the tokens (`train.halving`).
        """
        model.train()
        rows: list[int] = inputs["numbers"].tolist()
        return until_it_fits(
            lambda: self._step(model, rows),
            lambda: model.zero_grad(set_to_none=True),
            lambda: self._halve(rows),
            self.accelerator.num_processes,
        )

    def _step(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        figures: list[dict[str, Tensor]] = []
        total = torch.zeros((), device=self.args.device)
        cut = self._passes(rows, self.pass_tokens)
        for number, part in enumerate(cut):
            batch = self._batch([rows[at] for at in part])
            last = number == len(cut) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    losses, shown = self._stage.loss(model, batch)  # (B,)
                    loss = losses.sum() / len(rows)
                self.accelerator.backward(loss)
            total = total + loss.detach()
            figures.append({key: value.detach().float() for key, value in shown.items()})
        self._figures.append({key: torch.cat([row[key] for row in figures]).mean() for key in figures[0]})
        return total

    def _passes(self, rows: Sequence[int], budget: int) -> list[list[int]]:
        """Places among `rows` that go through the model together."""
        return passes(row_tokens([self._stage.pairs[at] for at in rows], self._stage.shared), budget)

    def _batch(self, numbers: Sequence[int]) -> PairBatch:
        stage, device = self._stage, self.args.device
        pairs = [stage.pairs[at] for at in numbers]
        batch = collate_pairs(pairs, numbers, stage.pad_id, stage.shared)
        return PairBatch(*(field.to(device) for field in batch))

    def _halve(self, rows: Sequence[int]) -> None:
        """Take half the tokens a pass, or as many times half as it takes to cut this step otherwise."""
        before = self._passes(rows, self.pass_tokens)
        if len(before) == len(rows):
            longest = max(row_tokens([self._stage.pairs[at] for at in rows], self._stage.shared))
            raise too_long(f"a single pair of {longest} tokens")
        had = self.pass_tokens
        while self._passes(rows, self.pass_tokens) == before:
            self.pass_tokens //= 2
        self.notes.append(
            f"memory ran out in step {self.state.global_step + 1} with {had} tokens a pass: from there on "
            f"{self.pass_tokens}, in more passes; the step stays {len(rows)} pairs"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Join the stage's own figures, averaged since the last log."""
        figures, self._figures = self._figures, []
        means = {
            key: torch.stack([row[key] for row in figures]).mean().item() for key in (figures or [{}])[0]
        }
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, _state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        self._stage.save(folder)
        save_parts(folder, {"pass_tokens": self.pass_tokens, "notes": self.notes})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, _model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        self._stage.restore(folder)
        known = saved_parts(folder)
        self.notes[:] = known.get("notes", [])
        if self.notes:
            self.pass_tokens = min(self.pass_tokens, known["pass_tokens"])


class _Numbers(Dataset[int]):
    """Numbers of pairs, by which a stage finds them and what it has computed about each beforehand."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, at: int) -> int:
        return at

    def __len__(self) -> int:
        return self.count


def _numbered(numbers: list[int]) -> dict[str, Tensor]:
    return {"numbers": torch.tensor(numbers)}
