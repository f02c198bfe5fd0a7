"""OpenAI's batches over chat completions, by its own SDK: what the chat endpoint answers, in files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from preceptor.serve.jobs.batch_run import ERRORS, OUT, OUTPUT, PLACE, ROWS, answer_all
from tests.jsonl import rows_of
from tests.preceptor.serve.jobs.conftest import Served

pytestmark = pytest.mark.slow
ENDED = ("completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def row(number: int, **more: Any) -> dict[str, Any]:
    talk = [{"role": "user", "content": f"Where is room {number}?"}]
    body = {"model": "embedded", "messages": talk, "max_tokens": 8, "seed": number, **more}
    return {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def lines(*rows: Any) -> str:
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows)


def created(client: openai.OpenAI, *rows: Any) -> Any:
    file = client.files.create(file=("rows.jsonl", lines(*rows).encode()), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"of": "a test"},
    )


def ended(served: Served, client: openai.OpenAI, batch: Any) -> Any:
    return served.server.wait(lambda: (now := client.batches.retrieve(batch.id)).status in ENDED and now)


def read(client: openai.OpenAI, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in io.StringIO(client.files.content(name).text)]


def test_rows_get_what_the_chat_endpoint_answers(served: Served, client: openai.OpenAI) -> None:
    bad = [row(3, tools=[]), row(4, messages=[{"role": "user", "content": "x " * 20000}])]
    made = created(client, row(1), *bad, row(2, n=2))
    assert (made.object, made.status in ("validating", "in_progress")) == ("batch", True)
    done = ended(served, client, made)
    assert done.status == "completed", done
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (4, 2, 2)
    assert (done.model, done.metadata) == ("embedded", {"of": "a test"})
    answers = read(client, done.output_file_id)
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    assert [one["custom_id"] for one in answers] == ["row-1", "row-2"]
    for one, asked in zip(answers, (row(1), row(2, n=2)), strict=True):
        assert (one["response"]["status_code"], one["error"]) == (200, None)
        said = client.chat.completions.create(**asked["body"])
        got = openai.types.chat.ChatCompletion.model_validate(one["response"]["body"])
        assert [choice.message.content for choice in got.choices] == [
            choice.message.content for choice in said.choices
        ]
        assert got.usage == said.usage
    assert done.usage.total_tokens == sum(one["response"]["body"]["usage"]["total_tokens"] for one in answers)
    wrong = {one["custom_id"]: one["response"] for one in read(client, done.error_file_id)}
    assert {name: one["status_code"] for name, one in wrong.items()} == {"row-3": 422, "row-4": 400}
    assert wrong["row-4"]["body"]["error"]["code"] == "invalid_request"
    assert client.batches.cancel(done.id).status == "completed"
    assert done.id in [batch.id for batch in client.batches.list(limit=1)]


@pytest.mark.parametrize(
    ("rows", "line", "said"),
    [
        ((row(1), row(1)), 2, "a second time"),
        ((row(1), "{"), 2, "not JSON"),
        ((row(1) | {"url": "/v1/embeddings"},), 1, "wanted POST"),
        ((row(1, model="nobody"),), 1, "there is no model 'nobody'"),
        ((row(1, model="judge"),), 1, "behind an address"),
        ((row(1), row(2, model="judge")), 2, "the rows before name 'embedded'"),
        ((), None, "no rows"),
    ],
)
def test_a_faulty_file_fails_with_its_lines(
    client: openai.OpenAI, rows: tuple[Any, ...], line: int | None, said: str
) -> None:
    made = created(client, *rows)
    assert (made.status, made.output_file_id) == ("failed", None)
    (fault,) = made.errors.data
    assert (fault.code, fault.line) == ("invalid_input_file", line)
    assert said in fault.message


def test_what_is_not_served_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("rows.jsonl", lines(row(1)).encode()), purpose="fine-tune")
    asked: Any = {"input_file_id": file.id, "completion_window": "24h", "endpoint": "/v1/chat/completions"}
    with pytest.raises(openai.BadRequestError, match="wanted 'batch'"):
        client.batches.create(**asked)
    with pytest.raises(openai.UnprocessableEntityError):
        client.batches.create(**{**asked, "endpoint": "/v1/embeddings"})
    with pytest.raises(openai.NotFoundError):
        client.batches.create(**{**asked, "input_file_id": "file-0"})
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_0")


def test_what_a_cancelled_batch_has_answered_stays(served: Served, client: openai.OpenAI) -> None:
    made = created(client, *(row(number) for number in range(600)))
    served.server.wait(lambda: client.batches.retrieve(made.id).request_counts.completed)
    assert client.batches.cancel(made.id).status in ("cancelling", "cancelled")
    done = ended(served, client, made)
    assert done.status == "cancelled"
    assert 0 < done.request_counts.completed < 600
    assert len(read(client, done.output_file_id)) == done.request_counts.completed


async def test_what_was_answered_is_not_answered_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that was killed while it wrote: its whole lines stay, the cut one is made anew."""
    (tmp_path / ROWS).write_text(lines(row(1), row(2), row(3, stream=True)))
    (tmp_path / PLACE).write_text("embedded")
    (tmp_path / OUT).mkdir()
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    before = {"custom_id": "row-1", "response": {"status_code": 200, "body": {"usage": usage}}}
    (tmp_path / OUT / OUTPUT).write_text(json.dumps(before) + '\n{"custom_id": "row-2", "resp')
    assert await answer_all(tmp_path) == 0
    said = json.loads(capsys.readouterr().out)
    written = rows_of(tmp_path / OUT / OUTPUT)
    assert written[0] == before
    assert [one["custom_id"] for one in written] == ["row-1", "row-2"]
    (wrong,) = (tmp_path / OUT / ERRORS).read_text().splitlines()
    assert json.loads(wrong)["response"]["body"]["error"]["code"] == "unsupported_parameter"
    assert (said["total"], said["completed"], said["failed"]) == (3, 2, 1)
    assert said["prompt_tokens"] > 5
