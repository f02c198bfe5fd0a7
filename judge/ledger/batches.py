"""The ledger's book of batches: what was sent together, and what came of it.

The calls of a batch are leased to the batch and not to the process that sent it, so that they survive it: whoever comes
next finds the batch, and nobody asks its calls meanwhile. Every function is one transaction, and each can be repeated
after a kill, or by two processes at once, without a second line on the bill. `now_s`: seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.ledger.ledger import INTEND, UNPAID, asked_row, spent
from preceptor.judge.ledger.writer import MOST_AT_ONCE
from preceptor.judge.models.protocol import Completion, Request
from preceptor.prompts.records import Record

LEASE_S = 26 * 3600.0
"""Both providers end a batch within 24 h."""

_BATCH = sql.text(
    """INSERT INTO batches (token, model, endpoint, run, owner, state, requests, worst_usd, intended_at)
    VALUES (:token, :model, :endpoint, :run, :owner, 'intended', :requests, :worst_usd, :intended_at)"""
)
_HELD = sql.text("SELECT key FROM calls WHERE batch = :token AND status = 'intent'")
_OPEN = "SELECT key FROM calls WHERE batch = :token AND status IN ('intent', 'lost') AND key IN :keys"
_REQUESTS = sql.text("SELECT key, request FROM calls WHERE batch = :token AND key IN :keys").bindparams(
    sql.bindparam("keys", expanding=True)
)
_TOKENS = sql.text(
    "SELECT DISTINCT batch FROM calls WHERE key IN :keys AND status = 'intent' AND batch <> ''"
).bindparams(sql.bindparam("keys", expanding=True))
_CHARGE = sql.text(
    """INSERT INTO charges (key, run, model, stage, principle, outcome, ended_at, tokens_in, tokens_out, tokens_cached,
        cost_usd, usage, batch)
    SELECT key, run, model, stage, principle, :outcome, :ended_at, :tokens_in, :tokens_out, :tokens_cached, :cost_usd,
        :usage, batch
    FROM calls WHERE key = :key"""
)
_ANSWER = sql.text(
    """UPDATE calls SET status = 'answered', completion = :completion, problem = NULL, tokens_in = :tokens_in,
        tokens_out = :tokens_out, tokens_cached = :tokens_cached, cost_usd = :cost_usd, answered_at = :ended_at,
        owner = NULL, leased_until = NULL
    WHERE key = :key"""
)
_FAIL = sql.text(
    """UPDATE calls SET status = 'failed', problem = :problem, answered_at = :ended_at, owner = NULL,
        leased_until = NULL
    WHERE key = :key"""
)
_UNSENT = sql.text(
    """UPDATE calls SET status = 'failed', problem = 'never sent', owner = NULL, leased_until = NULL, batch = ''
    WHERE batch = :token AND status IN ('intent', 'lost')"""
)
_LISTED = """SELECT batches.*, COALESCE(answered, 0) AS answered, COALESCE(failed, 0) AS failed,
        COALESCE(cost_usd, 0.0) AS cost_usd
    FROM batches LEFT JOIN (
        SELECT batch, SUM(CASE WHEN outcome = 'answered' THEN 1 ELSE 0 END) AS answered,
            SUM(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END) AS failed, SUM(cost_usd) AS cost_usd
        FROM charges WHERE batch <> '' GROUP BY batch) AS ended ON ended.batch = batches.token"""


class BatchRecord(Record):
    """A batch as the ledger has it."""

    token: str
    """Ours, written down before anything leaves; it is in every custom id."""
    model: str
    endpoint: str
    run: str
    owner: str
    """The process that sent it."""
    state: Literal["intended", "sent", "ended", "unsent"]
    """`intended`: perhaps at the provider, perhaps not. `unsent`: known never to have arrived there."""
    remote: str | None
    """The provider's own id for it."""
    requests: int
    worst_usd: float
    """The most that it can cost; 0 where nobody set a cap."""
    intended_at: float
    """Seconds since 1970, as are `sent_at` and `ended_at`."""
    sent_at: float | None = None
    ended_at: float | None = None
    problem: str | None = None
    """Why the provider did not do all of it."""
    answered: int = 0
    failed: int = 0
    """Ended without an answer: in error, expired or cancelled."""
    cost_usd: float = 0.0


class BatchAnswer(NamedTuple):
    """What came back for one call of a batch."""

    key: str
    completion: Completion
    cost_usd: float | None
    """At the batch's price; None: not known."""


class Failed(NamedTuple):
    """Why a call of a batch has no answer."""

    problem: str
    paid: Completion | None = None
    """What came and was paid for, though it is none."""
    cost_usd: float | None = None


class Booked(NamedTuple):
    """What was not in the ledger before."""

    answered: frozenset[str]
    failed: frozenset[str]


def intend(
    connection: Connection, batch: BatchRecord, asked: Sequence[Request], worst_usd: Mapping[str, float]
) -> frozenset[str]:
    """Write down that a batch is about to leave, and give the keys of the calls that are in it: those that are neither
    answered nor asked elsewhere. Where there are none there is no batch. worst_usd: by key.
    """
    lease = {
        "asked_at": batch.intended_at,
        "run": batch.run,
        "owner": f"batch:{batch.token}::",
        "leased_until": batch.intended_at + LEASE_S,
        "batch": batch.token,
    }
    connection.execute(
        INTEND, [asked_row(request) | lease for request in sorted(asked, key=lambda one: one.key)]
    )
    held = frozenset(connection.execute(_HELD, {"token": batch.token}).scalars())
    if held:
        facts = {"requests": len(held), "worst_usd": sum(worst_usd[key] for key in held)}
        connection.execute(_BATCH, batch.model_dump() | facts)
    return held


def sent(connection: Connection, token: str, remote: str, now_s: float) -> None:
    """The provider has it, under this id."""
    connection.execute(
        sql.text("UPDATE batches SET state = 'sent', remote = :remote, sent_at = :now WHERE token = :token"),
        {"token": token, "remote": remote, "now": now_s},
    )


def unsent(connection: Connection, token: str, problem: str, now_s: float) -> None:
    """It never arrived: its calls can be asked by anybody. Nothing where another process has found it after all."""
    changed = connection.execute(
        sql.text(
            "UPDATE batches SET state = 'unsent', ended_at = :now, problem = :said "
            "WHERE token = :token AND state = 'intended'"
        ),
        {"token": token, "now": now_s, "said": problem},
    )
    if changed.rowcount:
        connection.execute(_UNSENT, {"token": token})


def collect(
    connection: Connection,
    token: str,
    answered: Sequence[BatchAnswer],
    failed: Mapping[str, Failed],
    now_s: float,
) -> Booked:
    """Write results down, once. failed: by key."""
    held = _held(connection, token, [one.key for one in answered] + list(failed))
    answers: list[dict[str, Any]] = [
        {
            "key": one.key,
            "outcome": "answered",
            "ended_at": now_s,
            "completion": one.completion.model_dump_json(),
            **spent(one.completion, one.cost_usd),
        }
        for one in answered
        if one.key in held
    ]
    failures: list[dict[str, Any]] = [
        {
            "key": key,
            "outcome": "failed",
            "ended_at": now_s,
            "problem": one.problem.replace("\0", ""),
            **(UNPAID if one.paid is None else spent(one.paid, one.cost_usd)),
        }
        for key, one in failed.items()
        if key in held
    ]
    for rows, statement in ((answers, _ANSWER), (failures, _FAIL)):
        if rows:
            connection.execute(_CHARGE, rows)
            connection.execute(statement, rows)
    return Booked(frozenset(row["key"] for row in answers), frozenset(row["key"] for row in failures))


def end(connection: Connection, token: str, problem: str, now_s: float) -> frozenset[str]:
    """The provider is done with it and everything that came is written down. The keys of the calls for which nothing
    came; they have failed."""
    rest = connection.execute(
        sql.text("SELECT key FROM calls WHERE batch = :token AND status IN ('intent', 'lost')"),
        {"token": token},
    )
    why = problem or "the batch ended without a result for it"
    booked = collect(connection, token, (), dict.fromkeys(rest.scalars().all(), Failed(why)), now_s)
    connection.execute(
        sql.text("UPDATE batches SET state = 'ended', ended_at = :now, problem = :said WHERE token = :token"),
        {"token": token, "now": now_s, "said": problem or None},
    )
    return booked.failed


def cost_usd(connection: Connection, token: str) -> float:
    """USD of everything that came of a batch, whoever wrote it down; what has no known price is not in it."""
    total = connection.execute(
        sql.text("SELECT SUM(cost_usd) FROM charges WHERE batch = :token"), {"token": token}
    )
    return float(total.scalar_one() or 0.0)


def requests_of(connection: Connection, token: str, keys: Iterable[str]) -> dict[str, Request]:
    """What was asked under these keys, as far as it was in this batch."""
    rows = (
        row
        for some in _slices(list(keys))
        for row in connection.execute(_REQUESTS, {"token": token, "keys": some})
    )
    return {key: Request.model_validate_json(text) for key, text in rows}


def holders(connection: Connection, keys: Sequence[str]) -> frozenset[str]:
    """The tokens of the batches in which these calls are being asked."""
    return frozenset(
        token for some in _slices(keys) for token in connection.execute(_TOKENS, {"keys": some}).scalars()
    )


def listed(connection: Connection, model: str | None = None) -> list[BatchRecord]:
    """All batches, latest first. model: of that one alone."""
    where = " WHERE batches.model = :model" if model is not None else ""
    rows = connection.execute(
        sql.text(f"{_LISTED}{where} ORDER BY intended_at DESC, token"), {"model": model} if model else {}
    )
    return [BatchRecord.model_validate(dict(row)) for row in rows.mappings()]


def _held(connection: Connection, token: str, keys: Sequence[str]) -> frozenset[str]:
    """Those that nobody has written down; another process that would is kept waiting until this one has."""
    lock = " FOR UPDATE" if connection.dialect.name == "postgresql" else ""
    statement = sql.text(_OPEN + lock).bindparams(sql.bindparam("keys", expanding=True))
    return frozenset(
        key
        for some in _slices(sorted(keys))
        for key in connection.execute(statement, {"token": token, "keys": some}).scalars()
    )


def _slices(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + MOST_AT_ONCE] for start in range(0, len(keys), MOST_AT_ONCE))
