"""The manifest of a label folder as JSON has it: who writes it and who reads it go by these types."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from preceptor.judge.figures import AuditFigures, ChangedFigures, FurtherFigures

LabelRows = TypedDict("LabelRows", {"in": int, "out": int, "by_status": dict[str, int], "preferences": int})
"""What became of the rows: in = out, by status."""


class FileFacts(TypedDict):
    """By what a file is known again."""

    bytes: int
    sha256: str


class InputFacts(TypedDict):
    """What was labelled, and how it was read."""

    path: str
    format: str
    limit: int | None
    truncated: NotRequired[Literal["drop"]]
    map: NotRequired[dict[str, str]]
    """Columns of ours -> theirs."""
    sha256: NotRequired[str]
    """Absent where it was no plain file, or changed while it was read."""


class NoInput(TypedDict):
    """Rows that came from no file."""


class LabelManifest(TypedDict):
    """What `label` writes last of all."""

    schema: Literal[1]
    command: Literal["label"]
    complete: bool
    """Whether the run went to its end."""
    constitution: str
    constitution_content: dict[str, Any]
    """All of it but its defaults: by what labels follow from judgements."""
    judge: str
    settings: dict[str, Any]
    """Everything that can change a label, as `label`'s settings classes have it."""
    rows: LabelRows
    versions: dict[str, str]
    input: InputFacts | NoInput
    calls_failed: int
    files: dict[str, FileFacts]
    certificate: NotRequired[dict[str, Any]]
    """A [Certificate](#certificate), with `label --certify`."""
    drift: NotRequired[ChangedFigures]
    """What `preceptor drift` found since; with an alarm the certificate has ended."""
    audit: AuditFigures | FurtherFigures
    """Of no labels: only what does not rest on labels."""
    prices: dict[str, Any]
    """Those given with the command, by model."""
    cost_usd: float | None
