"""Whether a folder still is what its manifest says: every hash, every count, and every row's way back to its call.

Works on a run folder, on what `label` wrote and on what `train` wrote. Nothing is repaired and nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from preceptor import folder
from preceptor.constitution.errors import UserError
from preceptor.figures import RunManifest
from preceptor.judge.dataset.label_folder import LABELS as LABEL_ROWS
from preceptor.judge.dataset.label_folder import PREFERENCES as PREFERENCE_ROWS
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.dataset.manifest import LabelManifest, LabelRows
from preceptor.judge.dataset.publish import preference
from preceptor.judge.ledger.queries import answered_keys
from preceptor.judge.records import Label, Preference, Response, Revision
from preceptor.judge.settings import RankingPairing
from preceptor.judge.voting.ranking import preferences_of
from preceptor.prompts.rows import read_records
from preceptor.run.files import (
    FILES,
    HELD_OUT,
    LABELS,
    LEDGER,
    MANIFEST,
    POLICY,
    PREFERENCES,
    PROBES,
    RESPONSES,
    RESULT,
    REVISIONS,
    TUNED_RESPONSES,
    base_name,
    round_folder,
)


def verify(path: Path) -> list[str]:
    """What is wrong, a line each; empty: the folder proves itself.

    Raises UserError where there is no manifest, for then the command that writes it has not finished.
    """
    if not (path / MANIFEST).exists():
        raise UserError(
            f"{path} has no {MANIFEST}; wanted the folder of a finished run, label or train: run its command to the end"
        )
    manifest = folder.read_json(path / MANIFEST)
    problems = list(_hashes(path, manifest))
    if problems:
        return problems  # counts of files that have changed would only say the same again
    if "stages" in manifest:
        problems += _run(path, cast("RunManifest", manifest))
    elif "rows" in manifest and "by_status" in manifest["rows"]:
        labelled = cast("LabelManifest", manifest)
        problems += _label_counts(path, labelled["rows"])
        problems += _lineage(path, LABEL_ROWS, PREFERENCE_ROWS, labelled["settings"].get("pairs"))
    return problems


def _run(path: Path, manifest: RunManifest) -> Iterator[str]:
    """Stage by stage: its counts, then whatever the table says of its files, then the folders that it trained."""
    yield from _stages(path, manifest)
    outputs = [name for stage in manifest["stages"] for name in stage["outputs"]]
    for name in outputs:
        if (prove := PROOFS.get(base_name(name))) is not None:
            yield from prove(path, round_folder(name))
    if any(stage["stage"] == RESULT for stage in manifest["stages"]):
        yield from _result(path, manifest["settings"]["rounds"])
    for name in outputs:
        if (path / name / MANIFEST).exists():
            yield from (f"{name}/{problem}" for problem in verify(path / name))


def _hashes(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for name, facts in manifest.get("files", {}).items():
        wanted = facts["sha256"] if isinstance(facts, dict) else facts
        if not (path / name).exists():
            yield f"{name}: is missing"
        elif (found := folder.digest(path / name)) != wanted:
            yield f"{name}: its SHA-256 is {found[:12]}…, the manifest says {wanted[:12]}…"


def _stages(path: Path, manifest: RunManifest) -> Iterator[str]:
    for stage in manifest["stages"]:
        aside = sum(stage["set_aside"].values())
        if stage["rows_in"] != stage["rows_out"] + aside:
            yield f"{stage['stage']}: {stage['rows_in']} rows in, {stage['rows_out']} out and {aside} set aside"
        for name in stage["outputs"]:
            known = FILES.get(base_name(name))
            if name.endswith(".jsonl") and (known is None or known.counted):
                rows = (path / name).read_bytes().count(b"\n")
                if rows != stage["rows_out"]:
                    yield f"{name}: holds {rows} rows, the manifest says {stage['rows_out']}"


def _label_counts(path: Path, rows: LabelRows) -> Iterator[str]:
    found: dict[str, int] = {}
    for label in read_records(path / LABEL_ROWS, Label):
        found[label.status] = found.get(label.status, 0) + 1
    for status, count in rows["by_status"].items():
        if found.get(status, 0) != count:
            yield f"{LABEL_ROWS}: {found.get(status, 0)} rows are {status}, the manifest says {count}"
    if sum(found.values()) != rows["in"]:
        yield f"{LABEL_ROWS}: holds {sum(found.values())} rows, {rows['in']} went in"


def _lineage(
    path: Path, labels: str, preferences: str, pairing: RankingPairing | None = None
) -> Iterator[str]:
    """Every preference is what its label or ranking says, and every ok label, or ranking, has its own."""
    if pairing is not None:
        rankings = LabelFolder(path).read_rankings()
        wanted = [row for ranking in rankings for row in preferences_of(ranking, pairing)]
    else:
        derived = (preference(label) for label in read_records(path / labels, Label))
        wanted = [row for row in derived if row is not None]
    found = list(read_records(path / preferences, Preference)) if wanted else []
    if len(wanted) != len(found):
        yield f"{preferences}: {len(found)} rows, {len(wanted)} were to be"
    for want, have in zip(wanted, found, strict=False):
        if want != have:
            yield f"{preferences}: {have.id} is not what its source says"


def _result(path: Path, last: int) -> Iterator[str]:
    """What a run of several rounds came to is what its last round came to."""
    for name in (POLICY, HELD_OUT):
        if folder.digest(path / name) != folder.digest(path / f"rounds/{last}" / name):
            yield f"{name}: is not that of round {last}, the last"


def _sources(path: Path, own: str) -> Iterator[str]:
    """Every reply that was compared is a response or a revision, and every call stands in the ledger.

    own: the folder of a later round, which compared its own responses alone; empty for the first.
    """
    names = (f"{own}{TUNED_RESPONSES}",) if own else (RESPONSES, TUNED_RESPONSES)
    sampled = [path / name for name in names]
    responses = {row.id: row for name in sampled if name.exists() for row in read_records(name, Response)}
    revised = path / REVISIONS
    here = revised.exists() and not own
    revisions = {row.id: row for row in read_records(revised, Revision)} if here else {}
    texts = {
        **{key: row.text for key, row in responses.items()},
        **{key: row.text for key, row in revisions.items()},
    }
    calls = {row.call for row in responses.values()}
    calls |= {call for row in revisions.values() for call in row.calls}
    labels = f"{own}{LABELS}"
    for label in read_records(path / labels, Label):
        replies = (label.response_a, label.response_b)
        for source, reply in zip(label.sources or (), replies, strict=False):
            if texts.get(source) != reply:
                yield f"{labels}: {label.id}: no response or revision {source} has that text"
        calls |= {judgement.call for judgement in label.judgements if judgement.call}
    missing = calls - answered_keys(path / LEDGER)
    if missing:
        yield f"{LEDGER}: {len(missing)} of {len(calls)} calls are not in it, such as {min(missing)}"


def _probes(path: Path, own: str) -> Iterator[str]:
    """Every reply to a probe is a call in the ledger."""
    from preceptor.evaluation.probes import ProbeRow

    name = f"{own}{PROBES}"
    if not (path / name).exists():
        return
    rows = read_records(path / name, ProbeRow)
    calls = {said.call for row in rows for said in (*row.before, *row.after)}
    if missing := calls - answered_keys(path / LEDGER):
        yield f"{name}: {len(missing)} of {len(calls)} calls are not in {LEDGER}, such as {min(missing)}"


def _preferred(path: Path, own: str) -> Iterator[str]:
    """`_lineage` of a round's preferences."""
    return _lineage(path, f"{own}{LABELS}", f"{own}{PREFERENCES}")


PROOFS: Mapping[str, Callable[[Path, str], Iterator[str]]] = MappingProxyType(
    {LABELS: _sources, PREFERENCES: _preferred, PROBES: _probes}
)
"""What a file of a run must agree with beyond its hash and its count, by the run folder and the folder of its round."""
