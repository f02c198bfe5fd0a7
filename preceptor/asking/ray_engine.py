"""The same work by many processes, on this machine or on a Ray cluster: read, ask, write, as one Ray Data pipeline.

    rows, read here -> batches -> workers, which hold the models -> batches, written here in the order of the rows

Each worker is an actor with a fan-out of its own. The ledger gives once-only: what a lost worker had been asking is
asked again, what it had been answered is not. Budget and rates are held by one keeper for all (`judge.asking.shared`).
Ray Data limits how far reading runs ahead, sends a lost worker's batches to another, and makes lost results anew, for
which the ledger has the answers.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from types import FrameType
from typing import Any

from preceptor.asking.ray_worker import RayWorker, RayWorkerSpec, RowBatch, batch_of, table_of
from preceptor.asking.stages import AskingResult, OnProgress, WorkerContext
from preceptor.constitution.errors import UserError
from preceptor.judge.asking.fanout import GRACE_S, Progress
from preceptor.judge.asking.first_rows import FirstRows, NothingUsable
from preceptor.judge.asking.shared import Keeper, Stop
from preceptor.judge.ledger.ledger import this_run
from preceptor.judge.ledger.location import location_of
from preceptor.judge.user_prices import user_prices
from preceptor.settings import Asking, Cluster

TOGETHER = 4
"""Batches that a worker has in hand at once: while the last calls of one are awaited, others go on."""
MOST_ROWS = 256
"""In one batch."""
LOCAL_ROWS = 64
"""In one batch for a model on a GPU, which takes many calls at once whatever --concurrency is."""
CPUS = 0.25
"""Of each worker, which mostly waits. Ray starts a lost worker anew where there is so much left."""
SHOWN_EVERY_S = 0.5


def run_on_ray(
    rows: Callable[[], Iterable[Any]],
    open_context: Callable[[], WorkerContext],
    asking: Asking,
    write: Callable[[Any], None],
    on_progress: OnProgress,
) -> AskingResult:
    """`preceptor.asking.stages.run_dialogues` on a cluster: each row to `write`, in the order of `rows`.

    rows, open_means: called in other processes. Raises UserError where Ray is missing or cannot be reached, for a
    ledger that machines cannot share, and for whatever of the input or the models is at fault.
    """
    cluster = asking.cluster or Cluster()
    if cluster.address is not None and location_of(asking.ledger).path is not None:
        raise UserError(
            f"--ledger {asking.ledger} is a file, which the machines of a cluster do not share; wanted "
            "postgresql://USER@HOST/NAME"
        )
    with _connected(cluster) as ray:
        workers = _workers(ray, cluster)
        keeper = (
            ray.remote(Keeper)
            .options(
                name=f"preceptor-{secrets.token_hex(4)}",
                num_cpus=0,
                max_concurrency=100_000,
                scheduling_strategy=_here(ray),
            )
            .remote(asking.limits)
        )
        plan = RayWorkerSpec(
            open_context=open_context,
            ledger=asking.ledger,
            limits=asking.limits,
            prices={**user_prices(), **asking.prices},
            run=this_run(),
            folder=os.getcwd(),
        )
        rows_each = LOCAL_ROWS if cluster.gpus else min(MOST_ROWS, -(-asking.concurrency // workers))
        batches = _Batches(rows, rows_each, keeper, plan.folder)
        return _run_pipeline(ray, _pipeline(ray, batches, plan, cluster, workers), keeper, write, on_progress)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, as part of the cluster or started for this command alone; one that is connected already is used as it is."""
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise UserError(
            "--engine ray needs Ray, which is not installed: pip install 'preceptor[ray]'"
        ) from exc
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that we start tells nobody
    before = signal.getsignal(signal.SIGTERM)
    try:
        here: dict[str, Any] = {} if cluster.address else {"include_dashboard": False}
        ray.init(address=cluster.address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise UserError(
            f"--address {cluster.address}: no Ray cluster is reached there ({exc}); see `ray status`, or leave "
            "--address out to start Ray here"
        ) from exc
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process at once
    try:
        yield ray
    finally:
        ray.shutdown()


def _workers(ray: Any, cluster: Cluster) -> int:
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if cluster.gpus and gpus < cluster.gpus:
        raise UserError(
            f"--gpus {cluster.gpus:g}: the cluster has {gpus:g} GPUs; give fewer, or leave it out"
        )
    alive = sum(1 for node in ray.nodes() if node["Alive"])
    return cluster.workers or max(1, int(gpus / cluster.gpus) if cluster.gpus else alive)


def _here(ray: Any) -> Any:
    """On this machine: what is placed so ends with this process's node and not before."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _pipeline(ray: Any, batches: _Batches, plan: RayWorkerSpec, cluster: Cluster, workers: int) -> Any:
    """A dataset that is worked out as it is iterated over."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # in bytes: every batch is a block, none waits for others
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    read = ray.data.read_datasource(
        _source(ray, batches),
        override_num_blocks=1,
        num_cpus=0,
        ray_remote_args={"scheduling_strategy": _here(ray)},
    )
    return read.map_batches(
        RayWorker,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=workers,
            max_tasks_in_flight_per_actor=TOGETHER + 2,
            max_concurrent_calls_per_actor=TOGETHER,
            enable_true_multi_threading=True,
        ),
        fn_constructor_args=(plan, batches.keeper),
        num_cpus=CPUS,
        num_gpus=cluster.gpus or None,
        scheduling_strategy="SPREAD",
    )


class _Batches:
    """Reads, in whatever process: rows -> batches, until they end or all is to stop."""

    def __init__(self, rows: Callable[[], Iterable[Any]], rows_each: int, keeper: Any, folder: str) -> None:
        self._rows = rows
        self._rows_each = rows_each
        self.keeper = keeper
        self._folder = folder

    def __call__(self) -> Iterator[Any]:
        """Each batch as a table."""
        import ray

        with suppress(OSError):
            os.chdir(self._folder)
        number = 0
        stop: Stop | None = None
        try:
            waiting = iter(self._rows())
            while stop is None and (some := list(islice(waiting, self._rows_each))):
                yield table_of(RowBatch(number, some))
                number += 1
                stop = ray.get(self.keeper.stopped.remote())
        except UserError as exc:
            stop = Stop("user", str(exc))
        yield table_of(RowBatch(number, [], stop, last=True))


def _source(ray: Any, batches: _Batches) -> Any:
    from ray.data.block import BlockMetadata

    class Source(ray.data.Datasource):  # type: ignore[misc]
        """One task reads: our readers check a file from its first row to its last."""

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            facts = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ray.data.ReadTask(batches, facts)]

        def estimate_inmemory_data_size(self) -> None:
            return None

    return Source()


def _run_pipeline(
    ray: Any, made: Any, keeper: Any, write: Callable[[Any], None], on_progress: OnProgress
) -> AskingResult:
    """Have the pipeline run, and write what comes out of it.

    It runs in a thread of its own, so that an interrupt does not break it: the workers are told to ask nothing more,
    and what they have in flight comes to its end.
    """
    came: queue.Queue[RowBatch | BaseException] = queue.Queue(maxsize=TOGETHER)

    def pump() -> None:
        try:
            for table in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                came.put(batch_of(table))
        except BaseException as exc:
            came.put(exc)

    threading.Thread(target=pump, name="pipeline", daemon=True).start()
    first_rows = FirstRows()

    def each(row: Any) -> None:
        write(row)
        try:
            first_rows.see(row)
        except NothingUsable as reason:
            ray.get(keeper.stop.remote(Stop("provider", str(reason))))

    order = _Order(each)
    until_s, shown_at = float("inf"), float("-inf")
    with _interrupts() as interrupted:
        while not order.ended and time.monotonic() < until_s:
            with suppress(queue.Empty):
                one = came.get(timeout=SHOWN_EVERY_S)
                if isinstance(one, BaseException):
                    raise one
                order.take(one)
            if time.monotonic() >= shown_at + SHOWN_EVERY_S:
                shown_at = time.monotonic()
                on_progress(_progress(ray, keeper, order))
            if interrupted.is_set() and until_s == float("inf"):
                until_s = time.monotonic() + GRACE_S
                ray.get(keeper.stop.remote(Stop("interrupted", "the run was interrupted")))
    progress = _progress(ray, keeper, order)
    on_progress(progress)
    asked = _asked(order, progress, interrupted.is_set())
    return asked if asked.stopped else asked._replace(stopped=first_rows.end())


def _progress(ray: Any, keeper: Any, order: _Order) -> Progress:
    told: Progress = ray.get(keeper.progress.remote())
    return told._replace(done=order.rows)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, which so breaks nothing in the middle; the second ends the process's work at once."""
    told = threading.Event()

    def hear(_signal: int, _frame: FrameType | None) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    if threading.current_thread() is not threading.main_thread():
        yield told  # signals come to the main thread alone
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, before)


def _asked(order: _Order, progress: Progress, interrupted: bool) -> AskingResult:
    stop = order.stop
    if stop is not None and stop.why == "user":
        raise stop.error
    stopped: BaseException | None = None
    if interrupted or (stop is not None and stop.why == "interrupted"):
        stopped = KeyboardInterrupt()
    elif stop is not None:
        stopped = stop.error
    return AskingResult(order.rows, progress, stopped)


class _Order:
    """Batches in whatever order -> rows to `write` in theirs, up to the first that is missing."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._early: dict[int, RowBatch] = {}
        self._next = 0
        self.rows = 0
        """Written."""
        self.stop: Stop | None = None
        self.ended = False

    def take(self, batch: RowBatch) -> None:
        """Write what is due."""
        assert batch.number >= self._next, "no batch comes twice"
        assert batch.number not in self._early, "no batch comes twice"
        self._early[batch.number] = batch
        while (due := self._early.pop(self._next, None)) is not None:
            self._next += 1
            if self.stop is None:
                for row in due.rows:
                    self._write(row)
                self.rows += len(due.rows)
                self.stop = due.stop
            self.ended = due.last
