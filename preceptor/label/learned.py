"""Verdicts that a judge is tuned on: out of label folders, or pairs whose better reply is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_of
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.label_folder import LABELS
from preceptor.judge.records import Label, Pair
from preceptor.label.costs import read_labels
from preceptor.label.gold import gold_pairs

if TYPE_CHECKING:
    from preceptor.train.data.judged_pairs import JudgedPair


def read_judged(
    source: Path, constitution: Constitution, form: str = "rows", columns: Mapping[str, str] | None = None
) -> list[JudgedPair]:
    """The verdicts of a label folder, of its file of labels, or of pairs whose better reply is known.

    Raises UserError where there is none by this constitution.
    """
    from preceptor.train.data.judged_pairs import judged_pairs

    labels = source.is_dir() or source.name == LABELS or _holds_labels(source)
    rows: list[Label] | list[Pair] = read_labels(source) if labels else gold_pairs(str(source), form, columns)
    found = list(judged_pairs(rows, constitution))
    if not found:
        raise UserError(
            f"{source}: no verdict of a judge is about a principle of {constitution.identity}; name the constitution "
            "by which it was labelled, or pairs with `preferred`"
        )
    return found


def _holds_labels(source: Path) -> bool:
    """Whether the first row is a label."""
    if not source.is_file():
        return False
    with source.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline()
    try:
        row = json_of(first)
    except ValueError:
        return False
    return isinstance(row, dict) and "judgements" in row
