"""One seed: the work is asked until it is whole, whatever befalls it; then books are compared with the provider's."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import sqlalchemy as sql

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.batch import Batches
from preceptor.judge.asking.budget import worst_usd
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.shared import (
    BEAT_S,
    Keeper,
    KeeperConnection,
    SharedBudget,
    SharedRateLimiter,
    stop_of,
)
from preceptor.judge.errors import BudgetReached, LedgerError, ModelError
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import reading
from preceptor.judge.models.batch_protocol import BatchLimits
from preceptor.judge.models.http.model import Codec, HttpModel, ServerAddress
from preceptor.judge.models.openai import codec
from preceptor.judge.models.openai.model import CAN
from preceptor.judge.models.protocol import Completion, Dialogue, Failure, Outcome, Request
from preceptor.prompts.records import Message
from tests.simulation.machine import Deadlock, Process
from tests.simulation.provider import (
    MOST_TOKENS,
    NAME,
    PRICES,
    Provider,
    SimulatedClient,
    is_refused,
)
from tests.simulation.world import CLOCK, Plan, World, simulated

MOST_RUNS = 60
"""Runs of one worker: after so many it will never end."""
ROUNDING = 1e-9
Row = tuple[int, tuple[str, ...]]


class Broken(AssertionError):
    """A property that does not hold."""


class Told(NamedTuple):
    """What one seed was."""

    seed: int
    plan: Plan
    problem: str
    """Empty: every property holds."""
    trace: Sequence[str]
    calls: int
    kills: int
    boundaries: int
    virtual_s: float
    cpu_s: float
    rows: tuple[Row, ...] = ()


def request(question: str) -> Request:
    return Request(
        model=NAME, messages=(Message(role="user", content=question),), max_tokens=MOST_TOKENS, stage="label"
    )


WORST_USD = worst_usd(request("odd q0 then answer 12345678"), 1.0, PRICES)
LARGEST_USD = worst_usd(request("forbidden q0 then answer 12345678"), 1.0, PRICES)
"""Of any call that a seed asks."""


def dialogue(number: int, kind: str, first: str, second: str) -> Dialogue[Row]:
    """One question, two at once, or a second that hangs on the first one's answer."""
    if kind == "both":
        outcomes = yield [request(first), request(second)]
        return number, tuple(map(_words, outcomes))
    (one,) = yield [request(first)]
    if kind == "one":
        return number, (_words(one),)
    (two,) = yield [request(f"{second} then {_words(one)}")]
    return number, (_words(one), _words(two))


def _words(outcome: Outcome) -> str:
    return outcome.text if isinstance(outcome, Completion) else f"<{outcome.kind}>"


def dialogues(plan: Plan) -> list[Dialogue[Row]]:
    return [dialogue(number, *one) for number, one in enumerate(plan.dialogues)]


class _Worker:
    """Whoever asks: the same command, run again until its rows are whole."""

    def __init__(self, letter: str, host: int) -> None:
        self.letter = letter
        self.host = host
        self.runs = 0
        self.rows: list[Row] = []
        self.done = False
        self.process: Process | None = None


class _Seed:
    """Carries one seed out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plan = world.plan
        self.machine = world.machine
        self.caps: dict[str, float | None] = {}
        """By process, what it was allowed to spend."""
        self.problems: list[str] = []
        self.skews = [self.world.random.uniform(-1, 1) for _ in range(self.plan.hosts)]
        letters = "abc"[: self.plan.workers]
        self.workers = [_Worker(letter, number % self.plan.hosts) for number, letter in enumerate(letters)]
        self.keepers: dict[str, list[str]] = {}
        """By keeper, its workers' names."""

    def carry_out(self) -> None:
        """Until every worker has its rows, or a property breaks."""
        for worker in self.workers:
            wait_s = self.world.random.choice((0.0, 0.0, 1.0, 20.0))
            self.machine.after(wait_s, lambda worker=worker: self._start(worker))  # type: ignore[misc]
        self.machine.run_until(lambda: bool(self.problems) or all(one.done for one in self.workers))

    def _start(self, worker: _Worker) -> None:
        worker.runs += 1
        if worker.runs > MOST_RUNS:
            self.problems.append(f"{worker.letter} does not come to an end in {MOST_RUNS} runs")
            return
        name = f"{worker.letter}{worker.runs}"
        cap = self.plan.cap
        # a run that ended at its cap is run again with more, as its message says
        self.caps[name] = None if cap is None else cap * 1.5 ** (worker.runs - 1) * WORST_USD
        worker.rows = []
        ways = {"direct": self._direct, "batch": self._batch, "shared": self._shared}
        main = ways[self.plan.way](worker, name)
        self.world.note(f"{name} starts")
        worker.process = self.machine.start(name, worker.host, self.skews[worker.host], main)
        self._watch(worker, worker.process)

    def _watch(self, worker: _Worker, process: Process) -> None:
        """What becomes of a process when it has ended."""

        def look() -> None:
            if process.alive:
                self.machine.after(1.0, look)
                return
            if not process.killed and process.main is not None and not process.main.cancelled():
                problem = process.main.exception()
                if isinstance(problem, LedgerError) and process.disturbed:
                    self.world.note(f"stops: {problem}")  # its disk failed
                elif problem is not None:
                    self.problems.append(f"{process.name} ended with {problem!r}")
                elif process.main.result():
                    worker.done = True
                    return
            self.machine.after(self.world.random.choice((0.0, 2.0, 90.0)), lambda: self._start(worker))

        look()

    def _limits(self, name: str) -> Limits:
        return Limits(
            concurrency=self.plan.concurrency,
            max_cost_usd=self.caps[name],
            rpm=self.plan.rpm,
            deadline_s=self.plan.deadline_s,
        )

    def _model(self) -> HttpModel:
        process = self.machine.current
        assert process is not None
        server = ServerAddress("https://provider.test/v1", "", {})
        return HttpModel(
            NAME, SimulatedClient(process), cast(Codec, codec), codec.asked_of(NAME), server, CAN
        )

    async def _direct(self, worker: _Worker, name: str) -> bool:
        async with open_ledger(self.world.place, run=name, clock=CLOCK) as ledger:
            fanout = Fanout({NAME: self._model()}, ledger, self._limits(name), PRICES, clock=CLOCK)
            made = fanout.run(dialogues(self.plan))
            stopped = await self._gather(worker, made)
        self._after(name, fanout, stopped)
        return stopped is None and self._whole(worker)

    async def _batch(self, worker: _Worker, name: str) -> bool:
        async with open_ledger(self.world.place, run=name, clock=CLOCK) as ledger:
            models = {NAME: self._model()}
            fanout = Fanout(models, ledger, self._limits(name), PRICES, clock=CLOCK)
            batches = Batches(fanout, models, ledger, PRICES, self.plan.then_sync)
            for provider in batches._providers.values():
                provider.limits = BatchLimits(self.plan.most_in_batch, 10**6)
            stopped = await self._gather(worker, batches.run(lambda: dialogues(self.plan)))
        return stopped is None and self._whole(worker)

    async def _gather(self, worker: _Worker, made: Any) -> Exception | None:
        try:
            async for row in made:
                worker.rows.append(row)
        except (BudgetReached, ModelError, UserError) as exc:
            self.world.note(f"stops: {exc}")
            stopped: Exception | None = exc
        else:
            stopped = None
        if [number for number, _ in worker.rows] != list(range(len(worker.rows))):
            raise Broken(f"rows out of their order, or twice: {worker.rows}")
        if stopped is None and len(worker.rows) != len(self.plan.dialogues):
            raise Broken(f"{len(worker.rows)} rows of {len(self.plan.dialogues)}, and nothing said")
        return stopped

    def _whole(self, worker: _Worker) -> bool:
        """Whether every row is as good as it can be; else the same command is run again."""
        return all("<failed>" not in words for _, words in worker.rows)

    def _after(self, name: str, fanout: Fanout, stopped: Exception | None) -> None:
        """What holds of a fan-out whose run has ended: nothing stays reserved, and none is stopped too early."""
        cap = self.caps[name]
        if cap is None:
            return
        held = fanout.budget._reserved
        if held:
            raise Broken(f"{len(held)} reservations stay")
        paid = sum(call.usd for call in self.world.provider.calls if call.process.name == name and call.heard)
        booked = fanout.budget._spent_usd
        process = self.machine.current
        if booked > paid + ROUNDING or (booked < paid - ROUNDING and not (process and process.disturbed)):
            raise Broken(f"{name} paid {paid} and has {booked} booked on its budget")
        if isinstance(stopped, BudgetReached) and fanout.budget.room_usd >= LARGEST_USD:
            raise Broken(f"stopped at the budget with room for a call: {fanout.budget.room_usd}")

    async def _shared(self, worker: _Worker, name: str) -> bool:
        """Several fan-outs of one worker's command, each a process of its own, under one keeper."""
        keeper = Keeper(self._limits(name), clock=CLOCK)
        home = self.machine.current
        assert home is not None
        parts = self.keepers[name] = []
        todo = [0, 1] if len(self.plan.dialogues) > 1 else [0]
        rows: dict[int, Row] = {}
        going: dict[int, Process] = {}
        starts = 0
        while todo or going:
            for part, process in list(going.items()):
                if not process.alive:
                    del going[part]
                    assert process.main is not None
                    if not process.killed and process.main.cancelled():
                        process.killed = True
                    problem = None if process.killed else process.main.exception()
                    if process.killed or (isinstance(problem, LedgerError) and process.disturbed):
                        todo.append(part)
                    elif problem is not None:
                        raise problem
                    else:
                        rows |= process.main.result()
            while todo and starts < MOST_RUNS:
                part = todo.pop()
                starts += 1
                line = _Line(self.world, keeper, home, f"{name}.{starts}")
                parts.append(line.name)
                self.caps[line.name] = None
                mine = list(range(part, len(self.plan.dialogues), 2))
                going[part] = self.machine.start(
                    line.name, worker.host, self.skews[worker.host], self._part(line, name, mine)
                )
            await asyncio.sleep(1.0)
        worker.rows = [rows[number] for number in sorted(rows)]
        if await keeper.stopped() is not None:
            return False
        if [number for number, _ in worker.rows] != list(range(len(self.plan.dialogues))):
            raise Broken(f"rows are missing, and nothing said: {worker.rows}")
        return self._whole(worker)

    async def _part(self, line: _Line, name: str, numbers: Sequence[int]) -> dict[int, Row]:
        limits = self._limits(name)
        connection = KeeperConnection(line.name, line.ask)
        async with open_ledger(self.world.place, run=line.name, clock=CLOCK) as ledger:
            fanout = Fanout(
                {NAME: self._model()},
                ledger,
                limits,
                PRICES,
                spending=SharedBudget(connection, limits.max_cost_usd is not None),
                limiters={NAME: SharedRateLimiter(connection, NAME, CLOCK)},
                clock=CLOCK,
            )

            async def beat() -> None:
                while True:
                    stop = await connection.ask("beat", fanout.progress)
                    if stop is not None:
                        fanout.stop(stop.error)
                    await asyncio.sleep(BEAT_S)

            beating = asyncio.create_task(beat())
            asked = [dialogue(number, *self.plan.dialogues[number]) for number in numbers]
            made = await asyncio.gather(*map(fanout.run_dialogue, asked), return_exceptions=True)
            beating.cancel()
            for error in (one for one in made if isinstance(one, BaseException)):
                stop = stop_of(error)
                if stop is None:
                    raise error
                self.world.note(f"stops: {error}")
                await line.ask("stop", stop)
        return {row[0]: row for row in made if not isinstance(row, BaseException)}

    # the books

    def check(self) -> None:
        """Compare what the ledger says with what the provider knows. Raises Broken."""
        if self.problems:
            raise Broken("; ".join(self.problems))
        with reading(self.world.place) as connection:
            calls = [dict(row) for row in connection.execute(sql.text("SELECT * FROM calls")).mappings()]
            charges = [dict(row) for row in connection.execute(sql.text("SELECT * FROM charges")).mappings()]
        self._check_rows(calls)
        self._check_bill(charges)
        self._check_batches(charges)
        self._check_caps()
        self._check_pace()
        odd = [one for one in self.machine.uncaught if not _expected(one)]
        if odd:
            raise Broken(f"nobody caught {odd[0]}")

    def _check_rows(self, calls: Sequence[Mapping[str, Any]]) -> None:
        provider = self.world.provider
        texts: dict[str, str] = {}
        for call in calls:
            question = Request.model_validate_json(call["request"]).messages[-1].content
            if call["status"] == "intent":
                raise Broken(f"{question!r} is still being asked when all has ended")
            if call["status"] == "answered":
                texts[question] = Completion.model_validate_json(call["completion"]).text
                sent = provider.sent.get(question, set())
                if texts[question] not in sent:
                    raise Broken(f"{question!r} is answered by {texts[question]!r}; the provider sent {sent}")
        for worker in self.workers:
            for row in worker.rows:
                wanted = self._replayed(row[0], texts)
                if row != wanted:
                    raise Broken(f"{worker.letter} has {row}; the ledger's answers make {wanted}")

    def _replayed(self, number: int, texts: Mapping[str, str]) -> Row:
        """The row of an unbroken run on the same answers."""
        walk = dialogue(number, *self.plan.dialogues[number])
        outcomes: list[Outcome] | None = None
        while True:
            try:
                asked = next(walk) if outcomes is None else walk.send(outcomes)
            except StopIteration as end:
                row: Row = end.value
                return row
            outcomes = []
            for one in asked:
                question = one.messages[-1].content
                if is_refused(question):
                    outcomes.append(Failure(kind="refused", problem=""))
                elif question in texts:
                    outcomes.append(Completion(text=texts[question], finish_reason="stop"))
                else:
                    outcomes.append(Failure(kind="failed", problem="not in the ledger"))

    def _check_bill(self, charges: Sequence[Mapping[str, Any]]) -> None:
        """What was asked directly, process by process and question by question."""
        keys = {request(call.question).key: call.question for call in self.world.provider.calls}
        heard: dict[tuple[str, str], list[float]] = defaultdict(list)
        unheard: dict[tuple[str, str], list[float]] = defaultdict(list)
        for call in self.world.provider.calls:
            if call.usd:
                mine = heard if call.heard else unheard
                mine[call.process.name, call.question].append(call.usd)
        booked: dict[tuple[str, str], list[float]] = defaultdict(list)
        lost: Counter[tuple[str, str]] = Counter()
        answered: Counter[tuple[str, str]] = Counter()
        for charge in charges:
            question = keys.get(charge["key"], charge["key"])
            if charge["batch"]:
                continue
            answered[charge["run"], question] += charge["outcome"] == "answered"
            if charge["outcome"] == "lost":
                lost[charge["run"], question] += 1
            elif charge["cost_usd"]:
                booked[charge["run"], question].append(charge["cost_usd"])
        disturbed = {one.name for one in self.machine.processes if one.disturbed}
        for name, question in heard.keys() | booked.keys():
            paid, said = sum(heard[name, question]), sum(booked[name, question])
            if said > paid + sum(unheard[name, question]) + ROUNDING:
                raise Broken(f"{name} books {said} for {question!r}; the provider's bill says {paid}")
            missing = paid - said
            if missing > ROUNDING and not (name in disturbed and lost[name, question]):
                raise Broken(f"{name} paid {paid} for {question!r} and booked {said}")
        for name, question in lost:
            if name not in disturbed:
                raise Broken(f"{question!r} was lost by {name}, whom nothing befell")
        # who lost a call and answers it after all is one more; nobody else is
        held: Counter[str] = Counter()
        for (name, question), count in answered.items():
            held[question] += max(0, count - lost[name, question])
        for question, count in held.items():
            if count > 1:
                raise Broken(f"{question!r} was answered {count} times by those who had not lost it")
        most = self.plan.concurrency * (1 + self.plan.sleeps + self.plan.disk_faults)
        # a call whose last try came back as an error, or with nothing in it, waited for its turn and was not in flight
        came_back = {
            (one.process.name, one.question): one.heard and (one.again or not one.usd)
            for one in self.world.provider.calls
        }
        by_process = Counter[str]()
        for (name, question), count in lost.items():
            by_process[name] += count - came_back.get((name, question), False)
        for name, count in by_process.items():
            if count > most:
                raise Broken(f"{name} lost {count} calls with {self.plan.concurrency} in flight")

    def _check_batches(self, charges: Sequence[Mapping[str, Any]]) -> None:
        """Every batch that arrived is on the bill, once and whole."""
        booked: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        answers: Counter[str] = Counter()
        for charge in charges:
            if charge["batch"] and charge["cost_usd"]:
                booked[charge["batch"]][charge["key"]].append(charge["cost_usd"])
            if charge["batch"]:
                answers[charge["key"]] += charge["outcome"] == "answered"
        tokens = Counter(made.token for made in self.world.provider.batches.values())
        for made in self.world.provider.batches.values():
            if tokens[made.token] > 1:
                raise Broken(f"the batch {made.token} was sent {tokens[made.token]} times")
            ours = booked[made.token]
            for name, usd in made.usd.items():
                said = ours.get(name.partition("-")[0], [])
                if len(said) != 1 or abs(said[0] - usd) > ROUNDING:
                    raise Broken(f"{made.id}: {name} cost {usd} and is booked as {said}")
            if len(ours) > len(made.usd):
                raise Broken(f"{made.id} has {len(ours)} lines on our bill and {len(made.usd)} on its own")
        for token in booked.keys() - tokens.keys():
            if booked[token]:
                raise Broken(f"batch {token} is on our bill and not the provider's")
        for key, count in answers.items():
            if count > 1:
                raise Broken(f"{key} was answered in {count} batches")

    def _check_caps(self) -> None:
        spent: Counter[str] = Counter()
        for call in self.world.provider.calls:
            if call.heard or (call.answered and call.process.killed and not call.given_up):
                spent[call.process.name] += call.usd  # type: ignore[assignment]
        batches = {made.token: sum(made.usd.values()) for made in self.world.provider.batches.values()}
        if batches:
            with reading(self.world.place) as connection:
                for token, run in connection.execute(sql.text("SELECT token, run FROM batches")):
                    spent[run] += batches.get(token, 0.0)  # type: ignore[assignment]
        for keeper, parts in self.keepers.items():
            spent[keeper] = sum(spent.pop(part, 0.0) for part in parts)  # type: ignore[assignment]
        for name, usd in spent.items():
            cap = self.caps[name]
            if cap is not None and usd > cap + ROUNDING:
                raise Broken(f"{name} spent {usd:.4f} and might spend {cap:.4f}")

    def _check_pace(self) -> None:
        """Never more at once, or in a minute, than was allowed."""
        provider = self.world.provider
        shared = {part: keeper for keeper, parts in self.keepers.items() for part in parts}
        for name, most in provider.most_in_flight.items():
            if name not in shared and most > self.plan.concurrency:
                raise Broken(f"{name} had {most} in flight")
        if self.plan.rpm is None or self.plan.way == "shared":
            return
        allowed = self.plan.rpm + max(1.0, self.plan.rpm / 60) + 1
        for name, times in provider.asked_at.items():
            if any(one.name == name and one.disturbed for one in self.machine.processes):
                continue
            for start in times:
                count = sum(start <= at < start + 60 for at in times)
                if count > allowed:
                    raise Broken(f"{name} sent {count} requests in a minute; {self.plan.rpm} were allowed")


class _Line:
    """A worker's line to the keeper: in order, and with the network's time."""

    def __init__(self, world: World, keeper: Keeper, home: Process, name: str) -> None:
        self._world = world
        self._keeper = keeper
        self._home = home
        self.name = name
        self._last_at = 0.0

    def ask(self, method: str, *words: Any) -> Awaitable[Any]:
        machine = self._world.machine
        caller = machine.current
        assert caller is not None
        future: asyncio.Future[Any] = caller.loop.create_future()
        self._last_at = max(self._last_at, machine.now_s + self._world.network_s())

        def answer(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                return
            result = task.exception() or task.result()
            machine.after(self._world.network_s(), lambda: machine.wake(caller, future, result))

        def arrive() -> None:
            if self._home.alive:
                task = self._home.loop.create_task(getattr(self._keeper, method)(*words))
                task.add_done_callback(answer)

        machine.after(self._last_at - machine.now_s, arrive)
        return future


def _expected(context: Mapping[str, Any]) -> bool:
    return isinstance(context.get("exception"), GeneratorExit | asyncio.CancelledError)


@contextmanager
def swept() -> Iterator[None]:
    """Where the dead may be swept up: their coroutines end as they can, and what they raise is not told."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        sys.unraisablehook = hook


def run_seed(number: int) -> Told:
    """Carry one seed out and check it."""
    with swept():
        told = _run(number)
        gc.collect(1)
    return told


def _run(number: int) -> Told:
    began_s = time.process_time()
    world = World(number, Provider(skew_s=0.0))
    world.provider.skew_s = world.random.uniform(-200, 200)
    problem = ""
    with simulated(world):
        seed = _Seed(world)
        try:
            seed.carry_out()
            seed.check()
        except (Broken, Deadlock) as exc:
            problem = f"{type(exc).__name__}: {exc}"
        for one in world.machine.processes:
            one.alive = False
            one.loop.stop_for_good()
        rows = tuple(seed.workers[0].rows)
    return Told(
        number,
        world.plan,
        problem,
        world.trace,
        len(world.provider.calls),
        world.kills,
        world.boundaries,
        world.machine.now_s,
        time.process_time() - began_s,
        rows,
    )
