"""What a bug report needs: versions, hardware, which providers could be asked, whether the embedded default works."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

from preceptor.constitution.errors import UserError

LIBRARIES = ("openai", "anthropic", "torch", "transformers", "trl", "peft")
NEEDED = (*LIBRARIES[2:], "accelerate", "datasets", "safetensors")
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    found: str
    ok: bool
    needed: bool
    """Whether the embedded default needs it."""


def need_training() -> None:
    """Raise UserError where the training libraries are not installed."""
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"training needs {', '.join(absent)}; install with: pip install 'preceptor[train]'")


def examine() -> list[Finding]:
    """Look at everything. No key is shown: only whether one is set."""
    findings = [Finding("python", platform.python_version(), ok=True, needed=True)]
    for name in LIBRARIES:
        installed = find_spec(name) is not None
        found = metadata.version(name) if installed else "not installed: pip install 'preceptor[train]'"
        findings.append(Finding(name, found, installed, needed=name not in ("openai", "anthropic")))
    findings += [
        Finding(key, "set" if os.environ.get(key) else "not set", bool(os.environ.get(key)), needed=False)
        for key in KEYS
    ]
    if find_spec("torch") is not None and find_spec("transformers") is not None:
        findings += _hardware()
    return findings


def _hardware() -> list[Finding]:
    from preceptor.judge.models.registry import open_model
    from preceptor.train.models.base import accelerator

    found = accelerator()
    embedded = open_model("embedded")
    return [
        Finding("accelerator", found or "none: training runs on the CPU", bool(found), needed=False),
        Finding("embedded model", embedded.endpoint or embedded.name, ok=True, needed=True),
    ]
