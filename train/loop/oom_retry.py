"""A step that does not fit in memory is done again in smaller parts, from its beginning, and that is said.

What was tried is forgotten first: the gradients of its parts, and the tensors that the error's traceback
holds. The parts' gradients are added, so that the step is the same as it would have been, but for rounding;
KTO's alone is not (`train.kto`). The smaller size holds for the rest of the training, and stands in its
checkpoints, so that a resumed training cuts its steps as an unbroken one does.

Across several processes nothing is redone: the others would wait for a part that never comes. There each
process reads every step's rows and takes every n-th of them, so that a step is the one of a single process.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from preceptor.constitution.foreign import json_in
from preceptor.prompts.manifest import write_json
from preceptor.train import distributed
from preceptor.train.errors import MemoryShortError
from preceptor.train.estimate.memory import is_out_of_memory

MadeT = TypeVar("MadeT")
PARTS = "parts.json"
"""Beside a checkpoint's weights: how its steps were cut."""


def retry_on_oom(
    step: Callable[[], MadeT], forget: Callable[[], None], halve: Callable[[], None], processes: int
) -> MadeT:
    """`step`'s result; where memory runs out, `forget`, `halve` and `step` again.

    Raises MemoryShortError where `halve` does, and in a training of several processes.
    """
    while True:
        try:
            return step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if processes > 1:
                raise MemoryShortError(
                    f"a step does not fit in memory, and {processes} processes cannot cut it one by one: "
                    "give a smaller --pass-tokens, --batch-size or --max-length, or --gradient-checkpointing"
                ) from error
        # Here, and not above: an error that is being handled keeps what its frames hold.
        forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halve()


def too_long(what: str) -> MemoryShortError:
    """For a step that cannot be cut any further."""
    return MemoryShortError(
        f"{what} does not fit in memory: give a smaller --max-length, --gradient-checkpointing, a smaller "
        "--rank, or a smaller model"
    )


def save_parts(folder: Path, values: Mapping[str, Any]) -> None:
    """Write down how steps are cut, beside a checkpoint."""
    write_json(folder / PARTS, dict(values))


def saved_parts(folder: Path) -> dict[str, Any]:
    """What `save_parts` wrote; empty for a checkpoint without it."""
    path = folder / PARTS
    return dict(json_in(path)) if path.exists() else {}


class OomRetryTrainer:
    """Plugs into TRL's trainers: the rows of a step are shared out among the processes, and go through the model
    in `parts` parts, one at first.

    Each part's loss must be the sum over its rows divided by what is the same for all (`num_items_in_batch`),
    or else a mean over rows (`mean_of_rows`), which is then weighed by the part's share of them.
    """

    mean_of_rows = False
    parts = 1
    _share = 1.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.notes: list[str] = []

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *more: Any, **options: Any) -> Tensor:
        """The loss of a step, whose gradients are added up in the parameters."""
        trainer: Any = self
        trainer_step = super().training_step  # type: ignore[misc]
        figures, tokens = _copied(trainer._metrics["train"]), trainer._total_train_tokens
        rows, mine, times = rows_of(inputs), *own_rows(inputs)

        def step() -> Tensor:
            total = torch.zeros((), device=trainer.args.device)
            for part in in_parts(mine, self.parts):
                self._share = times * (rows_of(part) / rows if self.mean_of_rows else 1.0)
                total = total + trainer_step(model, part, *more, **options)
            return total

        def forget() -> None:
            model.zero_grad(set_to_none=True)
            trainer._metrics["train"] = _copied(figures)
            trainer._total_train_tokens = tokens

        def halve() -> None:
            if self.parts >= rows:
                raise too_long(f"a single row of {inputs['input_ids'].shape[1]} tokens")
            self.parts = min(2 * self.parts, rows)
            size = -(-trainer.args.per_device_train_batch_size // self.parts)
            self.notes.append(
                f"memory ran out in step {trainer.state.global_step + 1}: from there on {size} rows go through "
                f"the model at a time, in {self.parts} parts, and the step stays {rows} rows"
            )

        return retry_on_oom(step, forget, halve, trainer.accelerator.num_processes)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The library's; with several processes, whole steps for each of them."""
        trainer: Any = self
        if distributed.count() == 1:
            library: Any = super()
            return library.get_train_dataloader()  # type: ignore[no-any-return]
        loader: DataLoader[Any] = DataLoader(
            trainer.train_dataset,
            batch_size=trainer.args.per_device_train_batch_size,
            sampler=trainer._get_train_sampler(),
            collate_fn=trainer.data_collator,
        )
        whole: Any = prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)
        whole._drop_last = (
            True  # nothing is dropped: or what is gathered in the last step would be cut to its rows
        )
        return whole  # type: ignore[no-any-return]

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        """The library's loss, weighed by the share of the step's rows that it is of."""
        trainer: Any = super()
        loss = trainer.compute_loss(*args, **options)
        return loss if self._share == 1.0 else self._share * loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        trainer: Any = super()
        trainer._save(output_dir, state_dict)
        save_parts(
            Path(output_dir or str(trainer.args.output_dir)), {"parts": self.parts, "notes": self.notes}
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trainer: Any = super()
        trainer._load_from_checkpoint(resume_from_checkpoint, model)
        known = saved_parts(Path(resume_from_checkpoint))
        self.parts, self.notes[:] = known.get("parts", 1), known.get("notes", [])


def rows_of(inputs: Mapping[str, Any]) -> int:
    """Rows of a batch in TRL's form."""
    return len(inputs["input_ids"])


def own_rows(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """This process's rows of a step, and by what their loss is to be multiplied: gradients are averaged over the
    processes. One that has no row takes the first, at no weight, since all must take part."""
    count, rows = distributed.count(), rows_of(inputs)
    if count == 1:
        return dict(inputs), 1.0
    some = slice(distributed.number(), None, count) if distributed.number() < rows else slice(0, 1)
    mine = {key: value[some] if _along_rows(value, rows) else value for key, value in inputs.items()}
    return mine, float(count) if distributed.number() < rows else 0.0


def _along_rows(value: Any, rows: int) -> bool:
    return ((isinstance(value, Tensor) and value.ndim > 0) or isinstance(value, Sequence)) and len(
        value
    ) == rows


def in_parts(inputs: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """A batch in TRL's form, cut along its rows into at most `parts` parts of like size."""
    rows = rows_of(inputs)
    size = -(-rows // parts)

    def cut(value: Any, start: int) -> Any:
        return value[start : start + size] if _along_rows(value, rows) else value

    return [{key: cut(value, start) for key, value in inputs.items()} for start in range(0, rows, size)]


def _copied(figures: Mapping[str, list[Any]]) -> defaultdict[str, list[Any]]:
    return defaultdict(list, {key: list(values) for key, values in figures.items()})
