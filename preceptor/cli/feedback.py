"""`preceptor respond | revise | evaluate`: the commands that ask models."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import asking_of, finish, local_of, show_plan, to_file
from preceptor.cli.options import CONCURRENCY, LEDGER

if TYPE_CHECKING:
    from judge.models.protocol import Dialogue
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
    batch: options.Batch = False,
    batch_then_sync: options.BatchThenSync = False,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Sample replies to prompts."""
    from judge.models.registry import open_model
    from judge.respond import RespondSettings
    from preceptor import stages
    from prompts.pool import prompts_from

    settings = RespondSettings(samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed)
    asking = asking_of(
        ledger,
        concurrency,
        max_cost,
        base_url,
        price,
        batch,
        batch_then_sync,
        rpm=rpm,
        tpm=tpm,
    )
    rows: list[Prompt] = list(islice(prompts_from(prompts), limit))
    asked = open_model(model, base_url=base_url, **local_of(dtype, device_map, four_bit))

    def make() -> list[Dialogue[Any]]:
        return list(stages.responding(rows, asked, settings))

    if plan:
        show_plan(make(), asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(responses: tuple[Response, ...]) -> tuple[Response, ...]:
        statuses.update(response.status for response in responses)
        return responses

    work = to_file("respond", out, make, asked, asking, rows_of)
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
    batch: options.Batch = False,
    batch_then_sync: options.BatchThenSync = False,
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
    asking = asking_of(
        ledger,
        concurrency,
        max_cost,
        base_url,
        price,
        batch,
        batch_then_sync,
        rpm=rpm,
        tpm=tpm,
    )
    rules = load(constitution)
    rows = list(islice(read_records(responses, Response), limit))
    asked = open_model(model, base_url=base_url, **local_of(dtype, device_map, four_bit))

    def make() -> list[Dialogue[Any]]:
        return list(stages.revising(rows, rules, asked, settings))

    if plan:
        show_plan(make(), asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(revision: Revision) -> tuple[Revision, ...]:
        statuses[revision.status] += 1
        return (revision,)

    work = to_file("revise", out, make, asked, asking, rows_of)
    finish({"out": str(out), "responses": len(rows), "revisions": dict(statuses)}, work, as_json)


def evaluate(
    policy: Annotated[str, typer.Option("--policy", help="The model after training: provider/model.")],
    baseline: Annotated[str, typer.Option("--baseline", help="The model to compare it with.")],
    prompts: Annotated[str, typer.Option("--prompts", help="A shipped pool's name or a file of prompts.")],
    judge: options.Judge,
    constitution: options.ConstitutionName,
    oracle: Annotated[
        str,
        typer.Option("--oracle", help="Who says whether one reply satisfies a principle: checks, embedded."),
    ] = "checks",
    principles: options.Principles = "joint",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.7,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    base_url: options.BaseUrl = None,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Compare a policy with a baseline on prompts, judged in both orders."""
    from constitution.files import load
    from judge.label import LabelSettings
    from judge.respond import RespondSettings
    from preceptor import evaluation
    from prompts.pool import prompts_from

    rules = load(constitution)
    settings = evaluation.Settings(
        policy=policy,
        baseline=baseline,
        judge=judge,
        oracle=oracle,
        respond=RespondSettings(samples=1, max_tokens=max_tokens, temperature=temperature, seed=seed),
        label=LabelSettings.model_validate({"principles": principles, "seed": seed}),
    )
    rows = list(islice(prompts_from(prompts), limit))
    asking = asking_of(ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm)
    if plan:
        show_plan(evaluation.asks(rows, rules, settings, asking), asking, as_json)
        return
    compared = evaluation.evaluate(rows, rules, settings, asking, console.progress)
    figures = evaluation.figures(compared.rows)
    if as_json:
        console.result(figures)
        return
    low, high = figures["win_rate_ci95"]
    rate = "unknown: nothing was judged" if figures["win_rate"] is None else f"{figures['win_rate']:.1%}"
    console.say(f"win rate {rate} (95 %: {low:.1%} to {high:.1%}) over {figures['n']} prompts")
    columns = ["principle", "baseline", "policy"]
    shares = [
        [name, f"{figures['before'][name]:.1%}", f"{share:.1%}"] for name, share in figures["after"].items()
    ]
    console.table("replies that satisfy each principle", columns, shares)
