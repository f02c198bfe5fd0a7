"""Arguments and flags of commands that belong to no settings, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

PromptsArgument = Annotated[str, typer.Argument(help="A shipped pool's name or a file of prompts.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="TEXT",
        help="provider/model, such as openai/gpt-6-luna, hf/./model, smollm2 or embedded.",
    ),
]
ConstitutionName = Annotated[
    str,
    typer.Option(
        "--constitution", "-c", metavar="TEXT", help="A shipped constitution's name or a YAML file."
    ),
]
MaybeConstitution = Annotated[
    str | None,
    typer.Option(
        "--constitution", "-c", metavar="TEXT", help="A shipped constitution's name or a YAML file."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="Where the result is written.")]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="INT", min=1, help="Only the first rows of the file.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="LAYOUT",
        help="rows: by sight; or a layout's name, such as hh (`preceptor convert --help`).",
    ),
]
TruncatedOption = Annotated[
    Literal["keep", "drop"],
    typer.Option("--truncated", help="Whether samples that were cut at their length are judged."),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="COLUMN=FIELD", help="A column under another name: prompt=question; repeatable."
    ),
]
FailIf = Annotated[
    str | None,
    typer.Option("--fail-if", metavar="EXPR", help="Exit 1 where this holds, such as 'flip_rate > 0.2'."),
]
PlanOption = Annotated[
    bool, typer.Option("--plan", metavar="", help="Count calls, tokens and dollars; ask nothing.")
]
TrainingPlanOption = Annotated[
    bool,
    typer.Option(
        "--plan", metavar="", help="Say what it would take in memory, steps, time and disk, and do nothing."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="One JSON object on stdout.")]
