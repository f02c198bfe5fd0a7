"""Read, write and check constitutions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console
from preceptor.cli.lazy import Entry, lazy

if TYPE_CHECKING:
    from preceptor.constitution.edit import Document

AMEND = {"edit": "edit", "diff": "diff", "test": "try_examples", "ablate": "ablate"}
app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    cls=lazy(
        {name: Entry(f"preceptor.cli.amend:{found}") for name, found in AMEND.items()}
        | {
            "replay": Entry("preceptor.cli.replay:replay"),
            "induce": Entry("preceptor.cli.induce:induce"),
            "tune": Entry("preceptor.cli.tune:tune"),
            "import": Entry("preceptor.cli.carry:import_form"),
            "export": Entry("preceptor.cli.carry:export_form"),
        }
    ),
)

SourceArgument = Annotated[
    str, typer.Argument(help="A shipped name, or the path of a YAML file.", show_default=False)
]
FileArgument = Annotated[Path, typer.Argument(help="A YAML file of your own.", show_default=False)]
PrintJsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_shipped(as_json: PrintJsonOption = False) -> None:
    """The constitutions that come with Preceptor."""
    from preceptor.constitution.files import load, shipped

    loaded = [load(name) for name in shipped()]
    if as_json:
        rows = [
            {
                "name": one.name,
                "version": one.version,
                "identity": one.identity,
                "principles": len(one.principles),
                "description": one.description,
            }
            for one in loaded
        ]
        console.show_json({"constitutions": rows})
        return
    width = max(len(one.name) for one in loaded)
    for one in loaded:
        console.show(
            f"{one.name:<{width}}  {one.version}  {len(one.principles):>2} principles  {one.description}"
        )


@app.command()
def show(source: SourceArgument, as_json: PrintJsonOption = False) -> None:
    """A constitution with all that it extends, as one file."""
    from preceptor.constitution.files import dump, load

    constitution = load(source)
    if as_json:
        console.show_json({"identity": constitution.identity} | constitution.model_dump(mode="json"))
    else:
        console.show(dump(constitution), end="")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Its name: a-z, 0-9 and hyphens.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="NAME.yaml")] = None,
) -> None:
    """Write a commented file to start from; never over one that is there."""
    from preceptor.constitution.starter import write_new

    path = out or Path(f"{name}.yaml")
    write_new(name, path)
    console.show(str(path))


@app.command()
def add(
    file: FileArgument,
    id: Annotated[str, typer.Option(help="Its id: a-z, 0-9 and hyphens.", show_default=False)],  # noqa: A002  the option's name
    text: Annotated[
        str,
        typer.Option(help='How two replies are compared: "Choose the reply that ..."', show_default=False),
    ],
    critique: Annotated[str, typer.Option(help="How one reply is criticised.", show_default=False)] = "",
    revision: Annotated[
        str, typer.Option(help="How a criticised reply is repaired.", show_default=False)
    ] = "",
    weight: Annotated[float, typer.Option(help="How much it counts; above 0.")] = 1.0,
    tag: Annotated[
        list[str] | None, typer.Option(help="A tag; may be given again.", show_default=False)
    ] = None,
    applies_to: Annotated[
        list[str] | None,
        typer.Option(help="Only prompts with this tag; may be given again.", show_default=False),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help="A principle that is silent where this one decides; may be given again.", show_default=False
        ),
    ] = None,
    check: Annotated[
        str, typer.Option(help="A machine check, as '{max_words: 60}'.", show_default=False)
    ] = "",
) -> None:
    """Add a principle at the end of a file. Everything else in the file stays as it is."""
    from preceptor.constitution.edit import new_principle, open_document, with_principle

    given: dict[str, Any] = {
        "id": id,
        "text": text,
        "critique": critique,
        "revision": revision,
        "weight": weight,
        "tags": tag,
        "applies_to": applies_to,
        "over": over,
    }
    principle = new_principle({key: value for key, value in given.items() if value not in ("", None)}, check)
    _save(with_principle(open_document(file), principle))


@app.command()
def remove(
    file: FileArgument,
    principle_id: Annotated[
        str, typer.Argument(metavar="ID", help="The principle's id.", show_default=False)
    ],
) -> None:
    """Remove a principle from a file. Everything else in the file stays as it is."""
    from preceptor.constitution.edit import open_document, without_principle

    _save(without_principle(open_document(file), principle_id))


@app.command()
def lint(
    source: SourceArgument,
    revising: Annotated[bool, typer.Option("--revising", help="Also ask for critique wording.")] = False,
    known_tag: Annotated[
        list[str] | None,
        typer.Option(help="A tag that the prompts have; may be given again.", show_default=False),
    ] = None,
    by_wording: Annotated[
        bool, typer.Option("--phrasing", help="Also say which wordings judges or tuned models follow less.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    as_json: PrintJsonOption = False,
) -> None:
    """Find contradictions, repetitions and gaps. Exit code 1 if there is an error."""
    from preceptor.constitution.files import load
    from preceptor.constitution.lint import lint as find
    from preceptor.constitution.lint import wording

    constitution = load(source)
    remarks = find(constitution, revising=revising, known_tags=known_tag)
    if by_wording:
        remarks += wording(constitution)
    errors = sum(remark.severity == "error" for remark in remarks)
    if as_json:
        console.show_json(
            {
                "constitution": constitution.identity,
                "errors": errors,
                "warnings": len(remarks) - errors,
                "remarks": [remark._asdict() for remark in remarks],
            }
        )
    else:
        for remark in remarks:
            console.show(str(remark))
        console.show(f"{constitution.identity}: {errors} errors, {len(remarks) - errors} warnings")
    if errors or (strict and remarks):
        raise typer.Exit(1)


@app.command()
def checks(as_json: PrintJsonOption = False) -> None:
    """The machine checks that a principle may carry."""
    from preceptor.constitution.checks import catalogue

    infos = catalogue()
    if as_json:
        console.show_json({"checks": [info._asdict() for info in infos]})
        return
    for info in infos:
        console.show(f"{info.name}: {info.argument}\n    {info.meaning}\n    check: {info.example}")


@app.command()
def schema() -> None:
    """The JSON Schema of a constitution file."""
    from preceptor.constitution.files import json_schema

    console.show_json(json_schema())


def _save(document: Document) -> None:
    from preceptor.constitution.edit import save

    save(document)
    console.show(document.constitution.identity)
