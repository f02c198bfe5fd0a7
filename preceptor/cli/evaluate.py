"""`preceptor evaluate`: a policy beside what it came from, as a judge compares them and as probes find them changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.cli.judging import JUDGING, OneJudge
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.prompts.records import Settings
from preceptor.settings import Asking, ProbeSettings

if TYPE_CHECKING:
    from preceptor.constitution.principle import Constitution
    from preceptor.evaluation.head_to_head import HeadToHeadSettings as Compared
    from preceptor.evaluation.probes import Sides
    from preceptor.figures import (
        ComparisonFigures,
        CorrectedFigures,
        EvaluationFigures,
        ProbedAndLost,
        ProbesAlone,
    )
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.judge.records import Pair
    from preceptor.prompts.records import Prompt


class _Comparison(NamedTuple):
    """What is to be judged."""

    prompts: list[Prompt]
    constitution: Constitution
    settings: Compared
    gold: Sequence[Pair] = ()
    """By which the win rate is corrected."""


class _Probing(NamedTuple):
    """What is to be probed."""

    sides: Sides
    settings: ProbeSettings


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
    from preceptor.evaluation.head_to_head import HeadToHeadSettings as Compared
    from preceptor.evaluation.probes import Sides
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.pool import prompts_from

    given = {"--prompts": prompts, "--judge": judge.name, "--constitution": constitution}
    comparison = probing = None
    if _compares(given, against.probes):
        settings = Compared(
            policy=against.policy,
            baseline=against.baseline,
            judge=judge.needed,
            oracle=against.oracle,
            truncated=truncated,
            respond=replies,
            label=judging,
        )
        rows = list(islice(prompts_from(str(prompts), mapping_of(columns or [])), limit))
        comparison = _Comparison(rows, load(str(constitution)), settings, _gold(gold))
    elif gold is not None:
        raise UserError(
            "--gold corrects a win rate, and nothing is compared; leave it out, or give --prompts"
        )
    if against.probes:
        probing = _Probing(Sides(against.policy, against.baseline, replies), probe_settings)
    asking.require_use(filter(None, [against.policy, against.baseline, judge.name]))
    asking.require_effort(filter(None, [judge.name, against.policy, against.baseline]), replies.effort)
    if plan:
        show_plan(_asks(comparison, probing, asking), asking, as_json)
        return
    tell_of_batches(asking)
    figures = _evaluate(comparison, probing, asking)
    if as_json:
        console.result(figures)
        return
    if "win_rate" in figures:
        _show_comparison(figures)
        _show_corrected(figures.get("corrected"))
    if probing is not None:
        _show_probes(figures["probes"], probing.sides)


def _gold(source: str | None) -> list[Pair]:
    """The pairs whose better reply is known, and no tie. Raises UserError where a file has none."""
    from preceptor.asking import stages
    from preceptor.judge.audit.audit import require_gold

    if source is None:
        return []
    rows = [pair for pair in stages.pairs_from(source, "rows") if pair.preferred in ("a", "b")]
    require_gold(rows)
    return rows


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


def _asks(
    comparison: _Comparison | None, probing: _Probing | None, asking: Asking
) -> Iterator[Dialogue[Any]]:
    from preceptor.asking import stages
    from preceptor.evaluation import head_to_head
    from preceptor.evaluation import probes as probe_stage

    if comparison is not None:
        settings = comparison.settings
        sides = (asking.open(settings.baseline), asking.open(settings.policy))
        judge = asking.open_judge(settings.judge)
        yield from head_to_head.asks(*comparison[:3], sides, judge)
        yield from stages.labelling(comparison.gold, comparison.constitution, judge, settings.label)
    if probing is not None:
        baseline, policy = (asking.open(name) for name in (probing.sides.baseline, probing.sides.policy))
        yield from probe_stage.asks((baseline, policy), *probing)


def _evaluate(
    comparison: _Comparison | None, probing: _Probing | None, asking: Asking
) -> EvaluationFigures | ProbesAlone:
    """What `--json` prints: the comparison's figures, and the probes' under `probes`."""
    from preceptor.evaluation import head_to_head
    from preceptor.evaluation import probes as probe_stage

    left = asking
    compared: EvaluationFigures | None = None
    if comparison is not None:
        made = head_to_head.evaluate(*comparison[:3], asking, console.progress)
        compared = cast("EvaluationFigures", head_to_head.figures(made.rows))
        left = asking.less(made.cost_usd)
        if comparison.gold:
            rest = (comparison.constitution, comparison.settings, left, console.progress)
            labels, cost_usd = head_to_head.against_gold(comparison.gold, *rest)
            compared["corrected"] = head_to_head.corrected(made.rows, labels)
            left = left.less(cost_usd)
    if probing is None:
        assert compared is not None, "one of the two was asked for"
        return compared
    found = probe_stage.probe(*probing, left, console.progress)
    probes: ProbedAndLost = {**found.figures, "lost": found.lost}
    if compared is None:
        return {"probes": probes}
    compared["probes"] = probes
    return compared


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
