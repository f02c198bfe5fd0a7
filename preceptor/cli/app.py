"""The commands, gathered, and how the process ends."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import typer

from preceptor.cli import (
    amend,
    audit,
    console,
    constitution,
    convert,
    evaluate,
    export,
    feedback,
    label,
    ledger,
    prompts,
    runs,
    train,
)

app = typer.Typer(
    name="preceptor",
    help="Teach a language model from a written constitution.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command("quickstart")(runs.quickstart)
app.command("init")(runs.init)
app.command("doctor")(runs.doctor)
constitution.app.command("edit")(amend.edit)
constitution.app.command("diff")(amend.diff)
constitution.app.command("test")(amend.try_examples)
constitution.app.command("ablate")(amend.ablate)
app.add_typer(constitution.app, name="constitution")
app.add_typer(prompts.app, name="prompts")
app.command("respond")(feedback.respond)
app.command("revise")(feedback.revise)
app.command("label")(label.label)
app.command("score")(label.score)
app.command("audit")(audit.audit)
app.add_typer(train.app, name="train")
app.command("evaluate")(evaluate.evaluate)
app.add_typer(ledger.app, name="ledger")
app.command("run")(runs.run)
app.command("report")(runs.report)
app.command("verify")(runs.verify)
app.command("export")(export.export)
app.command("convert")(convert.convert)

INTERRUPTED = 130


@app.callback(invoke_without_command=True)
def version(
    ctx: typer.Context,
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if show:
        from preceptor import __version__

        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line and end the process with the contract's exit code."""
    # OpenMP's threads spin while they wait: on busy cores that made a small model twenty times slower (EXPERIMENTS.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for module in ("prompts.layouts.recognition", "asking.stages"):
        console.relay(f"preceptor.{module}")
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's stop is as resumable as Ctrl-C
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("interrupted; nothing is lost: run the same command again to go on")
        raise
    except OSError as error:
        _say(f"error: {_os_problem(error)}")
        sys.exit(2)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise  # a fault of ours: the traceback is what a bug report needs
        _say(f"error: {error}")
        sys.exit(code)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # by way of SIGINT's handler, which an event loop replaces by one that lets what is in flight finish
    signal.raise_signal(signal.SIGINT)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _os_problem(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}; check that the path exists, is writable and has room"
