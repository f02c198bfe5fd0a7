"""The OpenAPI document holds: requests made of it get answers that it names, and none is a fault of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from tests.preceptor.serve.running import Running, running, write_script

CONFIG = """
models: {{script: {{model: scripted/{script}}}}}
constitutions: {{main: helpful-harmless}}
rewards: {{good: {{judge: script, constitution: main}}}}
doors: {{openrlhf: [good], slime: [good], classify: [good], score: [good], rerank: [good], pooling: [good],
  tei: [good], nemo-gym: [good]}}
"""
EXAMPLES = 2
"""Requests of one operation."""
PROBLEM = "application/problem+json"
bounded = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openapi")
    with running(folder, CONFIG.format(script=write_script(folder))) as made:
        yield made


def held(answer: httpx.Response, named: dict[str, dict[str, object]], what: str) -> None:
    """Whether the document names the answer. A 503 says that a reply was not judged, and is no fault."""
    assert answer.status_code < 500 or answer.status_code == 503, (what, answer.text)
    assert str(answer.status_code) in named, (what, answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == PROBLEM, what
        assert answer.json()["error"]["code"], what


@pytest.mark.slow
def test_every_operation_answers_as_the_document_says(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = server.url
    asked: Counter[str] = Counter()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @bounded
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            sent = case.as_transport_kwargs(base_url=server.url)
            if isinstance(sent.get("data"), bytes | str):
                sent["content"] = sent.pop("data")
            answer = server.client.request(
                sent["method"],
                sent["url"],
                **{
                    name: sent[name]
                    for name in ("params", "json", "data", "content", "files")
                    if sent.get(name)
                },
                headers={key: value for key, value in (case.headers or {}).items() if value.isascii()},
            )
            held(answer, document["paths"][case.path][case.method.lower()]["responses"], case.operation.label)

        ask()
        asked[operation.label] += 1
    assert len(asked) == sum(len(path) for path in document["paths"].values())


def test_a_problem_is_documented_where_it_can_be(server: Running) -> None:
    """By the statuses that the gate, the keys and the routes are known to give."""
    paths = server.client.get("/openapi.json").json()["paths"]
    expected = {
        ("/v1/reward", "post"): {"200", "401", "402", "404", "413", "422", "429", "503"},
        ("/v1/jobs", "post"): {"202", "402", "409", "422"},
        ("/v1/constitutions/{name}", "put"): {"200", "412", "428"},
        ("/healthz", "get"): {"200", "408", "421"},
    }
    for (path, method), statuses in expected.items():
        named = paths[path][method]["responses"]
        assert statuses <= named.keys(), path
        assert PROBLEM in named["422"]["content"], path
    assert server.post("/v1/reward", {"items": []}).headers["content-type"] == PROBLEM
