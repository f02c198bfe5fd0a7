"""What a training step would take, found by a dry run: tensors have shapes and no values.

The model is built from its config alone, on torch's meta device, and its adapters on it; then one pass forward
and backward runs under torch's FakeTensorMode, which computes shapes and nothing else. So nothing has to be
known about an architecture: what its backward pass keeps, what its attention makes of a mask, and what the head
or TRL's loss takes is counted as it happens, to the byte what the pass takes with values
(`train.estimate.memory.Alive`).

Left out: what kernels take for themselves while they run, and how an allocator rounds and splits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from preceptor.judge.models.local.loading import quiet_loading
from preceptor.train.errors import CheckpointError
from preceptor.train.estimate.memory import Alive, held_bytes
from preceptor.train.models.adapters import (
    POLICY,
    REFERENCE,
    STACKED,
    adapt,
    check_adapter,
    checkpoint_gradients,
    lora,
    train_only,
)
from preceptor.train.models.base import Base, freeze, resolve_model
from preceptor.train.settings import LoopSettings

if TYPE_CHECKING:
    from peft import PeftModel

aten = torch.ops.aten

ComputeLoss = Callable[[Mapping[str, Tensor]], Tensor]
"""Inputs -> the loss that is to be differentiated."""
Prepare = Callable[["PeftModel"], tuple[nn.Module, ComputeLoss]]
"""The adapted model -> the module that is trained, and how it is run."""


class ComputeCost(NamedTuple):
    """What has to be computed."""

    flops: float
    moved_bytes: float
    """Of tensors that operations make: what has to go through memory."""
    operations: float

    def times(self, factor: float) -> ComputeCost:
        """This, so many times over."""
        return ComputeCost(*(factor * value for value in self))


class DryRun(NamedTuple):
    """What one pass takes, and what has to be held beside it."""

    frozen_bytes: int
    """Weights and buffers that are not trained."""
    trained_bytes: int
    """Of the adapter, and of a head."""
    trained_tensors: int
    trained_numbers: int
    pass_bytes: int
    """Most that is alive at a time beside the weights, gradients among it."""
    forward: ComputeCost
    both: ComputeCost
    """Of the forward and the backward pass."""


def skeleton(name: str, dtype: torch.dtype) -> Base:
    """A model by name as `load_base` would load it, without its weights: config and tokenizer are read alone.

    Raises CheckpointError for a name that is none, and for a model that cannot be used.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    source = resolve_model(name)
    local = Path(source).is_dir()
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local}
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(source, **options)
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            base = Base(_on_meta(config, dtype), tokenizer, source)
            try:
                base.model.generation_config = GenerationConfig.from_pretrained(source, **options)
            except OSError:  # it has none of its own, and takes what its config says
                base.model.generation_config = GenerationConfig.from_model_config(config)
    except Exception as error:
        raise CheckpointError(f"cannot load {name!r} from {source}: {error}".splitlines()[0]) from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer of {source} has no end-of-text token: replies could not end")
    return base


def skeleton_of(base: Base, dtype: torch.dtype, config: Any = None) -> Base:
    """The same for a model that is loaded already, which is left as it is; by another config where one is given."""
    return base._replace(model=_on_meta(config or base.model.config, dtype))


def _on_meta(config: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        auto: Any = AutoModelForCausalLM
        return freeze(auto.from_config(copy.deepcopy(config), dtype=dtype))


def adapted_skeleton(
    base: Base, settings: LoopSettings, frozen_reference: bool, stacked: bool = False
) -> PeftModel:
    """A skeleton with the adapters that `train.models.adapters.adapted_by` would put on it, none of them read."""
    from peft import LoraConfig, PeftModelForCausalLM

    with torch.random.fork_rng(devices=[]), torch.device("meta"), quiet_loading():
        if settings.adapter is None:
            form = {"dora": settings.dora, "rslora": settings.rslora}
            return adapt(base, settings.rank, settings.alpha, settings.seed, **form)
        check_adapter(Path(settings.adapter))
        config = LoraConfig.from_pretrained(settings.adapter)
        model = PeftModelForCausalLM(base.model, config, adapter_name=STACKED if stacked else POLICY)
        if stacked:
            model.add_adapter(POLICY, lora(settings.rank, settings.alpha))
        elif frozen_reference:
            model.add_adapter(REFERENCE, config)
        train_only(model, POLICY)
        return model


class PassInputs(NamedTuple):
    """One pass of a step."""

    inputs: Mapping[str, Tensor]
    """Of which only shapes and types matter."""
    later: bool
    """Not the first of its step: gradients of an earlier one are there already."""


def dry_run_passes(
    adapted: PeftModel,
    prepare: Prepare,
    given: Sequence[PassInputs],
    device: torch.device,
    *,
    bf16: bool,
    checkpointing: bool,
) -> list[DryRun]:
    """Go through each of some passes by itself. `adapted` is a skeleton and is used up."""
    module, run = prepared(adapted, prepare, checkpointing)
    with FakeTensorMode(allow_non_fake_inputs=True):
        take_tensors(module, lambda like: torch.empty(like.shape, dtype=like.dtype, device=device))
        module.train()
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        held = held_bytes([*module.parameters(), *module.buffers()])
        found = []
        for inputs, later in given:
            fields = {
                key: torch.empty(value.shape, dtype=value.dtype, device=device)
                for key, value in inputs.items()
            }
            with _Counting() as counting:
                for parameter in trained:
                    parameter.grad = torch.empty_like(parameter) if later else None
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss = run(fields)
                forward = counting.work()
                loss.backward()  # type: ignore[no-untyped-call]
            found.append(
                DryRun(
                    frozen_bytes=held - held_bytes(trained),
                    trained_bytes=held_bytes(trained),
                    trained_tensors=len(trained),
                    trained_numbers=sum(parameter.numel() for parameter in trained),
                    pass_bytes=counting.peak_bytes,
                    forward=forward,
                    both=counting.work(),
                )
            )
    return found


def prepared(adapted: PeftModel, prepare: Prepare, checkpointing: bool) -> tuple[nn.Module, ComputeLoss]:
    """What is trained and how it is run, still on the meta device. `adapted` is a skeleton and is used up."""
    stays: Any = adapted
    stays.to = lambda *_, **__: adapted  # a library's trainer would move what has no values
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        if checkpointing:
            checkpoint_gradients(adapted.get_base_model())
        return prepare(adapted)


def take_tensors(module: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    """Put tensors that `make` makes where those of the meta device are; shared ones stay shared."""
    made: dict[int, Tensor] = {}

    def stand_in(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            new = make(tensor)
            made[id(tensor)] = (
                nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            )
        return made[id(tensor)]

    for part in list(module.modules()):
        for kind in (part._parameters, part._buffers):
            tensors: dict[str, Any] = kind
            for name, tensor in list(tensors.items()):
                if tensor is not None:
                    tensors[name] = stand_in(tensor)


class _Counting(Alive):  # type: ignore[no-untyped-call]  # of torch's __init_subclass__
    """Counts work too, and answers what depends on values: a number is 1, and a mask lets everything through."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.moved_bytes = self.operations = 0.0

    def work(self) -> ComputeCost:
        """All so far."""
        return ComputeCost(self.flops, self.moved_bytes, self.operations)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is aten._local_scalar_dense.default:
            return 1
        made = self._by_values(func, args, kwargs)
        if made is None:
            made = super().__torch_dispatch__(func, types, args, kwargs)
        else:
            self.count(made)
        if func.is_view or func.namespace != "aten" or "empty" in func._opname:  # no work
            return made
        self.operations += 1
        self.moved_bytes += _made_bytes(tree_leaves(made))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=made)
        return made

    def _by_values(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operation makes whose shape depends on values, at its largest; None for any other."""
        first: Any = args[0] if args else None
        if func is aten.nonzero.default:
            return torch.empty((first.numel(), first.dim()), dtype=torch.long, device=first.device)
        if func is aten.bincount.default:
            size = kwargs.get("minlength", args[2] if len(args) > 2 else 0)
            return torch.empty((size,), dtype=torch.long, device=first.device)
        if func is aten.index.Tensor:
            mask = args[1][0]
            if mask is not None and mask.dtype == torch.bool:
                return torch.empty(
                    (mask.numel(), *first.shape[mask.dim() :]), dtype=first.dtype, device=first.device
                )
        return None


def _made_bytes(leaves: Iterable[Any]) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
