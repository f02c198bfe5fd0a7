"""`preceptor respond | revise | label | audit | evaluate`: the commands that ask models."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from preceptor.cli import console, options
from preceptor.cli.options import CONCURRENCY, LEDGER

if TYPE_CHECKING:
    from judge.label import LabelSettings
    from judge.models.protocol import Dialogue, Model
    from judge.records import Label, Response, Revision
    from preceptor.stages import Asked, Asking
    from prompts.records import Prompt, Record

Row = TypeVar("Row")


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
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Sample replies to prompts."""
    from judge.models.registry import open_model
    from judge.respond import RespondSettings
    from preceptor import stages
    from prompts.pool import prompts_from

    settings = RespondSettings(samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed)
    asking = _asking(ledger, concurrency, max_cost, base_url)
    rows: list[Prompt] = list(islice(prompts_from(prompts), limit))
    asked = open_model(model, base_url=base_url)
    dialogues = list(stages.responding(rows, asked, settings))
    if plan:
        _show_plan(dialogues, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(responses: tuple[Response, ...]) -> tuple[Response, ...]:
        statuses.update(response.status for response in responses)
        return responses

    work = _to_file("respond", out, dialogues, asked, asking, rows_of)
    _finish({"out": str(out), "prompts": len(rows), "responses": dict(statuses)}, work, as_json)


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
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
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
    asking = _asking(ledger, concurrency, max_cost, base_url)
    rules = load(constitution)
    rows = list(islice(read_records(responses, Response), limit))
    asked = open_model(model, base_url=base_url)
    dialogues = list(stages.revising(rows, rules, asked, settings))
    if plan:
        _show_plan(dialogues, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(revision: Revision) -> tuple[Revision, ...]:
        statuses[revision.status] += 1
        return (revision,)

    work = _to_file("revise", out, dialogues, asked, asking, rows_of)
    _finish({"out": str(out), "responses": len(rows), "revisions": dict(statuses)}, work, as_json)


def label(
    pairs: Annotated[str, typer.Argument(help="Pairs, TRL preference rows, hh transcripts, or responses.")],
    constitution: options.ConstitutionName,
    judge: options.Judge,
    out: options.Out,
    principles: options.Principles = "joint",
    reasoning: options.Reasoning = False,
    tie: options.Tie = False,
    template: options.Template = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
    form: options.Format = "rows",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    base_url: options.BaseUrl = None,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Have a judge say, in both orders, which reply follows the constitution better."""
    from constitution.files import load
    from judge.preferences import LABELS, LabelRun, publish
    from preceptor import stages

    rules = load(constitution)
    settings = _label_settings(principles, reasoning, tie, template, max_tokens, seed)
    asking = _asking(ledger, concurrency, max_cost, base_url)
    rows = list(islice(stages.pairs_from(pairs, form), limit))
    asked = stages.open_judge(judge, base_url)
    dialogues = list(stages.labelling(rows, rules, asked, settings))
    if plan:
        _show_plan(dialogues, asking, as_json)
        return
    work = _to_file("label", out / LABELS, dialogues, asked, asking, lambda row: (row,))
    made = LabelRun(
        constitution=rules,
        judge=judge,
        settings=settings.model_dump(mode="json"),
        rows_in=work.rows,
        complete=work.stopped is None,
        cost_usd=work.progress.cost_usd,
    )
    manifest = publish(out, made)
    _finish({"out": str(out), "pairs": len(rows), **manifest["rows"]["by_status"]}, work, as_json)


def audit(
    gold: Annotated[str, typer.Argument(help="Pairs whose better reply is known: preferred, or TRL rows.")],
    constitution: options.ConstitutionName,
    judge: options.Judge,
    principles: options.Principles = "joint",
    reasoning: options.Reasoning = False,
    tie: options.Tie = False,
    template: options.Template = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
    form: options.Format = "rows",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    fail_if: Annotated[
        str | None, typer.Option("--fail-if", help="Exit 1 where this holds, such as 'flip_rate > 0.2'.")
    ] = None,
    base_url: options.BaseUrl = None,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Measure a judge against pairs whose better reply is known; the judge never sees which."""
    from constitution.files import load
    from judge.audit import audit as figures_of
    from judge.audit import require_gold
    from judge.gate import gate
    from preceptor import stages

    rules = load(constitution)
    settings = _label_settings(principles, reasoning, tie, template, max_tokens, seed)
    asking = _asking(ledger, concurrency, max_cost, base_url)
    rows = [pair for pair in islice(stages.pairs_from(gold, form), limit) if pair.preferred]
    require_gold(rows)
    asked = stages.open_judge(judge, base_url)
    dialogues = list(stages.labelling(rows, rules, asked, settings))
    if plan:
        _show_plan(dialogues, asking, as_json)
        return
    labels: list[Label] = []
    with console.progress("audit") as watch:
        work = asyncio.run(stages.carry_out(dialogues, [asked], asking, labels.append, watch))
    figures = figures_of(labels, rules, work.progress.cost_usd)
    if as_json:
        console.result(figures)
    else:
        console.table(f"{judge} on {len(labels)} pairs", ["figure", "value"], _figure_rows(figures))
    if work.stopped is not None:
        raise work.stopped
    if fail_if and gate(fail_if, figures):
        console.say(f"the gate failed: {fail_if}")
        raise typer.Exit(1)


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
    asking = _asking(ledger, concurrency, max_cost, base_url)
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


def _asking(ledger: str, concurrency: int, max_cost: float | None, base_url: str | None) -> Asking:
    from preceptor.stages import Asking

    return Asking(ledger=ledger, concurrency=concurrency, max_cost_usd=max_cost, base_url=base_url)


def _label_settings(
    principles: str, reasoning: bool, tie: bool, template: str | None, max_tokens: int, seed: int
) -> LabelSettings:
    from judge.label import LabelSettings

    return LabelSettings.model_validate(
        {
            "principles": principles,
            "reasoning": reasoning,
            "tie": tie,
            "template": template or "",
            "max_tokens": max_tokens,
            "seed": seed,
        }
    )


def _to_file(
    what: str,
    out: Path,
    dialogues: Sequence[Dialogue[Row]],
    model: Model | None,
    asking: Asking,
    rows_of: Callable[[Row], Iterable[Record]],
) -> Asked:
    """Carry out dialogues under a progress bar, each row to the file."""
    from preceptor import stages
    from prompts.rows import writing

    with writing(out) as write, console.progress(what) as watch:

        def each(row: Row) -> None:
            for record in rows_of(row):
                write(record)

        asked = asyncio.run(stages.carry_out(dialogues, [model], asking, each, watch))
        if asked.stopped is not None and not asked.rows:
            raise asked.stopped  # nothing was done, so nothing is left behind
        return asked


def _show_plan(dialogues: Sequence[Dialogue[Any]], asking: Asking, as_json: bool) -> None:
    from preceptor import stages

    plan = asyncio.run(stages.price(dialogues, asking))
    if as_json:
        console.result({"rows": plan.rows, "models": [line._asdict() for line in plan.lines]})
        return
    rows = [
        [
            line.model,
            str(line.in_ledger),
            str(line.to_ask),
            str(line.tokens_in),
            str(line.tokens_out),
            _usd(line.cost_usd),
        ]
        for line in plan.lines
    ]
    columns = ["model", "in the ledger", "to ask", "tokens in", "tokens out, at most", "cost, at most"]
    console.table(f"plan for {plan.rows} rows; nothing was asked", columns, rows)


def _usd(cost: float | None) -> str:
    return "price unknown" if cost is None else f"${cost:.2f}"


def _figure_rows(figures: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, value in figures.items():
        if isinstance(value, dict) or value is None:
            continue
        if isinstance(value, list | tuple):
            rows.append([name, " to ".join(f"{bound:.3f}" for bound in value)])
        else:
            rows.append([name, f"{value:.3f}" if isinstance(value, float) else str(value)])
    return rows


def _finish(result: dict[str, Any], work: Asked, as_json: bool) -> None:
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
