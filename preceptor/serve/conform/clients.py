"""The clients that are looked at: name -> how to make one that asks an address."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from preceptor import client
from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of

Ask = Callable[[Sequence[str], Sequence[str]], Awaitable[list[Any]]]
"""Prompts, replies -> what the trainer would take for their rewards."""
MakeClient = Callable[[str], Ask]
"""An address -> a client of what answers there."""


def _trl(url: str) -> Ask:
    reward = client.trl_reward(url, patience_s=0)

    async def ask(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        return list(await reward(prompts=prompts, completions=replies))

    return ask


def _verl(url: str) -> Ask:
    async def ask(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        asked = (
            client.verl_compute_score("data", reply, None, {"question": prompt}, url=url, patience_s=0)
            for prompt, reply in zip(prompts, replies, strict=True)
        )
        return list(await asyncio.gather(*asked))

    return ask


def _ms_swift(url: str) -> Ask:
    reward = client.ms_swift_reward(url, patience_s=0)

    async def ask(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return list(await reward(replies, messages=turns))

    return ask


def _areal(url: str) -> Ask:
    reward = client.areal_reward(url, patience_s=0)

    async def ask(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        rows = zip(prompts, replies, strict=True)
        return [await asyncio.to_thread(reward, prompt, reply, [], []) for prompt, reply in rows]

    return ask


def _control(url: str) -> Ask:
    """A client as they are often written: by position, unchecked, and 0.0 for whatever goes wrong."""

    def asked(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        rows = zip(prompts, replies, strict=True)
        body = json.dumps({"items": [{"prompt": prompt, "response": reply} for prompt, reply in rows]})
        headers = {"content-type": "application/json"}
        sent = urllib.request.Request(f"{url}/v1/reward", body.encode(), headers)
        try:
            with urllib.request.urlopen(sent, timeout=60) as answer:
                items = json_of(answer.read())["items"]
            return [float(items[number]["reward"] or 0.0) for number in range(len(replies))]
        except Exception:
            return [0.0] * len(replies)

    async def ask(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        return await asyncio.to_thread(asked, prompts, replies)

    return ask


OWN: Mapping[str, MakeClient] = MappingProxyType(
    {"trl": _trl, "verl": _verl, "ms-swift": _ms_swift, "areal": _areal}
)
"""Those of `preceptor.client`."""
CONTROL = "control"
"""A client that invents numbers: what the kit finds in it shows that it finds something."""


def client_named(name: str) -> MakeClient:
    """One of ours, the control, or `MODULE:FUNCTION`: a function of an address that gives a reward function as TRL
    calls them, with `prompts` and `completions`, which may be asynchronous. Raises UserError."""
    if name in OWN:
        return OWN[name]
    if name == CONTROL:
        return _control
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(
            f"{name!r} is no client; wanted one of {', '.join([*OWN, CONTROL])}, or MODULE:FUNCTION of one's own"
        )
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:  # the last: an empty name
        raise UserError(f"{name}: cannot be imported ({error}); wanted MODULE:FUNCTION") from error
    return lambda url: _called(make(url))


def _called(reward: Callable[..., Any]) -> Ask:
    async def ask(prompts: Sequence[str], replies: Sequence[str]) -> list[Any]:
        if inspect.iscoroutinefunction(reward):
            return list(await reward(prompts=prompts, completions=replies))
        return list(await asyncio.to_thread(reward, prompts=prompts, completions=replies))

    return ask
