"""`preceptor people`: labels to annotate in Argilla, Label Studio and feedback-forensics, and people's answers back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli import console, options

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
LabelsArgument = Annotated[
    Path, typer.Argument(help="A folder that `preceptor label` wrote.", show_default=False)
]


@app.command("export")
def export_tasks(
    labels: LabelsArgument,
    to: Annotated[
        Literal["argilla", "label-studio", "feedback-forensics"], typer.Option("--to", help="The tool.")
    ],
    out: options.Out,
    unsure: Annotated[
        bool, typer.Option("--unsure", metavar="", help="Only pairs without a winner.")
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show-verdicts", metavar="", help="Show people what the judge said; it sways them."),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write labels as tasks for people."""
    from preceptor.label.costs import read_labels
    from preceptor.preflight import check_file
    from preceptor.prompts.manifest import write_text
    from preceptor.workbench.people import LABEL_CONFIG, tasks_of

    check_file(out, [labels])
    rows = [label for label in read_labels(labels) if not unsure or label.status != "ok"]
    write_text(out, tasks_of(rows, to, show))
    console.say(f"{out}: {len(rows)} pairs for {to}")
    if to == "label-studio":
        console.say(f"its labelling interface:\n{LABEL_CONFIG}")
    if as_json:
        console.result({"out": str(out), "pairs": len(rows), "tool": to})


@app.command("import")
def import_answers(
    file: Annotated[Path, typer.Argument(help="What the tool exported as JSON.", show_default=False)],
    labels: LabelsArgument,
    out: options.Out,
    as_json: options.JsonOption = False,
) -> None:
    """Write what people said as pairs whose better reply is known."""
    from preceptor.label.costs import read_labels
    from preceptor.preflight import check_file
    from preceptor.prompts.rows import write_rows
    from preceptor.workbench.people import answers_in

    check_file(out, [file, labels])
    found = answers_in(file, read_labels(labels))
    write_rows(out, found.pairs)
    console.say(
        f"{out}: {len(found.pairs)} pairs from {found.tool}; people disagreed on {found.disagreed}, "
        f"{found.unanswered} have no answer, {found.unknown} are of other labels"
    )
    if as_json:
        counts = {"unanswered": found.unanswered, "unknown": found.unknown, "disagreed": found.disagreed}
        console.result({"out": str(out), "pairs": len(found.pairs), "tool": found.tool, **counts})
