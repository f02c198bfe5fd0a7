"""The commands, gathered, and how the process ends."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from preceptor.cli import console, stopping
from preceptor.cli.lazy import Entry, lazy
from preceptor.constitution.errors import INTERRUPTED
from preceptor.constitution.outputs import will_write
from preceptor.prompts.secrets import redacted
from preceptor.prompts.shown import printable

START, DATA, LEARN, SERVE, LOOK = (
    "Start here",
    "Judge and write",
    "Train and compare",
    "Serve others",
    "Runs, records, constitutions",
)
CLI = "preceptor.cli"
TELLING = ("preceptor.prompts.layouts.recognition", "preceptor.prompts.rows", "preceptor.asking.stages")
"""Whose log tells for which layout a file was taken, and what of it is left out."""
COMMANDS = {
    "quickstart": Entry(f"{CLI}.runs:quickstart", START),
    "init": Entry(f"{CLI}.runs:init", START),
    "doctor": Entry(f"{CLI}.runs:doctor", START),
    "respond": Entry(f"{CLI}.feedback:respond", DATA),
    "revise": Entry(f"{CLI}.feedback:revise", DATA),
    "label": Entry(f"{CLI}.label:label", DATA),
    "score": Entry(f"{CLI}.feedback:score", DATA),
    "audit": Entry(f"{CLI}.audit:audit", DATA),
    "drift": Entry(f"{CLI}.drift:drift", DATA),
    "panel": Entry(f"{CLI}.panel:app", DATA),
    "rubric": Entry(f"{CLI}.rubric:app", DATA),
    "convert": Entry(f"{CLI}.convert:convert", DATA),
    "people": Entry(f"{CLI}.people:app", DATA),
    "train": Entry(f"{CLI}.train.app:app", LEARN),
    "evaluate": Entry(f"{CLI}.evaluate:evaluate", LEARN),
    "export": Entry(f"{CLI}.export:export", LEARN),
    "serve": Entry(f"{CLI}.serve:serve", SERVE),
    "work": Entry(f"{CLI}.work:work", SERVE),
    "conform": Entry(f"{CLI}.conform:conform", SERVE),
    "mcp": Entry(f"{CLI}.mcp:mcp", SERVE),
    "keys": Entry(f"{CLI}.keys:app", SERVE),
    "next": Entry(f"{CLI}.next_steps:next_command", LOOK),
    "run": Entry(f"{CLI}.runs:run", LOOK),
    "report": Entry(f"{CLI}.runs:report", LOOK),
    "verify": Entry(f"{CLI}.runs:verify", LOOK),
    "constitution": Entry(f"{CLI}.constitution:app", LOOK),
    "prompts": Entry(f"{CLI}.prompts:app", LOOK),
    "ledger": Entry(f"{CLI}.ledger:app", LOOK),
    "prices": Entry(f"{CLI}.prices:app", LOOK),
}
"""The commands, in the order of the help."""

app = typer.Typer(
    name="preceptor",
    help="Teach a language model from a written constitution.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    cls=lazy(COMMANDS),
)

GO_ON = "interrupted; nothing is lost: run the same command again to go on"
WRITING = ("--out", "-o", "--dropped", "--disagreement")
"""How words begin that may name what is written: `preflight`, which sorts them, is imported for these alone."""


@app.callback(invoke_without_command=True)
def version(
    ctx: typer.Context,
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if show:
        from preceptor import __version__

        console.show(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        console.show(ctx.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line and end the process with the contract's exit code."""
    # OpenMP's threads spin while they wait: on busy cores that made a small model twenty times slower (EXPERIMENTS.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        stopping.hear_stops()
        console.relay_warnings()
        for module in TELLING:
            console.relay(module)
        if any(word.startswith(WRITING) for word in sys.argv):
            from preceptor.preflight import check_words

            check_words(sys.argv[1:])
        app()
    except KeyboardInterrupt:  # outside the commands, which turn it into an exit code themselves
        console.say(GO_ON)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            console.say(GO_ON)
        raise
    except OSError as error:
        _fail(f"error: {_os_problem(error)}")
        sys.exit(2)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            # a fault of ours: the traceback is what a bug report needs
            _fail(traceback.format_exc().rstrip())
            sys.exit(1)
        _fail(f"error: {error}")
        sys.exit(code)
    finally:
        will_write(())


def _fail(text: str) -> None:
    """Said by every process of several: what ended it may be another's silence."""
    typer.echo(printable(redacted(text)), err=True)


def _os_problem(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}; check that the path exists, is writable and has room"
