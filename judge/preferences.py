"""Labels -> what `label` leaves behind: labels, preferences (JSONL and Parquet), dataset card, manifest.

`labels.jsonl` comes first and everything else is derived from it, so that the folder proves itself. Rows hold
no clock values: the same labels give the same bytes. The manifest, with counts and hashes, is written last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from constitution.principle import Constitution
from judge.audit import audit
from judge.calibration import Bin, picture
from judge.card import RELIABILITY, card
from judge.errors import PairsError
from judge.groups import Pairing, preferences_of
from judge.records import Label, Letter, Opinion, Preference, Ranking, Status
from judge.weigh import opinions, winner
from prompts.manifest import file_hash, versions, write_json, write_text
from prompts.records import Message
from prompts.rows import read_records, replacing, write_rows

LABELS, CANARIES, RANKINGS, PREFERENCES, PARQUET, CARD, MANIFEST = (
    "labels.jsonl",
    "canaries.jsonl",
    "rankings.jsonl",
    "preferences.jsonl",
    "preferences.parquet",
    "card.md",
    "manifest.json",
)
FILES = (LABELS, CANARIES, RANKINGS, PREFERENCES, PARQUET, CARD, RELIABILITY)
"""What a folder can hold beside its manifest."""
BATCH = 1024
"""Rows in one Parquet row group."""


class LabelRun(NamedTuple):
    """What is true of a whole labelling run."""

    constitution: Constitution
    judge: str
    settings: Mapping[str, Any]
    """Everything resolved that can change a label, and no secrets."""
    rows_in: int
    """Pairs that came in, each of which must have a label; fewer where the run stopped at the budget."""
    complete: bool
    """Whether the run went to its end."""
    cost_usd: float | None
    pairing: Pairing | None = None
    """Which preferences a ranked group gives; None: every `ok` label is one."""
    extra: Mapping[str, Any] = MappingProxyType({})
    """Figures that labels alone do not hold: canaries, drift, cost of each step."""


def preference(label: Label) -> Preference | None:
    """The label as a preference; None unless its status is `ok`."""
    if label.status != "ok" or label.probability is None:
        return None
    a_wins = winner(label.probability) == "a"
    chosen, rejected = (label.response_a, label.response_b)[:: 1 if a_wins else -1]
    probability = label.probability if a_wins else 1 - label.probability
    return Preference(
        id=label.id,
        prompt=label.prompt.messages,
        chosen=(Message(role="assistant", content=chosen),),
        rejected=(Message(role="assistant", content=rejected),),
        probability=probability,
        margin=2 * probability - 1,
        constitution=label.constitution,
        judge=label.judge,
        tags=label.prompt.tags,
        principles=tuple(
            one if a_wins else Opinion(principle=one.principle, probability=1 - one.probability)
            for one in opinions(label)
        ),
        gold=_gold(label, "a" if a_wins else "b"),
    )


def _gold(label: Label, chosen: Letter) -> Literal["chosen", "rejected", "tie"] | None:
    if label.preferred is None or label.preferred == "tie":
        return label.preferred
    return "chosen" if label.preferred == chosen else "rejected"


def write_labels(out: str | Path, labels: Iterable[Label], run: LabelRun) -> dict[str, Any]:
    """Write all labels and what is derived from them; the manifest as it was written."""
    write_rows(Path(out) / LABELS, labels)
    return publish(out, run)


def publish(out: str | Path, run: LabelRun) -> dict[str, Any]:
    """Derive preferences, card and manifest from the `labels.jsonl` that lies under `out`.

    An older manifest is taken away first: a folder without one is a folder that is not finished. Raises
    PairsError where rows were lost or came twice, so that rows in = rows out by status, always.
    """
    folder = Path(out)
    unwanted = [
        name for name, used in ((RANKINGS, run.pairing), (CANARIES, "canaries" in run.extra)) if not used
    ]
    for stale in (MANIFEST, RELIABILITY, *unwanted):
        (folder / stale).unlink(missing_ok=True)
    counts = _count(folder / LABELS, run)
    preferred = _write_preferences(folder / PREFERENCES, _preferences(folder, run.pairing))
    assert run.pairing or preferred == counts["ok"], "every ok label is a preference"
    _write_parquet(folder / PARQUET, _preferences(folder, run.pairing))
    figures = audit(read_labels(folder / LABELS), run.constitution, run.cost_usd) if counts.total() else {}
    figures |= run.extra
    if figures.get("reliability"):
        write_text(folder / RELIABILITY, picture([Bin(**one) for one in figures["reliability"]]))
    write_text(folder / CARD, card(run.constitution, run.judge, run.settings, counts, figures))
    manifest = {
        "schema": 1,
        "command": "label",
        "complete": run.complete,
        "constitution": run.constitution.identity,
        "judge": run.judge,
        "settings": dict(run.settings),
        "rows": {
            "in": run.rows_in,
            "out": counts.total(),
            "by_status": {status: counts[status] for status in get_args(Status)},
            "preferences": preferred,
        },
        "versions": versions("pydantic", "jinja2", "openai", "anthropic"),
        "files": {name: file_facts(folder / name) for name in FILES if (folder / name).exists()},
        "audit": figures,
        "cost_usd": run.cost_usd,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_labels(path: str | Path) -> Iterator[Label]:
    """The labels of a file; none from an empty one, which is what no pairs give."""
    return read_records(path, Label) if Path(path).stat().st_size else iter(())


def _count(path: Path, run: LabelRun) -> Counter[str]:
    """Labels by status."""
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for label in read_labels(path):
        if label.id in seen:
            raise PairsError(f"{path}: label {label.id} came twice; wanted one label for each pair")
        seen.add(label.id)
        counts[label.status] += 1
    if counts.total() != run.rows_in:
        raise PairsError(f"{path}: {run.rows_in} pairs came in and {counts.total()} labels went out")
    return counts


def _preferences(folder: Path, pairing: Pairing | None) -> Iterator[Preference]:
    if pairing is not None:
        for ranking in read_records(folder / RANKINGS, Ranking):
            yield from preferences_of(ranking, pairing)
        return
    for label in read_labels(folder / LABELS):
        if (made := preference(label)) is not None:
            yield made


def _write_preferences(path: Path, rows: Iterable[Preference]) -> int:
    """How many there were. Without `meta`, which is empty: Parquet cannot hold an object without fields, so that a
    dataset loaded from such rows could be neither saved nor pushed."""
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(row.model_dump_json(exclude={"meta"}, exclude_none=True) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[Preference]) -> None:
    import pyarrow
    from pyarrow import parquet

    turns = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    schema = pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("prompt", turns),
            ("chosen", turns),
            ("rejected", turns),
            ("probability", pyarrow.float64()),
            ("margin", pyarrow.float64()),
            ("constitution", pyarrow.string()),
            ("judge", pyarrow.string()),
            ("tags", pyarrow.list_(pyarrow.string())),
            (
                "principles",
                pyarrow.list_(
                    pyarrow.struct([("principle", pyarrow.string()), ("probability", pyarrow.float64())])
                ),
            ),
            ("gold", pyarrow.string()),
        ]
    )
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row.model_dump(mode="json", exclude={"meta"}))
            if len(batch) == BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def file_facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, by which a run folder is verified."""
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}
