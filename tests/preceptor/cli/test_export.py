"""`preceptor export` as a person calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.prompts.manifest import MANIFEST
from preceptor.run.verify import verify
from preceptor.train.dpo import train_dpo
from preceptor.train.export.manifest import ExportManifest
from preceptor.train.reward import train_reward
from preceptor.train.settings import DpoSettings, RewardModelSettings
from tests.command_line import Preceptor
from tests.declared import faults
from tests.preceptor.resealed import reseal
from tests.servers.hub import HubServer, serve_hub
from tests.train.tiny import preference, save_tiny

PAIRS = [preference(number) for number in range(16)]
SECRET = "hf_not_to_be_seen"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of a run folder an export reads."""
    place = tmp_path_factory.mktemp("run")
    tiny = str(save_tiny(tmp_path_factory.mktemp("base") / "tiny"))
    train_reward(
        PAIRS, RewardModelSettings(model=tiny, batch_size=8, rank=4, held_out=0.3), place / "6-reward"
    )
    train_dpo(PAIRS, DpoSettings(model=tiny, batch_size=8, rank=4), place / "7-policy")
    return place


def test_an_export_proves_itself_and_is_written_once(
    run_folder: Path, tmp_path: Path, preceptor: Preceptor
) -> None:
    out = tmp_path / "desk"
    words = ("export", run_folder / "6-reward", "--format", "sequence-classification", "--out", out)
    made = preceptor(*words)
    assert (made.code, made.out) == (0, f"{out}\n"), made.err
    assert "constitution: test@1.0.0#000000000000\njudge: scripted/test\n" in made.err
    assert preceptor("verify", out).code == 0
    again = preceptor(*words)
    assert (again.code, again.out) == (2, "")
    assert again.err == f"error: {out} already holds something: choose another --out, or remove it\n"
    manifest = json.loads((out / MANIFEST).read_text())
    assert list(faults(manifest, ExportManifest)) == []
    for fact in manifest.keys() - {"kind"}:
        reseal(out, lambda told, fact=fact: told.pop(fact))
        assert f"{MANIFEST}: {fact} is missing" in verify(out).problems
        (out / MANIFEST).write_text(json.dumps(manifest))
    (out / "config.json").write_text("{}")
    assert preceptor("verify", out).code == 1


def test_the_json_says_what_was_made(run_folder: Path, tmp_path: Path, preceptor: Preceptor) -> None:
    out = tmp_path / "desk"
    made = preceptor("export", run_folder / "7-policy", "--format", "vllm", "--out", out, "--json")
    assert made.code == 0, made.err
    said = json.loads(made.out)
    assert said["folder"] == str(out)
    assert said["format"] == "vllm"
    assert said["constitutions"] == ["test@1.0.0#000000000000"]
    assert said["judges"] == ["scripted/test"]
    assert said["pushed"] == ""
    assert f"--lora-modules desk={out} --max-lora-rank 8" in said["command"]
    assert f"serve it with: {said['command']}" in made.err


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("", ("--format", "adapter"), "6-reward (reward), "),
        ("", ("--format", "adapter"), "name the one to export: "),
        ("6-reward", ("--format", "merged"), "use sequence-classification"),
        ("7-policy", ("--format", "gguf"), "'gguf' is not one of"),
        ("7-policy", ("--format", "adapter", "--dtype", "bfloat16"), "dtype has no effect on format adapter"),
        ("7-policy", ("--format", "vllm", "--public"), "--public has no effect without --push"),
        ("7-policy", ("--format", "vllm", "--push", "acme/desk"), "--push acme/desk: wanted hub:OWNER/NAME"),
        ("7-policy", ("--format", "vllm", "--push", "hub:desk"), "--push hub:desk: wanted hub:OWNER/NAME"),
        ("7-policy", ("--format", "vllm", "--push", "hub:a/../b"), "wanted hub:OWNER/NAME"),
        ("7-policy", ("--format", "vllm", "--push", "hub:a/b"), "--push needs HF_TOKEN in the environment"),
        ("8-none", ("--format", "adapter"), "wanted one that `preceptor train` wrote"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_nothing(
    run_folder: Path,
    tmp_path: Path,
    preceptor: Preceptor,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    ended = preceptor("export", run_folder / name, *words, "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_a_push_loads_as_the_model_that_it_made(run_folder: Path, tmp_path: Path) -> None:
    """In a process of its own, for the hub's library reads the environment once."""
    out = tmp_path / "out"
    call = [sys.executable, "-c", "from preceptor.cli.app import main; main()", "export"]
    call += [str(run_folder / "7-policy"), "--format", "vllm", "--out", str(out), "--push", "hub:acme/desk"]
    with serve_hub(HubServer()) as server:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": SECRET,
        }
        ended = subprocess.run(
            call, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=900
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"{server.url}/acme/desk\n"
        files = server.repositories["acme/desk"].files
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert b"--lora-modules out=acme/desk" in files["README.md"]
    assert SECRET not in ended.stdout + ended.stderr
    assert not [name for name, content in files.items() if SECRET.encode() in content]
