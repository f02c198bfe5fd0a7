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
from train.layout import PairBatch, batch_fields, batch_from_fields, collate_pairs
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
        super().__init__(model=model, train_dataset=_Numbered(stage.pairs), **options)
        self.args._n_gpu = min(self.args.n_gpu, 1)  # several GPUs: one process each, never DataParallel
        self._stage = stage
        self._figures: list[dict[str, Tensor]] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of like length, drawn by seed and epoch alone."""
        lengths = [pair.tokens for pair in self._stage.pairs]  # in either layout: the same steps
        sampler = GroupedBatches(lengths, self.args.per_device_train_batch_size, self.args.seed)
        loader: DataLoader[Any] = DataLoader(
            _Numbered(self._stage.pairs), batch_sampler=sampler, collate_fn=self._collate
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def _collate(self, rows: list[tuple[int, PairTokens]]) -> dict[str, list[dict[str, Tensor]]]:
        stage = self._stage
        lengths = row_tokens([pair for _, pair in rows], stage.shared)
        return {
            "passes": [
                batch_fields(
                    collate_pairs(
                        [rows[at][1] for at in part],
                        [rows[at][0] for at in part],
                        stage.pad_id,
                        stage.shared,
                    )
                )
                for part in passes(lengths, stage.pass_tokens)
            ]
        }

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - the trainer passes it
    ) -> Tensor:
        """Mean loss over the step's pairs; its passes' gradients are added. The figures wait for the next log."""
        model.train()
        batches = [batch_from_fields(fields) for fields in self._prepare_inputs(inputs)["passes"]]
        count = sum(len(batch.number) for batch in batches)
        figures: list[dict[str, Tensor]] = []
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    losses, shown = self._stage.loss(model, batch)  # (B,)
                    loss = losses.sum() / count
                self.accelerator.backward(loss)
            total = total + loss.detach()
            figures.append({key: value.detach().float() for key, value in shown.items()})
        self._figures.append({key: torch.cat([row[key] for row in figures]).mean() for key in figures[0]})
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Join the stage's own figures, averaged since the last log."""
        figures, self._figures = self._figures, []
        means = {
            key: torch.stack([row[key] for row in figures]).mean().item() for key in (figures or [{}])[0]
        }
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, _state_dict: dict[str, Any] | None = None) -> None:
        self._stage.save(Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, _model: nn.Module | None = None) -> None:
        self._stage.restore(Path(resume_from_checkpoint))


class _Numbered(Dataset[tuple[int, PairTokens]]):
    """Pairs with their numbers, by which a stage finds what it has computed about each beforehand."""

    def __init__(self, pairs: Sequence[PairTokens]) -> None:
        self.pairs = pairs

    def __getitem__(self, at: int) -> tuple[int, PairTokens]:
        return at, self.pairs[at]

    def __len__(self) -> int:
        return len(self.pairs)
