"""A folder that holds files with the names of our packages is as good as any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.prompts.rows import write_rows
from tests.train.conftest import tiny  # noqa: F401 a fixture
from tests.train.tiny import preference

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OURS = "raise SystemExit('the file of the user was taken for a package of ours')\n"
PAIR = {"prompt": "Hello?", "response_a": "Hello.", "response_b": "Hello, hello!"}
REWARD = (
    "def short(prompts, completions, **columns):\n    return [-float(len(text)) for text in completions]\n"
)
SMALL = "--batch-size 8 --samples 4 --max-new-tokens 8 --rank 4"


@pytest.fixture(autouse=True)
def _hostile() -> None:
    for name in ("judge.py", "prompts.py", "constitution.py"):
        Path(name).write_text(OURS)
    Path("train").mkdir()
    Path("train/__init__.py").write_text(OURS)


def by_module(*words: object) -> str:
    """What `python -m preceptor WORDS...` says on stdout here."""
    ended = subprocess.run(
        [sys.executable, "-m", "preceptor", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_labelling() -> None:
    Path("pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    told = json.loads(
        by_module("label", "pairs.jsonl", "-c", "front-desk", "--judge", "checks", "--out", "out", "--json")
    )
    assert told["complete"]


def test_a_training_in_two_processes(tiny: Path) -> None:  # noqa: F811 the fixture
    write_rows("rows.jsonl", [preference(number) for number in range(8)])
    words = f"train reward rows.jsonl --model {tiny} --batch-size 4 --rank 4 --nproc 2 --out out --json"
    assert json.loads(by_module(*words.split()))["steps"] > 0


def test_a_reward_function_of_the_working_directory_is_found(tiny: Path) -> None:  # noqa: F811 the fixture
    """Last on the path, so that nothing else there is."""
    Path("mymodule.py").write_text(REWARD)
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{n}?"}) + "\n" for n in range(4)))
    words = (
        f"train grpo prompts.jsonl --reward mymodule:short --model {tiny} --epochs 1 {SMALL} --out out --json"
    )
    assert json.loads(by_module(*words.split()))["metrics"]["reward"] <= 0
