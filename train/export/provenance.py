"""What a finished training says of itself: its base, its rows, and by whose constitution and judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from preceptor.constitution.files import load
from preceptor.constitution.foreign import json_in
from preceptor.judge.models.local import gguf, smollm2
from preceptor.judge.models.local.weights_hash import is_gguf
from preceptor.judge.models.registry import packaged
from preceptor.prompts.manifest import file_hash
from preceptor.train.data.readers import UNKNOWN
from preceptor.train.errors import CheckpointError
from preceptor.train.evaluation.report_card import CARD
from preceptor.train.evaluation.reward_figures import RewardFigures
from preceptor.train.forward.reward_model import HEAD
from preceptor.train.loop.manifest import TrainingManifest
from preceptor.train.loop.output_folder import MANIFEST, SETTINGS
from preceptor.train.models.adapters import base_of_adapter
from preceptor.train.models.base import ADAPTER_CONFIG, ADAPTER_WEIGHTS, EMBEDDED, resolve_model

REWARD = "reward"
CONSTITUTION = "constitution.yaml"
"""Of the run folder that a training lies in."""


class Origin(NamedTuple):
    """A finished training and where it comes from."""

    folder: Path
    manifest: TrainingManifest
    base: str
    """Name of the base, as `load_base` takes it."""
    constitutions: tuple[str, ...]
    """Identities; UNKNOWN among them stands for rows that name none."""
    judges: tuple[str, ...]
    """UNKNOWN among them stands for rows that name none, which people may have labelled."""

    @property
    def kind(self) -> str:
        """sft, reward, dpo, kto and so on."""
        return str(self.manifest["kind"])

    @property
    def hub_base(self) -> str | None:
        """The base's hub id, None where it is a local folder."""
        source = resolve_model(self.base)
        return None if Path(source).is_dir() else source

    @property
    def base_name(self) -> str:
        """The base by a name that holds on another machine too: hub id, a packaged model's name, or the name of a
        folder or GGUF file."""
        if self.base in packaged():
            return self.base
        return self.hub_base or Path(self.base.removeprefix("hf/")).name

    @property
    def base_from(self) -> str:
        """How another machine gets the base, where its name does not say it; empty for a hub id and a bare folder."""
        if self.base == EMBEDDED:
            return "the tiny model that Preceptor ships"
        if self.base == smollm2.NAME:
            return f"{smollm2.ABOUT}; Preceptor has it with {gguf.INSTALL}"
        made_of = gguf.source_of(resolve_model(self.base)) if self.hub_base is None else None
        if made_of is None:
            return ""
        return f"the GGUF file {made_of['file']} (SHA-256 {made_of['sha256']}), dequantised by Preceptor"

    @property
    def card(self) -> RewardFigures | None:
        """The report card of a reward model, where there is one."""
        path = self.folder / CARD
        if self.kind != REWARD or not path.is_file():
            return None
        return cast("RewardFigures", _json(path))


def read_origin(folder: Path) -> Origin:
    """Read a training's folder; where its rows named no constitution or judge, those of its run folder.

    Raises CheckpointError where it is none, is not finished, or is not what its manifest says any more.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no folder {folder}; wanted one that `preceptor train` wrote")
    if not _is_training(folder):
        _refuse(folder)
    manifest = _json(folder / MANIFEST)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, HEAD, CARD):
        wanted = manifest.get("files", {}).get(name)
        path = folder / name
        if wanted is not None and (not path.is_file() or file_hash(path) != wanted):
            raise CheckpointError(
                f"{path} is not the file that {MANIFEST} tells of: see `preceptor verify {folder}`, or train again"
            )
    settings = manifest.get("settings", {})
    base = _base_of(folder, str(settings.get("model", "")))
    run = folder.absolute().parent
    constitutions = manifest.get("constitutions") or _constitution_of(run) or [UNKNOWN]
    judges = manifest.get("judges") or _judge_of(run, str(manifest["kind"])) or [UNKNOWN]
    return Origin(folder, cast("TrainingManifest", manifest), base, tuple(constitutions), tuple(judges))


def _base_of(folder: Path, model: str) -> str:
    """The base by the name that it was trained by, where that is a package's or a GGUF file's; else where the adapter
    says that it lies."""
    if model in packaged() or (is_gguf(model) and Path(model.removeprefix("hf/")).expanduser().is_file()):
        return model
    return base_of_adapter(folder)


def _is_training(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file() or not (folder / ADAPTER_CONFIG).is_file():
        return False
    manifest = _json(folder / MANIFEST)
    return "kind" in manifest and "hashes" in manifest and manifest["kind"] != "export"


def _refuse(folder: Path) -> None:
    """Say what the folder is instead of a finished training."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and _is_training(path))
    if inner:
        named = ", ".join(f"{path} ({_json(path / MANIFEST)['kind']})" for path in inner)
        raise CheckpointError(f"{folder} holds several models; name the one to export: {named}")
    if (folder / MANIFEST).is_file() and _json(folder / MANIFEST).get("kind") == "export":
        raise CheckpointError(f"{folder} is an export itself; give the folder that it was made from")
    if (folder / SETTINGS).is_file() and not (folder / MANIFEST).is_file():
        raise CheckpointError(f"the training in {folder} is not finished: run its command again to the end")
    raise CheckpointError(f"{folder} is no model; wanted a folder that `preceptor train` wrote")


def _constitution_of(run: Path) -> list[str]:
    path = run / CONSTITUTION
    return [load(path).identity] if path.is_file() else []


def _judge_of(run: Path, kind: str) -> list[str]:
    """The judge of the run folder; SFT learns from revisions, which no judge has compared."""
    if kind == "sft" or not (run / CONSTITUTION).is_file() or not (run / MANIFEST).is_file():
        return []
    manifest = _json(run / MANIFEST)
    judge = manifest.get("settings", {}).get("judge") if manifest.get("kind") == "run" else None
    return [str(judge)] if judge else []


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json_in(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): train again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: train again")
    return value
