"""`preceptor evaluate`: a policy beside what it came from, as a judge compares them and as probes find them changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import asking_of, show_plan
from preceptor.cli.options import CONCURRENCY, LEDGER

if TYPE_CHECKING:
    from preceptor.asking.stages import Asking
    from preceptor.constitution.principle import Constitution
    from preceptor.evaluation.head_to_head import Settings
    from preceptor.evaluation.probes import ProbeSettings, Sides
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.prompts.records import Prompt


class _Comparison(NamedTuple):
    """What is to be judged."""

    prompts: list[Prompt]
    constitution: Constitution
    settings: Settings


class _Probing(NamedTuple):
    """What is to be probed."""

    sides: Sides
    settings: ProbeSettings


def evaluate(
    policy: Annotated[str, typer.Option("--policy", help="The model after training: provider/model.")],
    baseline: Annotated[str, typer.Option("--baseline", help="The model to compare it with.")],
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="A shipped pool's name or a file of prompts.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="Who judges: provider/model, or `checks` for machine checks."),
    ] = None,
    constitution: Annotated[
        str | None, typer.Option("--constitution", "-c", help="A shipped constitution's name or a YAML file.")
    ] = None,
    oracle: Annotated[
        str,
        typer.Option("--oracle", help="Who says whether one reply satisfies a principle: checks, embedded."),
    ] = "checks",
    principles: options.Principles = "joint",
    probes: Annotated[
        bool, typer.Option("--probes", help="Measure what tuning breaks; without --prompts, that alone.")
    ] = False,
    probe_set: Annotated[
        Literal["general", "embedded"] | None,
        typer.Option(help="Which probes; embedded for the baseline of that name, else general."),
    ] = None,
    probe_size: Annotated[int | None, typer.Option(min=2, help="Probes of each kind, at most; 24.")] = None,
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
    """Compare a policy with a baseline: judged on prompts in both orders, or by --probes for what tuning broke."""
    from preceptor.constitution.files import load
    from preceptor.evaluation.head_to_head import Settings
    from preceptor.evaluation.probes import ProbeSettings, Sides
    from preceptor.judge.label import LabelSettings
    from preceptor.judge.respond import RespondSettings
    from preceptor.prompts.pool import prompts_from

    given = {"--prompts": prompts, "--judge": judge, "--constitution": constitution}
    replies = RespondSettings(samples=1, max_tokens=max_tokens, temperature=temperature, seed=seed)
    comparison = probing = None
    if _compares(given, probes):
        settings = Settings(
            policy=policy,
            baseline=baseline,
            judge=given["--judge"],
            oracle=oracle,
            respond=replies,
            label=LabelSettings.model_validate({"principles": principles, "seed": seed}),
        )
        rows = list(islice(prompts_from(str(prompts)), limit))
        comparison = _Comparison(rows, load(str(constitution)), settings)
    if probes:
        sizes = {"set": probe_set, "size": probe_size}
        chosen = ProbeSettings.model_validate({name: it for name, it in sizes.items() if it is not None})
        probing = _Probing(Sides(policy, baseline, replies), chosen)
    asking = asking_of(ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm)
    if plan:
        show_plan(_asks(comparison, probing, asking), asking, as_json)
        return
    figures = _carry_out(comparison, probing, asking)
    if as_json:
        console.result(figures)
        return
    if comparison is not None:
        _show_comparison(figures)
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


def _asks(
    comparison: _Comparison | None, probing: _Probing | None, asking: Asking
) -> Iterator[Dialogue[Any]]:
    from preceptor.asking import stages
    from preceptor.evaluation import head_to_head
    from preceptor.evaluation import probes as probe_stage
    from preceptor.judge.models.registry import open_model

    if comparison is not None:
        settings = comparison.settings
        sides = (open_model(settings.baseline), open_model(settings.policy))
        judge = stages.open_judge(settings.judge, asking.base_url)
        yield from head_to_head.asks(*comparison, sides, judge)
    if probing is not None:
        chosen = (probing.sides.baseline, probing.sides.policy)
        baseline, policy = (stages.opened(name, asking.base_url) for name in chosen)
        yield from probe_stage.asks((baseline, policy), *probing)


def _carry_out(comparison: _Comparison | None, probing: _Probing | None, asking: Asking) -> dict[str, Any]:
    """What `--json` prints: the comparison's figures, and the probes' under `probes`."""
    from preceptor.evaluation import head_to_head
    from preceptor.evaluation import probes as probe_stage

    figures: dict[str, Any] = {}
    left = asking
    if comparison is not None:
        compared = head_to_head.evaluate(*comparison, asking, console.progress)
        figures = head_to_head.figures(compared.rows)
        left = asking.less(compared.cost_usd)
    if probing is not None:
        probed = probe_stage.probe(*probing, left, console.progress)
        figures = {**figures, "probes": {**probed.figures, "lost": probed.lost}}
    return figures


def _show_comparison(figures: Mapping[str, Any]) -> None:
    low, high = figures["win_rate_ci95"]
    rate = "unknown: nothing was judged" if figures["win_rate"] is None else f"{figures['win_rate']:.1%}"
    console.say(f"win rate {rate} (95 %: {low:.1%} to {high:.1%}) over {figures['n']} prompts")
    columns = ["principle", "baseline", "policy"]
    shares = [
        [name, f"{figures['before'][name]:.1%}", f"{share:.1%}"] for name, share in figures["after"].items()
    ]
    console.table("replies that satisfy each principle", columns, shares)


def _show_probes(probed: Mapping[str, Any], sides: Sides) -> None:
    from preceptor.report.probe_table import in_one_line, lines

    rows = [
        [f"{line.mode}: {line.label}", line.before, line.after, line.mark]
        for line in lines(probed["figures"])
    ]
    title = f"what tuning may have broken: {sides.policy} beside {sides.baseline}, set {probed['set']}"
    console.table(title, ["measure", "before", "after", ""], rows)
    lost = f"; {probed['lost']} probes got no reply" if probed["lost"] else ""
    console.say(f"{in_one_line(probed)}{lost}")
