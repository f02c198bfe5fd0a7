"""`preceptor quickstart | init | doctor | run | report | verify`: whole runs and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.flags import Flags, given
from preceptor.doctor import examine, need_training
from preceptor.settings import AskSettings

if TYPE_CHECKING:
    from preceptor.run.config import RunConfig

Folder = Annotated[Path, typer.Argument(help="The folder of a finished run.")]
QUICKSTARTS = {
    "embedded": Path(__file__).parent.parent / "quickstart.yaml",
    "smollm2": Path(__file__).parent.parent / "quickstart-smollm2.yaml",
}


def quickstart(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="TEXT",
            help="embedded, or smollm2: a real chat model of 135 million parameters.",
        ),
    ] = "embedded",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="Run folder; quickstart, or quickstart-smollm2 for that model.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="INT", help="Equal seeds give equal results on one machine.")
    ] = 0,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """The whole way on a model that a package carries: no key, no GPU, minutes with the embedded one."""
    if model not in QUICKSTARTS:
        from preceptor.constitution.errors import UserError

        raise UserError(
            f"quickstart knows no model {model!r}; wanted {' or '.join(QUICKSTARTS)}; to teach another, name it in a "
            "run file: `preceptor init DIR` writes one"
        )
    given = [f"out={out}"] if out is not None else []
    _run(QUICKSTARTS[model], [*given, f"seed={seed}"], plan, as_json)


def run(
    file: Annotated[Path, typer.Argument(help="A run file; see examples/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="section.key=value, such as dpo.beta=0.2.", metavar="[KEY=VALUE]..."),
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            metavar="TEXT",
            help="The ledger of calls: a file or a database URL; else ledger.db in the run folder.",
        ),
    ] = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Run a whole pipeline from a file; run again, it goes on where it stopped."""
    _run(file, overrides or [], plan, as_json, ledger)


def _run(file: Path, overrides: list[str], plan: bool, as_json: bool, ledger: str | None = None) -> None:
    need_training()
    from preceptor.run.config import load

    config = load(file, overrides)
    if ledger is not None:
        config = config.model_copy(update={"ledger": ledger})
    if config.ledger is not None:
        from preceptor.judge.ledger.location import location_of

        location_of(config.ledger)  # what is none is told before a folder is made
    run_or_plan(config, plan, as_json)


def run_or_plan(config: RunConfig, plan: bool, as_json: bool) -> None:
    """A run, with its bars on stderr and its figures at the end; or its plan alone."""
    if plan:
        from preceptor.cli.asking import show_plan
        from preceptor.run import run_plan
        from preceptor.run.running import asking_of

        show_plan(run_plan.asks(config.planning()), asking_of(config).planning(), as_json)
        return
    from preceptor.cli.asking import tell_of_batches
    from preceptor.cli.screen import Terminal
    from preceptor.cli.summary import show
    from preceptor.run import pipeline

    tell_of_batches(config)
    summary = pipeline.run(config, Terminal())
    if as_json:
        console.result(summary)
        return
    show(pipeline.read_run(Path(config.out), config.model_dump(mode="json")), Path(config.out))


def report(path: Folder) -> None:
    """Write the report of a run folder anew and print its path."""
    need_training()
    from preceptor import folder
    from preceptor.prompts.manifest import write_text
    from preceptor.report import report as page
    from preceptor.run import pipeline
    from preceptor.run.files import REPORT

    manifest = folder.read_json(path / "manifest.json")
    if "settings" not in manifest or manifest.get("kind") != "run":
        from preceptor.constitution.errors import UserError

        raise UserError(f"{path} is no run folder; wanted one that `preceptor run` or `quickstart` made")
    target = path / REPORT
    write_text(target, page.render(pipeline.read_run(path, manifest["settings"])))
    console.show(str(target))


def verify(
    path: Annotated[Path, typer.Argument(help="A folder that run, label, train or export wrote.")],
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            metavar="TEXT",
            help="Where the calls are, to hold what was judged against the raw replies: of a label folder, and of a "
            "run that named a ledger.",
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign the folder with this SSH key, if everything holds."),
    ] = None,
    signed_by: Annotated[
        Path | None,
        typer.Option("--signed-by", metavar="PUBLIC", help="The public SSH key of whoever must have signed."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Derive a folder's rows, counts, costs and hashes once more from what they rest on. Exit 1 where one differs."""
    from preceptor.prompts.manifest import SIGNATURE
    from preceptor.run import signature
    from preceptor.run.verify import verify as verified

    found = verified(path, ledger, signed_by)
    problems = found.problems
    if sign is not None and not problems:
        signature.sign(path, sign)
        found.notes.append(f"signed: {path / SIGNATURE}")
    if as_json:
        console.result({"path": str(path), "ok": not problems, "problems": problems, "notes": found.notes})
    else:
        for problem in problems:
            console.show(problem)
        for note in found.notes:
            console.say(f"note: {note}")
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        console.say(f"{path}: {count if problems else 'every hash, count and row holds'}")
    if problems:
        raise typer.Exit(1)


def init(directory: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """A folder to start from: a constitution, prompts and a run file, all of which run as they are."""
    from preceptor.starter import write_starter

    for path in write_starter(directory):
        console.show(str(path))
    console.say(f"next: preceptor run {directory / 'run.yaml'}")


def doctor(
    access: Annotated[AskSettings, Flags("Models", only=("base_url", "timeout_s"))],
    file: Annotated[
        Path | None, typer.Argument(help="With --models: the run file whose models are meant.")
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            "--models", metavar="", help="Ask the providers' lists about the models that are named, alone."
        ),
    ] = False,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", "-j", metavar="TEXT", help="With --models: a model; repeatable."),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="TEXT", help="With --models: a model; repeatable.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """What is installed and what works here; --models: what the providers say of the models that are named.

    Exit 1 where the embedded default could not run, or a named model cannot be asked.
    """
    if models or file or judge or policy:
        _doctor_of_models(access, file, [*(judge or ()), *(policy or ())], as_json)
        return
    findings = examine()
    if as_json:
        console.result({finding.what: {"found": finding.found, "ok": finding.ok} for finding in findings})
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "none"
            console.show(f"{mark}  {finding.what:<24} {finding.found}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(1)


def _doctor_of_models(access: AskSettings, file: Path | None, named: list[str], as_json: bool) -> None:
    from preceptor.judge.asking import prices
    from preceptor.model_report import examine_models, require_names

    if file is not None:
        need_training()
        from preceptor.run.config import asked_models, load

        config = load(file, [])
        named = [*asked_models(config), *named]
        access = config.model_copy(update=given(access))
    reports = examine_models(require_names(named), access, prices.today())
    if as_json:
        told = {one.model: {"found": one.found, "ok": one.ok, **one.facts} for one in reports}
        console.result(told)
    else:
        for one in reports:
            console.show(f"{'ok  ' if one.ok else 'none'}  {one.model:<32} {one.found}")
    for said in prices.warnings(access.price_table, [one.model for one in reports], prices.today()):
        console.say(f"note: {said}")
    if not all(one.ok for one in reports):
        raise typer.Exit(1)
