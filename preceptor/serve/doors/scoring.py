"""Reward models as vLLM, SGLang and TEI serve them. Rewards come as they are, unless squashed ones are asked for."""

from __future__ import annotations

import base64
import struct
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from preceptor.judge.score import ReplyToScore
from preceptor.prompts.records import Message
from preceptor.serve.auth import Caller
from preceptor.serve.config import DoorName
from preceptor.serve.doors.asking import AtDoor, numbers, reply_to, rewards_of
from preceptor.serve.doors.trainers import messages_in
from preceptor.serve.doors.turns import prompt_turns, split_reply, turns_of
from preceptor.serve.problems import Problem, documented
from preceptor.serve.service import Served, Service

router = APIRouter(tags=["doors"], responses=documented(402, 404))
USAGE = {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0}
"""vLLM counts a model's tokens here; a judge's stand on the bill."""
Talks = str | list[str]
"""Whole conversations, each as its chat template writes it."""


class ClassifyRequest(BaseModel):
    """vLLM's `/classify`, and SGLang's where it has `text`."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    input: Talks | None = None
    text: Talks | None = None
    messages: list[dict[str, Any]] | None = None
    use_activation: bool = False


class PoolingRequest(ClassifyRequest):
    """vLLM's `/pooling`."""

    encoding_format: Literal["float", "base64"] = "float"


class PairsRequest(BaseModel):
    """vLLM's `/score`: a prompt with its replies, under any of the names that it goes by."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    queries: Talks | None = None
    documents: Talks | None = None
    items: Talks | None = None
    text_1: Talks | None = None
    text_2: Talks | None = None
    data_1: Talks | None = None
    data_2: Talks | None = None
    use_activation: bool = False


class RerankRequest(BaseModel):
    """vLLM's rerank, with `documents`; TEI's, with `texts`."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    query: str
    documents: list[str] | None = None
    texts: list[str] | None = None
    top_n: int = 0
    use_activation: bool = False
    raw_scores: bool = False
    return_text: bool = False


class PredictRequest(BaseModel):
    """TEI's `/predict`: a prompt with its reply, or several."""

    model_config = ConfigDict(extra="ignore")

    inputs: str | list[str] | list[list[str]]
    raw_scores: bool = False


@router.post("/classify")
async def classify(asked: ClassifyRequest, served: Served, caller: AtDoor) -> Any:
    """Rewards under `probs`, or in SGLang's form under `embedding`."""
    made, alone = await _of_conversations(asked, served, "classify", caller)
    if asked.text is not None:
        rows = [{"embedding": [reward], "meta_info": {"id": _id("classify")}} for reward in made]
        return rows[0] if alone else rows
    data = [
        {"index": at, "label": None, "probs": [reward], "num_classes": 1} for at, reward in enumerate(made)
    ]
    return _list("classify", asked.model, data)


@router.put("/classify", include_in_schema=False)
async def put_classify(asked: ClassifyRequest, served: Served, caller: AtDoor) -> Any:
    """As SGLang takes it too."""
    return await classify(asked, served, caller)


@router.post("/pooling")
async def pooling(asked: PoolingRequest, served: Served, caller: AtDoor) -> dict[str, Any]:
    """Rewards as vectors of one number."""
    made, _ = await _of_conversations(asked, served, "pooling", caller)
    coded = asked.encoding_format == "base64"
    data = [
        {
            "index": at,
            "object": "pooling",
            "data": base64.b64encode(struct.pack("<f", reward)).decode() if coded else [reward],
        }
        for at, reward in enumerate(made)
    ]
    return _list("pool", asked.model, data)


@router.post("/score")
async def score(asked: PairsRequest, served: Served, caller: AtDoor) -> dict[str, Any]:
    """A reward for each reply to its prompt, or for each of several replies to one prompt."""
    prompts = _first(asked.queries, asked.text_1, asked.data_1)
    replies = _first(asked.documents, asked.items, asked.text_2, asked.data_2)
    if len(prompts) == 1:
        prompts = prompts * len(replies)
    if len(prompts) != len(replies):
        raise Problem(
            422, "invalid_request", f"{len(prompts)} prompts with {len(replies)} replies; wanted 1 or as many"
        )
    pairs = [reply_to(prompt_turns(prompt), reply) for prompt, reply in zip(prompts, replies, strict=True)]
    made = await _numbers(pairs, served, "score", asked.model, caller, squashed=asked.use_activation)
    data = [{"index": at, "object": "score", "score": reward} for at, reward in enumerate(made)]
    return _list("score", asked.model, data)


@router.post("/rerank")
@router.post("/v1/rerank")
@router.post("/v2/rerank")
async def rerank(asked: RerankRequest, served: Served, caller: AtDoor) -> Any:
    """Replies by their rewards, the best first."""
    texts = asked.texts if asked.texts is not None else asked.documents
    if not texts:
        raise Problem(422, "invalid_request", "neither documents nor texts; wanted the replies to rank")
    as_tei = asked.texts is not None
    turns = prompt_turns(asked.query)
    made = await _numbers(
        [reply_to(turns, text) for text in texts],
        served,
        "tei" if as_tei else "rerank",
        asked.model,
        caller,
        squashed=not asked.raw_scores if as_tei else asked.use_activation,
    )
    order = sorted(range(len(texts)), key=lambda at: -made[at])
    if as_tei:
        return [
            {"index": at, "score": made[at], **({"text": texts[at]} if asked.return_text else {})}
            for at in order
        ]
    results = [
        {"index": at, "document": {"text": texts[at]}, "relevance_score": made[at]}
        for at in (order[: asked.top_n] if asked.top_n > 0 else order)
    ]
    return {"id": _id("rerank"), "model": asked.model, "usage": USAGE, "results": results}


@router.post("/predict")
async def predict(asked: PredictRequest, served: Served, caller: AtDoor) -> Any:
    """Rewards in TEI's form, squashed to 0..1 unless `raw_scores` are asked for."""
    given = asked.inputs
    alone = isinstance(given, str) or (len(given) == 2 and all(isinstance(one, str) for one in given))
    rows: Sequence[Any] = [given] if alone else given
    pairs = [_pair(row) for row in rows]
    made = await _numbers(pairs, served, "tei", None, caller, squashed=not asked.raw_scores)
    answers = [[{"score": reward, "label": "reward"}] for reward in made]
    return answers[0] if alone else answers


async def _of_conversations(
    asked: ClassifyRequest, served: Service, door: DoorName, caller: Caller
) -> tuple[list[float], bool]:
    """(rewards, whether a single conversation came and no list)."""
    given = asked.text if asked.text is not None else asked.input
    if asked.messages is not None:
        conversations, alone = [_conversation(messages_in("messages", asked.messages), "messages")], True
    elif given:
        texts = [given] if isinstance(given, str) else given
        conversations = [
            _conversation(turns_of(text), f"input {number}") for number, text in enumerate(texts, 1)
        ]
        alone = isinstance(given, str)
    else:
        raise Problem(
            422, "invalid_request", "neither input nor messages; wanted a conversation with its reply"
        )
    made = await _numbers(conversations, served, door, asked.model, caller, squashed=asked.use_activation)
    return made, alone


def _conversation(turns: list[Message] | None, name: str) -> ReplyToScore:
    split = split_reply(turns) if turns else None
    if split is None:
        raise Problem(
            422,
            "invalid_request",
            f"{name} is no conversation that ends in a reply; wanted messages, or a text in the template of ChatML, "
            "Llama 3 or Gemma",
        )
    return reply_to(*split)


def _pair(row: Any) -> ReplyToScore:
    if isinstance(row, list) and len(row) == 2:
        return reply_to(prompt_turns(row[0]), row[1])
    text = row[0] if isinstance(row, list) and len(row) == 1 else row
    if not isinstance(text, str):
        raise Problem(422, "invalid_request", "inputs: wanted a text, or a prompt with its reply")
    return _conversation(turns_of(text), "inputs")


async def _numbers(
    replies: list[ReplyToScore],
    served: Service,
    door: DoorName,
    model: str | None,
    caller: Caller,
    *,
    squashed: bool,
) -> list[float]:
    bound = served.bound(door)
    # clients send the name that they know the model by; where there is one reward they can mean no other
    name = None if len(bound) == 1 else model
    made = numbers(await rewards_of(replies, served, door, name, caller))
    return [_sigmoid(reward) for reward in made] if squashed else made


def _sigmoid(reward: float) -> float:
    from scipy.special import expit

    return float(expit(reward))


def _first(*given: Talks | None) -> list[str]:
    found = next((one for one in given if one), None)
    if found is None:
        raise Problem(
            422, "invalid_request", "wanted queries with documents, text_1 with text_2, or data_1 with data_2"
        )
    return [found] if isinstance(found, str) else found


def _list(kind: str, model: str | None, data: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": _id(kind),
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": USAGE,
    }


def _id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"
