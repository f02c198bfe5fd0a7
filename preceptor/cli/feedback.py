"""`preceptor respond | revise`: the commands that have models write."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import options
from preceptor.cli.asking import asking_of, cluster_of, finish, local_of, show_plan_of, to_file
from preceptor.cli.options import CONCURRENCY, LEDGER

if TYPE_CHECKING:
    from preceptor.judge.records import Response, Revision
    from preceptor.prompts.records import Prompt


def respond(
    prompts: Annotated[str, typer.Argument(help="A shipped pool's name or a file of prompts.")],
    model: options.Model,
    out: options.Out,
    samples: Annotated[int, typer.Option(min=1, help="Replies to each prompt.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    base_url: options.BaseUrl = None,
    dtype: options.Dtype = None,
    device_map: options.DeviceMap = None,
    four_bit: options.FourBit = False,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    gpus: options.Gpus = None,
    workers: options.Workers = None,
    batch: options.Batch = False,
    batch_then_sync: options.BatchThenSync = False,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Sample replies to prompts."""
    from preceptor.asking import stages
    from preceptor.judge.respond import RespondSettings
    from preceptor.prompts.pool import prompts_from

    settings = RespondSettings(samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed)
    cluster = cluster_of(engine, address, gpus, workers)
    batches = {"batch": batch, "then_sync": batch_then_sync}
    asking = asking_of(
        ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm, cluster=cluster, **batches
    )
    rows: list[Prompt] = list(islice(prompts_from(prompts), limit))
    local = local_of(dtype, device_map, four_bit)
    work = stages.Work(rows, partial(stages.to_respond, model, base_url, local, settings))
    if plan:
        show_plan_of(work, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(responses: tuple[Response, ...]) -> tuple[Response, ...]:
        statuses.update(response.status for response in responses)
        return responses

    done = to_file("respond", out, work, asking, rows_of)
    finish({"out": str(out), "prompts": len(rows), "responses": dict(statuses)}, done, as_json)


def revise(
    responses: Annotated[Path, typer.Argument(help="A file that `preceptor respond` wrote.")],
    model: options.Model,
    constitution: options.ConstitutionName,
    out: options.Out,
    rounds: Annotated[int, typer.Option(min=1, help="Critiques and revisions of each reply.")] = 2,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest critique or revision.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.7,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    base_url: options.BaseUrl = None,
    dtype: options.Dtype = None,
    device_map: options.DeviceMap = None,
    four_bit: options.FourBit = False,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    gpus: options.Gpus = None,
    workers: options.Workers = None,
    batch: options.Batch = False,
    batch_then_sync: options.BatchThenSync = False,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Have replies criticised by the constitution and rewritten."""
    from preceptor.asking import stages
    from preceptor.constitution.files import load
    from preceptor.judge.records import Response
    from preceptor.judge.revise import ReviseSettings
    from preceptor.prompts.rows import read_records

    settings = ReviseSettings(rounds=rounds, max_tokens=max_tokens, temperature=temperature, seed=seed)
    cluster = cluster_of(engine, address, gpus, workers)
    batches = {"batch": batch, "then_sync": batch_then_sync}
    asking = asking_of(
        ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm, cluster=cluster, **batches
    )
    rules = load(constitution)
    rows = list(islice(read_records(responses, Response), limit))
    local = local_of(dtype, device_map, four_bit)
    work = stages.Work(rows, partial(stages.to_revise, model, base_url, local, rules, settings))
    if plan:
        show_plan_of(work, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(revision: Revision) -> tuple[Revision, ...]:
        statuses[revision.status] += 1
        return (revision,)

    done = to_file("revise", out, work, asking, rows_of)
    finish({"out": str(out), "responses": len(rows), "revisions": dict(statuses)}, done, as_json)
