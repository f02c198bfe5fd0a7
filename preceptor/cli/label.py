"""`preceptor label`: have replies judged, against one another."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import finish, show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.constitution.errors import UserError
from preceptor.judge.settings import LabelSettings, RankingPairing, Schedule
from preceptor.label.judging import JUDGING, Certifying, Judges
from preceptor.prompts.records import Settings
from preceptor.settings import Asking, Share

if TYPE_CHECKING:
    from preceptor.judge.dataset.manifest import LabelManifest
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.label.finished import InputFile
    from preceptor.label.run import Gold, Job


UNCHECKED = (
    "which pairs go on is decided by a rule that no gold has checked: a judge whose two orders agree can still be "
    "right as often as a coin; --certify 0.90 --gold GOLD finds the rule from gold"
)


RANKED = (
    "priorities (`over`) count among principles that are judged each by itself, and a judge who weighs them together "
    "is told of none: --principles each"
)


class Comparing(Settings):
    """What is compared, and what is asked beyond the rows."""

    groups: Schedule | None = None
    """Rank all replies to a prompt, comparing them by this schedule."""
    preferences: RankingPairing = "best-worst"
    """With --groups: which of the ranked replies become preferences."""
    canaries: Share = 0.0
    """Plant attacks among the pairs: 2%."""
    recheck: Share = 0.0
    """Ask this share again past the ledger, to see drift: 1%."""


def label(
    pairs: Annotated[str, typer.Argument(help="Pairs, TRL preference rows, hh transcripts, or responses.")],
    constitution: options.ConstitutionName,
    judges: Annotated[Judges, Flags("Judging")],
    settings: Annotated[LabelSettings, Flags("Judging", omit=JUDGING)],
    comparing: Annotated[Comparing, Flags("Comparing", old={"preferences": "--pairs"})],
    certifying: Annotated[Certifying, Flags("Comparing")],
    asking: Asking,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PATH", help="The folder of the labels; not for --show or --plan."
        ),
    ] = None,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    truncated: options.TruncatedOption = "keep",
    limit: options.Limit = None,
    fail_if: options.FailIf = None,
    plan: options.PlanOption = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show", metavar="", help="Print what would be asked about the first row; ask nothing."
        ),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Have judges say, in both orders, which reply follows the constitution better."""
    from preceptor.constitution.files import load
    from preceptor.judge.conditions import gate
    from preceptor.label.finished import InputFile
    from preceptor.label.run import (
        Job,
        dialogues_of,
        label_folder,
        opened,
        require,
        require_no_drift,
        rows_of,
    )
    from preceptor.prompts.columns import mapping_of

    if out is None and not (show or plan):
        raise UserError("--out is missing; name a folder for the labels, or look first with --plan or --show")
    job = Job(
        constitution=load(constitution),
        panels=judges.panels,
        settings=settings,
        access=asking.access,
        combine=judges.combine,
        schedule=comparing.groups,
        pairing=comparing.preferences,
        canaries=comparing.canaries,
        recheck=comparing.recheck,
        adaptive=certifying.adaptive,
        reference=certifying.reference or "",
    )
    if settings.principles == "joint" and any(one.over for one in job.constitution.principles):
        console.say(RANKED)
    asking.require(judges.names, settings.effort)
    if judges.human and asking.cluster:
        raise UserError("--human asks a person at this terminal, not on a cluster; leave out --engine ray")
    mapped = tuple(mapping_of(columns or []).items())
    source = InputFile(pairs, f"groups {form}" if comparing.groups else form, limit, mapped, truncated)
    require(job)
    _check_gate(fail_if, job, source)
    gold = _gold(certifying, job, bool(judges.when))
    if gold is None and judges.escalate_to:
        console.say(UNCHECKED)
    rows = rows_of(source)
    if show:
        _show_asks(dialogues_of(islice(rows, 1), job, opened(job)))
        return
    if plan:
        asks = dialogues_of(rows, job, opened(job))
        if gold is not None:
            asks = chain(dialogues_of(gold.rows, job, opened(job)), asks)
        show_plan(asks, asking, as_json)
        return
    assert out is not None
    if fail_if:
        require_no_drift(out, job)
    tell_of_batches(asking)
    bar = console.quiet if judges.human else console.progress
    made = label_folder(out, rows, job, asking, bar, source, gold)
    by_status = made.manifest["rows"]["by_status"]
    named = "groups" if comparing.groups else "pairs"
    finish({"out": str(out), named: made.asked.rows, **by_status}, made.asked, as_json)
    _tell_saved(made.manifest)
    _tell_certificate(made.manifest)
    if fail_if and gate(fail_if, made.manifest["audit"]):
        console.say(f"the gate failed: {fail_if}")
        raise typer.Exit(1)


def _gold(certifying: Certifying, job: Job, given_when: bool) -> Gold | None:
    """What the labels are certified by; None where nobody asked for that. Raises UserError."""
    from preceptor.label.certified import require_certifiable
    from preceptor.label.gold import gold_pairs
    from preceptor.label.run import Gold

    if certifying.certify is None:
        return None
    if certifying.gold is None:
        raise UserError("--certify needs pairs whose better reply is known; name them with --gold")
    require_certifiable(job, given_when)
    return Gold(gold_pairs(certifying.gold), certifying.certify)


def _tell_saved(manifest: LabelManifest) -> None:
    """How many pairs the first judges kept from the others."""
    saved = manifest["audit"].get("saved")
    if saved is None or saved["share"] is None:
        return
    parts = ", ".join(f"{part:.0%}" for part in saved["over_time"])
    console.say(f"of {saved['share']:.1%} of the pairs no further judge was asked (row by row: {parts})")


def _tell_certificate(manifest: LabelManifest) -> None:
    """What became of the certificate. Raises typer.Exit where it is not granted."""
    if (found := manifest.get("certificate")) is None:
        return
    if found["granted"]:
        console.say(
            f"certified: {found['kept']} of {found['labels']} labels agree with gold in "
            f"at least {found['target']:.1%}, at {1 - found['level']:.0%} confidence"
        )
        return
    console.say(
        f"not certified: {found['reason']}; every label abstains, and without --certify they stand as they are"
    )
    raise typer.Exit(1)


def _check_gate(expression: str | None, job: Job, source: InputFile) -> None:
    """Raises UserError for a gate that could not be decided when all is paid."""
    from preceptor.judge.records import Pair
    from preceptor.label.run import rows_of
    from preceptor.preflight import check_gate, names_agreement

    if not expression:
        return
    gold = True
    if names_agreement(expression) and Path(source.path).is_file():  # a pipe can be read only once
        gold = any(isinstance(row, Pair) and row.preferred for row in rows_of(source))
    check_gate(expression, job, canaries=bool(job.canaries), gold=gold)


def _show_asks(dialogues: Iterable[Dialogue[Any]]) -> None:
    """Every message of the first row's requests, word for word."""
    for request in next(next(iter(dialogues)), ()):
        console.show(f"=== {request.model}, principle {request.principle}")
        for message in request.messages:
            console.show(f"[{message.role}]\n{message.content}\n")
