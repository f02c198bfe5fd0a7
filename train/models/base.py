"""One frozen base; policy and reference are adapters on it, or the base with its adapters off.

    POLICY      the adapter that is trained, under the name that plain PEFT gives the adapter of a folder
    reference   the base with adapters off; or, where training goes on from an SFT adapter, a frozen second
                copy of that adapter under the name REFERENCE; or, where a fresh adapter is trained on top of
                the SFT adapter, that one alone, under the name BENEATH; or another adapter that was asked for,
                frozen under the name REFERENCE

PEFT flips `requires_grad` in `add_adapter`, `set_adapter` and on leaving `disable_adapter`, so every switch
here ends by saying again which parameters are trained.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.local.gguf import folder_of
from preceptor.judge.models.local.loading import Placement, base_named_by, open_checkpoint, quiet_loading
from preceptor.judge.models.local.weights_hash import is_gguf, weights_hash
from preceptor.judge.models.registry import packaged, weights_of
from preceptor.train.errors import CheckpointError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POLICY = "default"
REFERENCE = "reference"
BENEATH = "beneath"
JOINED = "joined"
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


def freeze(model: Any) -> Any:
    """The model itself, none of whose own weights is trained, and none of whose values is dropped by chance."""
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model.eval()


def check_four_bit() -> None:
    """Raises CheckpointError where a base cannot be held in nf4."""
    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        raise CheckpointError(
            "four_bit needs a CUDA GPU and the package bitsandbytes; leave it out, or take precision bf16"
        )


def accelerator() -> str:
    """Name of the device that training would use beside the CPU; empty where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU (mps)" if torch.backends.mps.is_available() else ""


def training_device() -> torch.device:
    """Where training takes place: the first GPU, where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def checkpoint_gradients(model: Any) -> None:
    """Recompute activations in the backward pass, for memory; costs about a third more time."""
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers come from `seed` meanwhile; afterwards they go on as if none had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def adapt(
    base: Base, rank: int, alpha: float, seed: int, *, dora: bool = False, rslora: bool = False
) -> PeftModel:
    """The base with a fresh LoRA adapter (Hu et al. 2021, arXiv 2106.09685) on all its linear layers but the
    output.

    The adapter begins as no change at all (B = 0); A is drawn from `seed`.
    """
    from peft import PeftModelForCausalLM

    with seeded(seed), quiet_loading():
        model = PeftModelForCausalLM(base.model, lora(rank, alpha, dora, rslora), adapter_name=POLICY)
    train_only(model, POLICY)
    return model


def lora(rank: int, alpha: float, dora: bool = False, rslora: bool = False) -> Any:
    """The form of a fresh adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_dora=dora,
        use_rslora=rslora,
    )


def adapt_from(base: Base, adapter: Path, frozen_reference: bool) -> PeftModel:
    """The base with a folder's adapter as the trained POLICY and, if wanted, as a frozen REFERENCE too."""
    from peft import PeftModel

    with _putting(adapter, base.source):
        model = PeftModel.from_pretrained(base.model, str(adapter), adapter_name=POLICY, is_trainable=True)
        if frozen_reference:
            model.load_adapter(str(adapter), adapter_name=REFERENCE, is_trainable=False)
    train_only(model, POLICY)
    return model


def hold_reference(model: PeftModel, base: Base, adapter: Path) -> None:
    """Put a folder's adapter beside the POLICY as the frozen REFERENCE, whatever the policy began as."""
    add_adapter_from(model, base.source, adapter, REFERENCE)
    train_only(model, POLICY)


@contextlib.contextmanager
def _putting(adapter: Path, source: str) -> Iterator[None]:
    """Refuses an adapter of another base, and names the adapter in whatever PEFT has to say of it."""
    _check_base(adapter, source)
    try:
        with quiet_loading():
            yield
    except Exception as error:
        raise CheckpointError(
            f"cannot put the adapter {adapter} on {source}: {_first_line(error)}"
        ) from error


def adapt_on_top(base: Base, adapter: Path, rank: int, alpha: float, seed: int) -> PeftModel:
    """The base with a folder's adapter frozen BENEATH, and a fresh one on top of it as the trained POLICY.

    Both act together: their changes of a layer are added.
    """
    from peft import PeftModel

    with _putting(adapter, base.source):
        model = PeftModel.from_pretrained(base.model, str(adapter), adapter_name=BENEATH)
    with seeded(seed):
        model.add_adapter(POLICY, lora(rank, alpha))
    train_only(model, POLICY)
    return model


def check_adapter(adapter: Path) -> None:
    """Raises CheckpointError for a folder that holds no whole PEFT adapter."""
    if not adapter.is_dir():
        raise CheckpointError(f"no adapter folder {adapter}")
    try:
        config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{adapter} is no adapter folder: it has no {ADAPTER_CONFIG}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{adapter} holds no LoRA adapter: {ADAPTER_CONFIG} does not say peft_type LORA"
        )
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{adapter} lacks its weights: wanted {ADAPTER_WEIGHTS}")


def base_of_adapter(adapter: Path) -> str:
    """Name of the base that an adapter was trained on; CheckpointError where it does not say."""
    check_adapter(adapter)
    name = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if name and name.startswith("/") and not Path(name).is_dir():  # made on another machine, perhaps
        name = base_named_by(adapter) or name
    if not name:
        raise CheckpointError(f"{adapter} does not say on which base it was trained")
    return str(name) if Path(name).is_dir() else f"hf/{name}"


def _check_base(adapter: Path, source: str) -> None:
    """Refuse an adapter of another base, as far as can be told: equal shapes would load in silence."""
    if not same_base(adapter, source):
        trained_on = base_of_adapter(adapter).removeprefix("hf/")
        raise CheckpointError(
            f"the adapter {adapter} was trained on {trained_on}, and the model asked for is {source}"
        )


def same_base(adapter: Path, source: str) -> bool:
    """Whether an adapter was trained on the model at `source`, as far as can be told; one whose base is no longer
    where it was is taken to have moved with it."""
    trained_on = base_of_adapter(adapter).removeprefix("hf/")
    if trained_on == source or (not Path(trained_on).is_dir() and Path(source).is_dir()):
        return True
    known = weights_hash(trained_on) if Path(trained_on).is_dir() else ""
    return bool(known) and known == weights_hash(source)


def add_adapter_from(model: PeftModel, source: str, adapter: Path, name: str) -> None:
    """Put one more adapter, a folder's, on a model whose base is `source`; nothing of it is trained yet."""
    with _putting(adapter, source):
        model.load_adapter(str(adapter), adapter_name=name, is_trainable=False)


def add_fresh_adapter(model: PeftModel, rank: int, alpha: float, name: str, seed: int) -> None:
    """Put one more adapter on a model, one that changes nothing as yet."""
    with seeded(seed):
        model.add_adapter(name, lora(rank, alpha))


def train_only(model: PeftModel, adapter: str) -> None:
    """Switch to `adapter`, with what lies BENEATH it, and let its parameters alone be trained."""
    stack = [BENEATH] if BENEATH in model.peft_config and adapter != BENEATH else []
    model.set_adapter(adapter)
    tuner: Any = model.base_model
    tuner.set_adapter([*stack, adapter])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{adapter}." in name)


def reference_of(model: PeftModel, bare: bool = False) -> str | None:
    """The name of the adapter that is the reference; None: the base with its adapters off. bare: that one in
    any case."""
    held = (name for name in (REFERENCE, BENEATH) if name in model.peft_config)
    return None if bare else next(held, None)


@contextlib.contextmanager
def as_reference(model: PeftModel, bare: bool = False) -> Iterator[None]:
    """The model acts as `reference_of` it meanwhile, without gradients, and as the trained policy afterwards."""
    frozen = reference_of(model, bare)
    with torch.no_grad():
        try:
            if frozen is None:
                with model.disable_adapter():
                    yield
            else:
                model.set_adapter(frozen)
                yield
        finally:
            train_only(model, POLICY)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the POLICY adapter as a PEFT folder that loads on the base with plain PEFT.

    Of an adapter on top of another, the two as one: the ranks are joined, A = [A1; A2] and B = [B1, B2] with
    their scales, so that the change of each layer is the sum of both.
    """
    with quiet_loading():
        if BENEATH not in model.peft_config:
            model.save_pretrained(str(folder), selected_adapters=[POLICY])
            return
        tuner: Any = model.base_model
        tuner.add_weighted_adapter([BENEATH, POLICY], [1.0, 1.0], JOINED, combination_type="cat")
        model.save_pretrained(str(folder), selected_adapters=[JOINED])
        model.delete_adapter(JOINED)
    train_only(model, POLICY)
    for path in (folder / JOINED).iterdir():
        path.replace(folder / path.name)
    (folder / JOINED).rmdir()


def save_part(model: PeftModel, folder: Path) -> None:
    """Write the POLICY adapter alone, for `restore_adapter`: what a checkpoint holds."""
    with quiet_loading():
        model.save_pretrained(str(folder), selected_adapters=[POLICY])


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Take the POLICY adapter's weights from a folder that `save_part` wrote."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"), adapter_name=POLICY)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
