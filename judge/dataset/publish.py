"""Labels -> what `label` leaves behind: labels, preferences (JSONL and Parquet), dataset card, manifest.

`labels.jsonl` comes first and everything else is derived from it, so that the folder proves itself. Rows hold
no clock values: the same labels give the same bytes. The manifest, with counts and hashes, is written last.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import opinions, winner
from preceptor.judge.audit.audit import audit
from preceptor.judge.audit.calibration import picture
from preceptor.judge.dataset.card import card, statuses_of
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.dataset.manifest import InputFacts, LabelManifest, NoInput
from preceptor.judge.errors import PairsError
from preceptor.judge.figures import AuditFigures, FurtherFigures
from preceptor.judge.records import Certificate, Label, Letter, Opinion, Preference
from preceptor.judge.settings import RankingPairing
from preceptor.judge.voting.ranking import preferences_of
from preceptor.prompts.manifest import versions, write_manifest, write_text
from preceptor.prompts.records import Message
from preceptor.prompts.rows import replacing
from preceptor.prompts.seen import SeenIds

LIBRARIES = ("pydantic", "jinja2", "openai", "anthropic")
"""Whose versions the manifest names."""
AUDITED = 20_000
"""Labels from which on the card's audit looks at a share of about so many: its figures keep every label in memory."""
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
    pairing: RankingPairing | None = None
    """Which preferences a ranked group gives; None: every `ok` label is one."""
    failed: int = 0
    """Calls that ended without an answer, which another run would ask again."""
    source: InputFacts | NoInput = {}  # noqa: RUF012
    """The input file and its hash."""
    prices: Mapping[str, Any] = MappingProxyType({})
    """Those given with the command, by model, `""` for all: what is asked again later costs the same."""
    certificate: Certificate | None = None
    """Of the labels, where one was asked for; its gold labels lie beside them."""
    extra: FurtherFigures = {}  # noqa: RUF012
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


def publish(out: str | Path, run: LabelRun) -> LabelManifest:
    """Derive preferences, card and manifest from the `labels.jsonl` that lies under `out`.

    An older manifest is taken away first: a folder without one is a folder that is not finished. Raises
    PairsError where rows were lost or came twice, so that rows in = rows out by status, always.
    """
    folder = LabelFolder(Path(out))
    used = (
        (folder.rankings, run.pairing),
        (folder.canaries, "canaries" in run.extra),
        (folder.gold, run.certificate),
    )
    for stale in (
        folder.manifest,
        folder.sums,
        folder.signature,
        folder.reliability,
        folder.drift,  # it was about other labels
        *(path for path, wanted in used if not wanted),
    ):
        stale.unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    labels = _counted(folder, run, counts)
    if run.pairing is None:
        # one reading makes everything: a million labels are some gigabytes
        with _preference_files(folder) as write:
            figures = audit(audited(_written(labels, write), run.rows_in), run.constitution, run.cost_usd)
        preferred = counts["ok"]
    else:
        figures = audit(audited(labels, run.rows_in), run.constitution, run.cost_usd)
        with _preference_files(folder) as write:
            preferred = sum(1 for one in _ranked(folder, run.pairing) if write(one))
    if counts.total() > AUDITED:
        figures["audited"] = AUDITED / counts.total()
    if counts.total() and figures["reliability"]:
        write_text(folder.reliability, picture(figures["reliability"]))
    known: AuditFigures | FurtherFigures = run.extra
    if counts.total():
        known = cast("AuditFigures", {**figures, **run.extra})
    write_text(folder.card, card(run.constitution, run.judge, run.settings, counts, known, run.certificate))
    manifest: LabelManifest = {
        "schema": 1,
        "command": "label",
        "complete": run.complete,
        "constitution": run.constitution.identity,
        "constitution_content": run.constitution.model_dump(mode="json", exclude_defaults=True),
        "judge": run.judge,
        "settings": dict(run.settings),
        "rows": {
            "in": run.rows_in,
            "out": counts.total(),
            "by_status": {status: counts[status] for status in statuses_of(run.certificate)},
            "preferences": preferred,
        },
        "versions": versions(*LIBRARIES),
        "input": run.source,
        "calls_failed": run.failed,
        "files": folder.facts(),
        "audit": known,
        "prices": dict(run.prices),
        "cost_usd": run.cost_usd,
    }
    if run.certificate is not None:
        manifest["certificate"] = run.certificate.model_dump(mode="json", exclude_none=True)
    hashes = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    write_manifest(folder.path, manifest, tuple(hashes), hashes)
    return manifest


def _counted(folder: LabelFolder, run: LabelRun, counts: Counter[str]) -> Iterator[Label]:
    """The labels, each counted by its status as it passes. Raises PairsError at the end where rows were lost or came
    twice."""
    seen = SeenIds()
    for label in folder.read_labels():
        if seen.add(label.id) is not None:
            raise PairsError(f"{folder.labels}: label {label.id} came twice; wanted one label for each pair")
        counts[label.status] += 1
        yield label
    if counts.total() != run.rows_in:
        raise PairsError(f"{folder.labels}: {run.rows_in} pairs came in and {counts.total()} labels went out")


def audited(labels: Iterable[Label], rows_in: int) -> Iterator[Label]:
    """Those that the audit looks at: all, or of very many a share, drawn by their ids' hashes."""
    bound = 2**64 if rows_in <= AUDITED else int(2**64 * AUDITED / rows_in)
    for label in labels:
        drawn = hashlib.blake2b(f"audit:{label.id}".encode(), digest_size=8).digest()
        if int.from_bytes(drawn) < bound:
            yield label


def _written(labels: Iterable[Label], write: Callable[[Preference], bool]) -> Iterator[Label]:
    for label in labels:
        made = preference(label)
        assert (made is not None) == (label.status == "ok"), "every ok label is a preference"
        if made is not None:
            write(made)
        yield label


def _ranked(folder: LabelFolder, pairing: RankingPairing) -> Iterator[Preference]:
    for ranking in folder.read_rankings():
        yield from preferences_of(ranking, pairing)


@contextmanager
def _preference_files(folder: LabelFolder) -> Iterator[Callable[[Preference], bool]]:
    """A function that writes one preference to both files, which appear when the block ends well. Without `meta`, which
    is empty: Parquet cannot hold an object without fields, so that a dataset loaded from such rows could be neither
    saved nor pushed."""
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
    batch: list[dict[str, Any]] = []
    with (
        replacing(folder.preferences) as lines,
        replacing(folder.parquet) as columns,
        lines.open("w", encoding="utf-8", newline="\n") as file,
        parquet.ParquetWriter(columns, schema) as writer,
    ):

        def write(row: Preference) -> bool:
            file.write(row.model_dump_json(exclude={"meta"}, exclude_none=True) + "\n")
            batch.append(row.model_dump(mode="json", exclude={"meta"}))
            if len(batch) == BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch.clear()
            return True

        yield write
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))
