"""What the reference makes of each pair, kept on disk by content, so that no run computes it a second time.

The key of a pair is a hash of all that its log-probabilities depend on: the weights of model and adapter as they are in
memory, the base's configuration and the adapter's scale, the precision, and the tokens. A changed adapter has other
keys; nothing needs to be thrown away, and whoever wants the room back removes the file.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from preceptor.judge.models.local.weights_hash import ELSEWHERE
from preceptor.train import distributed
from preceptor.train.data.pairs import PairTokens
from preceptor.train.errors import RunFolderError
from preceptor.train.forward.reply_logprobs import ReplyLogprobs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

FILE = "reference.db"
SCHEMA = 2
"""Counted up when log-probabilities come to be computed otherwise, so that old ones are not read."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, chosen REAL, rejected REAL, "
    "chosen_common REAL, rejected_common REAL) WITHOUT ROWID"
)

SLAB = 1024
"""Pairs computed between two writes: what an interruption costs at most."""

Compute = Callable[[Sequence[PairTokens]], ReplyLogprobs]


def weights_fingerprint(model: PeftModel, reference: str | None) -> str:
    """Tells the reference apart from any other: 64 hex digits out of every weight, of the base's configuration and of
    the adapter's scale.

    reference: the adapter that acts on the base then, as `roles.reference_of` names it; the others have no part
    in it, and under which name it is held makes no difference. Files are not asked: a hub id has none here, and
    a large file is known elsewhere by its edges alone. The numbers are summed as integers, and their squares,
    which comes out the same on every device.
    """
    others = [adapter for adapter in model.peft_config if adapter != reference]
    digest = hashlib.sha256(repr(_how_used(model, reference)).encode())
    for name, parameter in sorted(model.named_parameters()):
        if any(f".{adapter}." in name for adapter in others):
            continue
        if reference is not None:
            name = name.replace(f".{reference}.", ".frozen.")
        flat = parameter.detach().flatten()
        numbers = flat.view(torch.int16 if flat.element_size() % 2 == 0 else torch.int8)
        sums = [0, 0]
        for part in torch.split(numbers, 2**24):
            wide = part.to(torch.int64)
            sums = [sums[0] + int(wide.sum()), sums[1] + int((wide * wide).sum())]
        digest.update(repr((name, tuple(parameter.shape), str(parameter.dtype), sums)).encode())
    return digest.hexdigest()


def _how_used(model: PeftModel, reference: str | None) -> list[Any]:
    """The base's configuration, without what names places and versions, and the adapter's scale in each layer."""
    config: dict[str, Any] = cast("PreTrainedModel", model.get_base_model()).config.to_dict()
    kept = sorted((key, repr(value)) for key, value in config.items() if key not in ELSEWHERE)
    scales = [
        (name, module.scaling[reference])
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and reference in module.scaling
    ]
    return [kept, sorted(scales)]


def pair_key(identity: Mapping[str, Any], pair: PairTokens) -> bytes:
    """32 bytes that stand for the model of `identity` and the pair's tokens."""
    fields = [SCHEMA, sorted(identity.items()), pair.prompt, pair.chosen, pair.rejected]
    return hashlib.sha256(repr(fields).encode()).digest()


def cached_logprobs(
    pairs: Sequence[PairTokens], identity: Mapping[str, Any], folder: Path | None, compute: Compute
) -> ReplyLogprobs:
    """Log-probabilities of the pairs' replies, chosen ones first: from the file in `folder`, and what it lacks
    by `compute`, which is then kept there.

    `identity` says which model they are of, by a hash of its weights. Without a folder all is computed.
    Raises RunFolderError where the folder cannot be used.
    """
    if folder is None:
        return compute(pairs)
    keys = [pair_key(identity, pair) for pair in pairs]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / FILE, timeout=60)) as file:
            file.execute(TABLE)
            known = _read(file, keys)
            distributed.wait()  # all have read what there is before one adds to it
            missing = [at for at, key in enumerate(keys) if key not in known]
            absent = distributed.share(missing)
            for start in range(0, len(absent), SLAB):
                some = absent[start : start + SLAB]
                made = _columns(compute([pairs[at] for at in some]))  # (n, 4)
                rows = {keys[at]: tuple(row) for at, row in zip(some, made.tolist(), strict=True)}
                with file:
                    file.executemany(
                        "INSERT OR IGNORE INTO pairs VALUES (?, ?, ?, ?, ?)",
                        [(key, *row) for key, row in rows.items()],
                    )
                known |= rows
            if distributed.count() > 1:
                distributed.wait()
                known = _read(file, keys)
    except (OSError, sqlite3.Error) as error:
        raise RunFolderError(
            f"cannot keep the reference's log-probabilities in {folder / FILE}: {error}; remove the file, or "
            "name another folder"
        ) from error
    table = torch.tensor([known[key] for key in keys], dtype=torch.float32).T  # (4, P)
    lengths = [len(pair.chosen) for pair in pairs] + [len(pair.rejected) for pair in pairs]
    return ReplyLogprobs(table[:2].flatten(), table[2:].flatten(), torch.tensor(lengths))


def _columns(made: ReplyLogprobs) -> Tensor:
    """(n, 4): total of chosen and rejected, and common part of both."""
    return torch.cat([made.total.view(2, -1), made.common.view(2, -1)]).T


def _read(file: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, tuple[float, ...]]:
    found: dict[bytes, tuple[float, ...]] = {}
    for at in range(0, len(keys), 500):
        some = keys[at : at + 500]
        marks = ", ".join("?" * len(some))
        for key, *row in file.execute(f"SELECT * FROM pairs WHERE key IN ({marks})", some):
            found[key] = tuple(row)
    return found
