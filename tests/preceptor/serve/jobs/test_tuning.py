"""OpenAI's own SDK, unchanged, tunes a model on the real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.preceptor.serve.jobs.conftest import Served

pytestmark = pytest.mark.slow
GRADER: dict[str, Any] = {
    "type": "score_model",
    "name": "floors",
    "model": "embedded",
    "input": [{"role": "user", "content": "High if {{sample.output_text}} names a floor."}],
}
PAGE = Path(__file__).parents[4] / "docs" / "tuning-api.md"


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=("rows.jsonl", text.encode()), purpose="fine-tune").id


def choices(count: int) -> list[Any]:
    return [
        {
            "input": {"messages": [{"role": "user", "content": f"Where is room {number}?"}]},
            "preferred_output": [{"role": "assistant", "content": "On the first floor."}],
            "non_preferred_output": [{"role": "assistant", "content": "I do not care."}],
        }
        for number in range(count)
    ]


def wait(served: Served, client: openai.OpenAI, name: str) -> Any:
    ends = ("succeeded", "failed", "cancelled", "paused")
    return served.server.wait(lambda: (job := client.fine_tuning.jobs.retrieve(name)).status in ends and job)


@pytest.fixture(scope="module")
def page(served: Served) -> Iterator[dict[str, Any]]:
    """What the page's example has made: from a DPO file to a tuned model that answers."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (one for one in blocks if "fine_tuning" in one)
    there = "http://127.0.0.1:8080"
    assert there in block
    made: dict[str, Any] = {}
    exec(compile(block.replace(there, served.server.url), str(PAGE), "exec"), made)
    yield made
    made["client"].close()


def test_from_a_dpo_file_to_a_tuned_model_that_answers(
    served: Served, client: openai.OpenAI, page: dict[str, Any]
) -> None:
    job = page["job"]
    assert job.status == "succeeded"
    assert job.method.dpo.hyperparameters.beta == 0.2
    assert job.fine_tuned_model == f"ft:embedded:preceptor::{job.id.removeprefix('ftjob-')}"
    assert page["said"].strip()
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    settings = served.server.folder / "preceptor-serve/jobs" / job.id / "model/settings.json"
    assert json.loads(settings.read_text())["settings"]["beta"] == 0.2
    names = [client.files.retrieve(name).filename for name in job.result_files]
    assert names[0] == "metrics.jsonl"
    assert "adapter_model.safetensors" in names
    metrics = client.files.content(job.result_files[0]).text.splitlines()
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    steps = [event for event in events if event.type == "metrics"]
    assert len(steps) == len([line for line in metrics if '"loss"' in line]) == 6
    assert events[0].message == "the job has succeeded"
    paged = [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert paged == [event.id for event in events]
    assert job.id in [one.id for one in client.fine_tuning.jobs.list(limit=1)]


def test_checkpoints_are_those_that_the_training_keeps(
    served: Served, client: openai.OpenAI, page: dict[str, Any]
) -> None:
    """After its end it keeps none; so this one lays some down."""
    job = page["job"]
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
    kept = served.server.folder / "preceptor-serve/jobs" / job.id / "model/checkpoints"
    for step in (2, 4):
        (kept / f"checkpoint-{step}").mkdir(parents=True)
    found = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [one.step_number for one in found] == [4, 2]
    assert {one.fine_tuning_job_id for one in found} == {job.id}
    assert all(one.metrics.train_loss is not None for one in found)


def test_a_file_with_faults_makes_a_job_that_has_failed(served: Served, client: openai.OpenAI) -> None:
    file = upload(client, [*choices(3), {"input": {"messages": []}}])
    job = client.fine_tuning.jobs.create(model="embedded", training_file=file, method={"type": "dpo"})
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert job.error.message.startswith("line 4: input.messages: missing")
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.resume(job.id)
    assert served.server.job(job.id)["error"]["code"] == "not_found"  # it is told in OpenAI's words alone


def test_a_policy_is_reinforced_by_a_grader_and_answers(served: Served, client: openai.OpenAI) -> None:
    """The grader's words are the principle by which the configured judge rewards."""
    rows = [{"messages": [{"role": "user", "content": f"Where is room {number}?"}]} for number in range(10)]
    job = client.fine_tuning.jobs.create(
        model="embedded",
        training_file=upload(client, rows),
        method={
            "type": "reinforcement",
            "reinforcement": {"grader": GRADER, "hyperparameters": {"n_epochs": 1, "batch_size": 8}},
        },
    )
    job = wait(served, client, job.id)
    assert job.status == "succeeded", job.error
    names = [client.files.retrieve(name).filename for name in job.result_files]
    assert "adapter_model.safetensors" in names
    steps = [json.loads(line) for line in client.files.content(job.result_files[0]).text.splitlines()]
    assert any("reward" in step for step in steps), steps
    said = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "Where is room 7?"}], max_tokens=8
    )
    assert said.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"training_file": "file-none"}, "invalid_training_file"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "invalid_grader"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python"}}}},
            "unsupported_grader",
        ),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {**GRADER, "model": "o9"}}}},
            "invalid_grader",
        ),
        (
            {"method": {"type": "dpo", "reinforcement": {"grader": GRADER}}},
            "unsupported_parameter",
        ),
        ({"extra_body": {"max_cost_usd": 1}}, "unsupported_parameter"),
        ({"validation_file": "file-x"}, "unsupported_parameter"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}},
            "unsupported_parameter",
        ),
    ],
)
def test_what_is_not_served_is_refused_with_a_code(
    client: openai.OpenAI, given: dict[str, Any], word: str
) -> None:
    body: dict[str, Any] = {"model": "embedded", "training_file": upload(client, choices(10)), **given}
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**body)
    assert refused.value.code == word


def test_an_unknown_model_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.fine_tuning.jobs.create(
            model="gpt-9", training_file=upload(client, choices(10)), method={"type": "dpo"}
        )
    assert "there is no model 'gpt-9'" in str(refused.value)


def test_a_queued_job_is_paused_resumed_and_cancelled(served: Served, client: openai.OpenAI) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "x"}]}
        for n in range(40)
    ]
    many: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 1}}}
    first, second = (
        client.fine_tuning.jobs.create(
            model="embedded",
            training_file=upload(client, rows),
            method=many,
            suffix="desk",
            seed=7,
            metadata={"a": "b"},
        )
        for _ in range(2)
    )
    assert (first.object, first.seed, first.metadata) == ("fine_tuning.job", 7, {"a": "b"})
    assert first.fine_tuned_model is None
    paused: str = client.fine_tuning.jobs.pause(second.id).status
    assert paused == "paused"
    assert client.fine_tuning.jobs.resume(second.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(second.id).status == "cancelled"
    client.fine_tuning.jobs.cancel(first.id)
    assert wait(served, client, first.id).status == "cancelled"
    assert not [file for file in client.files.list() if file.purpose == "internal"]
