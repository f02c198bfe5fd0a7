"""Where the rewards of PPO, GRPO and RLOO come from: one place for a reward model on the policy's base or on
another, a Python function, and the judge itself.

A function is called as TRL's reward functions are, `function(prompts, completions, **columns)`: conversations
as lists of messages, replies as texts, and the columns `tags` and `meta` of the prompts; it may be
asynchronous, as `judge.reward.JudgeReward` is. What it returns is one number for each reply, or None where there is
none to be had: such a reply is masked, and never counts as 0. A number that is not finite is none, whoever gave it
(`finite_or_none`).

A function may say two things of itself: its `identity` (`Identified`) and what is to be done when the training is over
(`Closing`).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of
from preceptor.judge.errors import BudgetReached, ProviderStopped
from preceptor.judge.models.local.loading import identity_of
from preceptor.prompts.records import Message, Prompt
from preceptor.train.data.collate_replies import ReplyTokens
from preceptor.train.errors import TrainDataError
from preceptor.train.forward.reward_model import RewardModel, read_head

RewardFunction = Callable[..., Any]
"""(prompts, completions, **columns) -> numbers or None, or an awaitable of them."""


@runtime_checkable
class Identified(Protocol):
    """A reward function, or what stands in for one, that says by itself what its rewards hang on."""

    @property
    def identity(self) -> str:
        """Equal where equal replies have equal rewards. A training that was begun with another one is not gone on with.
        Of a function that does not say it, name and file stand for it."""


@runtime_checkable
class Closing(Protocol):
    """A reward function that holds connections, as the judge does."""

    async def close(self) -> None:
        """Let go of them. Called once, when the training is over or has failed, in the event loop of all calls."""


RewardSource = str | Path | RewardFunction
"""Folder of a reward model, `module:function`, or the function itself."""


GREATEST = torch.finfo(torch.float32).max
"""Rewards are float32 where they are learned from: a number beyond it would be infinite there."""


class Replied(NamedTuple):
    """A reply that is to be rewarded."""

    prompt: Prompt
    tokens: ReplyTokens
    text: str


class Scorer(NamedTuple):
    """Gives each reply its reward, or None."""

    score: Callable[[Sequence[Replied]], list[float | None]]
    close: Callable[[], None]


def finite_or_none(value: float | None) -> float | None:
    """A reward or a verdict as it counts: None for NaN, and for what float32 cannot hold."""
    return value if value is not None and abs(value) <= GREATEST else None


def told_of_masked(metrics: Path) -> tuple[str, ...]:
    """How many replies of all steps had no reward, in a sentence; nothing where each had one.

    metrics: metrics.jsonl of a training, whose rows count them as `masked`.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    masked = round(sum(json_of(line).get("masked", 0) for line in lines))
    if not masked:
        return ()
    return (
        f"{masked} replies had no reward, or one that is not a finite number, and taught nothing: see `masked` in "
        f"{metrics.name}",
    )


def reward_identity(source: RewardSource) -> str:
    """What stands for a reward in the folder's identity: of a model all that its scores depend on, of a function its
    name and file."""
    if isinstance(source, (str, Path)) and _is_folder(source):
        return identity_of(str(source))
    return function_identity(function_of(source))


def function_identity(function: Callable[..., Any]) -> str:
    """A function's name and a hash of the file that it stands in; one that says its own `identity`, as the judge
    does, is known by that."""
    if isinstance(function, Identified) and isinstance(function.identity, str):
        return function.identity
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    try:
        code = Path(inspect.getfile(named)).read_bytes()
    except (OSError, TypeError):
        code = b""
    return f"{named.__module__}:{named.__qualname__}#{hashlib.sha256(code).hexdigest()[:12]}"


def reward_folder(source: RewardSource) -> Path | None:
    """The reward model's folder; None for a function. Raises CheckpointError for a folder without one."""
    if not isinstance(source, (str, Path)) or not _is_folder(source):
        return None
    read_head(Path(source))  # so that another kind of folder is called by its name
    return Path(source)


def _is_folder(source: str | Path) -> bool:
    if Path(source).is_dir():
        return True
    module, colon, name = str(source).rpartition(":")
    if isinstance(source, str) and colon and all(part.isidentifier() for part in [*module.split("."), name]):
        return False
    raise TrainDataError(
        f"no reward {str(source)!r}: wanted the folder of a reward model, or `module:function` of a Python function"
    )


def function_of(source: RewardSource) -> RewardFunction:
    """The function itself, imported where it is named. Raises TrainDataError where there is none."""
    if not isinstance(source, (str, Path)):
        return source
    module, _, name = str(source).rpartition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainDataError(f"no reward function {source}: {error}") from error
    if not callable(found):
        raise TrainDataError(f"{source} is no function: wanted one of prompts and completions")
    return cast(RewardFunction, found)


def by_model(model: RewardModel) -> Scorer:
    """A reward model on a base of its own, which reads the replies as text."""

    def score(replies: Sequence[Replied]) -> list[float | None]:
        conversations = [
            [*reply.prompt.messages, Message(role="assistant", content=reply.text)] for reply in replies
        ]
        ratings = model.rate(conversations, [reply.prompt.tags for reply in replies])
        return [finite_or_none(rating.reward) for rating in ratings]

    return Scorer(score, lambda: None)


def by_function(function: RewardFunction, name: str) -> Scorer:
    """A function, or the judge. One event loop serves all calls, as a judge's connections need; they are closed with
    it, so that a judge serves one training."""
    runner = asyncio.Runner()

    def close() -> None:
        if isinstance(function, Closing) and inspect.iscoroutinefunction(function.close):
            runner.run(function.close())  # its connections belong to this loop
        runner.close()

    async def awaited(value: Awaitable[Any]) -> Any:
        return await value

    def score(replies: Sequence[Replied]) -> list[float | None]:
        prompts = [
            [{"role": turn.role, "content": turn.content} for turn in reply.prompt.messages]
            for reply in replies
        ]
        columns = {
            "tags": [list(reply.prompt.tags) for reply in replies],
            "meta": [dict(reply.prompt.meta) for reply in replies],
        }
        try:
            found = function(prompts, [reply.text for reply in replies], **columns)
            if inspect.isawaitable(found):
                found = runner.run(awaited(found))
            numbers = [None if value is None else float(value) for value in found]
        except (UserError, BudgetReached, ProviderStopped):
            raise
        except Exception as error:
            raise TrainDataError(
                f"the reward function {name} failed: {type(error).__name__}: {error}"
            ) from error
        if len(numbers) != len(replies):
            raise TrainDataError(
                f"the reward function {name} gave {len(numbers)} rewards for {len(replies)} replies: wanted one "
                "for each, None where there is none"
            )
        return [finite_or_none(value) for value in numbers]

    return Scorer(score, close)


def open_outside(source: RewardSource, device: torch.device) -> Scorer:
    """The scorer for a reward that shares nothing with the policy; a reward model brings a base of its own."""
    folder = reward_folder(source)
    if folder is not None:
        return by_model(RewardModel.load(folder).to(device))
    function = function_of(source)
    return by_function(function, function_identity(function).partition("#")[0])
