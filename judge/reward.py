"""The judge as a reward for training loops of others: an entry of TRL's `reward_funcs`.

    reward = JudgeReward("openai/gpt-6-luna", "helpful-harmless", max_cost_usd=5)
    GRPOTrainer(model, reward_funcs=[reward], train_dataset=prompts, args=GRPOConfig(...))

Calls go through ledger, budget and rate limits like any other, and what is learnt of a provider's limits in one step
holds in the next. A completion that could not be judged has the reward None, which TRL masks: an outage must not train
the policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

from pydantic import Field

from preceptor.constitution.files import load
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking.budget import left_usd
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.label import label, require_order
from preceptor.judge.label import template_for as comparing
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.models.protocol import Dialogue, Model, RowT
from preceptor.judge.models.registry import open_model
from preceptor.judge.records import Group, RubricScore
from preceptor.judge.rubric import Rubric, decoupled, graded_by
from preceptor.judge.score import ReplyToScore, score
from preceptor.judge.score import template_for as grading
from preceptor.judge.settings import LabelSettings, Price, Schedule, ScoreSettings
from preceptor.judge.user_prices import user_prices
from preceptor.judge.voting.ranking import rank
from preceptor.prompts.records import Message, Prompt, Record, content_id

__all__ = ["JudgeReward", "RewardSettings"]

TrlConversation = str | Sequence[dict[str, Any]]
"""A prompt or completion as TRL hands it on: text, or messages."""


class RewardSettings(Record):
    """How completions are turned into rewards."""

    mode: Literal["group", "score"] = "group"
    """`group`: Bradley-Terry strength among the completions to the same prompt; `score`: each on its own, -1 to 1. A
    rubric grades each on its own in either mode, and normalises criterion by criterion among those to the same prompt
    with `group` (`judge.rubric.decoupled`)."""
    schedule: Schedule = "circular"
    """With `group`: who is compared with whom."""
    label: LabelSettings = LabelSettings()
    score: ScoreSettings = ScoreSettings()
    ledger: str = ".preceptor/ledger.db"
    concurrency: int = Field(default=16, gt=0)
    max_cost_usd: float | None = Field(default=None, ge=0)
    """USD that this reward may spend, over all its calls together; at the cap training stops."""
    rpm: float | None = Field(default=None, gt=0)
    """Requests a minute, at most; None: as the provider says, if it says."""
    tpm: float | None = Field(default=None, gt=0)
    """Tokens a minute, in and out, at most."""


NOT_IN_REWARD = {"ledger", "concurrency", "max_cost_usd", "rpm", "tpm"}
"""Settings that cannot change a reward."""


class JudgeReward:
    """Callable as TRL's asynchronous reward functions are; `close` ends it.

    Ledger and fan-out are opened by the first call and kept. They belong to its event loop: where each call comes from
    another one, what was learnt of the provider's limits is learnt anew.
    """

    def __init__(
        self,
        judge: str | Model,
        constitution: str | Constitution | Rubric,
        settings: RewardSettings | None = None,
        *,
        base_url: str | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        """judge: `provider/model`, or an opened one. constitution: a shipped name, a file, or a loaded one; or a
        rubric, by which each completion is graded, criterion by criterion. prices: by
        `provider/model`, `""` for every model that costs at all, over those of the user's own file.

        Raises UserError where the judge, the constitution or the user's file of prices cannot be used.
        """
        self._settings = settings or RewardSettings()
        self._judge = open_model(judge, base_url=base_url) if isinstance(judge, str) else judge
        self._by = load(constitution) if isinstance(constitution, str) else constitution
        self._prices = Prices.load({**user_prices(), **(prices or {})})
        self._spent_usd = 0.0
        self._kept = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[Fanout] | None = None
        self._fanout: Fanout | None = None
        self.__name__ = f"judge_{self._settings.mode}"
        if isinstance(self._by, Rubric):
            self._grade = grading(self._judge, self._settings.score)
        elif self._settings.mode == "group":
            require_order([self._judge], self._settings.label)
            self._compare = comparing(self._judge, self._settings.label)
        else:
            self._grade = grading(self._judge, self._settings.score)

    @property
    def identity(self) -> str:
        """What the rewards depend on, in words that equal ones share: judge, constitution, and how it is asked."""
        how = self._settings.model_dump(mode="json", exclude=NOT_IN_REWARD)
        asked = content_id("reward", [self._judge.name, self._by.identity, how])
        return f"{self.__name__} by {self._judge.name}#{asked}"

    @property
    def spent_usd(self) -> float:
        """What the calls have cost so far, of those whose price is known."""
        return self._spent_usd + (self._fanout.progress.cost_usd if self._fanout else 0.0)

    async def __call__(
        self, prompts: Sequence[TrlConversation], completions: Sequence[TrlConversation], **columns: Any
    ) -> list[float | None]:
        """One reward for each completion, None where it could not be judged.

        `tags`, where the data set has such a column, say which principles apply. With `group` the completions to equal
        prompts are compared with one another; one that has no company, or no usable comparison, has no reward.

        Raises BudgetReached and ProviderStopped, which end the training instead of feeding it nothing.
        """
        tags = columns.get("tags") or [()] * len(prompts)
        rows = [
            ReplyToScore(str(number), _prompt(asked, tag), _text(said))
            for number, (asked, said, tag) in enumerate(zip(prompts, completions, tags, strict=True))
        ]
        if isinstance(self._by, Rubric):
            return await self._by_rubric(rows, self._by)
        if self._settings.mode == "score":
            scores = await self._ask(
                [score(row, self._by, self._judge, self._grade, self._settings.score) for row in rows]
            )
            return [one.reward for one in scores]
        return await self._grouped(rows, self._by)

    async def close(self) -> None:
        """Let go of the ledger and the judge; nothing is asked any more."""
        self._put_away()
        try:
            await self._kept.aclose()
        finally:
            await self._judge.close()

    async def _by_rubric(self, rows: Sequence[ReplyToScore], rubric: Rubric) -> list[float | None]:
        settings = self._settings.score
        made = await self._ask([graded_by(rubric, row, self._judge, self._grade, settings) for row in rows])
        if self._settings.mode == "score":
            return [one.reward for one in made]
        by_prompt: dict[str, list[RubricScore]] = {}
        for row, one in zip(rows, made, strict=True):
            by_prompt.setdefault(row.prompt.id, []).append(one)
        found: dict[str, float | None] = {}
        for members in by_prompt.values():
            found |= zip((one.id for one in members), decoupled(rubric, members), strict=True)
        return [found[row.id] for row in rows]

    async def _grouped(self, rows: Sequence[ReplyToScore], constitution: Constitution) -> list[float | None]:
        by_prompt: dict[str, list[ReplyToScore]] = {}
        for row in rows:
            by_prompt.setdefault(row.prompt.id, []).append(row)
        groups = [_group(members) for members in by_prompt.values() if len(members) > 1]
        ranked = await self._ask(
            [
                rank(
                    group,
                    lambda pair: label(pair, constitution, self._judge, self._compare, self._settings.label),
                    self._settings.schedule,
                )
                for group in groups
            ]
        )
        found: dict[str, float | None] = {}
        for one in ranked:
            found |= dict(zip(one.ranking.sources, one.ranking.scores, strict=True))
        return [found.get(row.id) for row in rows]

    async def _ask(self, dialogues: Sequence[Dialogue[RowT]]) -> list[RowT]:
        asker = await self._open()
        try:
            return [row async for row in asker.run(dialogues, len(dialogues))]
        except BaseException:
            # it asks nothing more; a caller who goes on all the same gets a new one, under what is left of the cap
            if asker is self._fanout:
                self._put_away()
            raise

    async def _open(self) -> Fanout:
        """The fan-out of this event loop, one for all calls."""
        loop = asyncio.get_running_loop()
        if self._opening is None or self._loop is not loop:
            self._put_away()
            self._loop, self._opening = loop, asyncio.ensure_future(self._opened())
        mine = self._opening
        try:
            # calls that come at once wait for the same
            return await asyncio.shield(mine)
        except BaseException:
            if self._opening is mine and mine.done():
                self._opening = None
            raise

    async def _opened(self) -> Fanout:
        await self._kept.aclose()  # of an event loop before this one, or of a run that was stopped
        ledger = await self._kept.enter_async_context(open_ledger(self._settings.ledger))
        limits = Limits(
            concurrency=self._settings.concurrency,
            max_cost_usd=left_usd(self._settings.max_cost_usd, self._spent_usd),
            rpm=self._settings.rpm,
            tpm=self._settings.tpm,
        )
        self._fanout = Fanout({self._judge.name: self._judge}, ledger, limits, self._prices)
        return self._fanout

    def _put_away(self) -> None:
        self._spent_usd = self.spent_usd
        self._fanout = self._opening = self._loop = None


def _prompt(asked: TrlConversation, tags: Sequence[str]) -> Prompt:
    if isinstance(asked, str):
        messages: tuple[Message, ...] = (Message(role="user", content=asked),)
    else:
        messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in asked)
    identity = content_id("prompt", [message.model_dump() for message in messages])
    return Prompt(id=identity, messages=messages, tags=tuple(tags))


def _text(said: TrlConversation) -> str:
    return said if isinstance(said, str) else "\n\n".join(str(turn["content"]) for turn in said)


def _group(members: Sequence[ReplyToScore]) -> Group:
    return Group(
        id=content_id("group", members[0].prompt.id, [member.text for member in members]),
        prompt=members[0].prompt,
        responses=tuple(member.text for member in members),
        sources=tuple(member.id for member in members),
    )
