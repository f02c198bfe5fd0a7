"""The output folder of a training: begun once, resumed by the same command, finished by its manifest.

settings.json          what was begun: settings and hashes of rows and weights; another command is refused
checkpoints/           of transformers' Trainer; one is read again only if all its files are as WHOLE says
metrics.jsonl          one row for each step
tensorboard/           the same for TensorBoard, where it was asked for
adapter_config.json    the result, a PEFT folder (with adapter_model.safetensors and the tokenizer)
manifest.json          written last: all of settings.json, versions, counts, figures, file hashes
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from preceptor.constitution.foreign import json_in, json_of
from preceptor.judge.models.local.loading import identity_of
from preceptor.prompts.manifest import SEALS, SUMS, file_hash, files_in, versions, write_json, write_manifest
from preceptor.prompts.records import Record
from preceptor.train import distributed
from preceptor.train.data.counts import TrainedRows
from preceptor.train.data.readers import UNKNOWN
from preceptor.train.errors import RunFolderError
from preceptor.train.estimate.plan_figures import NoPlan, TrainingPlanFigures
from preceptor.train.loop.manifest import Measured, TrainingManifest
from preceptor.train.models.base import resolve_model
from preceptor.train.settings import BARE, NOT_IN_RESULT, DpoSettings, RewardModelSettings

WHOLE = "whole"
SETTINGS, MANIFEST, METRICS, CHECKPOINTS = "settings.json", "manifest.json", "metrics.jsonl", "checkpoints"
TENSORBOARD = "tensorboard"
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors")
SCHEMA = 1
FORMER = {old: name for kind in (RewardModelSettings, DpoSettings) for name, old in kind.former.items()}
"""Names that settings had in folders of the version before -> today's."""
log = logging.getLogger(__name__)
NOTHING_MORE: Mapping[str, str] = MappingProxyType({})


class Opened(NamedTuple):
    """An output folder, ready to be written to."""

    path: Path
    identity: dict[str, Any]
    finished: TrainingManifest | None
    """The manifest, where the very same training has been finished here."""
    checkpoint: Path | None
    """The last whole checkpoint, where it was begun and not finished."""
    origins: Mapping[str, list[str]] = MappingProxyType({})
    """For the manifest, as `origins_of` says; no part of the identity, since equal rows have equal ones."""


class TrainingResult(NamedTuple):
    """What a stage has to say in its manifest."""

    rows: TrainedRows
    metrics: dict[str, Any]
    """The last step's figures, and those on held-out rows where there are any."""
    steps: int
    wall_s: float
    read: dict[str, Any]
    """What reading the rows set aside, and which files they came from."""
    plan: TrainingPlanFigures | NoPlan
    measured: Measured
    notes: tuple[str, ...] = ()
    """What a person should know of how it was trained."""


class Trained(NamedTuple):
    """What a training hands back: its folder and what the manifest says, as in `TrainingResult`."""

    folder: Path
    rows: TrainedRows
    metrics: dict[str, Any]
    steps: int
    wall_s: float
    """Time of this command's own training; 0 where it had been finished before."""
    finished_before: bool
    plan: TrainingPlanFigures | NoPlan
    """Empty for a training that was finished before there were plans; `measured` likewise."""
    measured: Measured
    notes: tuple[str, ...] = ()
    """What a person should know of how it was trained."""


def row_hash(rows: Iterable[Record]) -> str:
    """SHA-256 of rows as lines: two trainings on equal rows are the same, whatever file they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.line().encode() + b"\n")
    return digest.hexdigest()


def training_identity(kind: str, settings: Record, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What makes two trainings the same: kind, settings that matter, hashes of rows and weights."""
    return {
        "kind": kind,
        "settings": settings.model_dump(mode="json", exclude=set(NOT_IN_RESULT)),
        "hashes": dict(hashes),
    }


def origins_of(rows: Iterable[Record]) -> dict[str, list[str]]:
    """`constitutions` and `judges` that the rows name, in order of name, and UNKNOWN where some do not; both
    empty where no row names any."""
    named = [(getattr(row, "constitution", ""), getattr(row, "judge", "")) for row in rows]
    constitutions, judges = (
        (
            sorted({name or UNKNOWN for name in column} if any(column) else ())
            for column in zip(*named, strict=True)
        )
        if named
        else ([], [])
    )
    return {"constitutions": constitutions, "judges": judges}


def start_folder(
    kind: str, rows: Sequence[Record], settings: Record, out: Path, more: Mapping[str, str] = NOTHING_MORE
) -> Opened:
    """`open_folder` for a stage's settings, which name a `model` and perhaps an `adapter` or two.

    `more`: hashes of whatever else the result depends on, by name.
    """
    values = settings.model_dump()
    hashes = {"rows": row_hash(rows), "model": identity_of(resolve_model(values["model"])), **more}
    if values["adapter"] is not None:
        hashes["adapter"] = identity_of(values["adapter"])
    if values.get("reference_adapter", BARE) != BARE:
        hashes["reference_adapter"] = identity_of(values["reference_adapter"])
    return open_folder(out, training_identity(kind, settings, hashes))._replace(origins=origins_of(rows))


def open_folder(out: Path, identity: dict[str, Any]) -> Opened:
    """See whether a training at `out` is to be begun, resumed, or is finished. Writes nothing yet; a checkpoint that
    was cut short or altered since is removed.

    Raises RunFolderError where the folder holds something else, was begun with other settings, or is not
    writable.
    """
    try:
        begun = _read(out / MANIFEST) or _read(out / SETTINGS)
        if begun is None:
            if out.exists() and (not out.is_dir() or any(not p.name.startswith(".") for p in out.iterdir())):
                raise RunFolderError(f"{out} already holds something else: choose another output folder")
            parent = next(path for path in (out, *out.absolute().parents) if path.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
                raise RunFolderError(
                    f"cannot write to {out}: {parent} is not a folder that may be written to"
                )
            return Opened(out, identity, None, None)
        if (held := begun.get("kind")) != identity["kind"]:
            raise RunFolderError(
                f"{out} already holds something else ({held or 'of no kind that is told'}, and no "
                f"{identity['kind']}): choose another output folder"
            )
        differences = _differences(identity, {key: _of_result(begun.get(key)) for key in identity})
        if differences:
            raise RunFolderError(
                f"{out} was begun differently: {'; '.join(differences)}. "
                "Choose another output folder, or remove this one"
            )
        finished = cast("TrainingManifest", begun) if (out / MANIFEST).exists() else None
        return Opened(out, identity, finished, None if finished else _last_whole(out / CHECKPOINTS))
    except OSError as error:
        raise RunFolderError(f"cannot use {out}: {error.strerror or error}") from error


def begin_folder(opened: Opened) -> None:
    """Make the folder and say what is being trained there, once rows and model are known to be usable."""
    if not distributed.first():
        return
    try:
        opened.path.mkdir(parents=True, exist_ok=True)
        write_json(opened.path / SETTINGS, opened.identity)
    except OSError as error:
        raise RunFolderError(f"cannot write to {opened.path}: {error.strerror or error}") from error


def found_finished(opened: Opened) -> Trained | None:
    """The result of a training that had been finished here before, None where it had not."""
    manifest = opened.finished
    if manifest is None:
        return None
    shutil.rmtree(opened.path / CHECKPOINTS, ignore_errors=True)  # of a command killed just at its end
    if not (opened.path / SUMS).exists() and distributed.first():
        write_manifest(opened.path, manifest)  # of an earlier version
    return Trained(
        opened.path,
        manifest["rows"],
        manifest["metrics"],
        manifest["steps"],
        0.0,
        True,
        manifest.get("plan", NoPlan()),
        manifest.get("measured", {}),
        tuple(manifest.get("notes", ())),
    )


def finish_folder(opened: Opened, result: TrainingResult) -> Trained:
    """Write the manifest, last of all files, and drop the checkpoints, which nothing reads any more."""
    folder = opened.path
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in {SETTINGS, *SEALS})
    fullest = max(result.measured.get("disk_bytes", 0), bytes_under(folder))
    result = result._replace(measured={**result.measured, "disk_bytes": fullest})
    manifest = {  # of the keys of TrainingManifest
        **opened.identity,
        "schema": SCHEMA,
        "versions": versions(*LIBRARIES),
        **opened.origins,
        **result._asdict(),
        "files": {path.name: file_hash(path) for path in files},
    }
    names = [name for name in files_in(folder) if not name.startswith(f"{CHECKPOINTS}/")]
    write_manifest(folder, manifest, names, manifest["files"])
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Trained(
        folder,
        result.rows,
        result.metrics,
        result.steps,
        result.wall_s,
        False,
        result.plan,
        result.measured,
        result.notes,
    )


def bytes_under(folder: Path) -> int:
    """Of all files in a folder and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def keep_metrics(path: Path, steps: int) -> None:
    """Drop the rows after `steps`, which a resumed training will write again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        kept = [line for line in lines if line.endswith("}") and json_of(line)["step"] <= steps]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is not as it was written ({error}); remove the folder, or mend it"
        ) from error
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)


def checkpoint_step(checkpoint: Path) -> int:
    """The number of steps done at a checkpoint, as transformers puts it into the folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def mark_whole(checkpoint: Path) -> None:
    """Write down, once all else is there, what the files of a checkpoint are."""
    names = [name for name in files_in(checkpoint) if name != WHOLE]
    hashes = {name: file_hash(checkpoint / name) for name in names}
    (checkpoint / WHOLE).write_text(json.dumps(hashes, indent=2), encoding="utf-8")


def altered(checkpoint: Path) -> list[str]:
    """The files of a checkpoint that are not as they were written; all of them where nothing says how that was."""
    try:
        said = json_in(checkpoint / WHOLE)
        wanted: dict[str, str] = {name: str(sha) for name, sha in said.items()}
    except (OSError, ValueError, AttributeError):
        wanted = {WHOLE: ""}
    there = {name for name in files_in(checkpoint) if name != WHOLE}
    return sorted(
        name
        for name in there | set(wanted)
        if name not in there or file_hash(checkpoint / name) != wanted.get(name)
    )


def _last_whole(checkpoints: Path) -> Path | None:
    """The latest checkpoint that is as it was written. What was cut short in being written is removed, and so is what
    has been altered since, which is said."""
    begun = [path for path in checkpoints.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(begun, key=checkpoint_step, reverse=True):
        if not (names := altered(path)):
            return path
        if distributed.first():
            if (path / WHOLE).exists():
                log.warning(
                    "%s is not resumed from: %s is not as it was written; an earlier one is taken, or the training "
                    "begins anew",
                    path,
                    ", ".join(names[:3]),
                )
            shutil.rmtree(path)
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json_in(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}): choose another output folder") from error
    return value if isinstance(value, dict) else {}


def _of_result(value: Any) -> Any:
    """By today's names, and without settings that did not yet, when a folder was begun, stand among those that change
    nothing."""
    if not isinstance(value, dict):
        return value
    return {FORMER.get(key, key): given for key, given in value.items() if key not in NOT_IN_RESULT}


def _differences(now: Mapping[str, Any], then: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*now, *then}):
        a, b = now.get(key), then.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, "" if key in ("settings", "hashes") else f"{key}.")
        elif a != b:
            short = [value[:12] if isinstance(value, str) and len(value) == 64 else value for value in (b, a)]
            found.append(f"{prefix}{key} was {short[0]!r} and is now {short[1]!r}")
    return found
