"""The commands, gathered, and how the process ends."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import typer

from preceptor.cli.lazy import Entry, lazy

START, DATA, LEARN, LOOK = (
    "Start here",
    "Judge and write",
    "Train and compare",
    "Runs, records, constitutions",
)
CLI = "preceptor.cli"

COMMANDS = {
    "quickstart": Entry(
        f"{CLI}.runs:quickstart",
        "The whole way on the embedded model: no key, no network, no GPU, three to four minutes.",
        START,
    ),
    "init": Entry(
        f"{CLI}.runs:init",
        "A folder to start from: a constitution, prompts and a run file, all of which run as they are.",
        START,
    ),
    "doctor": Entry(
        f"{CLI}.runs:doctor",
        "What is installed and what works here. Exit 1 where the embedded default could not run.",
        START,
    ),
    "constitution": Entry(f"{CLI}.constitution:app", "Read, write and check constitutions.", LOOK),
    "prompts": Entry(
        f"{CLI}.prompts:app", "Prompt pools: list those that ship, show the rows of a file.", LOOK
    ),
    "respond": Entry(f"{CLI}.feedback:respond", "Sample replies to prompts.", DATA),
    "revise": Entry(
        f"{CLI}.feedback:revise", "Have replies criticised by the constitution and rewritten.", DATA
    ),
    "label": Entry(
        f"{CLI}.label:label",
        "Have judges say, in both orders, which reply follows the constitution better.",
        DATA,
    ),
    "score": Entry(
        f"{CLI}.feedback:score",
        "Grade replies, each on its own: from 1 to 10 by a judge, or by the rewards of a trained model.",
        DATA,
    ),
    "audit": Entry(
        f"{CLI}.audit:audit",
        "Measure judges against pairs whose better reply is known; they never see which.",
        DATA,
    ),
    "train": Entry(f"{CLI}.train.app:app", "Train LoRA adapters: sft, a reward model, or a policy.", LEARN),
    "evaluate": Entry(
        f"{CLI}.evaluate:evaluate",
        "Compare a policy with a baseline: judged on prompts in both orders, or by --probes for what tuning broke.",
        LEARN,
    ),
    "export": Entry(
        f"{CLI}.export:export",
        "Write a trained model as others take it, with a model card that says where it comes from.",
        LEARN,
    ),
    "ledger": Entry(
        f"{CLI}.ledger:app", "The ledger of calls: what was asked, what it cost, what can go.", LOOK
    ),
    "run": Entry(
        f"{CLI}.runs:run",
        "Run a whole pipeline from a file; run again, it goes on where it stopped.",
        LOOK,
    ),
    "report": Entry(f"{CLI}.runs:report", "Write the report of a run folder anew and print its path.", LOOK),
    "verify": Entry(
        f"{CLI}.runs:verify",
        "Re-derive a folder's counts, hashes and lineage from what lies in it. Exit 1 where something differs.",
        LOOK,
    ),
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
