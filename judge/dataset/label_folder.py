"""The folder that `label` writes: which file is where, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_in
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.card import RELIABILITY
from preceptor.judge.dataset.manifest import FileFacts, LabelManifest
from preceptor.judge.records import DriftLook, Label, Preference, Ranking
from preceptor.prompts.manifest import SIGNATURE, SUMS, file_hash
from preceptor.prompts.rows import read_records

LABELS, CANARIES, GOLD, RANKINGS, PREFERENCES, PARQUET, CARD, MANIFEST, DRIFT = (
    "labels.jsonl",
    "canaries.jsonl",
    "gold.jsonl",
    "rankings.jsonl",
    "preferences.jsonl",
    "preferences.parquet",
    "card.md",
    "manifest.json",
    "drift.jsonl",
)
FILES = (LABELS, CANARIES, GOLD, RANKINGS, PREFERENCES, PARQUET, CARD, RELIABILITY, DRIFT)
"""What a folder can hold beside its manifest."""


class LabelFolder(NamedTuple):
    """One such folder, whole or being written."""

    path: Path

    @property
    def labels(self) -> Path:
        """Every comparison with its judgements; all other files are derived from it."""
        return self.path / LABELS

    @property
    def canaries(self) -> Path:
        """Labels of planted comparisons."""
        return self.path / CANARIES

    @property
    def gold(self) -> Path:
        """Labels of the gold pairs on which a certificate rests."""
        return self.path / GOLD

    @property
    def rankings(self) -> Path:
        """Of groups."""
        return self.path / RANKINGS

    @property
    def preferences(self) -> Path:
        """For training, as JSON Lines."""
        return self.path / PREFERENCES

    @property
    def parquet(self) -> Path:
        """The same as Parquet."""
        return self.path / PARQUET

    @property
    def card(self) -> Path:
        """The dataset card."""
        return self.path / CARD

    @property
    def reliability(self) -> Path:
        """The picture beside the card."""
        return self.path / RELIABILITY

    @property
    def manifest(self) -> Path:
        """Written last: a folder without one is not finished."""
        return self.path / MANIFEST

    @property
    def drift(self) -> Path:
        """Looks at the judges since the labels were made."""
        return self.path / DRIFT

    @property
    def sums(self) -> Path:
        """The hash of every file, the manifest's too."""
        return self.path / SUMS

    @property
    def signature(self) -> Path:
        """Of the hashes, where somebody signed."""
        return self.path / SIGNATURE

    def read_labels(self) -> Iterator[Label]:
        """None from an empty file, which is what no pairs give."""
        return _rows(self.labels)

    def read_canaries(self) -> Iterator[Label]:
        """As `read_labels`."""
        return _rows(self.canaries)

    def read_gold(self) -> Iterator[Label]:
        """As `read_labels`."""
        return _rows(self.gold)

    def read_drift(self) -> list[DriftLook]:
        """In their order; none where nobody has looked."""
        return list(read_records(self.drift, DriftLook)) if self.drift.is_file() else []

    def read_rankings(self) -> Iterator[Ranking]:
        """One for each group."""
        return read_records(self.rankings, Ranking)

    def read_preferences(self) -> Iterator[Preference]:
        """In the order of the labels."""
        return read_records(self.preferences, Preference)

    def read_manifest(self) -> LabelManifest | None:
        """None where there is none, or none of `label`'s."""
        try:
            found: LabelManifest = json_in(self.manifest)
        except (OSError, ValueError):
            return None
        return found if _is_of_label(found) else None

    def facts(self) -> dict[str, FileFacts]:
        """Size and hash of every file that is there, by which the folder is verified."""
        there = (name for name in FILES if (self.path / name).exists())
        return {name: file_facts(self.path / name) for name in there}


def _is_of_label(found: Any) -> bool:
    """Whether it holds what readers of a label folder go by."""
    return (
        isinstance(found, Mapping)
        and found.get("command") == "label"
        and all(isinstance(found.get(name), Mapping) for name in ("settings", "constitution_content"))
    )


def constitution_of(manifest: LabelManifest, path: Path) -> Constitution:
    """The constitution by which a folder was labelled. Raises UserError where its manifest holds none that can be."""
    try:
        return Constitution.model_validate(manifest["constitution_content"])
    except ValidationError as exc:
        raise UserError(
            f"{path}: the constitution in its manifest cannot be read ({exc.errors()[0]['msg']}); label anew"
        ) from exc


def _rows(path: Path) -> Iterator[Label]:
    return read_records(path, Label) if path.stat().st_size else iter(())


def file_facts(path: Path) -> FileFacts:
    """By which a file is known again."""
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}
