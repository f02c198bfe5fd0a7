"""Flags that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str, typer.Option("--model", help="provider/model, such as openai/gpt-5-mini, hf/./model or embedded.")
]
Judge = Annotated[
    str, typer.Option("--judge", help="Who judges: provider/model, or `checks` for machine checks alone.")
]
ConstitutionName = Annotated[
    str, typer.Option("--constitution", "-c", help="A shipped constitution's name or a YAML file.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result is written.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="A compatible server: vLLM, Ollama, llama.cpp, TGI.")
]
Ledger = Annotated[
    str,
    typer.Option(
        "--ledger", envvar="PRECEPTOR_LEDGER", help="The ledger of calls: a file or a database URL."
    ),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Calls in flight at once.")]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, help="USD that this command may spend; it stops at the cap."),
]
Plan = Annotated[bool, typer.Option("--plan", help="Count calls, tokens and dollars; ask nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Seed = Annotated[int, typer.Option("--seed", help="Equal seeds give equal results.")]
Template = Annotated[
    str | None, typer.Option("--template", help="A judge template of your own: a .jinja file.")
]
Principles = Annotated[
    Literal["joint", "each", "sample"],
    typer.Option("--principles", help="joint: all in one ask; each: one ask a principle; sample: one drawn."),
]
Reasoning = Annotated[
    bool, typer.Option("--reasoning/--no-reasoning", help="Whether the judge may reason before its verdict.")
]
Tie = Annotated[bool, typer.Option("--tie/--no-tie", help="Whether the judge is offered a tie.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows of the file.")]
Format = Annotated[
    Literal["rows", "hh"],
    typer.Option("--format", help="rows: one pair a row; hh: \\n\\nHuman: … \\n\\nAssistant: … transcripts."),
]

LEDGER = ".preceptor/ledger.db"
CONCURRENCY = 16
