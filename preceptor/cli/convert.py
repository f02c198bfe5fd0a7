"""`preceptor convert`: a file of pairs from one layout into another."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console, options

NAMES = (
    "rows, trl, trl-text, trl-implicit, ultrafeedback, hh, openai-dpo, llama-factory, sharegpt, axolotl, "
    "axolotl-intel, reward-bench, alpaca-eval, pku-saferlhf, icai"
)


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file of pairs, in any layout.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=".jsonl, .jsonl.gz, .json, .csv or .parquet.")],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help=f"The layout to write: {NAMES}.")],
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write pairs in another layout; what has no place in it is set aside and counted."""
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.layouts import conversion
    from preceptor.prompts.layouts.recognition import pairs_in
    from preceptor.prompts.rows import carrying_bytes

    named = mapping_of(columns or [])
    with carrying_bytes(source) if conversion.carries_bytes(source, out) else nullcontext():
        how = pairs_in(source, form, named)
    made = conversion.convert(source, out, to, how)
    for reason, count in made.set_aside.items():
        console.say(f"{count} set aside: {reason}")
    if made.carried:
        console.say(f"carried along: {', '.join(made.carried)}")
    console.say(f"{made.written} written to {out} as {to}")
    if as_json:
        console.result({"out": str(out), "written": made.written, "set_aside": made.set_aside})
