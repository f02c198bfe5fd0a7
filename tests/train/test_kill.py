"""Killed without warning, or out of room: the next command goes on, and the curve is that of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.prompts.rows import write_rows
from tests.train.tiny import preference

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def words(tiny: Path, tmp_path: Path) -> list[str]:
    """A training of 24 steps, with a checkpoint after every third."""
    write_rows(tmp_path / "rows.jsonl", [preference(number) for number in range(48)])
    given = f"dpo rows.jsonl --model {tiny} --batch-size 4 --epochs 2 --rank 4 --checkpoint-every 3"
    return [sys.executable, "-c", "from preceptor.cli.app import main; main()", "train", *given.split()]


def start(
    words: list[str], folder: Path, out: str, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*words, "--out", out],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,
    )


def finish(running: subprocess.Popen[str]) -> None:
    _, said = running.communicate(timeout=900)
    assert running.returncode == 0, said


def steps(metrics: Path) -> list[str]:
    return metrics.read_text().splitlines() if metrics.exists() else []


def test_sigkill_at_random_steps_leaves_the_curve_as_it_is(words: list[str], tmp_path: Path) -> None:
    """Bit for bit, and the adapter too."""
    draw = random.Random(20261121)
    finish(start(words, tmp_path, "whole"))
    for _ in range(2):
        running = start(words, tmp_path, "killed")
        wanted = len(steps(tmp_path / "killed/metrics.jsonl")) + draw.randrange(1, 8)
        while running.poll() is None and len(steps(tmp_path / "killed/metrics.jsonl")) < wanted:
            time.sleep(0.001)
        time.sleep(draw.random() / 50)
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=600)
    finish(start(words, tmp_path, "killed"))
    for name in ("metrics.jsonl", "adapter_model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_full_disk_costs_the_new_checkpoint_and_not_the_old(words: list[str], tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the first checkpoint fits, the optimiser's state does not."""
    first = start(words, tmp_path, "out")
    while first.poll() is None and len(steps(tmp_path / "out/metrics.jsonl")) < 5:
        time.sleep(0.001)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=600)
    whole = [path.parent for path in (tmp_path / "out/checkpoints").glob("*/whole")]
    assert whole

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = start(words, tmp_path, "out", little_room)
    _, said = full.communicate(timeout=900)
    assert full.returncode == 2, said
    assert "Traceback" not in said
    assert "run the command again: it goes on from the last checkpoint" in said
    assert any((path / "whole").exists() for path in whole)
    finish(start(words, tmp_path, "out"))
    rows = [json.loads(line) for line in steps(tmp_path / "out/metrics.jsonl")]
    assert [row["step"] for row in rows] == list(range(1, 25))
