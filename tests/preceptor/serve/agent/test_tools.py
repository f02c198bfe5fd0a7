"""The tools as agents have them: `preceptor mcp` as a process, asked by the protocol's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from preceptor.serve.agent.plans import price_of
from preceptor.serve.keys import Keyring
from tests.preceptor.serve.jobs.conftest import configuration
from tests.preceptor.serve.jobs.serving import ROOT
from tests.servers.llm import LLMServer, serve

POLICY = """\
Answers at the front desk are short: a guest in the lobby reads them on a small screen. Twelve words will do."""
CHECK = "    check: {max_words: 12}\n"
MOST_CALLS = 15
WAIT_S = 50
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Refused(Exception):
    """What a tool says that does nothing."""


class Agent:
    """Calls tools by a script, and counts."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.calls = 0

    async def use(self, tool: str, **arguments: Any) -> dict[str, Any]:
        self.calls += 1
        answer = await self.client.call_tool(tool, arguments)
        if answer.is_error:
            raise Refused(answer.content[0].text)  # type: ignore[union-attr]
        assert answer.structured_content is not None
        return answer.structured_content

    async def until_ended(self, job: str) -> dict[str, Any]:
        while (told := await self.use("job", job=job, wait_s=WAIT_S))["status"] in ("queued", "running"):
            pass
        return told


def constitution(*words: int, check: str = "") -> str:
    """What a model makes of the policy: a principle for each number of words."""
    principles = "".join(
        f"  - id: short-{most}\n    text: Choose the reply of at most {most} words.\n{check}"
        for most in words
    )
    return f"name: lobby\nversion: 1.0.0\ndescription: {POLICY.splitlines()[0]!r}\nprinciples:\n{principles}"


def rows(*given: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in given)


@pytest.mark.slow
async def test_a_paragraph_of_policy_becomes_a_report(tmp_path: Path) -> None:
    """By stdin and stdout, with nothing but the embedded model, in few calls."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "preceptor", "mcp"], cwd=tmp_path, env=ENVIRONMENT
    )
    async with Client(command) as client:
        agent = Agent(client)
        there = await agent.use("overview")
        assert there["models"] == ["embedded"]
        saved = await agent.use(
            "save_constitution", name="lobby", text=constitution(12, check=CHECK), reason=POLICY
        )
        prompts = [{"prompt": f"Where is room {number}?", "id": f"p{number}"} for number in range(6)]
        file = await agent.use("upload", filename="prompts.jsonl", text=rows(*prompts))
        plan = await agent.use(
            "plan",
            kind="run",
            input=file["id"],
            model="embedded",
            judge="checks",
            constitution="lobby",
            settings={
                "prompts": {"held_out_share": 0.4},
                "respond": {"samples": 4, "max_tokens": 16},
                "dpo": {"epochs": 1, "batch_size": 4},
            },
        )
        assert plan["price_usd"] == 0
        started = await agent.use("train", plan=plan["plan"], approved_usd=0)
        ended = await agent.until_ended(started["job"])
        assert ended["status"] == "succeeded", ended
        report = await agent.use("report", job=started["job"])
        page = await agent.use("read_file", file=report["files"]["9-report.html"])
    assert report["figures"]["constitution"] == saved["identity"]
    assert report["figures"]["cost_usd"] == 0
    assert {"before", "after", "win_rate", "kl_nats"} <= report["figures"].keys()
    assert "lobby" in page["text"]
    assert agent.calls <= MOST_CALLS


class Offered(NamedTuple):
    """`preceptor mcp` over HTTP, where a key is needed, and the provider that its judge asks."""

    url: str
    key: str
    provider: LLMServer


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offered]:
    folder = tmp_path_factory.mktemp("offered")
    with serve(LLMServer()) as provider:
        (folder / "serve.yaml").write_text(configuration(provider))
        keys = Keyring(f"sqlite:///{folder}/preceptor.db")
        _, key = keys.create("agent", ["judge", "jobs:read", "jobs:write", "constitutions:write"])
        keys.close()
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "preceptor", "mcp", "--config=serve.yaml", "--port=0"],
                cwd=folder,
                env=os.environ | ENVIRONMENT | {"OPENAI_API_KEY": "none"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), (folder / "log").read_text()
            yield Offered(url, key, provider)
        finally:
            process.terminate()
            process.wait(600)
            process.stdout.close()


@asynccontextmanager
async def agent_of(offered: Offered, key: str) -> AsyncIterator[Agent]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=600) as http,
        Client(streamable_http_client(offered.url, http_client=http)) as client,  # type: ignore[arg-type]
    ):
        yield Agent(client)


async def test_nothing_is_spent_without_a_plan_that_was_approved_at_its_price(offered: Offered) -> None:
    pairs = [
        {"prompt": f"question {n}", "response_a": "quality=1", "response_b": "quality=2"} for n in range(3)
    ]
    async with agent_of(offered, offered.key) as agent:
        saved = await agent.use("save_constitution", name="lobby", text=constitution(12))
        file = await agent.use("upload", filename="pairs.jsonl", text=rows(*pairs))
        job = {"kind": "label", "input": file["id"], "judge": "judge", "constitution": "lobby"}
        plan = await agent.use("plan", **job, settings={"principles": "each"})
        dear = plan["price_usd"]
        assert dear > 0
        for words, given in (
            ("there is no plan", {"plan": "plan-0", "approved_usd": dear}),
            ("was approved", {"plan": plan["plan"], "approved_usd": dear / 2}),
            ("was approved", {"plan": plan["plan"], "approved_usd": dear * 2}),
        ):
            with pytest.raises(Refused, match=words):
                await agent.use("label", **given)
        with pytest.raises(Refused, match="of kind label; the tool train"):
            await agent.use("train", plan=plan["plan"], approved_usd=dear)

        await agent.use("save_constitution", name="lobby", text=constitution(12, 20), etag=saved["etag"])
        differences = await agent.use("diff", name="lobby")
        assert [change["principle"] for change in differences["changes"]] == ["short-20"]
        with pytest.raises(Refused, match=r"the price of plan-.* was .* nothing was done: plan again"):
            await agent.use("label", plan=plan["plan"], approved_usd=dear)
        assert offered.provider.stats()["requests"] == 0

        plan = await agent.use("plan", **job, settings={"principles": "each"})
        approved = {"plan": plan["plan"], "approved_usd": plan["price_usd"]}
        assert plan["price_usd"] > dear
        started = await agent.use("label", **approved)
        ended = await agent.until_ended(started["job"])
        assert ended["status"] == "succeeded", ended
        asked = offered.provider.stats()["requests"]
        assert asked == 3 * 2 * 2  # pairs, principles, orders
        again = await agent.use("label", **approved)
        assert (again["job"], again["status"]) == (started["job"], "succeeded")
        assert offered.provider.stats()["requests"] == asked
        report = await agent.use("report", job=started["job"])
        assert {"labels.jsonl", "preferences.jsonl"} <= report["files"].keys()
        assert "flip" in report["card"]


async def test_an_agent_acts_with_its_own_key(offered: Offered) -> None:
    async with agent_of(offered, "") as nobody:
        with pytest.raises(Refused, match="401 invalid_api_key"):
            await nobody.use("overview")
    async with agent_of(offered, offered.key) as agent:
        assert "judge" in (await agent.use("overview"))["models"]
        body = {"input": "everyday", "model": "embedded", "judge": "checks", "constitution": "style"}
        plan = await agent.use(
            "plan", kind="respond", input="everyday", model="embedded", settings={"limit": 2}
        )
        assert plan["price_usd"] == 0
        with pytest.raises(Refused, match="403 missing_scope: this key lacks the scope train"):
            await agent.use("plan", kind="run", **body)


def test_a_training_against_a_judge_costs_its_cap() -> None:
    """The plan of such a training has no dollars, and what is unknown is not nothing."""
    training = {"stage": "grpo", "rows": 8}
    grpo = {"kind": "grpo", "input": "everyday", "judge": "judge"}
    assert price_of(grpo, training) is None
    assert price_of(grpo | {"max_cost_usd": 2.0}, training) == 2.0
    assert price_of(grpo | {"judge": "checks"}, training) == 0.0
    assert price_of({"kind": "dpo", "input": "file-1"}, training) == 0.0
    label = {"kind": "label", "input": "file-1", "judge": "judge"}
    asking = {"models": [{"cost_usd": 0.5}, {"cost_usd": 0.25}]}
    assert price_of(label, asking) == 0.75
    assert price_of(label | {"max_cost_usd": 0.5}, asking) == 0.5
    assert price_of(label, {"models": [{"cost_usd": 0.5}, {"cost_usd": None}]}) is None
