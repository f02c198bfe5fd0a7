"""`preceptor audit`: is this judge any good?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.judge.settings import LabelSettings, Perturbation
from preceptor.label.judging import JUDGING, Certifying, Judges
from preceptor.prompts.records import Settings
from preceptor.settings import Asking, Share

if TYPE_CHECKING:
    from preceptor.judge.figures import AuditFigures, CertifiedFigures

SECTIONS: Mapping[str, Sequence[str]] = {
    "against gold": (
        *("n", "accuracy", "ci95", "agreement_lc", "correct_original", "correct_swapped", "correct_both"),
        *("kappa", "kappa_ci95", "ece", "ece_ci95"),
    ),
    "habits": (
        *("orders_agree", "flip_rate", "first_share", "longer_share", "length_coefficient", "length_stderr"),
        *("list_share", "self_share"),
    ),
    "judges and answers": (
        "alpha",
        "attack_rate",
        "attack_control_rate",
        "attack_excess",
        "verdicts",
        "unparsed",
        "refused",
        "failed",
        "cost_usd",
    ),
}
"""Which figures stand together for a person to read."""


class Beyond(Settings):
    """What is asked beyond the rows with gold."""

    attacks: bool = False
    """Plant attacks in the worse replies, too, and count their success."""
    recheck: Share = 0.0
    """Ask this share again past the ledger, to see drift: 1%."""
    rows: str | None = None
    """Pairs without gold, which are judged, too: the agreement over them as gold corrects it."""
    perturb: tuple[Perturbation, ...] = ()
    """Ask once more in a changed form, to see whether verdicts follow it; repeatable.

    options: the verdicts on offer from the last to the first; principles: likewise; words: verdicts in other words.
    """


def audit(
    gold: Annotated[str, typer.Argument(help="Pairs whose better reply is known: preferred, or TRL rows.")],
    constitution: options.ConstitutionName,
    judges: Annotated[Judges, Flags("Judging", omit=("human",))],
    settings: Annotated[LabelSettings, Flags("Judging", omit=JUDGING)],
    beyond: Annotated[Beyond, Flags("Comparing", old={"attacks": "--canaries"})],
    certifying: Annotated[Certifying, Flags("Comparing", omit=("gold",))],
    asking: Annotated[Asking, Flags(omit=("engine", "address", "gpus", "workers"))],
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    limit: options.Limit = None,
    fail_if: options.FailIf = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Measure judges against pairs whose better reply is known; they never see which."""
    from preceptor.asking import stages
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.judge.conditions import gate
    from preceptor.label import auditing, certified
    from preceptor.label.gold import gold_pairs
    from preceptor.label.run import Job, require
    from preceptor.preflight import check_gate
    from preceptor.prompts.columns import mapping_of

    if judges.combine == "dawid-skene":
        raise UserError(
            "--combine dawid-skene looks at a whole file of labels; use it with `preceptor label`"
        )
    asking.require(judges.names, settings.effort)
    job = Job(
        constitution=load(constitution),
        panels=judges.panels,
        settings=settings,
        access=asking.access,
        combine=judges.combine,
        recheck=beyond.recheck,
        adaptive=certifying.adaptive,
        reference=certifying.reference or "",
    )
    require(job)
    target = certifying.certify
    if target is not None:
        certified.require_certifiable(job, bool(judges.when))
    if fail_if:
        check_gate(
            fail_if, job, canaries=beyond.attacks, gold=True, planting="--attacks", perturbed=beyond.perturb
        )
    rows = gold_pairs(gold, form, mapping_of(columns or []), limit)
    others = list(stages.pairs_from(beyond.rows, "rows")) if beyond.rows is not None else []
    wanted = auditing.audit_job(job, rows, others, beyond.perturb, target, attacks=beyond.attacks)
    if plan:
        show_plan(auditing.asks(wanted), asking, as_json)
        return
    tell_of_batches(asking)
    figures, work, measured = auditing.audited(wanted, asking, console.progress)
    if as_json:
        console.result(figures)
    else:
        _show(figures, f"{measured.judges} on {len(rows)} pairs")
    if work.stopped is not None:
        raise work.stopped
    if fail_if and gate(fail_if, figures):
        console.say(f"the gate failed: {fail_if}")
        raise typer.Exit(1)


def _show(audited: AuditFigures, title: str) -> None:
    """Tables of the figures that exist."""
    from preceptor.judge.audit.length_control import in_words
    from preceptor.judge.dataset.card import ATTACKS, attack_row

    figures: Mapping[str, Any] = audited
    for section, names in SECTIONS.items():
        rows = [[name, _figure(figures[name])] for name in names if figures.get(name) is not None]
        if rows:
            console.table(f"{title}: {section}", ["figure", "value"], rows)
    if controlled := figures.get("length_controlled"):
        low, high = controlled["ci95"]
        console.say(
            f"were the replies of one length, {controlled['share']:.3f} [{low:.3f}, {high:.3f}] of {controlled['n']} "
            f"labels would agree with gold, not {controlled['naive']:.3f} ({in_words(controlled)})"
        )
    for name in ("by_tag", "by_principle"):
        keys = ("n", "accuracy", "flip_rate", "first_share", "longer_share", "decided")
        rows = [[part, *(_figure(own.get(key)) for key in keys)] for part, own in figures[name].items()]
        if rows:
            console.table(name.replace("_", " "), [name.removeprefix("by_"), *keys], rows)
    if canaries := audited.get("canaries"):
        rows = [[_figure(cell) for cell in attack_row(kind, own)] for kind, own in canaries.items()]
        console.table("attacks planted in the worse reply", ATTACKS, rows)
    if (votes := figures.get("votes")) and votes["effective_votes"] is not None:
        console.say(
            f"{len(votes['matrix'])} judges are worth {votes['effective_votes']:.1f} independent votes (their errors "
            f"correlate by {votes['error_correlation']:.2f})"
        )
    if steps := figures.get("steps"):
        keys = ("step", "pairs", "accuracy", "added", "cost_usd", "added_per_usd")
        names = ["step", "pairs", "accuracy had it ended there", "added", "USD", "added for a dollar"]
        console.table("steps", names, [[_figure(one[key]) for key in keys] for one in steps])
    if certified := audited.get("certified"):
        _show_certified(certified)
    if corrected := figures.get("corrected"):
        unlike = f"; they are unlike the gold rows in {corrected['unlike']}" if corrected["unlike"] else ""
        console.say(
            f"of {corrected['rows']} labels without gold {_figure(corrected['naive'])} are right by the judge's own "
            f"confidence, and {_figure(corrected['agreement'])} [{_figure(corrected['ci95'])}] as "
            f"{corrected['gold']} gold rows correct it{unlike}"
        )
    if perturbed := figures.get("perturbed"):
        shown = ("n", "flip_rate", "ci95", "unparsed", "accuracy", "accuracy_change", "accuracy_change_ci95")
        names = ["changed", "pairs", "winner changed", "", "no verdict", "accuracy", "changed by", ""]
        cells = [[kind, *(_figure(own[key]) for key in shown)] for kind, own in perturbed.items()]
        console.table("asked in another form", names, cells)
    if drift := audited.get("drift"):
        console.table(
            "asked again, past the ledger", list(drift), [[_figure(value) for value in drift.values()]]
        )


def _show_certified(found: CertifiedFigures) -> None:
    """What could be certified of each step, and why not of the others."""
    keys = ("judge", "threshold", "coverage", "n", "right", "low", "when")
    names = [
        "judge",
        "confidence from",
        "kept",
        "gold rows kept",
        "right",
        "agreement at least",
        "the rest: --when",
    ]
    rows = [[_figure(one[key]) for key in keys] for one in map(dict, found["steps"])]
    if rows:
        console.table(f"certified at {found['target']:g}, {1 - found['level']:.0%} confidence", names, rows)
    for one in found["refused"]:
        console.say(f"nothing of {one['judge']} is certified: {one['reason']}")


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " to ".join(f"{bound:.3f}" for bound in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
