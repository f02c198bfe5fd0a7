"""The service answers what the commands write, to whoever may ask, and never a number that nobody gave."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from preceptor.constitution.errors import UserError
from preceptor.serve.config import read_config
from tests.command_line import Preceptor
from tests.preceptor.serve.running import Running, running, write_script
from tests.servers.llm import LLMServer, serve

CONFIG = """
models:
  script: {{model: scripted/{script}}}
  paid: {{model: openai/gpt-4o-mini, base_url: "{url}", price: {{input: 1, output: 1}}}}
constitutions: {{main: helpful-harmless}}
rewards:
  good: {{judge: script, constitution: main}}
doors: {{openrlhf: [good], slime: [good], classify: [good], score: [good], rerank: [good], pooling: [good],
  tei: [good], nemo-gym: [good]}}
fallback: {{slime: {{reward: -0.5, after: 1}}}}
limits: {{max_items: 4, max_body_mb: 0.1, max_cost_usd: 5}}
"""
PAGE = Path(__file__).parents[3] / "docs" / "service.md"
ASKED = "What is your name?"
PAIRS = [
    {"id": "one", "prompt": ASKED, "response_a": "GOOD", "response_b": "BAD"},
    {
        "id": "two",
        "messages": [{"role": "user", "content": ASKED}],
        "response_a": "BAD",
        "response_b": "GOOD",
    },
    {"prompt": "And yours?", "response_a": "MUMBLE", "response_b": "BAD", "source": "a column"},
]
FOREIGN = {"template": "/etc/passwd"}


@pytest.fixture(scope="module")
def provider() -> Iterator[LLMServer]:
    with serve(LLMServer()) as server:
        yield server


@pytest.fixture(scope="module")
def server(provider: LLMServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    config = CONFIG.format(script=write_script(folder), url=provider.url)
    with running(folder, config) as made:
        yield made


def item(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": ASKED, "response": text, **more}


def rewards(server: Running, *texts: str) -> list[dict[str, Any]]:
    answer = server.post("/v1/reward", {"items": [item(text) for text in texts], "reward": "good"})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["items"]
    return rows


def test_rewards_come_in_order_and_none_is_null(server: Running) -> None:
    good, none, bad = rewards(server, "GOOD", "MUMBLE", "BAD")
    assert good["reward"] == pytest.approx(7 / 9)
    assert bad["reward"] == pytest.approx(-7 / 9)
    assert (none["reward"], none["status"]) == (None, "unparsed")
    assert "Who can say?" in none["reason"]
    assert good["reason"] == "It is good."


def test_labels_are_the_commands_rows(
    server: Running, preceptor: Preceptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    script = server.folder / "judge.jsonl"
    judged = ("-c", "helpful-harmless", "--judge", f"scripted/{script}")
    ended = preceptor("label", "pairs.jsonl", *judged, "--out", "labels")
    assert ended.code == 0, ended.err
    answer = server.post("/v1/judge", {"items": PAIRS, "judge": "script"})
    lines = Path("labels/labels.jsonl").read_text().splitlines()
    assert answer.text == f'{{"items":[{",".join(lines)}]}}'
    statuses = [json.loads(line)["status"] for line in lines]
    assert statuses[:2] == ["ok", "ok"]
    assert statuses[2] != "ok"


def test_scores_are_the_commands_rows(
    server: Running, preceptor: Preceptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    script = server.folder / "judge.jsonl"
    ended = preceptor(
        *(
            "score",
            "pairs.jsonl",
            "-c",
            "helpful-harmless",
            "--judge",
            f"scripted/{script}",
            "--out",
            "scores.jsonl",
        )
    )
    assert ended.code == 0, ended.err
    items = [item("GOOD", id="one-a"), item("BAD", id="one-b")]
    answer = server.post("/v1/score", {"items": items, "judge": "script"})
    assert answer.text == f'{{"items":[{",".join(Path("scores.jsonl").read_text().splitlines())}]}}'


def test_groups_are_ranked(server: Running) -> None:
    rows = [{"prompt": ASKED, "responses": ["BAD", "GOOD"]}]
    answer = server.post("/v1/judge", {"items": rows, "judge": "script", "groups": "all"}).json()
    (ranking,) = answer["rankings"]
    worse, better = ranking["scores"]
    assert worse < better
    assert len(answer["items"]) == 1


def test_equal_requests_in_flight_are_asked_once(server: Running, provider: LLMServer) -> None:
    before = provider.stats()["answered"]
    rows = [{"prompt": "Count", "response_a": "one quality=5", "response_b": "other quality=9"}]

    async def together() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            body = {"items": rows, "judge": "paid"}
            return await asyncio.gather(*(client.post("/v1/judge", json=body) for _ in range(8)))

    answers = asyncio.run(together())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert provider.stats()["answered"] - before == 2  # one for each order
    bill = server.client.get("/v1/bill").json()
    assert bill["cost_usd"] > 0
    assert bill["lines"][0]["calls"] == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/reward", {"items": [item("GOOD")], "reward": "nobody"}, 404, "unknown_reward"),
        ("/v1/reward", {"items": []}, 422, "invalid_request"),
        ("/v1/reward", {"items": [{"prompt": ASKED}]}, 422, "invalid_request"),
        ("/v1/reward", {"items": [item("GOOD")] * 5}, 422, "too_many_items"),
        ("/v1/reward", {"items": [item("x" * 200_000)]}, 413, "too_large"),
        ("/v1/judge", {"items": PAIRS}, 422, "unknown_model"),
        (
            "/v1/judge",
            {"items": PAIRS, "judge": "script", "settings": {"template": "/etc/passwd"}},
            422,
            "invalid_request",
        ),
        ("/v1/judge", {"items": PAIRS, "judge": "script", "base_url": "http://evil"}, 422, "invalid_request"),
        ("/doors/openrlhf/other", {"query": ["a"], "prompts": ["a"]}, 404, "unknown_reward"),
        ("/nowhere", {}, 404, "not_found"),
    ],
)
def test_what_cannot_be_answered_is_a_problem(
    server: Running, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = server.post(path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == answer.json()["error"]["message"]


def test_nested_json_and_other_hosts_are_refused(server: Running) -> None:
    nested = server.client.post("/v1/reward", content="[" * 5000)
    assert (nested.status_code, nested.json()["error"]["code"]) == (400, "too_nested")
    broken = server.client.post(
        "/v1/reward", content='{"items": [', headers={"content-type": "application/json"}
    )
    assert broken.status_code == 422
    rebound = server.client.get("/healthz", headers={"host": "evil.example"})
    assert rebound.status_code == 421


def test_figures_and_health(server: Running) -> None:
    rewards(server, "GOOD")
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    figures = server.client.get("/metrics").text
    assert 'preceptor_rows_total{kind="reward",status="ok"}' in figures
    assert 'preceptor_calls_total{model="script",outcome="answered"}' in figures
    assert [one["id"] for one in server.client.get("/v1/models").json()["data"]] == ["script", "paid"]
    assert "/v1/reward" in server.client.get("/openapi.json").json()["paths"]
    assert server.client.get("/docs").status_code == 404


def test_the_log_holds_no_prompt_no_reply_and_no_key(server: Running) -> None:
    rewards(server, "GOOD words to find")
    answer = server.client.get("/healthz", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    text = (server.folder / "log").read_text()
    assert "GOOD" not in text
    assert ASKED not in text
    assert "sk-secret" not in text
    until = time.monotonic() + 30  # a line is written when its answer has gone
    while not (mine := [line for line in server.log() if line.get("request") == "mine-1"]):
        assert time.monotonic() < until
    assert mine[0]["status"] == 200


def test_the_requests_of_the_page_are_answered(server: Running) -> None:
    page = PAGE.read_text(encoding="utf-8")
    asked = re.findall(r"`POST (/v1/\w+)`(?:(?!`POST ).)*?```json\n(.*?)```", page, re.DOTALL)
    assert len(asked) == 4
    for path, body in asked:
        answer = server.post(path, json.loads(body))
        assert answer.status_code == 200, (path, answer.text)


def test_the_configuration_of_the_page_can_be_used(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "serve.yaml").write_text(text)
    config = read_config(tmp_path / "serve.yaml")
    assert config.doors["slime"] == ("good", "fast")


def test_every_fault_of_a_configuration_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text(
        "models:\n  a: {model: nobody/x}\nrewards:\n  r: {judge: b, constitution: c}\ndoors:\n  slime: [q]\n"
    )
    with pytest.raises(UserError) as raised:
        read_config(tmp_path / "serve.yaml")
    said = str(raised.value)
    assert "4 faults" in said
    for place in (
        ":2: models.a.model",
        ":4: rewards.r.judge",
        ":4: rewards.r.constitution",
        ":6: doors.slime",
    ):
        assert place in said, said
    (tmp_path / "serve.yaml").write_text("models:\n  a: {model: embedded, base: x}\nlimits: {max_items: 0}\n")
    with pytest.raises(UserError) as raised:
        read_config(tmp_path / "serve.yaml")
    assert ":2: models.a.base: unknown key" in str(raised.value)
    assert ":3: limits.max_items" in str(raised.value)


# --- doors -----------------------------------------------------------------------------------------------------------

CHATML = f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n"


def openrlhf(*replies: str) -> dict[str, Any]:
    queries = [f"<s>{CHATML}{reply}<|im_end|>\n<|endoftext|>" for reply in replies]
    return {"query": queries, "prompts": [CHATML] * len(replies), "labels": [""] * len(replies)}


def test_openrlhf_is_answered_by_what_was_said_alone(server: Running) -> None:
    (direct,) = rewards(server, "GOOD")
    answer = server.post("/doors/openrlhf/good", openrlhf("GOOD"))
    assert answer.json() == {"rewards": [direct["reward"]], "scores": [direct["reward"]], "extra_logs": {}}
    assert server.post("/get_reward", openrlhf("GOOD")).json() == answer.json()


def test_openrlhfs_further_servers_get_nothing_and_answer_it(server: Running) -> None:
    answer = server.post("/get_reward", {"query": [], "prompts": [], "labels": []})
    assert (answer.status_code, answer.json()["rewards"]) == (200, [])


def test_a_reply_without_a_reward_is_503_where_there_is_no_mask(server: Running) -> None:
    for path, body in (
        ("/get_reward", openrlhf("MUMBLE")),
        ("/classify", {"input": f"{CHATML}MUMBLE<|im_end|>"}),
        ("/score", {"text_1": ASKED, "text_2": ["GOOD", "MUMBLE"]}),
        ("/v2/rerank", {"query": ASKED, "documents": ["GOOD", "MUMBLE"]}),
        ("/predict", {"inputs": [ASKED, "MUMBLE"]}),
    ):
        answer = server.post(path, body)
        assert answer.status_code == 503, path
        assert int(answer.headers["retry-after"]) >= 1


def test_slime_gets_a_number_and_a_stated_one_only_where_the_configuration_states_it(server: Running) -> None:
    (direct,) = rewards(server, "GOOD")
    assert server.post("/doors/slime/good", {"prompt": ASKED, "response": "GOOD"}).json() == direct["reward"]
    none = {"prompt": [{"role": "user", "content": ASKED}], "response": "MUMBLE slime"}
    assert server.post("/doors/slime/good", none).status_code == 503
    assert server.post("/doors/slime/good", none).json() == -0.5


def test_vllms_sglangs_and_teis_shapes(server: Running) -> None:
    (good,), (bad,) = rewards(server, "GOOD"), rewards(server, "BAD")
    texts = [f"{CHATML}GOOD<|im_end|>", f"{CHATML}BAD<|im_end|>"]
    classified = server.post("/classify", {"model": "any", "input": texts, "use_activation": False}).json()
    assert [row["probs"] for row in classified["data"]] == [[good["reward"]], [bad["reward"]]]
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "GOOD"}]
    assert server.post("/classify", {"messages": turns}).json()["data"][0]["probs"] == [good["reward"]]
    assert server.post("/classify", {"text": texts[0]}).json()["embedding"] == [good["reward"]]
    squashed = server.post("/classify", {"input": texts[0], "use_activation": True}).json()
    assert 0.5 < squashed["data"][0]["probs"][0] < 1
    assert server.post("/pooling", {"input": texts[0]}).json()["data"][0]["data"] == [good["reward"]]
    for path in ("/score", "/v1/score"):
        scored = server.post(path, {"queries": ASKED, "documents": ["BAD", "GOOD"]}).json()
        assert [row["score"] for row in scored["data"]] == [bad["reward"], good["reward"]]
    ranked = server.post("/v2/rerank", {"query": ASKED, "documents": ["BAD", "GOOD"], "top_n": 1}).json()
    assert ranked["results"] == [
        {"index": 1, "document": {"text": "GOOD"}, "relevance_score": good["reward"]}
    ]
    tei = server.post("/rerank", {"query": ASKED, "texts": ["BAD", "GOOD"], "raw_scores": True}).json()
    assert [row["index"] for row in tei] == [1, 0]
    predicted = server.post("/predict", {"inputs": [[ASKED, "BAD"]], "raw_scores": True}).json()
    assert predicted == [[{"score": bad["reward"], "label": "reward"}]]
    plain = server.post("/classify", {"input": "words in no template"})
    assert plain.status_code == 422


def gym(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "responses_create_params": {"input": [{"role": "user", "content": ASKED}]},
        "response": {"output": [{"type": "message", "role": "assistant", "content": [part]}]},
        "instance_config": {"task": 7},
        "_ng_task_index": 3,
    }


def test_nemo_gym_masks_what_is_not_judged(server: Running) -> None:
    (direct,) = rewards(server, "GOOD")
    good = server.post("/doors/nemo-gym/good/verify", gym("GOOD")).json()
    assert good == gym("GOOD") | {"reward": direct["reward"]}
    none = server.post("/doors/nemo-gym/good/verify", gym("MUMBLE"))
    assert none.status_code == 200
    body = none.json()
    assert (body["reward"], body["mask_sample"], body["_ng_failure_class"]) == (0.0, True, "judge_failed")
    assert body["instance_config"] == {"task": 7, "mask_sample": True}
    assert body["failure_kind"] == "unparsed"
    assert body["_ng_task_index"] == 3
    sums = server.post("/doors/nemo-gym/good/aggregate_metrics", {"verify_responses": [good, body]}).json()
    assert sums["key_metrics"] == {"mean/reward": direct["reward"]}
    assert server.post("/doors/nemo-gym/good/seed_session", {}).json() == {}


def test_nemo_gym_compares_a_group(server: Running) -> None:
    replies = [gym(text)["response"] for text in ("BAD", "GOOD")]
    asked = {"conversation_history": [{"role": "user", "content": ASKED}], "response_objs": replies}
    answer = server.post("/doors/nemo-gym/good/compare", asked)
    assert answer.status_code == 200, answer.text
    worse, better = answer.json()["rewards"]
    assert worse < better
    asked["response_objs"] = [gym(text)["response"] for text in ("MUMBLE", "GOOD")]
    assert server.post("/doors/nemo-gym/good/compare", asked).status_code == 503


# --- a configuration of its own ---------------------------------------------------------------------------------------


def test_reload_and_stop(tmp_path: Path, provider: LLMServer) -> None:
    config = CONFIG.format(script=write_script(tmp_path), url=provider.url)
    with running(tmp_path, config) as server:
        (tmp_path / "serve.yaml").write_text(config.replace("good: {judge", "better: {judge"))
        server.process.send_signal(signal.SIGHUP)  # a fault: doors lead nowhere
        (tmp_path / "serve.yaml").write_text(config.replace("good", "better"))
        while server.post("/v1/reward", {"items": [item("GOOD")], "reward": "better"}).status_code == 404:
            server.process.send_signal(signal.SIGHUP)
        assert server.post("/v1/reward", {"items": [item("GOOD")], "reward": "good"}).status_code == 404
        # what is in flight when the server is told to stop is answered
        provider.latency_s = 0.5
        answers: list[httpx.Response] = []
        rows = [{"prompt": "Last", "response_a": "one quality=1", "response_b": "other quality=2"}]
        body = {"items": rows, "judge": "paid"}
        asking = threading.Thread(target=lambda: answers.append(server.post("/v1/judge", body)))
        before = len(provider.bodies)
        asking.start()
        provider.wait_for(before + 1)
        server.process.send_signal(signal.SIGTERM)
        asking.join(600)
        provider.latency_s = 0.0
        assert server.process.wait(600) == 0
        assert [answer.status_code for answer in answers] == [200]
