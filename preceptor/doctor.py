"""What a bug report needs: versions, hardware, which providers could be asked, whether the embedded default works."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.errors import UserError

HOME = Path(__file__).resolve().parent.parent
"""Where our packages lie."""
LIBRARIES = ("torch", "transformers", "trl", "peft")
NEEDED = (*LIBRARIES, "accelerate", "datasets", "safetensors")

SERVING = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")
FOR_AGENTS = ("mcp",)


class Diagnosis(NamedTuple):
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


def need_serving() -> None:
    """Raise UserError where the libraries of the service are not installed."""
    if absent := [name for name in SERVING if find_spec(name) is None]:
        raise UserError(
            f"the service needs {', '.join(absent)}; install with: pip install 'preceptor[serve]'"
        )


def need_agents() -> None:
    """Raise UserError where the libraries of an agent's tools are not installed."""
    if absent := [name for name in (*SERVING, *FOR_AGENTS) if find_spec(name) is None]:
        raise UserError(
            f"an agent's tools need {', '.join(absent)}; install with: pip install 'preceptor[mcp]'"
        )


def examine() -> list[Diagnosis]:
    """Look at everything. No key is shown: only whether one is set."""
    findings = [Diagnosis("python", platform.python_version(), ok=True, needed=True)]
    findings += _providers()
    findings += prices()
    findings += [_library(name, "pip install 'preceptor[train]'", needed=True) for name in LIBRARIES]
    if find_spec("torch") is not None and find_spec("transformers") is not None:
        findings += _hardware()
    return findings


def _providers() -> list[Diagnosis]:
    """What the providers declare that they need, ours first and then those that packages add."""
    from preceptor.judge.models import registry

    findings: list[Diagnosis] = []
    for name in registry.providers():
        try:
            provider = registry.declared(name)
        except registry.BrokenProvider as exc:
            findings.append(Diagnosis(f"provider {name}", str(exc), ok=False, needed=False))
            continue
        if package := registry.package_of(name):
            findings.append(Diagnosis(f"provider {name}", package, ok=True, needed=False))
        findings += [_library(one, f"pip install {one}", needed=False) for one in provider.libraries]
        if provider.key:
            there = bool(os.environ.get(provider.key))
            findings.append(Diagnosis(provider.key, "set" if there else "not set", there, needed=False))
    return findings


def prices() -> list[Diagnosis]:
    """How old the prices are, and which models of the user's own file are going."""
    from preceptor.judge.asking import prices as table
    from preceptor.judge.user_prices import place, user_prices

    shipped, day = table.Prices.load().listed(), table.today()
    old = [name for name, price in shipped.items() if table.aged(name, price, day)]
    leaving = [name for name, price in shipped.items() if table.going(name, price, day)]
    newest = max(price.dated for price in shipped.values())
    said = (
        f"{len(shipped)} models, the newest of {newest}; {len(old)} checked over six months ago, "
        f"{len(leaving)} gone or going: preceptor prices show"
    )
    findings = [Diagnosis("prices", said, len(old) < len(shipped), needed=False)]
    try:
        own = user_prices()
    except UserError as exc:
        return [
            *findings,
            Diagnosis("your prices", " / ".join(str(exc).splitlines()), ok=False, needed=False),
        ]
    if own:
        noted = table.warnings(table.Prices.load(own), own, day)
        found = "; ".join([f"{place()}: {len(own)} models", *noted])
        findings.append(Diagnosis("your prices", found, not noted, needed=False))
    return findings


def _library(name: str, how: str, *, needed: bool) -> Diagnosis:
    try:
        return Diagnosis(name, metadata.version(name), ok=True, needed=needed)
    except metadata.PackageNotFoundError:
        return Diagnosis(name, f"not installed: {how}", ok=False, needed=needed)


def _hardware() -> list[Diagnosis]:
    from preceptor.judge.models import registry
    from preceptor.judge.models.local.cpu_bf16 import cpu_bf16
    from preceptor.train.models.devices import accelerator

    found, half = accelerator(), cpu_bf16()
    embedded = registry.open_model("embedded")
    return [
        Diagnosis("accelerator", found or "none: training runs on the CPU", bool(found), needed=False),
        Diagnosis("bf16 on the CPU", half.why, half.used, needed=False),
        Diagnosis("embedded model", embedded.endpoint or embedded.name, ok=True, needed=True),
        _smollm2(),
    ]


def _smollm2() -> Diagnosis:
    """The packaged real model, as far as it is on this machine; nothing is fetched to find out."""
    from preceptor.judge.models.local import gguf, smollm2
    from preceptor.judge.models.local.weights_hash import file_hash

    if find_spec("gguf") is None:
        return Diagnosis(smollm2.NAME, f"not installed: {gguf.INSTALL}", ok=False, needed=False)
    found = smollm2.installed()
    if found is None:
        later = f"not here: {smollm2.PACKAGE} {smollm2.VERSION} is fetched when the model is first named"
        return Diagnosis(smollm2.NAME, later, ok=False, needed=False)
    right = file_hash(found) == smollm2.SHA256
    return Diagnosis(smollm2.NAME, str(found) if right else f"{found} is another file", right, needed=False)
