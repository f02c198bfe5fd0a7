"""Checkpoint or adapter folder -> a model in memory.

Only safetensors are read, no code from a checkpoint is run, and torch is imported when something is loaded.
"""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.local.chat_tokens import Loaded
from preceptor.judge.models.local.prefix_passes import Passes
from preceptor.judge.models.local.text_tokens import check_tokenizer

log = logging.getLogger(__name__)

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
    """torch's name, or `auto` for the checkpoint's own; None: float32 on a CPU and `auto` elsewhere."""
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
        return ":4bit" if self.four_bit else f":{self.dtype}" if self.dtype else ""


DEFAULT = Placement()


def check_path(name: str, path: str) -> None:
    """Refuse what is known to fail without importing anything; a hub id is left to the hub."""
    if absent := [library for library in ("torch", "transformers", "peft") if find_spec(library) is None]:
        raise UserError(
            f"{name} needs {' and '.join(absent)}; install them with: pip install 'preceptor[train]'"
        )
    if not Path(path).expanduser().is_dir() and path.startswith((".", "/", "~")):
        raise UnknownModel(
            f"{name}: there is no folder {path}; wanted a checkpoint or adapter folder, or a hub id like "
            "Qwen/Qwen3-0.6B"
        )


def load(name: str, path: str, wanted: Placement = DEFAULT, batch_tokens: int = BATCH_TOKENS) -> Loaded:
    """Checkpoint or adapter folder -> model in evaluation mode and tokenizer.

    Raises UserError where files are missing or broken, or where weights that the architecture has are not in
    the files: transformers would fill those with random numbers.
    """
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    place = _settled(wanted)
    if (folder / "adapter_config.json").is_file():
        model, source = _load_adapter(name, folder, place)
    else:
        source = str(folder) if folder.is_dir() else path
        model = _load_base(name, source, place)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=Path(source).is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as exc:
        raise UserError(f"{name}: no usable tokenizer in {source}: {_first_line(exc)}") from exc
    check_tokenizer(name, tokenizer, model.get_input_embeddings().weight.shape[0])
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
    return wanted._replace(device=device, dtype=wanted.dtype or ("float32" if device == "cpu" else "auto"))


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


def _load_base(name: str, source: str, place: Placement) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    talk: Any = transformers_logging
    showed_bars, verbosity = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=place.dtype,
            **_placed(place),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=Path(source).is_dir(),
            output_loading_info=True,
        )
    except Exception as exc:  # the libraries raise whatever their readers raise
        raise UserError(
            f"{name}: {source} cannot be loaded: {_first_line(exc)}; wanted a folder or hub id with "
            "config.json, safetensors weights and a tokenizer"
        ) from exc
    finally:
        talk.set_verbosity(verbosity)
        if showed_bars:
            talk.enable_progress_bar()
    model, info = both
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{name}: {source} lacks {len(missing)} of the model's weights, the first {missing[0]}; wanted a "
            "complete checkpoint, so save or download it again"
        )
    return model if place.spread else model.to(place.device)


def _load_adapter(name: str, folder: Path, place: Placement) -> tuple[Any, str]:
    """(model, where its tokenizer is). In float32 the adapter is merged: same numbers to rounding, and
    faster."""
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    weights = folder / "adapter_model.safetensors"
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with safe_open(weights, framework="pt") as stored:
            names = set(stored.keys())
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as exc:
        raise UserError(
            f"{name}: {folder} is not a readable PEFT adapter: {_first_line(exc)}; wanted "
            "adapter_config.json and adapter_model.safetensors"
        ) from exc
    base = str(config.base_model_name_or_path or "")
    beside = folder / base
    source = str(beside) if base and not Path(base).is_dir() and beside.is_dir() else base
    if not source or (source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir()):
        raise UserError(
            f"{name}: the adapter in {folder} was trained on {base or 'an unnamed base'}, which is not "
            "there; put the base model back or correct base_model_name_or_path in adapter_config.json"
        )
    loaded = _load_base(name, source, place)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers by an old name, and warns of missing weights, which are refused below
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        model = PeftModel.from_pretrained(loaded, str(folder))
    if missing := sorted(set(get_peft_model_state_dict(model)) - names):
        raise UserError(
            f"{name}: {weights} lacks {len(missing)} of the adapter's weights, the first {missing[0]}"
        )
    if all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        model = model.merge_and_unload()
    return model, str(folder) if (folder / "tokenizer_config.json").is_file() else source


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)
