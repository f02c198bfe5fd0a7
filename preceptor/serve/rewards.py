"""Replies -> rewards, by a judge under a constitution or a rubric, or by a trained reward model. What has none gets no
number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load
from preceptor.constitution.principle import Constitution
from preceptor.judge.models.protocol import Model
from preceptor.judge.records import RubricScore, Score
from preceptor.judge.rubric import Rubric, graded_by
from preceptor.judge.rubric_forms import read_rubric
from preceptor.judge.score import ReplyToScore, score
from preceptor.judge.score import template_for as grading
from preceptor.judge.settings import ScoreSettings
from preceptor.prompts.records import Record
from preceptor.serve import metrics
from preceptor.serve.auth import Caller
from preceptor.serve.config import RewardEntry, ServeConfig
from preceptor.serve.desk import Desk, ServedModel
from preceptor.serve.problems import Problem, unavailable
from preceptor.serve.reward_bases import RewardBases

AT_ONCE = 16
"""Replies that a reward model's thread is handed together."""


class Reward(Record):
    """A reply and its reward, or why it has none."""

    id: str
    reward: float | None
    """By a judge -1 to 1; by a reward model in nats. None unless the status is ok."""
    status: str
    """`ok`; of a judge's grade `refused`, `unparsed`, `failed` or another status of a label; of a reward model
    `too_long`."""
    reason: str
    """The judge's words, or what was wrong."""


class Rewarder(Protocol):
    """What a name under `rewards` stands for."""

    async def of(self, replies: Sequence[ReplyToScore], caller: Caller) -> list[Reward]:
        """One for each reply, in order. Raises Problem."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class JudgedReward:
    """By a judge's grades, as `preceptor score --judge` makes them."""

    def __init__(self, entry: RewardEntry, constitution: Constitution, way: ServedModel, desk: Desk) -> None:
        """Raises UserError where the judge cannot grade."""
        assert entry.judge is not None
        self.constitution, self.way, self.judge = constitution, way, entry.judge
        self._settings, self._desk = entry.score, desk
        _model(way)

    async def of(self, replies: Sequence[ReplyToScore], caller: Caller) -> list[Reward]:
        """As `Rewarder`."""
        rows = await graded(replies, self.constitution, self.way, self._settings, self._desk, caller)
        return [Reward(id=row.id, reward=row.reward, status=row.status, reason=_reason(row)) for row in rows]

    async def close(self) -> None:
        """As `Rewarder`; the desk closes the judge."""


class RubricReward:
    """By a judge's grades of a rubric's criteria, as `preceptor score --rubric` makes them."""

    def __init__(self, entry: RewardEntry, rubric: Rubric, way: ServedModel, desk: Desk) -> None:
        """Raises UserError where the judge cannot grade."""
        self._rubric, self._way, self._settings, self._desk = rubric, way, entry.score, desk
        self._template = grading(_model(way), entry.score)

    async def of(self, replies: Sequence[ReplyToScore], caller: Caller) -> list[Reward]:
        """As `Rewarder`."""
        model = _model(self._way)
        dialogues = [
            graded_by(self._rubric, reply, model, self._template, self._settings) for reply in replies
        ]
        rows = await self._desk.ask(self._way, dialogues, caller)
        return [Reward(id=row.id, reward=row.reward, status=row.status, reason=_reason(row)) for row in rows]

    async def close(self) -> None:
        """As `Rewarder`; the desk closes the judge."""


async def graded(
    replies: Sequence[ReplyToScore],
    constitution: Constitution,
    way: ServedModel,
    settings: ScoreSettings,
    desk: Desk,
    caller: Caller,
) -> list[Score]:
    """The rows that `preceptor score` would write. Raises Problem."""
    model = _model(way)
    template = grading(model, settings)
    dialogues = [score(reply, constitution, model, template, settings) for reply in replies]
    return await desk.ask(way, dialogues, caller)


class TrainedReward:
    """By a trained reward model, in batches of what waits: a reply alone does not wait for others.

    The model is loaded when it is first asked.
    """

    def __init__(self, entry: RewardEntry, bases: RewardBases) -> None:
        assert entry.reward_model is not None
        self._folder, self._batch_size = entry.reward_model, entry.batch_size
        self._bases = bases
        self._waiting: list[tuple[ReplyToScore, asyncio.Future[Reward]]] = []
        self._scoring: asyncio.Task[None] | None = None

    async def of(self, replies: Sequence[ReplyToScore], caller: Caller) -> list[Reward]:  # noqa: ARG002
        """As `Rewarder`; it costs nobody money."""
        loop = asyncio.get_running_loop()
        mine = [(reply, loop.create_future()) for reply in replies]
        self._waiting += mine
        if self._scoring is None or self._scoring.done():
            self._scoring = loop.create_task(self._score_waiting())
        return list(await asyncio.gather(*(future for _, future in mine)))

    async def close(self) -> None:
        """As `Rewarder`; the bases are closed by whoever opened them."""

    async def _score_waiting(self) -> None:
        while self._waiting:
            most = max(AT_ONCE, self._batch_size)
            batch, self._waiting = self._waiting[:most], self._waiting[most:]
            try:
                held = await asyncio.to_thread(self._bases.of, self._folder)
                rows = await held.rated(self._folder, [reply for reply, _ in batch], self._batch_size)
            except Exception as error:
                for _, future in batch:
                    if not future.cancelled():
                        future.set_exception(_copied(error))
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.cancelled():
                    too_long = "the reply alone is longer than the model was trained on"
                    reason = "" if row.status == "ok" else too_long
                    future.set_result(Reward(id=row.id, reward=row.reward, status=row.status, reason=reason))


def _copied(error: Exception) -> Exception:
    """A problem for each who waits, so that they do not share a traceback."""
    if isinstance(error, UserError):
        return unavailable("not_ready", str(error), 30)
    made = RuntimeError(f"the reward model failed: {type(error).__name__}")
    made.__cause__ = error
    return made


class _Asked(NamedTuple):
    """What a rewarder was made of: equal ones need not be made again."""

    entry: RewardEntry
    constitution: Constitution | None
    rubric: Rubric | None
    way: ServedModel | None


class Rewards:
    """Every reward of a configuration by its name."""

    def __init__(self, config: ServeConfig, desk: Desk) -> None:
        """Raises UserError."""
        self._made: dict[str, tuple[_Asked, Rewarder]] = {}
        self.constitutions: dict[str, Constitution] = {}
        self._put_away: list[Rewarder] = []
        self._bases = RewardBases()
        self.take(config, desk)

    def take(self, config: ServeConfig, desk: Desk) -> None:
        """Serve the rewards of this configuration from now on. Raises UserError, and then nothing has changed."""
        constitutions = {name: load(source) for name, source in config.constitutions.items()}
        made: dict[str, tuple[_Asked, Rewarder]] = {}
        for name, entry in config.rewards.items():
            way = desk.way(entry.judge) if entry.judge is not None else None
            constitution = constitutions[entry.constitution] if entry.constitution is not None else None
            rubric = read_rubric(entry.rubric) if entry.rubric is not None else None
            asked = _Asked(entry, constitution, rubric, way)
            before = self._made.get(name)
            if before is not None and before[0] == asked:
                made[name] = before
            elif way is not None and rubric is not None:
                made[name] = asked, RubricReward(entry, rubric, way, desk)
            elif way is None or constitution is None:
                made[name] = asked, TrainedReward(entry, self._bases)
            else:
                made[name] = asked, JudgedReward(entry, constitution, way, desk)
        kept = [rewarder for _, rewarder in made.values()]
        self._put_away += [rewarder for _, rewarder in self._made.values() if rewarder not in kept]
        self._made, self.constitutions = made, constitutions

    def named(self, name: str | None, among: Sequence[str] | None = None) -> Rewarder:
        """The reward of this name; the only one where none is named. among: those that may be meant. Raises Problem."""
        names = list(self._made) if among is None else list(among)
        if name is None and len(names) == 1:
            name = names[0]
        if name is None or name not in names:
            came = "no reward is named" if name is None else f"{name[:80]!r} is no reward here"
            wanted = f"wanted one of {', '.join(names)}" if names else "the configuration has none"
            raise Problem(404 if name or not names else 422, "unknown_reward", f"{came}; {wanted}")
        return self._made[name][1]

    def constitution(self, name: str | None) -> Constitution:
        """The constitution of this name; the only one where none is named. Raises Problem."""
        known = self.constitutions
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name is None or name not in known:
            came = "no constitution is named" if name is None else f"{name[:80]!r} is no constitution here"
            said = f"{came}; wanted one of {', '.join(known)}"
            raise Problem(404 if name else 422, "unknown_constitution", said)
        return known[name]

    @property
    def names(self) -> Sequence[str]:
        """Of the rewards."""
        return tuple(self._made)

    async def close(self) -> None:
        """Let go of everything."""
        for rewarder in [*(rewarder for _, rewarder in self._made.values()), *self._put_away]:
            await rewarder.close()
        await self._bases.close()


def count(rows: Sequence[Reward | Score]) -> None:
    """Have the rows' statuses in the metrics."""
    for row in rows:
        metrics.ROWS.labels("reward", row.status).inc()


def require_some(rows: Sequence[Reward | Score]) -> None:
    """Raises Problem 503 where no row was answered at all: that is an outage, and no property of the rows."""
    if rows and all(row.status == "failed" for row in rows):
        first = rows[0]
        why = _reason(first) if isinstance(first, Score) else first.reason
        raise unavailable("judge_unavailable", f"the judge answered none of {len(rows)} rows: {why}")


def _reason(row: Score | RubricScore) -> str:
    if not row.grades:
        return "no principle that a judge grades applies to this prompt"
    if len(row.grades) == 1:
        return row.grades[0].reason
    return "; ".join(f"{grade.principle}: {grade.reason}" for grade in row.grades)


def _model(way: ServedModel) -> Model:
    if way.model is None:
        raise UserError("`checks` compares replies and grades none; name a model as the judge of a reward")
    return way.model
