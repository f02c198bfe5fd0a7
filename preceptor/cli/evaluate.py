"""`preceptor evaluate`: a policy beside what it came from, as a judge compares them and as probes find them changed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.label.judging import JUDGING, OneJudge
from preceptor.prompts.records import Settings
from preceptor.settings import Asking, ProbeSettings

if TYPE_CHECKING:
    from preceptor.evaluation.probes import Sides
    from preceptor.figures import ComparisonFigures, CorrectedFigures, ProbedAndLost


class Against(Settings):
    """Who is compared."""

    policy: str
    """The model after training: provider/model."""
    baseline: str
    """The model to compare it with."""
    oracle: Literal["checks", "embedded"] = "checks"
    """Who says whether one reply satisfies a principle."""
    probes: bool = False
    """Measure what tuning breaks; without --prompts, that alone."""


def evaluate(
    against: Annotated[Against, Flags("Comparing")],
    judge: Annotated[OneJudge, Flags("Judging")],
    judging: Annotated[LabelSettings, Flags("Judging", omit=(*JUDGING, "max_tokens"))],
    probe_settings: Annotated[
        ProbeSettings,
        Flags("Probes", names={"set": "--probe-set", "size": "--probe-size", "samples": "--probe-samples"}),
    ],
    replies: Annotated[
        RespondSettings, Flags("Sampling", omit=("samples",), defaults={"samples": 1, "temperature": 0.7})
    ],
    asking: Asking,
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="A shipped pool's name or a file of prompts.")
    ] = None,
    constitution: options.MaybeConstitution = None,
    columns: options.ColumnsOption = None,
    truncated: options.TruncatedOption = "keep",
    gold: Annotated[
        str | None, typer.Option("--gold", help="Pairs whose better reply is known: corrects the win rate.")
    ] = None,
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Compare a policy with a baseline: judged on prompts in both orders, or by --probes for what tuning broke."""
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.evaluation import evaluate as evaluation
    from preceptor.evaluation.head_to_head import HeadToHeadSettings
    from preceptor.evaluation.probes import Sides
    from preceptor.label.gold import gold_pairs
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.pool import prompts_from

    given = {"--prompts": prompts, "--judge": judge.name, "--constitution": constitution}
    comparison = probing = None
    if _compares(given, against.probes):
        settings = HeadToHeadSettings(
            policy=against.policy,
            baseline=against.baseline,
            judge=judge.needed,
            oracle=against.oracle,
            truncated=truncated,
            respond=replies,
            label=judging,
        )
        rows = list(islice(prompts_from(str(prompts), mapping_of(columns or [])), limit))
        rules = load(str(constitution))
        known = gold_pairs(gold, ties=False) if gold is not None else []
        comparison = evaluation.ComparisonJob(rows, rules, settings, known)
    elif gold is not None:
        raise UserError(
            "--gold corrects a win rate, and nothing is compared; leave it out, or give --prompts"
        )
    if against.probes:
        probing = evaluation.ProbingJob(Sides(against.policy, against.baseline, replies), probe_settings)
    asking.require_use(filter(None, [against.policy, against.baseline, judge.name]))
    asking.require_effort(filter(None, [judge.name, against.policy, against.baseline]), replies.effort)
    if plan:
        show_plan(evaluation.asks(comparison, probing, asking), asking, as_json)
        return
    tell_of_batches(asking)
    figures = evaluation.evaluate(comparison, probing, asking, console.progress)
    if as_json:
        console.result(figures)
        return
    if "win_rate" in figures:
        _show_comparison(figures)
        _show_corrected(figures.get("corrected"))
    if probing is not None:
        _show_probes(figures["probes"], probing.sides)


def _compares(given: Mapping[str, str | None], probes: bool) -> bool:
    """Whether the two are to be judged. Raises UserError where what that needs is given in part, or nothing is asked
    for."""
    from preceptor.constitution.errors import UserError

    missing = [flag for flag, value in given.items() if value is None]
    if not missing:
        return True
    if probes and len(missing) == len(given):
        return False
    alone = "leave out all three to have the probes alone" if probes else "--probes alone needs none of them"
    raise UserError(f"a comparison lacks {', '.join(missing)}; wanted all of {', '.join(given)}; {alone}")


def _show_comparison(figures: ComparisonFigures) -> None:
    from preceptor.judge.audit.length_control import in_words

    low, high = figures["win_rate_ci95"]
    rate = "unknown: nothing was judged" if figures["win_rate"] is None else f"{figures['win_rate']:.1%}"
    console.say(f"win rate {rate} (95 %: {low:.1%} to {high:.1%}) over {figures['n']} prompts")
    if controlled := figures.get("win_rate_lc"):
        console.say(
            f"were the replies of one length {controlled['share']:.1%} (95 %: {controlled['ci95'][0]:.1%} to "
            f"{controlled['ci95'][1]:.1%}), by {controlled['n']} comparisons with a winner: {in_words(controlled)}"
        )
    columns = ["principle", "baseline", "policy"]
    shares = [
        [name, f"{figures['before'][name]:.1%}", f"{share:.1%}"] for name, share in figures["after"].items()
    ]
    console.table("replies that satisfy each principle", columns, shares)


def _show_corrected(found: CorrectedFigures | None) -> None:
    if found is None:
        return
    about = f"by {found['gold']} gold pairs, on which the judge is right in {found['judge_accuracy']:.1%}"
    if found["win_rate"] is None or found["ci95"] is None:
        console.say(
            f"corrected: unknown {about}: not surely more than a coin, so that its win rate tells nothing"
        )
        return
    low, high = found["ci95"]
    console.say(f"corrected: {found['win_rate']:.1%} (95 %: {low:.1%} to {high:.1%}) {about}")


def _show_probes(probed: ProbedAndLost, sides: Sides) -> None:
    from preceptor.report.probe_table import in_one_line, lines

    rows = [
        [f"{line.mode}: {line.label}", line.before, line.after, line.mark]
        for line in lines(probed["figures"])
    ]
    title = f"what tuning may have broken: {sides.policy} beside {sides.baseline}, set {probed['set']}"
    console.table(title, ["measure", "before", "after", ""], rows)
    lost = f"; {probed['lost']} probes got no reply" if probed["lost"] else ""
    console.say(f"{in_one_line(probed)}{lost}")
