"""One frozen base; policy and reference are adapters on it, or the base with its adapters off.

    POLICY      the adapter that is trained, under the name that plain PEFT gives the adapter of a folder
    reference   the base with adapters off; or, where training goes on from an SFT adapter, a frozen second
                copy of that adapter under the name REFERENCE; or, where a fresh adapter is trained on top of
                the SFT adapter, that one alone, under the name STACKED; or another adapter that was asked for,
                frozen under the name REFERENCE

PEFT flips `requires_grad` in `add_adapter`, `set_adapter` and on leaving `disable_adapter`, so every switch
here ends by saying again which parameters are trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_in
from preceptor.judge.models.local.loading import base_named_by, quiet_loading
from preceptor.judge.models.local.weights_hash import weights_hash
from preceptor.train.errors import CheckpointError
from preceptor.train.models.base import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Base
from preceptor.train.settings import LoopSettings

if TYPE_CHECKING:
    from peft import PeftModel

POLICY = "default"
REFERENCE = "reference"
STACKED = "beneath"
JOINED = "joined"
FRESH = ("rank", "alpha", "dora", "rslora")
"""Settings of a fresh adapter; one to go on from has its own."""
SomeSettingsT = TypeVar("SomeSettingsT", bound=LoopSettings)


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


def adapted_by(
    base: Base, settings: LoopSettings, frozen_reference: bool, stacked: bool = False
) -> PeftModel:
    """The base with the adapter that the settings ask for: a fresh one, a copy of an older one, or a fresh one
    on top of an older one.

    Raises CheckpointError for an adapter that cannot be put on the base, and where there is none to be under.
    """
    if settings.gradient_checkpointing:
        checkpoint_gradients(base.model)
    if settings.adapter is None:
        if stacked:
            raise CheckpointError(
                "stack_adapter needs an adapter, the one to be frozen beneath the fresh one"
            )
        form = {"dora": settings.dora, "rslora": settings.rslora}
        return adapt(base, settings.rank, settings.alpha, settings.seed, **form)
    adapter = Path(settings.adapter)
    if stacked:
        return adapt_on_top(base, adapter, settings.rank, settings.alpha, settings.seed)
    return adapt_from(base, adapter, frozen_reference)


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
    """The base with a folder's adapter frozen as STACKED, and a fresh one stacked on it as the trained POLICY.

    Both act together: their changes of a layer are added.
    """
    from peft import PeftModel

    with _putting(adapter, base.source):
        model = PeftModel.from_pretrained(base.model, str(adapter), adapter_name=STACKED)
    with seeded(seed):
        model.add_adapter(POLICY, lora(rank, alpha))
    train_only(model, POLICY)
    return model


def check_adapter(adapter: Path) -> None:
    """Raises CheckpointError for a folder that holds no whole PEFT adapter."""
    adapter_config(adapter)
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{adapter} lacks its weights: wanted {ADAPTER_WEIGHTS}")


def adapter_config(adapter: Path) -> dict[str, Any]:
    """What an adapter folder says of its adapter. Raises CheckpointError where it says of no LoRA adapter."""
    if not adapter.is_dir():
        raise CheckpointError(f"no adapter folder {adapter}")
    try:
        config = json_in(adapter / ADAPTER_CONFIG)
    except FileNotFoundError:
        raise CheckpointError(f"{adapter} is no adapter folder: it has no {ADAPTER_CONFIG}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{adapter} holds no LoRA adapter: {ADAPTER_CONFIG} does not say peft_type LORA"
        )
    return config


def going_on(settings: SomeSettingsT) -> SomeSettingsT:
    """The settings of a training from `adapter`, with the adapter's base as model where none was named.

    Raises UserError for what only a fresh adapter can be given, unless one is stacked on it.
    """
    assert settings.adapter is not None
    said = {name: getattr(settings, name) for name in settings.model_fields_set}
    if not said.get("stack_adapter", False) and (both := [f"--{name}" for name in FRESH if said.get(name)]):
        raise UserError(
            f"{' and '.join(both)} cannot be set: --adapter goes on with an adapter that has its own, "
            "unless --stack-adapter"
        )
    model = settings.model if "model" in said else base_of_adapter(Path(settings.adapter))
    return type(settings).model_validate({**said, "model": model})


def base_of_adapter(adapter: Path) -> str:
    """Name of the base that an adapter was trained on; CheckpointError where it does not say."""
    check_adapter(adapter)
    name = adapter_config(adapter).get("base_model_name_or_path")
    if name is not None and not isinstance(name, str):
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG} names no base: base_model_name_or_path is no text")
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
    """Switch to `adapter`, with the STACKED adapter below it, and let its parameters alone be trained."""
    stack = [STACKED] if STACKED in model.peft_config and adapter != STACKED else []
    model.set_adapter(adapter)
    tuner: Any = model.base_model
    tuner.set_adapter([*stack, adapter])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{adapter}." in name)


def reference_of(model: PeftModel, bare: bool = False) -> str | None:
    """The name of the adapter that is the reference; None: the base with its adapters off. bare: that one in
    any case."""
    held = (name for name in (REFERENCE, STACKED) if name in model.peft_config)
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
        if STACKED not in model.peft_config:
            model.save_pretrained(str(folder), selected_adapters=[POLICY])
            return
        tuner: Any = model.base_model
        tuner.add_weighted_adapter([STACKED, POLICY], [1.0, 1.0], JOINED, combination_type="cat")
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
