"""The commands before servers with the habits of those that people use, as docs/servers.md lists them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.models.openai import codec
from preceptor.judge.models.openai.model import open_model
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message
from tests.command_line import Preceptor
from tests.servers.llm import serve
from tests.servers.odd import completion
from tests.servers.profiles import PROFILES, Meaning, Profile, ProfileServer

MARKS = ((9, 1), (3, 8))
LEARNING = 6
"""Requests by which a server may be learned from, at most."""
FAULTS = [(profile, name) for profile in PROFILES.values() for name in profile.faults]
KINDS: dict[Meaning, type[ModelError]] = {
    "wait": Transient,
    "stop": ProviderStopped,
    "row": Rejected,
    "refused": Rejected,
}


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_command_works_with_a_servers_habits(preceptor: Preceptor, profile: Profile) -> None:
    """Probabilities come where the server gives them; thoughts are kept apart; what it refuses is learned once."""
    pairs = [
        {"prompt": f"q {n}", "response_a": f"quality={a}", "response_b": f"quality={b}"}
        for n, (a, b) in enumerate(MARKS)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    given = profile.logprobs and "logprobs" not in profile.refuses
    with serve(ProfileServer(profile)) as server:
        asked = ("-c", "style", "--judge", "openai/m", "--base-url", server.url, "--concurrency", 1)
        ended = preceptor("label", "pairs.jsonl", *asked, "--out", "labels")
        assert ended.code == 0, ended.err
        assert len(server.bodies) <= 2 * len(MARKS) + LEARNING
        for row, (a, b) in zip(rows("labels/labels.jsonl"), MARKS, strict=True):
            assert row["status"] == "ok"
            likely = 1 / (1 + math.exp((b - a) / 10)) if given else float(a > b)
            assert row["probability"] == pytest.approx(likely, abs=1e-6)
            assert {one["thoughts"] for one in row["judgements"] if "call" in one} == {profile.thoughts}
    with serve(ProfileServer(profile, verdict="Score: 7")) as server:
        asked = ("--base-url", server.url, "--concurrency", 1, "--out")
        ended = preceptor(
            "score", "pairs.jsonl", "-c", "style", "--judge", "openai/m", *asked, "scores.jsonl"
        )
        assert ended.code == 0, ended.err
        assert [row["score"] for row in rows("scores.jsonl")] == [7.0] * 4
        ended = preceptor("respond", "pairs.jsonl", "--model", "openai/m", "--samples", 1, *asked, "r.jsonl")
        assert ended.code == 0, ended.err
        replies = rows("r.jsonl")
        assert {(row["status"], row["text"]) for row in replies} == {("ok", "A hash decides.\nScore: 7")}
        assert {row["thoughts"] for row in replies} == {profile.thoughts}


@pytest.mark.parametrize(
    ("profile", "name"), FAULTS, ids=[f"{profile.name}: {name}" for profile, name in FAULTS]
)
async def test_every_error_of_a_servers_means_the_right_thing(profile: Profile, name: str) -> None:
    request = Request(
        model="openai/m", messages=(Message(role="user", content="hello"),), max_tokens=64, temperature=1.0
    )
    with serve(ProfileServer(profile)) as server:
        assert isinstance(server, ProfileServer)
        server.fault = fault = profile.faults[name]
        model = open_model("openai/m", base_url=server.url)
        with pytest.raises(KINDS[fault.meaning]) as caught:
            await model.complete(request)
        await model.close()
    if isinstance(caught.value, Rejected):
        assert caught.value.refused is (fault.meaning == "refused")
    waits = {"retry-after", "retry-after-ms"} & set(fault.headers)
    if waits and isinstance(caught.value, Transient):
        assert caught.value.retry_after_s == float(fault.headers["retry-after"])


def test_thoughts_without_an_answer_are_billed() -> None:
    """A gateway's count of Gemini's: nothing but thoughts, which the total has."""
    said = completion(None, "length")
    said["usage"] = {"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81}
    said["usage"]["completion_tokens_details"] = {"reasoning_tokens": 60}
    asked = Request(model="openai/m", messages=(Message(role="user", content="hi"),), max_tokens=64)
    assert codec.completion_of(said, asked, codec.asked_of("openai/m")).tokens_out == 60


async def test_thoughts_that_only_the_total_counts_are_billed() -> None:
    """Gemini's completion_tokens are those of the answer alone."""
    with serve(ProfileServer(PROFILES["gemini"])) as server:
        model = open_model("openai/m", base_url=server.url)
        asked = Request(model="openai/m", messages=(Message(role="user", content="hi"),), max_tokens=64)
        got = await model.complete(asked)
        await model.close()
        assert got.tokens_out == server.stats()["tokens_out"] + 500
