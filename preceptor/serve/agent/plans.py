"""What may be spent: nothing but by a plan, at the price for which it was approved."""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preceptor.serve.jobs.native import UNPAID

MOST_PLANS = 1000
"""Plans that are remembered; the oldest makes room."""


@dataclass
class PricedPlan:
    """A job that is not made yet, and what it may cost."""

    id: str
    body: dict[str, Any]
    """The body of `POST /v1/jobs`."""
    price_usd: float
    """At most."""
    job: str | None = None
    """The job that it has become."""

    @property
    def capped(self) -> dict[str, Any]:
        """The body under the plan's price, so that no more is spent whatever happens."""
        if self.body["kind"] in UNPAID:
            return self.body
        return self.body | {"max_cost_usd": self.price_usd}


class PlanBook:
    """The plans that were made here."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, PricedPlan] = OrderedDict()

    def keep(self, body: dict[str, Any], price_usd: float) -> PricedPlan:
        """A plan to which an agent may come back."""
        plan = PricedPlan(f"plan-{uuid.uuid4().hex}", body, price_usd)
        self._plans[plan.id] = plan
        if len(self._plans) > MOST_PLANS:
            self._plans.popitem(last=False)
        return plan

    def find(self, name: str) -> PricedPlan | None:
        """The plan of this id."""
        return self._plans.get(name)


def price_of(body: Mapping[str, Any], plan: Mapping[str, Any]) -> float | None:
    """USD that a job costs at most: what its plan says, and no more than its own cap. None: nobody knows.

    A training against a judge plans memory and time, and no dollars: its cap is its price.
    """
    cap: float | None = body.get("max_cost_usd")
    planned: float | None
    if body["kind"] in UNPAID:
        return 0.0
    if "models" in plan:
        costs = [line["cost_usd"] for line in plan["models"]]
        planned = None if None in costs else math.fsum(costs)
    else:
        planned = None if body.get("judge") not in (None, (), [], "checks") else 0.0
    known = [usd for usd in (planned, cap) if usd is not None]
    return min(known) if known else None
