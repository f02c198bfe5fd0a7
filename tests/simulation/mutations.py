"""Planted faults: each a small named change of the real code, which the simulation is to find.

A change stands as the words that are there and the words that are put in their place, so that it ends with an error
when the code has moved on. It is made in this process alone, for as long as the seeds run.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any, NamedTuple
from unittest.mock import patch

import sqlalchemy as sql

from preceptor.judge.asking import batch, batch_submit, budget, fanout, rate_limits, shared
from preceptor.judge.ledger import batches as books
from preceptor.judge.ledger import ledger as ledgers
from preceptor.judge.ledger import writer


class Fault(NamedTuple):
    """A change of one function, or of one SQL statement of a module."""

    name: str
    where: Any
    """A class, or a module."""
    what: str
    """The function's name, or the statement's."""
    old: str
    new: str


_BUDGET_FIRST = """
    await self._spending.reserve(worst_usd)
    cost_usd = 0.0
    try:
        async with self._limiters[request.model].slot(request) as slot:
            self._raise_if_stopped()
            try:
                outcome, cost_usd = await self._call(request, slot)
            except asyncio.CancelledError:
                cost_usd = worst_usd  # it may have been answered: nobody knows what it cost
                raise
            return outcome
    finally:
        self._spending.settle(worst_usd, cost_usd)
"""
_SLOT_FIRST = """
    async with self._limiters[request.model].slot(request) as slot:
        await self._spending.reserve(worst_usd)
        cost_usd = 0.0
        try:
            self._raise_if_stopped()
            outcome, cost_usd = await self._call(request, slot)
            return outcome
        finally:
            self._spending.settle(worst_usd, cost_usd)
"""

FAULTS = (
    # the fan-out and the budget
    Fault("the slot is taken before the budget", fanout.Fanout, "_answer", _BUDGET_FIRST, _SLOT_FIRST),
    Fault(
        "a second reply is settled twice",
        fanout.Fanout,
        "_call",
        "max(0.0, (cost or 0.0) - booked_usd)",
        "cost or 0.0",
    ),
    Fault(
        "no cap check before a second reply",
        budget.Budget,
        "try_reserve",
        "not self.fits(worst_usd)",
        "False",
    ),
    Fault("what is reserved is not counted", budget.Budget, "fits", " + sum(self._reserved)", ""),
    Fault(
        "room is not looked for again", budget.Budget, "reserve", "while not self.fits", "if not self.fits"
    ),
    Fault("who waits for budget is not woken", budget.Budget, "settle", "self._wake()", "pass"),
    Fault("what was spent is forgotten", budget.Budget, "settle", "+= cost_usd", "+= 0.0"),
    Fault("no intent is written", fanout.Fanout, "_call", "not await self._ledger.intend(request)", "False"),
    Fault(
        "a paid failure is not written down",
        fanout.Fanout,
        "_call",
        "await self._ledger.fail(request, str(problem), completion, cost)",
        "pass",
    ),
    Fault(
        "the first of two replies is not on the bill",
        fanout.Fanout,
        "_second",
        "added(better.completion, first.completion, second.completion)",
        "second.completion",
    ),
    Fault(
        "the answer that the ledger keeps is not handed out",
        fanout.Fanout,
        "_call",
        "completion = await self._ledger.answer",
        "await self._ledger.answer",
    ),
    Fault("answers are keyed wrongly", fanout.Fanout, "_asked", "request.key", "request.stage"),
    # slots and rates
    Fault(
        "a slot is given back twice",
        rate_limits.LocalRateLimiter,
        "leave",
        "self._running -= 1",
        "self._running -= 2",
    ),
    Fault(
        "a retry takes no slot again",
        rate_limits.Slot,
        "release_during",
        "await pause\nawait self._acquire()",
        "await pause",
    ),
    Fault(
        "requests take nothing of the minute's share",
        rate_limits.LocalRateLimiter,
        "_wait_for_share",
        "bucket.take(_part(what, wanted))",
        "pass",
    ),
    # the ledger
    Fault("leases are not renewed", ledgers.Ledger, "_renew", "if self._open", "if False"),
    Fault(
        "lost calls are not on the bill",
        ledgers.Ledger,
        "_lose",
        "connection.execute(_CHARGE, [row | end for row in rows])",
        "pass",
    ),
    Fault(
        "answers are not on the bill", ledgers.Ledger, "_answer", "connection.execute(_CHARGE, rows)", "pass"
    ),
    Fault(
        "what another asks is asked as well",
        ledgers,
        "INTEND",
        "AND calls.owner = excluded.owner",
        "",
    ),
    Fault(
        "the living are taken for gone",
        ledgers.Ledger,
        "_lose_the_dead",
        "(until < now_s or is_gone(owner))",
        "True",
    ),
    Fault("a later answer replaces the first", ledgers, "_ANSWER", "AND status <> 'answered'", ""),
    Fault("a failure ends another's lease", ledgers, "_FAIL", "AND status = 'intent' AND owner = :owner", ""),
    Fault(
        "a commit that fails counts as done",
        writer.LedgerThread,
        "_committed",
        "raise _InCommitError(exc) from exc",
        "pass",
    ),
    # batches
    Fault(
        "a batch that may still arrive is given up",
        batch_submit,
        "find_out",
        "await clock.sleep(SETTLE_S)",
        "pass",
    ),
    Fault(
        "a batch whose reply was lost is sent again",
        batch_submit,
        "submit",
        "(there := await _listed(provider, ledger, batch, clock)) is not None",
        "(there := None) is not None",
    ),
    Fault(
        "results are booked again",
        books,
        "_OPEN",
        "status IN ('intent', 'lost') AND ",
        "",
    ),
    Fault(
        "only the last result of a batch is kept",
        batch.Batches,
        "_collect",
        "block.append(result)",
        "block = [result]",
    ),
    Fault(
        "a batch that another sends is taken for abandoned",
        batch_submit,
        "abandoned",
        "return same or ",
        "return True or ",
    ),
    Fault(
        "a batch is sent without room for it",
        batch.Batches,
        "_make_room",
        "while not budget.fits(needed_usd)",
        "while False",
    ),
    # several workers
    Fault(
        "what a lost worker had reserved counts as free",
        shared.Keeper,
        "_let_go_of_the_gone",
        "self._settle(held, worst_usd, worst_usd)",
        "self._settle(held, worst_usd, 0.0)",
    ),
)


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The program with this fault in it. Raises ValueError where its words are not there, once."""
    found = inspect.getattr_static(fault.where, fault.what)
    with ExitStack() as undo:
        if isinstance(found, FunctionType):
            was = found.__code__
            undo.callback(setattr, found, "__code__", was)
            found.__code__ = _changed(found, fault)
        else:
            text = found if isinstance(found, str) else found.text
            changed = text.replace(fault.old, fault.new)
            if text.count(fault.old) != 1:
                raise ValueError(f"{fault.name}: the statement has not {fault.old!r} once")
            made = changed if isinstance(found, str) else sql.text(changed)
            undo.enter_context(patch.object(fault.where, fault.what, made))
            if getattr(books, fault.what, None) is found:
                undo.enter_context(patch.object(books, fault.what, made))
        yield


def _changed(function: FunctionType, fault: Fault) -> Any:
    """The code of the function with the change."""
    source = textwrap.dedent(inspect.getsource(function))
    old, new = fault.old, fault.new
    if "\n" in old:
        # blocks stand at any depth
        first = next(line for line in old.splitlines() if line.strip())
        at = next((line for line in source.splitlines() if line.strip() == first.strip()), "")
        depth = (len(at) - len(at.lstrip())) - (len(first) - len(first.lstrip()))
        pad = " " * max(0, depth)
        old, new = (
            "\n".join(pad + line if line else line for line in text.strip("\n").split("\n"))
            for text in (old, new)
        )
    if source.count(old) != 1:
        raise ValueError(f"{fault.name}: {function.__qualname__} has not {fault.old!r} once")
    names = dict(function.__globals__)
    lines = "from __future__ import annotations\n" + source.replace(old, new)
    exec(compile(lines, f"<{fault.name}>", "exec"), names)
    return names[function.__name__].__code__
