"""The manifest of an export as JSON has it: who writes it and who reads it go by these types."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class ExportedTraining(TypedDict):
    """The training that was exported."""

    kind: str
    manifest: str
    """SHA-256 of its manifest."""
    hashes: dict[str, str]
    versions: dict[str, str]
    """Those that it was trained with."""


class ExportManifest(TypedDict):
    """`manifest.json` of an export, written last of all."""

    kind: Literal["export"]
    schema: Literal[1]
    format: str
    dtype: str
    """Of a checkpoint's weights; empty where the adapter is as trained."""
    base: str
    base_from: NotRequired[str]
    """How another machine gets the base, where its name does not say it."""
    constitutions: list[str]
    judges: list[str]
    training: ExportedTraining
    versions: dict[str, str]
    notes: list[str]
    files: dict[str, str]
    """Name -> SHA-256."""
