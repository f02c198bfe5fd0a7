"""A base model as a training needs it: named, checked, loaded, frozen."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.local.gguf import folder_of
from preceptor.judge.models.local.loading import Placement, open_checkpoint
from preceptor.judge.models.local.weights_hash import is_gguf
from preceptor.judge.models.registry import packaged, weights_of
from preceptor.train.errors import CheckpointError
from preceptor.train.models.devices import check_four_bit, load_dtype
from preceptor.train.settings import LoopSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class Base(NamedTuple):
    """A base model as loaded, in evaluation mode and frozen."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    """Folder or hub id that it was loaded from."""

    @property
    def generation_eos(self) -> int | list[int] | None:
        """Token or tokens at which its generation config stops."""
        config = self.model.generation_config
        eos: int | list[int] | None = None if config is None else config.eos_token_id
        return eos

    @property
    def pad_id(self) -> int:
        """Token to pad with; never attended to, so end of text serves where there is none."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else int(self.tokenizer.eos_token_id)


def resolve_model(name: str) -> str:
    """The folder or hub id that a model name stands for: a packaged model's name, `hf/ID`, `hf/FOLDER`, `hf/PATH.gguf`,
    or a path alone. Of a GGUF file it is the folder that is made of it.

    Raises CheckpointError for a name that is none of these, and for a folder that holds no whole model.
    """
    try:
        source = weights_of(name)
        if is_gguf(source):
            source = str(folder_of(name, source))
    except UnknownModel as error:
        near = difflib.get_close_matches(name, packaged(), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CheckpointError(
            f"no model {name!r}: wanted {', '.join(f'`{one}`' for one in packaged())}, `hf/` and a hub id, or the path "
            f"of a model folder or GGUF file{hint}"
        ) from error
    except UserError as error:
        raise CheckpointError(str(error)) from error
    folder = Path(source).expanduser()
    return str(_checked_folder(folder)) if folder.is_dir() else source


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        if (folder / ADAPTER_CONFIG).is_file():
            raise CheckpointError(
                f"{folder} is an adapter, not a model: give its base as model, and it as adapter"
            )
        raise CheckpointError(f"{folder} is no model folder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} has no weights in safetensors form; other forms can run code when loaded and are "
            "refused: convert them first"
        )
    return folder


def load_base(name: str, dtype: torch.dtype = torch.float32, four_bit: bool = False) -> Base:
    """Load a model by name, from safetensors only and without running any code that comes with it.

    Raises CheckpointError where weights are missing: transformers would fill them in at random and go on; and for
    `four_bit` where that cannot be had.
    """
    source = resolve_model(name)
    if four_bit:
        check_four_bit()
    place = Placement(
        device="cuda:0" if four_bit else "cpu", dtype=str(dtype).removeprefix("torch."), four_bit=four_bit
    )
    try:
        opened = open_checkpoint(name, source, place)
    except UserError as error:
        raise CheckpointError(str(error)) from error
    if opened.tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer of {source} has no end-of-text token: replies could not end")
    return Base(freeze(opened.model), opened.tokenizer, source)


def load_for(settings: LoopSettings) -> Base:
    """The base that a training's settings name, in the form that they ask for. The one way in which trainings load it.

    Raises CheckpointError for a model that cannot be loaded, or not in that form.
    """
    return load_base(settings.model, load_dtype(settings.precision), settings.four_bit)


def freeze(model: Any) -> Any:
    """The model itself, none of whose own weights is trained, and none of whose values is dropped by chance."""
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model.eval()
