"""`preceptor respond | revise`: the commands that have models write."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import options
from preceptor.cli.asking import asking_of, finish, local_of, show_plan, to_file
from preceptor.cli.options import CONCURRENCY, LEDGER

if TYPE_CHECKING:
    from judge.records import Response, Revision
    from prompts.records import Prompt


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
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Sample replies to prompts."""
    from judge.models.registry import open_model
    from judge.respond import RespondSettings
    from preceptor import stages
    from prompts.pool import prompts_from

    settings = RespondSettings(samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed)
    asking = asking_of(ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm)
    rows: list[Prompt] = list(islice(prompts_from(prompts), limit))
    asked = open_model(model, base_url=base_url, **local_of(dtype, device_map, four_bit))
    dialogues = list(stages.responding(rows, asked, settings))
    if plan:
        show_plan(dialogues, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(responses: tuple[Response, ...]) -> tuple[Response, ...]:
        statuses.update(response.status for response in responses)
        return responses

    work = to_file("respond", out, dialogues, asked, asking, rows_of)
    finish({"out": str(out), "prompts": len(rows), "responses": dict(statuses)}, work, as_json)


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
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Have replies criticised by the constitution and rewritten."""
    from constitution.files import load
    from judge.models.registry import open_model
    from judge.records import Response
    from judge.revise import ReviseSettings
    from preceptor import stages
    from prompts.rows import read_records

    settings = ReviseSettings(rounds=rounds, max_tokens=max_tokens, temperature=temperature, seed=seed)
    asking = asking_of(ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm)
    rules = load(constitution)
    rows = list(islice(read_records(responses, Response), limit))
    asked = open_model(model, base_url=base_url, **local_of(dtype, device_map, four_bit))
    dialogues = list(stages.revising(rows, rules, asked, settings))
    if plan:
        show_plan(dialogues, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(revision: Revision) -> tuple[Revision, ...]:
        statuses[revision.status] += 1
        return (revision,)

    work = to_file("revise", out, dialogues, asked, asking, rows_of)
    finish({"out": str(out), "responses": len(rows), "revisions": dict(statuses)}, work, as_json)
