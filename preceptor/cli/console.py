"""What a person sees while a command runs: tables and progress on stderr, so that stdout carries the result alone.

Everything that is printed goes through here, where foreign text is made safe for the terminal.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from preceptor.prompts.secrets import redacted
from preceptor.prompts.shown import escaped_json, json_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn
    from rich.text import Text

    from preceptor.judge.asking.fanout import Progress
    from preceptor.prompts.records import Record
    from preceptor.train.loop.run import OnTrainingProgress


def speaks() -> bool:
    """Whether this process talks to the person: of several that train together, the first alone."""
    return os.environ.get("RANK", "0") == "0"


def console() -> Console:
    """A console on stderr; its width follows the terminal, and colours are off where it is none."""
    return _console(stderr=True, quiet=not speaks())


def screen() -> Console:
    """A console on stdout, for what a command was asked for; 100 columns wide where it is no terminal."""
    return _console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)


def _console(**options: Any) -> Console:
    """One on which texts are words alone: no markup, no emoji codes, and nothing that steers the terminal."""
    from rich.console import Console

    class Safe(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(printable(redacted(text)), **how)

    return Safe(highlight=False, markup=False, emoji=False, **options)


def say(text: str) -> None:
    """One line for the person, on stderr."""
    if speaks():
        typer.echo(printable(redacted(text)), err=True)


def show(text: str, end: str = "\n") -> None:
    """A line of the command's result, on stdout."""
    typer.echo(printable(redacted(text)) + end, nl=False)


def show_row(row: Record) -> None:
    """A row of the command's result, as a line of JSON on stdout."""
    typer.echo(escaped_json(row.line()))


def show_json(value: Any) -> None:
    """JSON for a person to read, on stdout."""
    typer.echo(json_text(value, indent=2))


class Relayed(logging.Handler):
    """Says what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line for each."""
        say(record.getMessage())


def relay(name: str) -> None:
    """Have what a module says about its progress shown, and not only its warnings."""
    logger = logging.getLogger(name)
    logger.handlers = [Relayed()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def relay_warnings() -> None:
    """Have warnings of ours said like everything else, and not written past this module."""
    logging.getLogger("preceptor").handlers = [Relayed(logging.WARNING)]


def result(value: Mapping[str, Any]) -> None:
    """The command's result: exactly one JSON object on stdout."""
    if speaks():
        typer.echo(json_text(value))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stderr; the first column is text, the others are figures."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    sheet = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, column in enumerate(columns):
        sheet.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        sheet.add_row(*row)
    console().print(sheet)


@contextmanager
def progress(what: str) -> Iterator[Callable[[Progress], None]]:
    """A bar for work that asks models: rows, rate, calls asked and from the ledger, cost, time left."""
    from rich.progress import TextColumn, TimeRemainingColumn

    bar = _bar(
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("{task.fields[calls]}", markup=False),
        TextColumn("{task.fields[cost]}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with bar:
        task = bar.add_task(what, total=None, rate="", calls="", cost="")

        def show(now: Progress) -> None:
            speed = bar.tasks[task].speed
            failed = f", {now.failed} failed" if now.failed else ""
            bar.update(
                task,
                completed=now.done,
                total=now.total,
                rate=f"{speed:.1f}/s" if speed else "",
                calls=f"{now.asked} asked, {now.from_ledger} from the ledger{failed}",
                cost=f"${now.cost_usd:.2f}",
            )

        yield show


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for work on this machine: rows, rate and time left; the function is told of rows done."""
    from rich.progress import TextColumn, TimeRemainingColumn

    bar = _bar(
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with bar:
        task = bar.add_task(what, total=total, rate="")

        def step(rows: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, advance=rows, rate=f"{speed:.1f}/s" if speed else "")

        yield step


@contextmanager
def training(stage: str) -> Iterator[OnTrainingProgress]:
    """A bar for training: loss and accuracy, or reward and KL, rows a second and the time left."""
    from rich.progress import TextColumn

    bar = _bar(TextColumn("{task.fields[figures]}", markup=False))
    with bar:
        task = bar.add_task(stage, total=None, figures="loading")
        told = 0

        def watch(now: Any) -> None:
            nonlocal told
            for note in now.notes[told:]:
                bar.console.print(f"{stage}: {note}")
            told = max(told, len(now.notes))
            speed = (
                f"{now.pairs_per_s:.0f} rows/s" if now.pairs_per_s >= 10 else f"{now.pairs_per_s:.1f} rows/s"
            )
            figures = f"{_figures(now.metrics)}  {speed}  {now.left_s:.0f} s left"
            bar.update(task, completed=now.step, total=now.steps, figures=figures)

        yield watch


def _figures(metrics: Mapping[str, float | None]) -> str:
    """What of a step says most: of a policy that is rewarded, reward and KL. None: of no reply was it known."""
    known = {name: value for name, value in metrics.items() if value is not None}
    if "loss" in known:
        accuracy = known.get("accuracy", known.get("mean_token_accuracy", 0.0))
        return f"loss {known['loss']:.3f}  accuracy {accuracy:.2f}"
    reward = f"reward {known['reward']:.3f}" if "reward" in known else "no reward"
    return f"{reward}  KL {known.get('kl_nats', math.nan):.2f}"


def _bar(*columns: ProgressColumn) -> Bar:
    """What all bars share - what is done, how much of it - and then the columns of one."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    shared = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
    )
    return Bar(*shared, *columns, console=console())


@contextmanager
def quiet(_: str) -> Iterator[Callable[[Progress], None]]:
    """In the place of a bar, where the terminal is a person's to be asked at."""
    yield lambda _: None
