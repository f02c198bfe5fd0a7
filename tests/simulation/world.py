"""What a seed decides: the work, how it is asked, and everything that befalls it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from unittest.mock import patch

from sqlalchemy.engine import Engine

from preceptor.judge.asking import batch, batch_submit, retry
from preceptor.judge.clock import SystemClock
from preceptor.judge.ledger import ledger as ledgers
from preceptor.judge.ledger import writer
from tests.simulation.machine import Killed, Machine, Process

if TYPE_CHECKING:
    from tests.simulation.provider import Provider

EPOCH_S = 1_800_000_000.0
"""What the clocks of all hosts show at the beginning, but for their skew."""
SHM = Path("/dev/shm")
_worlds: list[World] = []


class Plan(NamedTuple):
    """The work and its limits."""

    way: Literal["direct", "batch", "shared"]
    then_sync: bool
    workers: int
    hosts: int
    dialogues: Sequence[tuple[str, ...]]
    """Kind and questions of each."""
    concurrency: int
    cap: float | None
    """In worst cases of one call."""
    rpm: int | None
    provider_rpm: int | None
    headers: bool
    deadline_s: float | None
    timeout_s: float
    most_in_batch: int
    slow_s: float
    """The longest that a reply takes."""
    fault_share: float
    faults: int
    """So many at most: then all goes well, so that every run comes to its end."""
    kills: int
    disk_faults: int
    sleeps: int
    interrupts: int
    shuffles: bool


def plan_of(random: Random) -> Plan:
    """What a seed's dice say."""
    calm = random.random() < 0.25
    way = random.choices(("direct", "batch", "shared"), (6, 3, 2))[0]
    names = [random.choice(("", "", "", "odd ", "forbidden ")) + f"q{n}" for n in range(random.randint(1, 6))]
    dialogues = [
        (
            random.choice(("one", "one", "both", "then")),
            *random.choices(names, k=2),
        )
        for _ in range(random.randint(1, 7))
    ]
    deadline_s = random.choice((None, 20.0, 90.0, 300.0))
    # a reply that takes longer than is waited for is the fault `silent`; without a deadline of its own, calls may
    # outlast a lease
    slow_s = random.choice((0.5, 0.5, 0.5, 10.0) if deadline_s in (20.0, 90.0) else (0.5, 0.5, 10.0, 110.0))
    return Plan(
        way=way,  # type: ignore[arg-type]
        then_sync=random.random() < 0.3,
        workers=random.choice((1, 1, 2, 2, 3)),
        hosts=random.choice((1, 1, 2)),
        dialogues=dialogues,
        concurrency=random.choice((1, 1, 2, 3, 5)),
        cap=random.choice((None, 1.0, 1.5, 2.3, 4.0, 9.0)),
        rpm=random.choice((2, None, None, None, 30)),
        provider_rpm=random.choice((None, None, None, None, 30)),
        headers=random.random() < 0.5,
        deadline_s=deadline_s,
        timeout_s=random.choice((60.0, 600.0)),
        most_in_batch=random.choice((1, 2, 5, 50)),
        slow_s=slow_s,
        fault_share=0.0 if calm else random.choice((0.1, 0.3, 0.6)),
        faults=0 if calm else random.choice((1, 4, 12)),
        kills=0 if calm else random.choice((0, 0, 1, 2, 4)),
        disk_faults=0 if calm else random.choice((0, 0, 0, 1, 2)),
        sleeps=0 if calm else random.choice((0, 0, 0, 1, 2)),
        interrupts=0 if calm else random.choice((0, 0, 0, 1)),
        shuffles=random.random() < 0.5,
    )


class SimulatedClock(SystemClock):
    """The machine's time on the host of the process that reads it; sleeps and timeouts are its loop's."""

    def time(self) -> float:
        """Seconds since 1970."""
        return world().time_s()

    def monotonic(self) -> float:
        """Since the beginning."""
        return world().machine.now_s


CLOCK = SimulatedClock()


class World:
    """One seed's machine, provider, disk and dice."""

    def __init__(self, seed: int, provider: Provider) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.plan = plan_of(self.random)
        self.machine = Machine(self.random, self.plan.shuffles)
        self.provider = provider
        self.engines: list[Engine] = []
        self.boundaries = 0
        self.trace: list[str] = []
        self.kills = self.disk_faults = 0
        self._faults = 0
        # most processes end within some dozens of boundaries: early ones are as likely as late ones
        self._kill_at = {int(2 ** self.random.uniform(0, 8)) for _ in range(self.plan.kills)}
        self._disk_fails_at = {int(2 ** self.random.uniform(1, 8)) for _ in range(self.plan.disk_faults)}
        self._sleep_at = {int(2 ** self.random.uniform(1, 7)) for _ in range(self.plan.sleeps)}
        self._interrupt_at = {int(2 ** self.random.uniform(1, 7)) for _ in range(self.plan.interrupts)}
        self._writes = 0
        self.place = ""

    def note(self, what: str) -> None:
        """For the trace of a seed that is replayed."""
        name = self.machine.current.name if self.machine.current else "-"
        self.trace.append(f"{self.machine.now_s:12.3f} {name:>4} {what}")

    def disk_s(self) -> float:
        return self.random.choice((0.0, 0.001, 0.02))

    def network_s(self) -> float:
        return self.random.choice((0.001, 0.01, 0.2))

    def model_s(self) -> float:
        return self.random.uniform(0.01, self.plan.slow_s)

    def upload_s(self) -> float:
        return self.random.choice((0.1, 3.0, 40.0))

    def fault(self, kinds: Sequence[str]) -> str | None:
        """One of these, or none: all goes well."""
        if self._faults >= self.plan.faults or self.random.random() >= self.plan.fault_share:
            return None
        self._faults += 1
        kind = self.random.choice(kinds)
        self.note(f"fault: {kind}")
        return kind

    def boundary(self, where: str) -> None:
        """A process may be killed here. Raises Killed."""
        self.boundaries += 1
        process = self.machine.current
        assert process is not None
        self._befall(process)
        if self.boundaries in self._kill_at:
            self._kill(process, where)
            raise Killed(where)

    def outside(self, where: str, process: Process) -> None:
        """A process that may be killed while it waits."""
        self.boundaries += 1
        self._befall(process)
        if self.boundaries in self._kill_at and process.alive:
            self._kill(process, where)

    def disk_fails(self) -> bool:
        """Whether this write does not reach the disk."""
        self._writes += 1
        if self._writes not in self._disk_fails_at:
            return False
        assert self.machine.current is not None
        self.machine.current.disturbed = True
        self.disk_faults += 1
        self.note("the disk fails")
        return True

    def _kill(self, process: Process, where: str) -> None:
        self.kills += 1
        self.note(f"{process.name} is killed: {where}")
        self.machine.kill(process)

    def _befall(self, process: Process) -> None:
        if self.boundaries in self._sleep_at:
            process.disturbed = True
            process.asleep_until = self.machine.now_s + self.random.choice((5.0, 40.0, 100.0))
            self.note(f"{process.name} sleeps until {process.asleep_until:.0f}")
        if self.boundaries in self._interrupt_at and process.alive and process.main is not None:
            process.disturbed = True
            main = process.main
            self.note(f"{process.name} is interrupted")
            self.machine.after(0.0, lambda: main.cancel() and None)

    # what the code under test asks of its surroundings

    def time_s(self) -> float:
        process = self.machine.current
        return EPOCH_S + self.machine.now_s + (process.skew_s if process else 0.0)

    def new_owner(self) -> str:
        process = self.machine.current
        assert process is not None
        return f"host{process.host}:{process.pid}:0:{self.token_hex(4)}"

    def is_gone(self, owner: str) -> bool:
        process = self.machine.current
        host, pid, _, _ = owner.rsplit(":", 3)
        if process is None or host != f"host{process.host}":
            return False
        return not any(one.alive and one.pid == int(pid) for one in self.machine.processes)

    def token_hex(self, count: int) -> str:
        return f"{self.random.getrandbits(8 * count):0{2 * count}x}"


def world() -> World:
    """The one that runs."""
    return _worlds[-1]


def running() -> World | None:
    """The one whose process has its turn; None: nobody's writes are this simulation's."""
    return _worlds[-1] if _worlds and _worlds[-1].machine.current is not None else None


@contextmanager
def simulated(made: World) -> Iterator[World]:
    """Clock, chance, owners and the ledger's thread are this world's; what is patched is where our modules take them
    from."""
    from tests.simulation.disk import SimulatedWriter

    chance = SimpleNamespace(uniform=made.random.uniform)
    tokens = SimpleNamespace(token_hex=made.token_hex)

    def again(*words: Any, **named: Any) -> Any:
        return retrying(*words, sleep=lambda _: None, **named)

    retrying = writer.Retrying
    stands: tuple[tuple[Any, str, Any], ...] = (
        (ledgers, "LedgerThread", SimulatedWriter),
        (ledgers, "new_owner", made.new_owner),
        (batch, "new_owner", made.new_owner),
        (ledgers, "is_gone", made.is_gone),
        (batch_submit, "is_gone", made.is_gone),
        (batch_submit, "secrets", tokens),
        (retry, "random", chance),
        (writer, "Retrying", again),
    )
    folder = SHM if SHM.is_dir() else None
    with ExitStack() as undo:
        made.place = f"{undo.enter_context(tempfile.TemporaryDirectory(dir=folder))}/ledger.db"
        for module, name, value in stands:
            undo.enter_context(patch.object(module, name, value))
        _worlds.append(made)
        undo.callback(_worlds.pop)
        undo.callback(lambda: [engine.dispose() for engine in made.engines])
        yield made
