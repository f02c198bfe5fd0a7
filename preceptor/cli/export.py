"""`preceptor export`: a finished training as others take it, in a folder and, if wanted, on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from preceptor.cli import console, options
from preceptor.constitution.errors import UserError
from preceptor.doctor import need_training


def export(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A folder that `preceptor train` wrote, such as RUN/7-policy."),
    ],
    form: Annotated[
        Literal["adapter", "merged", "sequence-classification", "vllm"],
        typer.Option("--format", help="As what; sequence-classification is for reward models."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(
            help="Of a checkpoint's weights.",
            show_default="float32 for a classifier, the base's own for merged",
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="hub:ID", help="Upload it as well; needs HF_TOKEN in the environment."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: for all to see.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write a trained model as others take it, with a model card that says where it comes from."""
    need_training()
    from preceptor import hub

    if public and push is None:
        raise UserError("--public has no effect without --push hub:ID")
    target = (
        hub.target_of(push, public) if push is not None else None
    )  # faults there are told before the work
    from preceptor.train.export.write import export as write

    made = write(directory, out, form, dtype, target.id if target else None)
    for name, values in (("constitution", made.constitutions), ("judge", made.judges)):
        console.say(f"{name}: {', '.join(values)}")
    for note in made.notes:
        console.say(f"note: {note}")
    if made.command:
        console.say(f"serve it with: {made.command}")
    url = hub.push(made.folder, target) if target else ""
    if as_json:
        console.result({**made._asdict(), "folder": str(made.folder), "pushed": url})
    else:
        console.show(url or str(made.folder))
