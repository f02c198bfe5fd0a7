"""`preceptor respond | revise | score`: what is written and graded reply by reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import finish, show_plan_of, to_file
from preceptor.cli.flags import Flags
from preceptor.constitution.errors import UserError
from preceptor.doctor import need_training
from preceptor.judge.settings import RespondSettings, ReviseSettings, ScoreSettings
from preceptor.label.judging import OneJudge
from preceptor.settings import Asking, RatingOptions

if TYPE_CHECKING:
    from preceptor.judge.records import Response, Revision, RubricScore, Score
    from preceptor.judge.score import ReplyToScore


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
    replies: Annotated[
        str,
        typer.Argument(help="What `preceptor respond` wrote, rows with prompt and response, or pairs."),
    ],
    out: options.Out,
    judge: Annotated[OneJudge, Flags("Judging")],
    settings: Annotated[ScoreSettings, Flags("Judging", omit=("sample",))],
    rating: Annotated[RatingOptions, Flags("Reward model")],
    asking: Asking,
    constitution: options.MaybeConstitution = None,
    rubric: Annotated[
        Path | None,
        typer.Option(
            "--rubric", metavar="PATH", help="Instead of a constitution: a file of weighted criteria."
        ),
    ] = None,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    truncated: options.TruncatedOption = "keep",
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Grade replies, each on its own: from 1 to 10 by a judge, from 0 to 1 by a rubric, or by a trained model."""
    from preceptor.asking import stages
    from preceptor.preflight import check_file
    from preceptor.prompts.columns import mapping_of

    check_file(out, [replies])
    given = partial(stages.replies_from, replies, form, mapping_of(columns or []), truncated)
    if rating.reward_model is not None:
        if judge.name or constitution or rubric:
            raise UserError(
                "--reward-model stands in the place of --judge, --constitution and --rubric: leave them out"
            )
        _rate(given, rating.reward_model, out, rating, limit, as_json)
        return
    if not judge.name or not (constitution or rubric):
        raise UserError("score wants --judge with --constitution or --rubric, or --reward-model")
    if constitution and rubric:
        raise UserError("--rubric stands in the place of --constitution: leave one of them out")
    rating.require_none()
    from preceptor.constitution.files import load
    from preceptor.judge.rubric_forms import read_rubric

    asking.require([judge.name], settings.effort)
    if rubric is not None:
        check_file(out, [rubric])
        to_row = partial(stages.to_rubric_score, judge.name, asking, read_rubric(rubric), settings)
    else:
        to_row = partial(stages.to_score, judge.name, asking, load(str(constitution)), settings)
    rows = list(islice(given(), limit))
    work = stages.AskJob(rows, to_row)
    if plan:
        show_plan_of(work, asking, as_json)
        return
    counts: Counter[str] = Counter()
    total = 0.0

    def rows_of(made: Score | RubricScore) -> tuple[Score | RubricScore, ...]:
        nonlocal total
        counts[made.status] += 1
        counts["parsed"] += any(grade.parsed for grade in made.grades)
        total += made.score or 0.0
        return (made,)

    done = to_file("score", out, work, asking, rows_of)
    result: dict[str, Any] = {"out": str(out), "replies": len(rows), **counts}
    finish(result | {"mean_score": round(total / counts["ok"], 3) if counts["ok"] else None}, done, as_json)


def _rate(
    replies: Callable[[], Iterable[ReplyToScore]],
    folder: Path,
    out: Path,
    rating: RatingOptions,
    limit: int | None,
    as_json: bool,
) -> None:
    """`score --reward-model`: by a trained model, where `score` else asks a judge."""
    need_training()
    from preceptor.evaluation.reward_scores import score_replies

    made = score_replies(replies, folder, out, rating, limit, console.counting)
    rewards = f"{made.by_status['ok']} scored, {made.by_status['too_long']} too long to be scored"
    result: dict[str, Any] = {"out": str(out), "replies": made.replies, **made.by_status}
    if made.pairs is not None:
        result |= {"disagreement": str(rating.disagreement), "pairs": made.pairs}
        rewards += f"; {made.pairs} pairs to label next in {rating.disagreement}"
    console.say(f"{out}: {made.replies} replies, {rewards}")
    if as_json:
        console.result(result)
    else:
        console.show(str(out))
