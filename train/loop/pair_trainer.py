"""transformers' Trainer over pairs: batches by length, a step in one pass or several, a loss given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

from preceptor.train import distributed
from preceptor.train.data.batching import EVALUATED, GroupedBatches, evenly, passes
from preceptor.train.data.collate_pairs import collate_pairs
from preceptor.train.forward.reply_logprobs import PairRow, row_tokens
from preceptor.train.loop.oom_retry import retry_on_oom, save_parts, saved_parts, too_long

Losses = tuple[Tensor, dict[str, Tensor]]
"""The loss of each pair of a pass (B,), and figures (B,) to be shown beside it."""


Collate = Callable[[Sequence[Any], Sequence[int], int, bool], Any]
"""(pairs, their numbers in the data set, token to pad with, whether the prompt is shared) -> named tensors."""


class PairTraining(NamedTuple):
    """What a stage gives its trainer."""

    pairs: Sequence[PairRow]
    """First those that are trained on, then those held out."""
    trained: int
    """How many are trained on."""
    pad_id: int
    shared: bool
    """The layout that its model can take (`train.forward.layout_check`)."""
    pass_tokens: int
    """Tokens that go through the model at a time."""
    loss: Callable[[nn.Module, Any], Losses]
    """Of a batch as `collate` makes it."""
    save: Callable[[Path], None]
    restore: Callable[[Path], None]
    collate: Collate = collate_pairs


class PairTrainer(Trainer):
    """transformers' Trainer over batches of pairs."""

    def __init__(self, model: nn.Module, stage: PairTraining, **options: Any) -> None:
        train, held_out = range(stage.trained), range(stage.trained, len(stage.pairs))
        super().__init__(
            model=model, train_dataset=_Numbers(train), eval_dataset=_Numbers(held_out), **options
        )
        self.args._n_gpu = min(self.args.n_gpu, 1)  # several GPUs: one process each, never DataParallel
        self._stage = stage
        self._figures: list[dict[str, Tensor]] = []
        self._measured: tuple[int, dict[str, float]] = (-1, {})
        self.pass_tokens = stage.pass_tokens
        self.notes: list[str] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of like length, drawn by seed and epoch alone."""
        # their length in either layout: the same steps
        lengths = [pair.tokens for pair in self._stage.pairs[: self._stage.trained]]
        sampler = GroupedBatches(lengths, self.args.per_device_train_batch_size, self.args.seed)
        loader: DataLoader[Any] = DataLoader(
            _Numbers(range(len(lengths))), batch_sampler=sampler, collate_fn=_numbered
        )
        # every process reads all numbers and takes its share in `_step`: a batch cut by the library would be padded
        return prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)  # type: ignore[no-any-return]

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - the trainer passes it
    ) -> Tensor:
        """Mean loss over the step's pairs; its passes' gradients are added. The figures wait for the next log.

        Where memory runs out, the step is begun again with passes of half the tokens (`train.loop.oom_retry`).
        """
        model.train()
        rows: list[int] = inputs["numbers"].tolist()
        return retry_on_oom(
            lambda: self._step(model, rows),
            lambda: model.zero_grad(set_to_none=True),
            lambda: self._halve(rows),
            self.accelerator.num_processes,
        )

    def _step(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        """This process's part of the step, as many times as large as there are processes: they are averaged."""
        mine = distributed.share(rows)
        parts = distributed.count() / len(rows)
        if not mine:  # fewer pairs than processes: all must take part, this one without weight
            mine, parts = rows[:1], 0.0
        figures: list[dict[str, Tensor]] = []
        total = torch.zeros((), device=self.args.device)
        cut = self._passes(mine, self.pass_tokens)
        for number, part in enumerate(cut):
            batch = self._batch([mine[at] for at in part])
            last = number == len(cut) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    losses, shown = self._stage.loss(model, batch)  # (B,)
                    loss = losses.sum() * parts
                self.accelerator.backward(loss)
            total = total + loss.detach()
            figures.append({key: value.detach().float() for key, value in shown.items()})
        sums = {key: torch.cat([row[key] for row in figures]).sum() * parts for key in figures[0]}
        self._figures.append(sums)
        return total

    def _passes(self, rows: Sequence[int], budget: int) -> list[list[int]]:
        """Places among `rows` that go through the model together."""
        return passes(row_tokens([self._stage.pairs[at] for at in rows], self._stage.shared), budget)

    def _batch(self, numbers: Sequence[int]) -> Any:
        stage, device = self._stage, self.args.device
        pairs = [stage.pairs[at] for at in numbers]
        batch = stage.collate(pairs, numbers, stage.pad_id, stage.shared)
        return type(batch)(*(field.to(device) for field in batch))

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

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss and accuracy on held-out pairs, on at most EVALUATED of them, evenly from all."""
        step, known = self._measured
        if step == self.state.global_step:  # the library asks twice at the end
            return known
        rows = evenly(range(self._stage.trained, len(self._stage.pairs)), EVALUATED)
        # without the wrapper of several processes, whose forward would wait for the others'
        model = self.accelerator.unwrap_model(self.model_wrapped).eval()
        total, right = 0.0, 0.0
        mine = distributed.share(rows)
        for part in self._passes(mine, self.pass_tokens):
            with self.compute_loss_context_manager():
                losses, shown = self._stage.loss(model, self._batch([mine[at] for at in part]))  # (B,)
            total += losses.sum().item()
            right += shown["accuracy"].float().sum().item()
        sums = distributed.summed({"loss": total, "accuracy": right})
        means = {f"held_out_{name}": value / len(rows) for name, value in sums.items()}
        self.log(means)
        known = {f"eval_{name}": value for name, value in means.items()}
        self._measured = self.state.global_step, known
        return known

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Join the stage's own figures, averaged since the last log."""
        figures, self._figures = self._figures, []
        means = {
            key: torch.stack([row[key] for row in figures]).mean().item() for key in (figures or [{}])[0]
        }
        if means:
            means = {key: value / distributed.count() for key, value in distributed.summed(means).items()}
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, _state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        self._stage.save(folder)
        save_parts(folder, {"pass_tokens": self.pass_tokens, "notes": self.notes})

    def restore(self, folder: Path) -> None:
        """Take the weights of a checkpoint."""
        self._stage.restore(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, _model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        self._stage.restore(folder)
        known = saved_parts(folder)
        self.notes[:] = known.get("notes", [])
        if self.notes:
            self.pass_tokens = min(self.pass_tokens, known["pass_tokens"])


def take_best(trainer: PairTrainer) -> tuple[str, ...]:
    """Go back to the checkpoint of least held-out loss, and say so; nothing where none was measured."""
    state = trainer.state
    if not state.best_global_step:
        return ()
    trainer.restore(Path(str(trainer.args.output_dir)) / f"checkpoint-{state.best_global_step}")
    return (
        f"the result is the checkpoint of step {state.best_global_step} of {state.global_step}, of the least "
        f"held-out loss: {state.best_metric:.4f}",
    )


class _Numbers(Dataset[int]):
    """Numbers of pairs, by which a stage finds them and what it has computed about each beforehand."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __getitem__(self, at: int) -> int:
        return self.numbers[at]

    def __len__(self) -> int:
        return len(self.numbers)


def _numbered(numbers: list[int]) -> dict[str, Tensor]:
    return {"numbers": torch.tensor(numbers)}
