"""What every command that asks models does: how they are asked, the plan or the work, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preceptor.cli import console

if TYPE_CHECKING:
    from preceptor.asking.stages import Asked, Asking, Cluster, Work
    from preceptor.judge.label import LabelSettings
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.prompts.records import Record

WHEN = 'status != "ok"'
"""Which pairs are escalated where nothing else is said."""


def asking_of(
    ledger: str,
    concurrency: int,
    max_cost: float | None,
    base_url: str | None,
    price: Sequence[str] | None = None,
    *,
    batch: bool = False,
    then_sync: bool = False,
    **more: Any,
) -> Asking:
    """more: rpm, tpm, cluster. Raises UserError where batches are to be asked from a cluster."""
    from preceptor.asking.stages import Asking
    from preceptor.constitution.errors import UserError
    from preceptor.judge.asking.prices import price_from

    if (batch or then_sync) and more.get("cluster") is not None:
        raise UserError("--batch asks from this machine, once for all rows; leave out --engine ray")
    if batch or then_sync:
        console.relay("preceptor.judge.asking.batch")
    return Asking(
        ledger=ledger,
        batch=batch or then_sync,
        then_sync=then_sync,
        concurrency=concurrency,
        max_cost_usd=max_cost,
        base_url=base_url,
        prices=dict(map(price_from, price or ())),
        **more,
    )


def cluster_of(engine: str, address: str | None, gpus: float | None, workers: int | None) -> Cluster | None:
    """Where the flags want the work done; None: here. Raises UserError for flags that are another engine's."""
    from preceptor.asking.stages import Cluster
    from preceptor.constitution.errors import UserError

    given = {"address": address, "gpus": gpus, "workers": workers}
    chosen = {name: value for name, value in given.items() if value is not None}
    if engine == "ray":
        return Cluster.model_validate(chosen)
    if chosen:
        raise UserError(f"--{next(iter(chosen))} is for --engine ray; add that, or leave it out")
    return None


def label_settings(clamp: str | None = None, template: str | None = None, **chosen: Any) -> LabelSettings:
    """The settings that flags name. Raises UserError where they do not go together."""
    from pydantic import ValidationError

    from preceptor.constitution.errors import UserError
    from preceptor.judge.label import LabelSettings

    try:
        bounds = tuple(float(bound) for bound in clamp.split(",")) if clamp else None
        return LabelSettings.model_validate({**chosen, "clamp": bounds, "template": template or ""})
    except ValidationError as exc:
        said = "; ".join(str(error["msg"]).removeprefix("Value error, ") for error in exc.errors())
        raise UserError(f"the flags do not go together: {said}") from exc
    except ValueError as exc:
        raise UserError(f"--clamp is {clamp!r}; wanted two numbers: 0.4,0.6") from exc


def panels_of(
    judges: Sequence[str], further: Sequence[str], when: Sequence[str], human: bool
) -> list[tuple[list[str], str]]:
    """The first panel, the judges to whom its doubtful pairs go, and last a person. Raises UserError."""
    from preceptor.constitution.errors import UserError

    first = list(judges)
    rest = [*further, *(["human"] if human else [])]
    if not first:
        first, rest = rest[:1], rest[1:]
    if not first:
        raise UserError("nobody judges; name a model with --judge, `checks`, or a person with --human")
    if when and not rest:
        raise UserError("--when without --escalate-to or --human; nobody is there to whom pairs could go on")
    if len(when) > 1 and len(when) != len(rest):
        raise UserError(
            f"{len(when)} times --when for {len(rest)} further steps; give one for all or one each"
        )
    conditions = list(when) if len(when) == len(rest) else (list(when) or [WHEN]) * len(rest)
    return [(first, ""), *(([name], condition) for name, condition in zip(rest, conditions, strict=True))]


def local_of(dtype: str | None, device_map: str | None, four_bit: bool) -> dict[str, Any]:
    """The placement that flags name, of models in this process; only what was given."""
    wanted = {"dtype": dtype, "device_map": device_map, "four_bit": four_bit or None}
    return {name: value for name, value in wanted.items() if value is not None}


def base_urls_of(given: Sequence[str]) -> dict[str, str]:
    """`JUDGE=URL` or `URL` -> server by judge's name; `""`: of all others."""
    urls = {}
    for text in given:
        name, equals, url = text.partition("=")
        named = equals and "://" not in name
        urls[name if named else ""] = url if named else text
    return urls


def share_of(flag: str, text: str | None) -> float:
    """A share as people write it: 2%, or 0.02. Raises UserError."""
    from preceptor.constitution.errors import UserError

    if text is None:
        return 0.0
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"{flag} is {text!r}; wanted a share such as 2% or 0.02")
    return share


def to_file(
    what: str,
    out: Path,
    work: Work,
    asking: Asking,
    rows_of: Callable[[Any], Iterable[Record]],
) -> Asked:
    """Do the work under a progress bar, here or on a cluster, each row to the file."""
    from preceptor.asking import stages
    from preceptor.prompts.rows import writing

    with writing(out) as write, console.progress(what) as watch:

        def each(row: Any) -> None:
            for record in rows_of(row):
                write(record)

        if asking.cluster is not None:
            from preceptor.asking import ray_engine

            asked = ray_engine.carry_out(lambda: work.rows, work.open, asking, each, watch)
        else:
            means = work.open()
            # batches walk the dialogues once a round, each time from their beginning
            asked = asyncio.run(
                stages.carry_out(lambda: map(means.dialogue, work.rows), means.models, asking, each, watch)
            )
        if asked.stopped is not None and not asked.rows:
            raise asked.stopped  # nothing was done, so nothing is left behind
        return asked


def show_plan_of(work: Work, asking: Asking, as_json: bool) -> None:
    """`show_plan` of all the work."""
    means = work.open()
    show_plan([means.dialogue(row) for row in work.rows], asking, as_json)


def show_plan(dialogues: Iterable[Dialogue[Any]], asking: Asking, as_json: bool) -> None:
    from preceptor.asking import stages

    plan = asyncio.run(stages.price(dialogues, asking))
    if as_json:
        console.result({"rows": plan.rows, "models": [line._asdict() for line in plan.lines]})
        return
    rows = [
        [
            line.model,
            str(line.in_ledger),
            str(line.to_ask),
            str(line.may_ask),
            _many(line.tokens_in),
            _many(line.tokens_out),
            _usd(line.cost_usd),
            "–" if line.batch_cost_usd is None else _usd(line.batch_cost_usd),
        ]
        for line in plan.lines
    ]
    columns = (
        "model",
        "in\nledger",
        "to ask",
        "later ≤",
        "tokens\nin",
        "tokens\nout ≤",
        "cost ≤",
        "as a\nbatch ≤",
    )
    console.table(f"plan for {plan.rows} rows; nothing was asked (≤: at most)", columns, rows)


def _many(count: int) -> str:
    """A number of tokens to three figures."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _usd(cost: float | None) -> str:
    if cost is None:
        return "price unknown"
    return f"${cost:.2f}" if cost >= 0.1 or not cost else f"${cost:.4f}"


def finish(result: dict[str, Any], work: Asked, as_json: bool) -> None:
    """Say what was done; raise what stopped it, so that the exit code tells."""
    now = work.progress
    spent = {
        "asked": now.asked,
        "from_ledger": now.from_ledger,
        "failed": now.failed,
        "cost_usd": now.cost_usd,
    }
    if as_json:
        console.result({**result, "calls": spent, "complete": work.stopped is None})
    else:
        counts = ", ".join(f"{name} {value}" for name, value in result.items() if name != "out")
        calls = f"{now.asked} calls asked, {now.from_ledger} from the ledger, ${now.cost_usd:.2f}"
        console.say(f"{result['out']}: {counts}; {calls}")
    if work.stopped is not None:
        console.say(f"stopped early: {result['out']} is valid, and the same command goes on where it stopped")
        raise work.stopped
