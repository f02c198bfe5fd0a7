"""Prompts: pools that ship, rows of a file; new ones, near-duplicates, coverage of a constitution, splits."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli import console, options
from preceptor.cli.lazy import Entry, lazy

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=__doc__,
    cls=lazy({"synthesize": Entry("preceptor.cli.synthesize:synthesize")}),
)


@app.command("list")
def list_pools() -> None:
    """The pools that ship, one a line: name, prompts, tags."""
    from preceptor.prompts.pool import prompts_from, shipped_pools

    for name in shipped_pools():
        rows = list(prompts_from(name))
        tags = sorted({tag for row in rows for tag in row.tags})
        console.show(f"{name}\t{len(rows)} prompts\t{', '.join(tags)}")


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="A shipped pool's name or a file of prompts.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 10,
) -> None:
    """The rows as Preceptor reads them, one JSON object a line."""
    from itertools import islice

    from preceptor.prompts.pool import prompts_from

    for prompt in islice(prompts_from(source), limit):
        console.show_row(prompt)


SHOWN = 10
"""Near-duplicates that are shown; `--dropped` has all."""
Threshold = Annotated[
    float,
    typer.Option(
        "--threshold",
        metavar="FLOAT",
        help="Share of character 5-grams in common from which on two prompts are near; above 0, up to 1.",
    ),
]


@app.command()
def dedupe(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...", help="Shipped pools or files of prompts; the first keeps its own."
        ),
    ],
    out: options.Out,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out", metavar="FILE", help="Prompts that none may be near; repeatable. It is not changed."
        ),
    ] = None,
    leakage: Annotated[
        Literal["refuse", "drop", "keep"],
        typer.Option(help="What becomes of prompts near held-out ones; refuse: nothing is written, exit 1."),
    ] = "refuse",
    threshold: Threshold = 0.7,
    dropped: Annotated[
        Path | None,
        typer.Option(
            "--dropped", metavar="FILE", help="Where every near-duplicate is written, with what it is near."
        ),
    ] = None,
    columns: options.ColumnsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Leave out prompts that are nearly equal to one before them, across files, and leaks of held-out ones."""
    from preceptor.constitution.errors import UserError
    from preceptor.preflight import check_file
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.dedupe import NearDuplicate, Source, write_deduplicated
    from preceptor.prompts.pool import prompts_from
    from preceptor.prompts.rows import writing

    named, apart = mapping_of(columns or []), held_out or []
    if twice := [name for name in files if files.count(name) > 1 or name in apart]:
        raise UserError(f"{twice[0]} is named twice; wanted each file once")
    if dropped is not None:
        check_file(dropped, [*files, *apart])
        if dropped.resolve() == out.resolve():
            raise UserError(f"--dropped {dropped} is the file that --out names; name another")
    shown = 0
    with writing(dropped) if dropped is not None else nullcontext() as write:

        def tell(near: NearDuplicate) -> None:
            nonlocal shown
            if write is not None:
                write(near)
            shown += 1
            if shown <= SHOWN:
                what = "leak of held-out" if near.leak else "near"
                console.say(
                    f"{near.file}: {near.id} is {what} {near.of} of {near.of_file} (Jaccard {near.jaccard:.2f})"
                )

        trained, kept_apart = (
            [Source(name, prompts_from(name, named)) for name in some] for some in (files, apart)
        )
        made = write_deduplicated(trained, kept_apart, out, threshold, leakage, tell)
    if shown > SHOWN:
        console.say(f"and {shown - SHOWN} more; --dropped FILE writes all")
    keys = ["prompts", "kept", "duplicates", "leaks"]
    cells = [[one["file"], *(str(dict(one)[key]) for key in keys)] for one in made["files"]]
    console.table(f"near-duplicates at {threshold}", ["file", *keys], cells)
    if made["held_out"]:
        share = made["held_out_leaked"] / made["held_out"]
        console.say(f"{made['held_out_leaked']} of {made['held_out']} held-out prompts leaked ({share:.1%})")
    if as_json:
        console.result(made)
    if made["out"] is None:
        console.say(
            f"nothing is written to {out}: leaks; --leakage drop leaves them out, --leakage keep takes them"
        )
        raise typer.Exit(1)
    console.say(f"{made['kept']} of {made['prompts']} prompts written to {out}")


@app.command()
def coverage(
    prompts: options.PromptsArgument,
    constitution: options.ConstitutionName,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="DIR", help="What `label` wrote under this constitution."),
    ] = None,
    drawn: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Where it is drawn, as SVG.")
    ] = None,
    columns: options.ColumnsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Tags by principles: prompts to which each applies and, with labels, pairs that it told apart and decided."""
    from preceptor.constitution.files import load
    from preceptor.judge.dataset.coverage import ALL, coverage
    from preceptor.label.costs import read_labels
    from preceptor.preflight import check_file
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import write_text
    from preceptor.prompts.pool import prompts_from
    from preceptor.workbench.coverage_picture import picture

    if drawn is not None:
        check_file(drawn, [prompts, constitution, *([labels] if labels is not None else [])], "--picture")
    read = prompts_from(prompts, mapping_of(columns or []))
    found = coverage(load(constitution), read, None if labels is None else read_labels(labels))
    if found["foreign"]:
        console.say(f"{found['foreign']} labels of another constitution are left out")
    keys = ["prompts"]
    if labels is not None:
        keys += ["judged", "told_apart", "decided", "rejected_refusals"]
    cells = [
        [_tag(one["tag"]), one["principle"], *(_known(dict(one)[key]) for key in keys)]
        for one in found["cells"]
    ]
    heads = [key.replace("_", " ") for key in keys]
    console.table(f"{found['prompts']} prompts, {found['constitution']}", ["tag", "principle", *heads], cells)
    for name, some in (("no prompt", found["empty"]), ("ties alone", found["all_tie"])):
        for tag, principle in some:
            console.say(f"{name}: {principle}{'' if tag == ALL else f' with {_tag(tag)}'}")
    if drawn is not None:
        write_text(drawn, picture(found))
        console.say(f"{drawn}: the same as a picture")
    if as_json:
        console.result(found)


def _tag(tag: str) -> str:
    return {"*": "all", "": "(no tag)"}.get(tag, tag)


def _known(count: object) -> str:
    return "–" if count is None else str(count)


@app.command()
def split(
    prompts: options.PromptsArgument,
    held_out: Annotated[
        float, typer.Option("--held-out", metavar="FLOAT", help="Share of the prompts to hold out.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for train.jsonl and held-out.jsonl."),
    ],
    by: Annotated[
        Literal["group", "tag", "time"],
        typer.Option(
            help="Whole groups by chance; the same with one share of every set of tags; the latest."
        ),
    ] = "group",
    threshold: Threshold = 0.7,
    seed: Annotated[int, typer.Option(help="Of chance.")] = 0,
    conversation: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Prompts with one value of this column stay together."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="When a prompt was written: ISO 8601, or a number.")
    ] = None,
    columns: options.ColumnsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Divide prompts in two files; near-duplicates and one conversation stay on one side."""
    from preceptor.constitution.errors import UserError
    from preceptor.preflight import check_over
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.group_split import SplitColumns, sides
    from preceptor.prompts.pool import prompts_from
    from preceptor.prompts.rows import writing

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; wanted a folder for train.jsonl and held-out.jsonl")
    check_over(out, ("train.jsonl", "held-out.jsonl"), [prompts])
    named = mapping_of(columns or [])
    found = sides(
        prompts_from(prompts, named), held_out, by, threshold, seed, SplitColumns(conversation, time)
    )
    with writing(out / "train.jsonl") as learn, writing(out / "held-out.jsonl") as keep:
        for prompt, apart in zip(prompts_from(prompts, named), found.held_out, strict=True):
            (keep if apart else learn)(prompt)
    kept = sum(found.held_out)
    total = len(found.held_out)
    console.say(f"{total} prompts in {found.groups} groups, the largest of {found.largest}")
    console.say(f"{total - kept} to learn from, {kept} held out ({kept / total:.1%}), in {out}")
    if as_json:
        console.result(
            {
                "out": str(out),
                "train": total - kept,
                "held_out": kept,
                "groups": found.groups,
                "largest": found.largest,
            }
        )
