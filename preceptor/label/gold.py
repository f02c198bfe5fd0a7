"""Pairs whose better reply is known, as every command that measures a judge reads them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from preceptor.asking import stages
from preceptor.judge.audit.audit import require_gold
from preceptor.judge.records import Pair


def gold_pairs(
    source: str,
    form: str = "rows",
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    *,
    ties: bool = True,
) -> list[Pair]:
    """The pairs of a file that say which reply is better. limit: rows that are read. ties: with those that say neither.

    Raises PairsError where there is none.
    """
    wanted = ("a", "b", "tie") if ties else ("a", "b")
    read = islice(stages.pairs_from(source, form, columns), limit)
    rows = [pair for pair in read if pair.preferred in wanted]
    require_gold(rows)
    return rows
