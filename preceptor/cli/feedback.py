"""`preceptor respond | revise | score`: what is written and graded reply by reply."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import options
from preceptor.cli.asking import finish, show_plan_of, to_file
from preceptor.cli.flags import Flags
from preceptor.cli.judging import OneJudge
from preceptor.cli.rating import RatingOptions, rate
from preceptor.constitution.errors import UserError
from preceptor.judge.settings import RespondSettings, ReviseSettings, ScoreSettings
from preceptor.settings import Asking

if TYPE_CHECKING:
    from preceptor.judge.records import Response, Revision, Score


def respond(
    prompts: options.PromptsArgument,
    model: options.ModelOption,
    out: options.Out,
    settings: Annotated[RespondSettings, Flags("Sampling")],
    asking: Asking,
    columns: options.ColumnsOption = None,
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Sample replies to prompts."""
    from preceptor.asking import stages
    from preceptor.preflight import check_file
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.pool import prompts_from

    check_file(out, [prompts])
    asking.require([model], settings.effort)
    rows = list(islice(prompts_from(prompts, mapping_of(columns or [])), limit))
    work = stages.AskJob(rows, partial(stages.to_respond, model, asking, settings))
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
    model: options.ModelOption,
    constitution: options.ConstitutionName,
    out: options.Out,
    settings: Annotated[ReviseSettings, Flags("Sampling")],
    asking: Asking,
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Have replies criticised by the constitution and rewritten."""
    from preceptor.asking import stages
    from preceptor.constitution.files import load
    from preceptor.judge.records import Response
    from preceptor.preflight import check_file
    from preceptor.prompts.rows import read_records

    check_file(out, [responses, constitution])
    asking.require([model], settings.effort)
    rules = load(constitution)
    rows = list(islice(read_records(responses, Response), limit))
    work = stages.AskJob(rows, partial(stages.to_revise, model, asking, rules, settings))
    if plan:
        show_plan_of(work, asking, as_json)
        return
    statuses: Counter[str] = Counter()

    def rows_of(revision: Revision) -> tuple[Revision, ...]:
        statuses[revision.status] += 1
        return (revision,)

    done = to_file("revise", out, work, asking, rows_of)
    finish({"out": str(out), "responses": len(rows), "revisions": dict(statuses)}, done, as_json)


def score(
    replies: Annotated[str, typer.Argument(help="A file that `preceptor respond` wrote, or pairs.")],
    out: options.Out,
    judge: Annotated[OneJudge, Flags("Judging")],
    settings: Annotated[ScoreSettings, Flags("Judging", omit=("sample",))],
    rating: Annotated[RatingOptions, Flags("Reward model")],
    asking: Asking,
    constitution: options.MaybeConstitution = None,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    truncated: options.TruncatedOption = "keep",
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Grade replies, each on its own: from 1 to 10 by a judge, or by the rewards of a trained model."""
    from preceptor.asking import stages
    from preceptor.preflight import check_file
    from preceptor.prompts.columns import mapping_of

    check_file(out, [replies])
    given = partial(stages.replies_from, replies, form, mapping_of(columns or []), truncated)
    if rating.reward_model is not None:
        if judge.name or constitution:
            raise UserError(
                "--reward-model stands in the place of --judge and --constitution: leave them out"
            )
        rate(given, out, rating, limit, as_json)
        return
    if not judge.name or not constitution:
        raise UserError("score wants --judge with --constitution, or --reward-model")
    rating.require_none()
    from preceptor.constitution.files import load

    asking.require([judge.name], settings.effort)
    rules = load(constitution)
    rows = list(islice(given(), limit))
    work = stages.AskJob(rows, partial(stages.to_score, judge.name, asking, rules, settings))
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
