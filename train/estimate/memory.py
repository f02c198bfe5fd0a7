"""How much memory tensors take: what is alive, what is to be had, and what is said where there is none left."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
GROUP_LIMIT, GROUP_USE = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
RESET_PEAK = "5"
"""Written to CLEAR, sets the resident peak back to what is resident now (proc(5))."""
REFUSALS = ("out of memory", "can't allocate memory", "not enough memory", "alloc failed")
"""In lower case: what CUDA, the CPU's allocator, Windows' and cuBLAS say where there is no memory left."""


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch's __init_subclass__
    """Counts the bytes of tensors that are made while it is on, and drops those that are gone.

    A storage counts once, however many tensors look at it. What a kernel takes for itself while it runs is not
    seen. It costs some microseconds an operation and changes no result; with tensors that have no values
    (torch's FakeTensorMode beneath it) it counts what they would take.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak_bytes = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        self.count(made)
        return made

    def count(self, made: Any) -> int:
        """Bytes of storages among the leaves of `made` that were not there before."""
        before = self.bytes
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return self.bytes - before

    def _add(self, tensor: Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
        except NotImplementedError:  # sparse tensors have none of their own
            return
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def gone(_: Any) -> None:
            self.bytes -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of their storages, each counted once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def optimizer_tensors(optimizer: Any) -> Iterator[Tensor]:
    """What an optimizer, or what wraps it, keeps about its parameters; nothing before its first step."""
    for state in getattr(optimizer, "state", {}).values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def available_bytes(device: torch.device) -> int | None:
    """What can still be taken on a device; None where the system does not say.

    On a CPU what the kernel counts as available, or what the control group leaves where that is less.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_kib(MEMINFO, "MemAvailable")]
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        found.append(int(GROUP_LIMIT.read_text()) - int(GROUP_USE.read_text()))
    known = [value for value in found if value is not None]
    return min(known, default=None)


def reset_resident_peak() -> int | None:
    """Bytes of this process in memory now, from which `resident_peak` then counts; None where it cannot be asked."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return None
    return _kib(STATUS, "VmRSS")


def resident_peak() -> int | None:
    """Most bytes of this process that were in memory since `reset_resident_peak`."""
    return _kib(STATUS, "VmHWM")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in REFUSALS)


def _kib(path: Path, name: str) -> int | None:
    """Bytes of a line `name: N kB`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return found[0] if found else None
