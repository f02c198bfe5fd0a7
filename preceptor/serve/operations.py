"""What keeps a server going: whether it lives, whether it is ready, its models, its bill, its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger import queries
from preceptor.judge.ledger.location import reading
from preceptor.serve.auth import Caller, caller
from preceptor.serve.desk import Desk
from preceptor.serve.jobs.drift import DriftGauges
from preceptor.serve.metrics import REGISTRY
from preceptor.serve.problems import unavailable
from preceptor.serve.service import Served

router = APIRouter(tags=["operations"])
Anyone = Annotated[Caller, Depends(caller)]
"""Who has a key, whatever it may do."""
CALLS = (("asked", "answered"), ("from_ledger", "from_ledger"), ("failed", "failed"))
"""Of a fan-out's progress: field -> outcome of a call."""


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(served: Served) -> dict[str, str]:
    """Whether the database can be read, without which nothing is answered."""
    try:
        await asyncio.to_thread(_read, served.config.database)
    except LedgerError as error:
        raise unavailable("not_ready", "the database cannot be read; the server's log has more") from error
    return {"status": "ready"}


@router.get("/metrics")
async def figures(served: Served, _: Anyone) -> Response:
    """Figures in Prometheus's form."""
    asked = CollectorRegistry()
    asked.register(_OfDesk(served.desk))
    asked.register(DriftGauges(served.config.drift))
    told = await asyncio.to_thread(generate_latest, asked)  # which reads the looks' files
    return Response(generate_latest(REGISTRY) + told, media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/bill")
async def bill(served: Served, _: Anyone, by: Literal["model", "stage", "run"] = "model") -> dict[str, Any]:
    """What every call in the database cost, dearest first."""
    lines = await asyncio.to_thread(_bill, served.config.database, by)
    total = sum(line.cost_usd for line in lines)
    return {
        "by": by,
        "lines": [{**line.of, **{k: v for k, v in line._asdict().items() if k != "of"}} for line in lines],
        "cost_usd": total,
        "max_cost_usd": served.config.limits.max_cost_usd,
    }


def _read(database: str) -> None:
    with reading(database):  # which looks whether it is a ledger of this version
        pass


def _bill(database: str, by: Literal["model", "stage", "run"] = "model") -> list[queries.BillLine]:
    with reading(database) as connection:
        return queries.bill(connection, (by,))


class _OfDesk:
    """What the models were asked, as metrics."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        calls = CounterMetricFamily("preceptor_calls", "Calls to models", labels=["model", "outcome"])
        tokens = CounterMetricFamily("preceptor_tokens", "Tokens of calls", labels=["model", "direction"])
        dollars = CounterMetricFamily(
            "preceptor_cost_usd", "USD of the calls whose price is known", labels=["model"]
        )
        for model, progress in self._desk.asked():
            for field, outcome in CALLS:
                calls.add_metric([model, outcome], getattr(progress, field))
            tokens.add_metric([model, "in"], progress.tokens_in)
            tokens.add_metric([model, "out"], progress.tokens_out)
            dollars.add_metric([model], progress.cost_usd)
        yield from (calls, tokens, dollars)
