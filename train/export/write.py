"""A finished training as others take it, with a model card, in a folder that proves itself.

adapter                   PEFT folder and tokenizer; of a reward model, its score and report card too
merged                    the base with the adapter in it: a plain checkpoint of transformers
sequence-classification   a reward model as a plain AutoModelForSequenceClassification (`train.export.classifier`)
vllm                      PEFT folder in the form that vLLM serves on the base
README.md                 with each: the model card (`train.export.model_card`)
manifest.json             with each, written last: where it comes from, versions, file hashes
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import torch

from preceptor.judge.models.local.loading import quiet_loading
from preceptor.prompts.manifest import file_hash, versions, write_json, write_manifest, write_text
from preceptor.train.errors import CheckpointError, RunFolderError
from preceptor.train.evaluation.report_card import CARD
from preceptor.train.export.classifier import as_classifier, misread
from preceptor.train.export.manifest import ExportManifest
from preceptor.train.export.model_card import MadeIn, model_card
from preceptor.train.export.provenance import REWARD, Origin, read_origin
from preceptor.train.forward.reward_model import HEAD, RewardModel
from preceptor.train.loop.output_folder import LIBRARIES, MANIFEST
from preceptor.train.models.adapters import adapt_from, adapter_config
from preceptor.train.models.base import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_base, resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ExportFormat = Literal["adapter", "merged", "sequence-classification", "vllm"]
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""


class Exported(NamedTuple):
    """An export: where it lies, and what a person should know of it."""

    folder: Path
    format: ExportFormat
    constitutions: tuple[str, ...]
    judges: tuple[str, ...]
    command: str
    """That serves it with vLLM; empty for other formats."""
    notes: tuple[str, ...]


def export(
    folder: str | Path,
    out: str | Path,
    form: ExportFormat,
    dtype: Dtype | None = None,
    hub_id: str | None = None,
) -> Exported:
    """Write the training in `folder` to `out` in the form asked for; whole, or not at all.

    `dtype` is that of a checkpoint's weights; None means the base's own for `merged`, and float32 for
    `sequence-classification`, whose close scores are ties in less. `hub_id` is the name by which the model card
    loads it; without one it does from the folder that `out` lies in.
    Raises CheckpointError for what cannot be exported so, RunFolderError for an `out` that is not empty.
    """
    out = Path(out)
    origin = read_origin(Path(folder))
    _check(origin, form, dtype)
    with _new_folder(out) as place:
        made = FORMATS[form].write(origin, place, DTYPES[dtype] if dtype else None)
        now = versions(*LIBRARIES)
        name = out.absolute().name
        loaded_as = hub_id or f"./{name}"
        made_in = made._replace(
            command=_serve(origin, name, loaded_as, made.rank) if FORMATS[form].served else "",
            loaded_as=loaded_as,
            on_hub=bool(hub_id),
            name=name,
        )
        write_text(place / "README.md", model_card(origin, form, made_in, now))
        manifest = _manifest(origin, form, made_in, now, place)
        write_manifest(place, manifest, known=manifest["files"])
    command = _serve(origin, name, str(out), made.rank) if FORMATS[form].served else ""
    return Exported(out, form, origin.constitutions, origin.judges, command, made.notes)


def _check(origin: Origin, form: str, dtype: str | None) -> None:
    if form not in FORMATS:
        raise CheckpointError(f"no format {form!r}; wanted {', '.join(FORMATS)}")
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"no dtype {dtype!r}; wanted {', '.join(DTYPES)}")
    wanted = FORMATS[form]
    if dtype and not wanted.takes_dtype:
        raise CheckpointError(f"dtype has no effect on format {form}, which holds the adapter as trained")
    if origin.kind == REWARD and wanted.no_reward:
        raise CheckpointError(f"{origin.folder} is a reward model, and {wanted.no_reward}")
    if origin.kind != REWARD and wanted.no_policy:
        raise CheckpointError(f"{origin.folder} is a policy ({origin.kind}) and {wanted.no_policy}")


def _adapter(origin: Origin, place: Path, _: torch.dtype | None) -> MadeIn:
    """The adapter, its score if it has one, and the tokenizer."""
    from transformers import AutoTokenizer

    kept = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, *((HEAD, CARD) if origin.kind == REWARD else ()))
    for name in kept:
        if (origin.folder / name).is_file():
            shutil.copyfile(origin.folder / name, place / name)
    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(str(origin.folder), local_files_only=True)
    tokenizer.save_pretrained(str(place))
    return MadeIn(notes=_base_notes(origin))


def _merged(origin: Origin, place: Path, dtype: torch.dtype | None) -> MadeIn:
    """The base with the adapter's changes added to its weights, in float32, and then rounded to `dtype`."""
    base = load_base(origin.base)
    wanted = dtype or _own_dtype(base.source)
    adapted: Any = adapt_from(base, origin.folder, frozen_reference=False)
    with quiet_loading():
        merged = adapted.merge_and_unload()
    _save(merged.to(wanted), base.tokenizer, place)
    return MadeIn(dtype=str(wanted).removeprefix("torch."))


def _own_dtype(source: str) -> torch.dtype:
    """Of a model's weights as stored; float32 where its config does not say."""
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
    own = config.get_text_config().dtype or config.dtype
    return own if isinstance(own, torch.dtype) else torch.float32


def _sequence_classification(origin: Origin, place: Path, dtype: torch.dtype | None) -> MadeIn:
    model = RewardModel.load(origin.folder, origin.base)
    wanted = dtype or torch.float32
    made = as_classifier(model, wanted)
    _save(made.model, made.tokenizer, place)
    if (origin.folder / CARD).is_file():
        shutil.copyfile(origin.folder / CARD, place / CARD)
    notes = list(made.notes)
    template = bool(made.tokenizer.chat_template)
    if template and (wrong := misread(place, model.base)):
        notes.append(
            f"The text of {' and '.join(wrong)} is tokenised otherwise than in training, because of the chat "
            "template or the tokenizer: scores differ from those of `preceptor`."
        )
    return MadeIn(
        dtype=str(wanted).removeprefix("torch."),
        notes=tuple(notes),
        end_of_turn=made.end_of_turn,
        template=template,
        max_length=model.max_length,
    )


def _vllm(origin: Origin, place: Path, _: torch.dtype | None) -> MadeIn:
    """Only what vLLM reads; what it refuses, or passes over in silence, is refused here."""
    config = adapter_config(origin.folder)
    unusable = [
        name
        for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication")
        if config.get(name)
    ]
    if config.get("bias", "none") != "none":
        unusable.append("bias")
    rank = int(config["r"])
    if rank > VLLM_RANKS[-1]:
        unusable.append(f"r = {rank}, more than {VLLM_RANKS[-1]}")
    if unusable:
        raise CheckpointError(
            f"vLLM cannot serve the adapter {origin.folder} ({', '.join(unusable)}): use merged"
        )
    shutil.copyfile(origin.folder / ADAPTER_WEIGHTS, place / ADAPTER_WEIGHTS)
    listed = config["target_modules"]
    targets = sorted(listed) if isinstance(listed, list) else _targets(origin.folder)
    write_json(place / ADAPTER_CONFIG, {**config, "target_modules": targets})
    return MadeIn(rank=rank, notes=_base_notes(origin))


def _targets(folder: Path) -> list[str]:
    """Names of the layers that have a change, out of the weights: the config may hold a pattern instead."""
    from safetensors import safe_open

    with safe_open(str(folder / ADAPTER_WEIGHTS), framework="pt") as file:
        keys = [str(key) for key in file.keys()]  # noqa: SIM118 - not a mapping
    names = {key.removeprefix("base_model.model.").partition(".lora_")[0] for key in keys}
    return sorted({name.rpartition(".")[2] for name in names})


class ExportForm(NamedTuple):
    """A format: how it is written, and of what."""

    write: Callable[[Origin, Path, torch.dtype | None], MadeIn]
    """(training, new folder, dtype of the weights or None) -> what the model card says of it."""
    no_reward: str = ""
    """Why a reward model cannot be exported so; empty: it can."""
    no_policy: str = ""
    """Likewise a policy."""
    takes_dtype: bool = True
    """Else it holds the adapter as trained."""
    served: bool = False
    """The model card says with which command vLLM serves it."""


FORMATS: Mapping[str, ExportForm] = MappingProxyType(
    {
        "adapter": ExportForm(_adapter, takes_dtype=False),
        "merged": ExportForm(_merged, no_reward="merged would lose its score: use sequence-classification"),
        "sequence-classification": ExportForm(
            _sequence_classification, no_policy="scores nothing: use merged"
        ),
        "vllm": ExportForm(
            _vllm,
            no_reward="vLLM serves no score beside an adapter: use sequence-classification",
            takes_dtype=False,
            served=True,
        ),
    }
)
"""A format is one entry, and its name one of `ExportFormat`."""


def _base_notes(origin: Origin) -> tuple[str, ...]:
    if origin.hub_base is not None:
        return ()
    what = f" It is {origin.base_from}." if origin.base_from else ""
    return (
        "The base is no model of the hub: whoever loads the adapter needs that very base, and its path is in "
        f"{ADAPTER_CONFIG}.{what} Export as merged, or a reward model as sequence-classification, to hand it on.",
    )


def _serve(origin: Origin, name: str, place: str, rank: int) -> str:
    most = next(allowed for allowed in VLLM_RANKS if allowed >= rank)
    base = resolve_model(origin.base)
    return f"vllm serve {base} --enable-lora --lora-modules {name}={place} --max-lora-rank {most}"


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: Path) -> None:
    with quiet_loading():
        model.save_pretrained(str(place))
        tokenizer.save_pretrained(str(place))


class _BaseFrom(TypedDict, total=False):
    base_from: str


def _manifest(origin: Origin, form: str, made: MadeIn, now: dict[str, str], place: Path) -> ExportManifest:
    files = sorted(path for path in place.iterdir() if path.is_file())
    trained = origin.manifest
    base_from: _BaseFrom = {"base_from": origin.base_from} if origin.base_from else {}
    manifest: ExportManifest = {
        "kind": "export",
        "schema": 1,
        "format": form,
        "dtype": made.dtype,
        "base": origin.base_name,
        **base_from,
        "constitutions": list(origin.constitutions),
        "judges": list(origin.judges),
        "training": {
            "kind": origin.kind,
            "manifest": file_hash(origin.folder / MANIFEST),
            "hashes": trained["hashes"],
            "versions": trained.get("versions", {}),
        },
        "versions": now,
        "notes": list(made.notes),
        "files": {path.name: file_hash(path) for path in files},
    }
    return manifest


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends well, and is removed when it does not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out} already holds something: choose another --out, or remove it")
    place = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        place.mkdir(parents=True)
        yield place
        place.replace(out)
    except OSError as error:
        raise RunFolderError(f"cannot write to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
