"""Reward functions for trainers, which ask a running `preceptor serve`.

    from preceptor.client import trl_reward
    GRPOTrainer(model, reward_funcs=[trl_reward("http://127.0.0.1:8080")], …)

Address and key are arguments, or `PRECEPTOR_URL` and `PRECEPTOR_KEY` of the environment. A reply that the server does
not judge has no reward, never a number. A server that is not there, or answers 429 or 5xx, is asked again for a while.
A request that it refuses for good, such as one with a wrong key, raises RewardRefused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from preceptor.constitution.foreign import json_of

__all__ = ["RewardRefused", "areal_reward", "ms_swift_reward", "trl_reward", "verl_compute_score"]

URL, KEY = "PRECEPTOR_URL", "PRECEPTOR_KEY"
HERE = "http://127.0.0.1:8080"
AT_ONCE = 64
"""Replies of one request."""
PATIENCE_S = 300.0
"""How long a server that does not answer is asked again."""
LONGEST_WAIT_S = 30.0
CALL_S = 600.0
"""How long one request may take: a judge thinks."""
Conversation = str | Sequence[Mapping[str, Any]]
"""Text, or messages."""
_log = logging.getLogger(__name__)


class RewardRefused(RuntimeError):
    """The server will never answer this request; its words say why."""


class _UnreadableAnswer(ValueError):
    """An answer that holds no rewards of the replies that were sent."""


class NoReward(RuntimeError):
    """There is no reward for a reply, where the trainer cannot be told so by None."""


class _Client:
    """Asks one server for one reward."""

    def __init__(
        self, url: str | None, reward: str | None, key: str | None, patience_s: float, call_s: float = CALL_S
    ) -> None:
        self._url = (url or os.environ.get(URL) or HERE).rstrip("/") + "/v1/reward"
        self._reward = reward
        self._key = key or os.environ.get(KEY)
        self._patience_s, self._call_s = patience_s, call_s

    async def rewards(self, items: Sequence[Mapping[str, Any]]) -> list[float | None]:
        """One for each item; None where it was not judged, or the server did not answer in time.

        Raises RewardRefused.
        """
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        parts = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
        async with httpx.AsyncClient(headers=headers, timeout=self._call_s) as client:
            made = await asyncio.gather(*(self._part(client, part) for part in parts))
        return [reward for part in made for reward in part]

    async def _part(
        self, client: httpx.AsyncClient, items: Sequence[Mapping[str, Any]]
    ) -> list[float | None]:
        ids = _ids_of(items)
        sent = [{**item, "id": name} for item, name in zip(items, ids, strict=True)]
        body = {"items": sent} | ({"reward": self._reward} if self._reward else {})
        until, wait_s = time.monotonic() + self._patience_s, 1.0
        while True:
            told: str | None = None
            try:
                answer = await client.post(self._url, json=body)
            except httpx.TransportError as error:
                why = type(error).__name__
            else:
                why = f"{answer.status_code}: {_said(answer)}"
                if answer.status_code == 200:
                    try:
                        return _read(answer.text, ids)
                    except _UnreadableAnswer as error:  # of a proxy, or cut on its way
                        why = str(error)
                elif answer.status_code < 500 and answer.status_code not in (408, 429):
                    raise RewardRefused(f"{self._url}: {why}")
                told = answer.headers.get("retry-after")
            pause_s = min(LONGEST_WAIT_S, float(told) if told and told.isdecimal() else wait_s)
            if time.monotonic() + pause_s > until:
                _log.warning("%d replies have no reward: %s (%s)", len(items), self._url, why)
                return [None] * len(items)
            # spread, so that trainers that were refused together do not come back together
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
            wait_s *= 2


def trl_reward(
    url: str | None = None,
    reward: str | None = None,
    *,
    key: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Callable[..., Awaitable[list[float | None]]]:
    """An entry of TRL's `reward_funcs`, for GRPO and RLOO. `tags`, where the data set has such a column, say which
    principles apply. None, where there is no reward, is what TRL leaves out of its sums.

    reward: a name of the server's configuration; may be absent where it has one.
    """
    client = _Client(url, reward, key, patience_s)

    async def preceptor_reward(
        prompts: Sequence[Conversation], completions: Sequence[Conversation], **columns: Any
    ) -> list[float | None]:
        tags = columns.get("tags") or [None] * len(prompts)
        rows = zip(prompts, completions, tags, strict=True)
        return await client.rewards([_item(prompt, completion, tag) for prompt, completion, tag in rows])

    return preceptor_reward


def ms_swift_reward(
    url: str | None = None,
    reward: str | None = None,
    *,
    key: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Callable[..., Awaitable[list[float | None]]]:
    """An asynchronous reward function for ms-swift's `orms`: it is called with `completions`, and `messages` of which
    the last is the completion's own where it stands there already."""
    client = _Client(url, reward, key, patience_s)

    async def preceptor_reward(
        completions: Sequence[str], messages: Sequence[Sequence[Mapping[str, Any]]], **_: Any
    ) -> list[float | None]:
        rows = zip(messages, completions, strict=True)
        return await client.rewards([_item(_before(turns), completion) for turns, completion in rows])

    return preceptor_reward


async def verl_compute_score(
    data_source: str,  # noqa: ARG001 - verl gives it by name
    solution_str: str,
    ground_truth: Any = None,  # noqa: ARG001
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str | None = None,
    reward: str | None = None,
    key: str | None = None,
    patience_s: float = PATIENCE_S,
    **_: Any,
) -> float:
    """verl's `reward.custom_reward_function`; the prompt is `messages`, `prompt` or `question` of `extra_info`.

    Raises NoReward where there is none, because verl takes nothing but numbers; RewardRefused; KeyError.
    """
    known = extra_info or {}
    found = next((known[name] for name in ("messages", "prompt", "question") if name in known), None)
    if found is None:
        raise KeyError("extra_info has no question, prompt or messages; a judge must see what was asked")
    (made,) = await _Client(url, reward, key, patience_s).rewards([_item(found, solution_str)])
    if made is None:
        raise NoReward("the reply was not judged")
    return made


def areal_reward(
    url: str | None = None,
    reward: str | None = None,
    *,
    key: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Callable[..., float | None]:
    """AReaL's `reward_fn`, called in a process of its own. None where there is no reward; an exception would become
    the reward 0 there. AReaL gives a call 15 seconds."""
    client = _Client(url, reward, key, patience_s)

    def preceptor_reward(
        prompt: Conversation,
        completions: str,
        *_: Any,  # the tokens of both
        **data: Any,
    ) -> float | None:
        (made,) = asyncio.run(client.rewards([_item(data.get("messages") or prompt, completions)]))
        return made

    return preceptor_reward


def _item(
    prompt: Conversation, completion: Conversation, tags: Sequence[str] | None = None
) -> dict[str, Any]:
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": [_turn(turn) for turn in prompt]}
    said = (
        completion
        if isinstance(completion, str)
        else "\n\n".join(str(turn["content"]) for turn in completion)
    )
    return {**asked, "response": said} | ({"tags": list(tags)} if tags else {})


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": turn["role"], "content": turn["content"]}


def _before(turns: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns


def _ids_of(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """An id for each, by its content, so that it is judged alike wherever it stands; equal ones are counted."""
    seen: Counter[str] = Counter()
    made = []
    for item in items:
        name = hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:24]
        seen[name] += 1
        made.append(f"{name}-{seen[name]}")
    return made


def _read(text: str, ids: Sequence[str]) -> list[float | None]:
    """The rewards in the order of the ids, whatever order they came in; None for what is no finite number.

    Raises _UnreadableAnswer where they are not those of these ids, each once.
    """
    try:
        rows = json_of(text, object_pairs_hook=_once)["items"]
        found = {str(row["id"]): row["reward"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise _UnreadableAnswer(f"no list of rewards came ({type(error).__name__})") from None
    if len(rows) != len(ids) or found.keys() != {*ids}:
        raise _UnreadableAnswer(f"{len(ids)} replies were sent, and rewards of others came")
    return [_number(found[name]) for name in ids]


def _number(reward: Any) -> float | None:
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
        return None
    return float(reward)


def _once(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members have names of their own: of two rewards under one name nobody knows which was meant."""
    made = dict(members)
    if len(made) != len(members):
        raise ValueError("a name comes twice")
    return made


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
