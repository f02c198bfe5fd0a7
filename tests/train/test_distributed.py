"""Two processes that train together over gloo make the steps of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preceptor.cli.train.launch import _without_ours
from preceptor.prompts.rows import write_rows
from tests.command_line import Preceptor
from tests.train.tiny import preference

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def train(preceptor: Preceptor, folder: Path, words: Sequence[object], processes: int) -> dict[str, Any]:
    """What a training printed. One process of it is this one."""
    if processes == 1:
        ended = preceptor("train", *words, "--nproc", 1, "--json")
        assert ended.code == 0, ended.err
        return dict(json.loads(ended.out))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "preceptor", "train", *map(str, words), "--nproc", str(processes), "--json"]
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_two_processes_make_the_losses_of_one(
    preceptor: Preceptor, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """To 1e-5 in every figure of every step, held-out ones too; a last step of one pair, which one of them must do
    without; and one line on stdout."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [preference(number, 0.5 + number % 6 / 10) for number in range(24)])
    given = f"{stage} rows.jsonl --model {tiny} --batch-size 11 --epochs 3 --rank 4 --checkpoint-every 3 --held-out 0.1"
    for nproc in (1, 2):
        cache = () if stage == "reward" else ("--cache", tmp_path / f"cache{nproc}")
        result = train(preceptor, tmp_path, (*given.split(), *cache, "--out", f"out{nproc}"), nproc)
    assert result["rows"]["used"] % 11 == 1
    one, two = rows(tmp_path / "out1"), rows(tmp_path / "out2")
    assert len(one) == len(two) > 8
    (
        one[0].pop("accuracy"),
        two[0].pop("accuracy"),
    )  # policy and reference are equal: rounding says which is greater
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5, rel=1e-3)
        assert theirs.get("loss", 0.0) == pytest.approx(ours.get("loss", 0.0), abs=1e-5)
    weights = [load_file(tmp_path / f"out{nproc}/adapter_model.safetensors") for nproc in (1, 2)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-5)
    manifests = [json.loads((tmp_path / f"out{nproc}/manifest.json").read_text()) for nproc in (1, 2)]
    assert manifests[0]["rows"] == manifests[1]["rows"]
    assert manifests[0]["settings"] == manifests[1]["settings"]


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_trls_trainers_make_the_losses_of_one_process_too(
    preceptor: Preceptor, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """To 1e-5 in every step, also where the processes have unlike numbers of rows, and where one has none; KTO's z
    is over all rows. Figures beside the loss are the same too, but where a process has no row."""
    monkeypatch.chdir(tmp_path)
    lines = [
        {"prompt": row.prompt[0].content, "completion": row.chosen[0].content, "label": number % 3 > 0}
        for number, row in enumerate(map(preference, range(16)))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = f"{stage} rows.jsonl --model {tiny} --batch-size 5 --epochs 2 --rank 4 --learning-rate 0.005"
    for nproc in (1, 2):
        trained = train(preceptor, tmp_path, (*words.split(), "--out", f"out{nproc}"), nproc)
        assert trained["steps"] == 8
    one, two = rows(tmp_path / "out1"), rows(tmp_path / "out2")
    assert [row["step"] for row in one] == [row["step"] for row in two] == list(range(1, 9))
    assert max(row["loss"] for row in one) - min(row["loss"] for row in one) > 0.01
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-4, abs=1e-5)
        if ours["step"] % 4:  # of a last step of one row the other process has none, and shows the first
            assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-5)
    weights = [load_file(tmp_path / f"out{nproc}/adapter_model.safetensors") for nproc in (1, 2)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-5)


def test_what_is_wrong_is_said_once_and_before_anything_is_started(preceptor: Preceptor) -> None:
    ended = preceptor("train", "dpo", "none.jsonl", "--out", "out", "--nproc", 2)
    assert (ended.code, ended.err.count("there is no such file")) == (2, 1)
    write_rows(Path("rows.jsonl"), [preference(number) for number in range(4)])
    ended = preceptor("train", "dpo", "rows.jsonl", "--out", "out", "--accelerate-config", "none.yaml")
    assert ended.code == 2
    assert "wanted a file that `accelerate config` wrote" in ended.err


@pytest.mark.parametrize(
    "words",
    ["a --nproc 2 b", "a --nproc=2 b", "a b --accelerate-config f", "a --accelerate-config=f --nproc 2 b"],
)
def test_the_processes_are_given_the_command_without_the_flags_that_started_them(words: str) -> None:
    assert _without_ours(words.split()) == ["a", "b"]
