"""A service that rewards by a judge, while the judge fails: what it gives for a reward."""

from __future__ import annotations

import secrets
from typing import Any

import httpx

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of
from preceptor.serve.conform.failing_judge import JUDGE_FAILURES, VERDICT, FailingJudge
from preceptor.serve.conform.table import MOST_S, Cell, Table

REPLIES = 3
"""Of each request."""


def service_looked_at(
    url: str, port: int, *, reward: str | None = None, key: str | None = None, verdict: str = VERDICT
) -> Table:
    """Every failure of a judge at 127.0.0.1:port, by which the service at the address rewards.

    Raises UserError where the port cannot be had, and for a service that gives no number where the judge does not fail.
    """
    try:
        judge = FailingJudge(port, verdict)
    except OSError as error:
        raise UserError(
            f"--judge-port {port} cannot be listened at ({error.strerror}); name another"
        ) from error
    with judge.serving(), httpx.Client(timeout=MOST_S, trust_env=False) as client:
        if key:
            client.headers["Authorization"] = f"Bearer {key}"
        right = _rewards(client, url, reward)
        if isinstance(right, Cell) or None in right:
            said = right.told() if isinstance(right, Cell) else "no reward"
            raise UserError(
                f"{url} gives no number where the judge does not fail ({said}), so that failures show nothing of it; "
                f"its judge is to be the model at {judge.url}/v1, and its rewards those of POST /v1/reward"
            )
        table: dict[str, dict[str, Cell]] = {}
        for name, failure in JUDGE_FAILURES.items():
            judge.failure = failure
            found = _rewards(client, url, reward)
            table[name] = {
                url: found if isinstance(found, Cell) else _judged(found, right, failure.has_rewards)
            }
    return table


def _rewards(client: httpx.Client, url: str, reward: str | None) -> Cell | list[Any]:
    """Rewards of replies that nobody has asked about before, so that the judge is asked; or what came instead."""
    items = [
        {"id": str(number), "prompt": "Where is the pool?", "response": f"On floor {secrets.token_hex(8)}."}
        for number in range(REPLIES)
    ]
    body = {"items": items} | ({"reward": reward} if reward else {})
    try:
        answer = client.post(f"{url.rstrip('/')}/v1/reward", json=body)
        if answer.status_code != 200:
            return Cell("raises", str(answer.status_code))
        rows = {row["id"]: row["reward"] for row in json_of(answer.content)["items"]}
        return [rows[item["id"]] for item in items]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return Cell("raises", type(error).__name__)


def _judged(found: list[Any], right: list[Any], may_be_right: bool) -> Cell:
    numbers = [number for number in found if number is not None]
    if not numbers:
        return Cell("none", "")
    if may_be_right and found == right:
        return Cell("right", "")
    return Cell("invented", ", ".join(f"{number:g}" for number in dict.fromkeys(numbers)))
