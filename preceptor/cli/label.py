"""`preceptor label | score`: have replies judged, against one another or each on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import (
    asking_of,
    base_urls_of,
    cluster_of,
    finish,
    label_settings,
    local_of,
    panels_of,
    share_of,
    show_plan,
    show_plan_of,
    to_file,
)
from preceptor.cli.options import CONCURRENCY, LEDGER
from preceptor.constitution.errors import UserError

if TYPE_CHECKING:
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.judge.records import Score


def label(
    pairs: Annotated[str, typer.Argument(help="Pairs, TRL preference rows, hh transcripts, or responses.")],
    constitution: options.ConstitutionName,
    out: options.Out,
    judge: options.Judges = [],  # noqa: B006 typer reads it
    human: Annotated[bool, typer.Option("--human", help="Ask a person here, as the last step.")] = False,
    combine: options.Combine = "mean",
    escalate_to: options.Escalate = None,
    when: options.When = None,
    principles: options.Principles = "joint",
    draws: options.Draws = 1,
    reasoning: options.Reasoning = False,
    clamp: options.Clamp = None,
    shots: options.Shots = 0,
    structured: options.Structured = False,
    tie: options.Tie = False,
    template: options.Template = None,
    groups: Annotated[
        Literal["all", "circular", "swiss"] | None,
        typer.Option(help="Rank all replies to a prompt, comparing them by this schedule."),
    ] = None,
    preferences: Annotated[
        Literal["best-worst", "adjacent", "all"],
        typer.Option("--pairs", help="With --groups: which of the ranked replies become preferences."),
    ] = "best-worst",
    canaries: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Plant attacks among the pairs: 2%.")
    ] = None,
    recheck: options.Recheck = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
    form: options.Format = "rows",
    columns: options.Columns = None,
    truncated: options.Truncated = "keep",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    fail_if: options.FailIf = None,
    base_url: options.BaseUrls = None,
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
    show: Annotated[
        bool, typer.Option("--show", help="Print what would be asked about the first row; ask nothing.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Have judges say, in both orders, which reply follows the constitution better."""
    from preceptor.constitution.files import load
    from preceptor.judge.conditions import gate
    from preceptor.label.finished import Source
    from preceptor.label.run import Job, dialogues_of, label_folder, opened, rows_of
    from preceptor.prompts.columns import mapping_of

    rules = load(constitution)
    settings = label_settings(
        clamp,
        template,
        principles=principles,
        draws=draws,
        reasoning=reasoning,
        shots=shots,
        structured=structured,
        tie=tie,
        max_tokens=max_tokens,
        seed=seed,
    )
    job = Job(
        constitution=rules,
        panels=panels_of(judge, escalate_to or [], when or [], human),
        settings=settings,
        base_urls=base_urls_of(base_url or []),
        local=local_of(dtype, device_map, four_bit),
        combine=combine,
        schedule=groups,
        pairing=preferences,
        canaries=share_of("--canaries", canaries),
        recheck=share_of("--recheck", recheck),
    )
    cluster = cluster_of(engine, address, gpus, workers)
    if human and cluster:
        raise UserError("--human asks a person at this terminal, not on a cluster; leave out --engine ray")
    batches = {"batch": batch, "then_sync": batch_then_sync}
    asking = asking_of(
        ledger, concurrency, max_cost, None, price, rpm=rpm, tpm=tpm, cluster=cluster, **batches
    )
    named_columns = tuple(mapping_of(columns or []).items())
    source = Source(pairs, f"groups {form}" if groups else form, limit, named_columns, truncated)
    rows = rows_of(source)
    if show:
        _show_asks(dialogues_of(islice(rows, 1), job, opened(job)))
        return
    if plan:
        show_plan(dialogues_of(rows, job, opened(job)), asking, as_json)
        return
    made = label_folder(out, rows, job, asking, console.quiet if human else console.progress, source)
    by_status = made.manifest["rows"]["by_status"]
    named = "groups" if groups else "pairs"
    finish({"out": str(out), named: made.asked.rows, **by_status}, made.asked, as_json)
    if fail_if and gate(fail_if, made.manifest["audit"]):
        console.say(f"the gate failed: {fail_if}")
        raise typer.Exit(1)


def _show_asks(dialogues: Iterable[Dialogue[Any]]) -> None:
    """Every message of the first row's requests, word for word."""
    for request in next(next(iter(dialogues)), ()):
        typer.echo(f"=== {request.model}, principle {request.principle}")
        for message in request.messages:
            typer.echo(f"[{message.role}]\n{message.content}\n")


def score(
    replies: Annotated[str, typer.Argument(help="A file that `preceptor respond` wrote, or pairs.")],
    out: options.Out,
    constitution: Annotated[
        str | None, typer.Option("--constitution", "-c", help="With --judge: a shipped name or a file.")
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", "-j", help="The judging model.")] = None,
    reward_model: Annotated[
        Path | None, typer.Option(help="Instead of a judge: the folder of a trained reward model.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="With --reward-model per principle: PRINCIPLE=NUMBER, another weight."),
    ] = None,
    disagreement: Annotated[
        Path | None,
        typer.Option(help="With an ensemble: write the pairs most worth a label here, for `label`."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Pairs in --disagreement.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Of a reward model; no score depends on it.")] = 16,
    principles: Annotated[
        Literal["joint", "each"], typer.Option(help="All in one ask, or one ask a principle.")
    ] = "joint",
    reasoning: options.Reasoning = False,
    template: options.Template = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
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
    """Grade replies, each on its own: from 1 to 10 by a judge, or by the rewards of a trained model."""
    if reward_model is not None:
        from preceptor.cli.rating import rate

        if judge or constitution:
            raise UserError(
                "--reward-model stands in the place of --judge and --constitution: leave them out"
            )
        rate(
            replies,
            reward_model,
            out,
            weights=weight or [],
            disagreement=disagreement,
            most=most,
            batch_size=batch_size,
            limit=limit,
            as_json=as_json,
        )
        return
    if not judge or not constitution:
        raise UserError("score wants --judge with --constitution, or --reward-model")
    if weight or disagreement:
        raise UserError("--weight and --disagreement are for --reward-model")
    from preceptor.asking import stages
    from preceptor.constitution.files import load
    from preceptor.judge.score import ScoreSettings

    chosen = {"principles": principles, "reasoning": reasoning, "max_tokens": max_tokens, "seed": seed}
    settings = ScoreSettings.model_validate({**chosen, "template": template or ""})
    rules = load(constitution)
    cluster = cluster_of(engine, address, gpus, workers)
    batches = {"batch": batch, "then_sync": batch_then_sync}
    asking = asking_of(
        ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm, cluster=cluster, **batches
    )
    rows = list(islice(stages.replies_from(replies), limit))
    local = local_of(dtype, device_map, four_bit)
    work = stages.Work(rows, partial(stages.to_score, judge, base_url, local, rules, settings))
    if plan:
        show_plan_of(work, asking, as_json)
        return
    counts: Counter[str] = Counter()
    total = 0.0

    def rows_of(made: Score) -> tuple[Score, ...]:
        nonlocal total
        counts[made.status] += 1
        counts["parsed"] += made.parsed
        total += made.score or 0.0
        return (made,)

    done = to_file("score", out, work, asking, rows_of)
    result: dict[str, Any] = {"out": str(out), "replies": len(rows), **counts}
    finish(result | {"mean_score": round(total / counts["ok"], 3) if counts["ok"] else None}, done, as_json)
