"""A grader of OpenAI's is a judge under one principle, or is refused with the place of what is not served."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from preceptor.constitution.files import dump, load_text
from preceptor.serve.auth import ANYBODY
from preceptor.serve.config import ModelEntry, ServeConfig
from preceptor.serve.jobs.grader import INVALID_GRADER, judge_of
from preceptor.serve.jobs.store import JobStore
from preceptor.serve.jobs.tuning import AskedTuning, create
from preceptor.serve.problems import Problem

GRADER: dict[str, Any] = {
    "type": "score_model",
    "name": "Front desk 1",
    "model": "judge",
    "input": [
        {
            "role": "developer",
            "content": "Give a high score to {{ sample.output_text }} if it names a floor.",
        },
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "{{item.messages}}\n{{sample.output_text}}"}],
        },
    ],
    "range": [0, 1],
}


def test_the_instruction_is_the_principle() -> None:
    made = judge_of(GRADER)
    assert (made.judge, made.constitution.name) == ("judge", "front-desk-1")
    (principle,) = made.constitution.principles
    assert principle.text == "Give a high score to the reply if it names a floor."
    assert load_text(dump(made.constitution), Path("grader.yaml")).identity == made.constitution.identity


def test_other_words_are_another_constitution() -> None:
    """Or the ledger would answer for another grader."""
    other = {**GRADER, "input": [{"role": "user", "content": "Is it polite?"}]}
    assert judge_of(other).constitution.identity != judge_of(GRADER).constitution.identity


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"type": "python", "source": "import os"}, "unsupported_grader", "grader.type python is not served"),
        ({"type": "multi"}, "unsupported_grader", "wanted score_model"),
        ({"type": "mine"}, INVALID_GRADER, "grader.type"),
        ({"input": []}, INVALID_GRADER, "grader.input"),
        ({"input": [{"role": "user", "content": "{{sample.output_text}}"}]}, INVALID_GRADER, "says nothing"),
        (
            {"input": [{"role": "user", "content": "As {{item.reference_answer}}?"}]},
            INVALID_GRADER,
            "{{item.reference_answer}} is not shown to a judge",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            INVALID_GRADER,
            "grader.input.0",
        ),
        ({"range": [1, 0]}, INVALID_GRADER, "the lower number first"),
        ({"sampling_params": {"temperature": 0}}, INVALID_GRADER, "grader.sampling_params"),
        ({"input": [{"role": "user", "content": "x" * 30_000}]}, INVALID_GRADER, "at most"),
    ],
)
def test_what_is_not_served_is_told_with_its_place(change: dict[str, Any], code: str, word: str) -> None:
    with pytest.raises(Problem) as refused:
        judge_of({**GRADER, **change})
    assert (refused.value.status, refused.value.code) == (400, code)
    assert word in refused.value.message


@pytest.mark.parametrize("given", [None, [], "x", {}])
def test_what_is_no_grader_is_refused(given: Any) -> None:
    with pytest.raises(Problem) as refused:
        judge_of(given)
    assert refused.value.code == INVALID_GRADER


def test_a_reinforcement_job_is_grpo_under_the_grader_s_words(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path / "served")
    config = ServeConfig(
        models={"judge": ModelEntry(model="openai/x"), "embedded": ModelEntry(model="embedded")}
    )
    crew: Any = SimpleNamespace(config=config, store=store, wake=lambda: None)
    numbers = {"n_epochs": 1, "batch_size": 5, "compute_multiplier": 0.25}
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": numbers}}

    def made(count: int) -> dict[str, Any]:
        rows = ({"messages": [{"role": "user", "content": f"{n}?"}], "floor": n} for n in range(count))
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file = store.add_file("", "fine-tune", "rows.jsonl", iter([text])).id
        body = {"model": "embedded", "training_file": file, "method": method, "max_cost_usd": 0.5}
        return create(crew, ANYBODY, AskedTuning.model_validate(body))

    told, short = made(10), made(9)
    job = store.job(told["id"])
    assert job is not None
    assert (job.kind, job.status) == ("grpo", "queued")
    wanted = ("--judge=openai/x", "--judge-mode=score", "--samples=2", "--batch-size=10", "--max-cost=0.5")
    assert {*wanted} <= {*job.work.words}
    assert "Give a high score to the reply" in job.work.texts["constitution.yaml"]
    assert told["method"]["reinforcement"]["grader"] == GRADER
    assert (short["status"], short["error"]["code"]) == ("failed", "invalid_training_file")
    store.close()
