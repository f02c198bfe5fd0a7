"""Checkpoint or adapter folder -> a model in memory: the one place where weights are read, to judge or to train.

Only safetensors are read, and GGUF files, which become safetensors first; no code from a checkpoint is run, and torch
is imported when something is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_in
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.local.chat_tokens import Loaded
from preceptor.judge.models.local.cpu_bf16 import cpu_bf16
from preceptor.judge.models.local.gguf import check_gguf, folder_of
from preceptor.judge.models.local.prefix_passes import Passes
from preceptor.judge.models.local.text_tokens import check_tokenizer
from preceptor.judge.models.local.weights_hash import is_gguf, model_hash

log = logging.getLogger(__name__)

ADAPTER = "adapter_config.json"
DTYPES = ("auto", "float32", "bfloat16", "float16")
BATCH_TOKENS = 16384
"""Room of one batch: rows times (longest prompt + longest reply)."""
CPU_TOKENS = 4096
"""Most tokens of a batch of bare verdicts on a CPU, which is as fast with few rows and pads them less."""


class Placement(NamedTuple):
    """Where a model's weights lie, and in what precision."""

    device: str | None = None
    """torch's name; None: a GPU if there is one."""
    dtype: str | None = None
    """torch's name, or `auto` for the checkpoint's own; None: `auto` on a GPU, and on a CPU float32, or bfloat16 where
    its units for that are used (`cpu_bf16`)."""
    device_map: str | None = None
    """accelerate's, such as `auto`: layers spread over all GPUs and what they cannot hold over the CPU."""
    four_bit: bool = False
    """nf4 with double quantisation (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes, on CUDA only."""

    @property
    def spread(self) -> bool:
        """Whether transformers itself puts the weights where they belong."""
        return self.device_map is not None or self.four_bit

    @property
    def mark(self) -> str:
        """What tells answers apart that other weights or another precision gave; empty for the default."""
        dtype = self.dtype or ("bfloat16" if _halved_on_cpu(self) else "")
        return ":4bit" if self.four_bit else f":{dtype}" if dtype else ""


DEFAULT = Placement()


def check_path(name: str, path: str) -> None:
    """Refuse what is known to fail without importing anything; a hub id is left to the hub."""
    if absent := [library for library in ("torch", "transformers", "peft") if find_spec(library) is None]:
        raise UserError(
            f"{name} needs {' and '.join(absent)}; install them with: pip install 'preceptor[train]'"
        )
    if is_gguf(path):
        check_gguf(name, path)
    elif not Path(path).expanduser().is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise UnknownModel(
            f"{name}: there is no folder {path}; wanted a checkpoint or adapter folder, a GGUF "
            "file, or a hub id like Qwen/Qwen3-0.6B"
        )


def load(name: str, path: str, wanted: Placement = DEFAULT, batch_tokens: int = BATCH_TOKENS) -> Loaded:
    """Checkpoint or adapter folder -> model in evaluation mode and tokenizer.

    Raises UserError where files are missing or broken, or where weights that the architecture has are not in
    the files: transformers would fill those with random numbers.
    """
    folder = Path(path).expanduser()
    place = _settled(wanted)
    adapted = (folder / ADAPTER).is_file()
    opened = _open_adapter(name, folder, place) if adapted else open_checkpoint(name, path, place)
    model, tokenizer = opened.model, opened.tokenizer
    if not tokenizer.chat_template:
        log.warning("%s has no chat template: conversations are written as plain 'role: text' lines", name)
    ends = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1_000_000)
    return Loaded(
        model.eval(),
        tokenizer,
        frozenset(stops),
        context,
        Passes(name, model, min(batch_tokens, CPU_TOKENS) if place.device == "cpu" else batch_tokens),
    )


def check_placement(name: str, wanted: Placement) -> None:
    """Raises UserError for a precision that there is not, and for 4 bits without a GPU or without bitsandbytes."""
    if wanted.dtype not in (None, *DTYPES):
        raise UserError(f"{name}: --dtype is {wanted.dtype!r}; wanted {', '.join(DTYPES)}")
    if not wanted.four_bit:
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{name}: 4-bit weights need a CUDA GPU, and there is none; leave out --4bit")
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{name}: 4-bit weights need bitsandbytes; install it with: pip install bitsandbytes")


def _settled(wanted: Placement) -> Placement:
    import torch

    device = wanted.device or ("cuda" if torch.cuda.is_available() else "cpu")
    own = "auto" if device != "cpu" else "bfloat16" if cpu_bf16().used else "float32"
    return wanted._replace(device=device, dtype=wanted.dtype or own)


def _halved_on_cpu(wanted: Placement) -> bool:
    """Whether the weights come to lie on a CPU in bfloat16, unasked. torch is imported only where they might."""
    if wanted.dtype or wanted.device not in (None, "cpu") or not cpu_bf16().used:
        return False
    return _settled(wanted).dtype == "bfloat16"


def _placed(place: Placement) -> dict[str, Any]:
    """What transformers is told beside the precision."""
    options: dict[str, Any] = {}
    if place.spread:
        options["device_map"] = place.device_map or {"": place.device}
    if place.four_bit:
        options["quantization_config"] = nf4()
    return options


def nf4() -> Any:
    """transformers' configuration for weights in nf4 with double quantisation."""
    import torch
    from transformers import BitsAndBytesConfig

    quantized: Any = BitsAndBytesConfig
    return quantized(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


class Checkpoint(NamedTuple):
    """A base model as read, and its tokenizer."""

    model: Any
    tokenizer: Any
    source: str
    """Folder or hub id that it was read from; of a GGUF file, the folder that was made of it."""


def open_checkpoint(name: str, source: str, place: Placement) -> Checkpoint:
    """Read a base model: a folder, a hub id or a GGUF file.

    Raises UserError where it cannot be read, and where weights that the architecture has are missing or of another
    shape: transformers would fill those with random numbers.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if is_gguf(source):
        source = str(folder_of(name, source))
    folder = Path(source).expanduser()
    source, local = (str(folder), True) if folder.is_dir() else (source, False)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local}
    try:
        with quiet_loading():
            both: Any = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=place.dtype,
                **_placed(place),
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as exc:  # the libraries raise whatever their readers raise
        raise UserError(
            f"{_called(name, source)} cannot be loaded: {_first_line(exc)}; wanted a folder or hub id with "
            "config.json, safetensors weights and a tokenizer"
        ) from exc
    model, info = both
    faults = [*sorted(info["missing_keys"]), *(str(key[0]) for key in info["mismatched_keys"])]
    if faults:
        raise UserError(
            f"{_called(name, source)} lacks {len(faults)} of the model's weights or has them in another shape, the "
            f"first {faults[0]}; wanted a complete checkpoint, so save or download it again"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as exc:
        raise UserError(f"{_called(name, source)} has no usable tokenizer: {_first_line(exc)}") from exc
    check_tokenizer(_called(name, source), tokenizer, model.get_input_embeddings().weight.shape[0])
    return Checkpoint(model if place.spread else model.to(place.device), tokenizer, source)


@cache
def tokenizer_at_hand(path: str) -> Any:
    """The tokenizer of a folder, an adapter folder or a hub id, without its weights; None where it is not on this
    machine, or would have to be made first, as that of a GGUF file."""
    if is_gguf(path):
        return None
    folder = Path(path).expanduser()
    own = (folder / "tokenizer_config.json").is_file() or not (folder / ADAPTER).is_file()
    try:
        from transformers import AutoTokenizer

        with quiet_loading():
            return AutoTokenizer.from_pretrained(
                str(folder) if own and folder.is_dir() else path if own else base_source(folder),
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception:  # whatever it is, it is told when the model is loaded
        return None


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and load reports of transformers meanwhile; what matters of them is raised."""
    from transformers.utils import logging as hf_logging

    talk: Any = hf_logging
    verbosity, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft 0.21 and trl 1.16 still ask transformers 5.23 by the old names
            old = r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated"
            warnings.filterwarnings("ignore", old, FutureWarning)
            yield
    finally:
        talk.set_verbosity(verbosity)
        if bars:
            talk.enable_progress_bar()


def base_named_by(folder: Path) -> str | None:
    """Where the base lies that a training or an export names beside its adapter, as a name that holds on any machine;
    None where it names none, or one that is not to be had here."""
    from preceptor.judge.models.registry import weights_of

    try:
        manifest = json_in(folder / "manifest.json")
        settings = manifest.get("settings") or {}
        return weights_of(str(settings.get("model") or manifest["base"]))
    except (OSError, ValueError, KeyError, AttributeError, UserError):
        return None


def identity_of(source: str) -> str:
    """`model_hash` of a checkpoint, or of an adapter folder with its base; empty for a hub id."""
    folder = Path(source).expanduser()
    if not (folder / ADAPTER).is_file():
        return model_hash(source)
    base = base_source(folder)
    nested = bool(base) and (Path(base).expanduser() / ADAPTER).is_file()  # no adapter stands on an adapter
    return model_hash(source, (not nested and model_hash(base)) or base)


def base_source(folder: Path) -> str:
    """Where the base of an adapter folder lies, or its hub id; empty where it says none or one that is not there."""
    try:
        config = json_in(folder / ADAPTER)
        base = str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        return ""
    beside = folder / base
    source = str(beside) if base and not Path(base).is_dir() and beside.is_dir() else base
    if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
        source = base_named_by(folder) or ""
    return source


def _open_adapter(name: str, folder: Path, place: Placement) -> Checkpoint:
    """An adapter folder on its base. In float32 the adapter is merged: same numbers to rounding, and faster. The
    tokenizer is the adapter's own where it has one."""
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoTokenizer

    weights = folder / "adapter_model.safetensors"
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with safe_open(weights, framework="pt") as stored:
            names = set(stored.keys())
    except Exception as exc:  # whatever the library makes of somebody's file
        raise UserError(
            f"{name}: {folder} is not a readable PEFT adapter: {_first_line(exc)}; wanted "
            "adapter_config.json and adapter_model.safetensors"
        ) from exc
    base = str(config.base_model_name_or_path or "")
    source = base_source(folder)
    if not source:
        raise UserError(
            f"{name}: the adapter in {folder} was trained on {base or 'an unnamed base'}, which is not "
            "there; put the base model back or correct base_model_name_or_path in adapter_config.json"
        )
    opened = open_checkpoint(name, source, place)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers by an old name, and warns of missing weights, which are refused below
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        try:
            model = PeftModel.from_pretrained(opened.model, str(folder))
        except (
            Exception
        ) as exc:  # the library tells every weight that does not fit, in thousands of characters
            raise UserError(
                f"{name}: the adapter in {folder} does not fit its base {source}: {_first_line(exc)[:200]}; wanted the "
                "base that it was trained on"
            ) from exc
        # its base may have moved: whether the vocabulary is another is seen in the weights' shapes
        warnings.filterwarnings("ignore", "Could not find a config file", UserWarning)
        wanted = set(get_peft_model_state_dict(model))
    if missing := sorted(wanted - names):
        raise UserError(
            f"{name}: {weights} lacks {len(missing)} of the adapter's weights, the first {missing[0]}"
        )
    if all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        model = model.merge_and_unload()
    if not (folder / "tokenizer_config.json").is_file():
        return opened._replace(model=model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as exc:
        raise UserError(f"{name}: no usable tokenizer in {folder}: {_first_line(exc)}") from exc
    check_tokenizer(name, tokenizer, model.get_input_embeddings().weight.shape[0])
    return opened._replace(model=model, tokenizer=tokenizer)


def _called(name: str, source: str) -> str:
    """A model as a message names it: where it lies, and by what name it was asked for if that says something else."""
    return source if name.removeprefix("hf/") == source else f"{name}: {source}"


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)
