"""Every example loads, and what it names exists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.constitution.files import load as load_constitution
from preceptor.prompts.pool import prompts_from
from preceptor.run.config import load

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))


def test_all_examples_are_found() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "constitutional-ai",
        "dpo-only",
        "front-desk",
        "iterative",
        "local-judge",
        "openai-judge",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_names_what_exists(path: Path) -> None:
    config = load(path)
    assert load_constitution(config.constitution).principles
    for source in filter(None, (config.prompts.file, config.prompts.held_out)):
        assert next(iter(prompts_from(source))).messages


def test_the_spelled_out_quickstart_is_the_quickstart() -> None:
    shipped = load(Path(__file__).parent.parent / "preceptor" / "quickstart.yaml")
    spelled = load(EXAMPLES[2])
    assert spelled.model_copy(update={"out": shipped.out}) == shipped


def test_the_iterative_example_has_rounds() -> None:
    config = load(next(path for path in EXAMPLES if path.stem == "iterative"))
    assert (config.rounds, config.reference, config.round_prompts) == (3, "last", "same")


@pytest.mark.slow
def test_the_direct_example_runs(tmp_path: Path) -> None:
    """Direct RLAIF as it stands, but for a step of four replies: the judge grades them, and the guard looks twice."""
    script = Path(__file__).parent.parent / "examples" / "direct-rlaif.sh"
    command = tmp_path / "bin" / "preceptor"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m preceptor "$@"\n')
    command.chmod(0o755)
    held_out = list(prompts_from("front-desk-held-out"))[:3]
    (tmp_path / "few.jsonl").write_text("".join(f"{prompt.line()}\n" for prompt in held_out))
    words = "--epochs 0.003 --batch-size 4 --samples 2 --minibatches 1 --max-new-tokens 24 --guard-prompts few.jsonl"
    environment = {
        **os.environ,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(script.parents[1]),
    }
    ended = subprocess.run(
        ["sh", str(script), *words.split(), "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["steps"] == 1
    assert result["metrics"]["guard"]["looks"] == 2
    assert result["metrics"]["masked"] < 4
    assert (tmp_path / "runs/direct-rlaif/adapter_model.safetensors").is_file()
