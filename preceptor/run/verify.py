"""Whether a folder still is what its manifest says: every hash, every count, and every row's way back to its call.

Works on a run folder, on what `label` wrote and on what `train` wrote. Nothing is repaired and nothing is asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preceptor import folder
from preceptor.constitution.errors import UserError
from preceptor.judge.dataset.publish import RANKINGS, preference
from preceptor.judge.records import Label, Preference, Ranking, Response, Revision
from preceptor.judge.settings import Pairing
from preceptor.judge.voting.ranking import preferences_of
from preceptor.prompts.rows import read_records

MANIFEST = "manifest.json"


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
    rounds = range(1, manifest["settings"].get("rounds", 1) + 1) if "stages" in manifest else ()
    if "stages" in manifest:
        problems += _stages(path, manifest)
        for number in rounds:
            own = f"rounds/{number}/" if number > 1 else ""
            problems += _lineage(path, f"{own}4-labels.jsonl", f"{own}5-preferences.jsonl")
            problems += _sources(path, own)
        problems += _result(path, len(rounds)) if len(rounds) > 1 else []
        problems += _probes(path)
    elif "rows" in manifest and "by_status" in manifest["rows"]:
        problems += _label_counts(path, manifest["rows"])
        problems += _lineage(path, "labels.jsonl", "preferences.jsonl", manifest["settings"].get("pairs"))
    for inner in (
        "3-sft",
        "6-reward",
        *(f"rounds/{number}/7-policy" for number in rounds),
        "7-policy",
        "7-ppo",
    ):
        if (path / inner / MANIFEST).exists():
            problems += [f"{inner}/{problem}" for problem in verify(path / inner)]
    return problems


def _hashes(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for name, facts in manifest.get("files", {}).items():
        wanted = facts["sha256"] if isinstance(facts, dict) else facts
        if not (path / name).exists():
            yield f"{name}: is missing"
        elif (found := folder.digest(path / name)) != wanted:
            yield f"{name}: its SHA-256 is {found[:12]}…, the manifest says {wanted[:12]}…"


def _stages(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for stage in manifest["stages"]:
        aside = sum(stage["set_aside"].values())
        if stage["rows_in"] != stage["rows_out"] + aside:
            yield f"{stage['stage']}: {stage['rows_in']} rows in, {stage['rows_out']} out and {aside} set aside"
        for name in stage["outputs"]:
            # a prompt has several responses, so that file counts prompts, not lines; each share is but a part
            counts_prompts = stage["stage"].partition("-")[0] in ("prompts", "respond", "sample", "shares")
            if name.endswith(".jsonl") and not counts_prompts:
                rows = (path / name).read_bytes().count(b"\n")
                if rows != stage["rows_out"]:
                    yield f"{name}: holds {rows} rows, the manifest says {stage['rows_out']}"


def _label_counts(path: Path, rows: dict[str, Any]) -> Iterator[str]:
    found: dict[str, int] = {}
    for label in read_records(path / "labels.jsonl", Label):
        found[label.status] = found.get(label.status, 0) + 1
    for status, count in rows["by_status"].items():
        if found.get(status, 0) != count:
            yield f"labels.jsonl: {found.get(status, 0)} rows are {status}, the manifest says {count}"
    if sum(found.values()) != rows["in"]:
        yield f"labels.jsonl: holds {sum(found.values())} rows, {rows['in']} went in"


def _lineage(path: Path, labels: str, preferences: str, pairing: Pairing | None = None) -> Iterator[str]:
    """Every preference is what its label or ranking says, and every ok label, or ranking, has its own."""
    if pairing is not None:
        rankings = read_records(path / RANKINGS, Ranking)
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
    for name in ("7-policy", "8-heldout.jsonl"):
        if folder.digest(path / name) != folder.digest(path / f"rounds/{last}" / name):
            yield f"{name}: is not that of round {last}, the last"


def _sources(path: Path, own: str) -> Iterator[str]:
    """Every reply that was compared is a response or a revision, and every call stands in the ledger.

    own: the folder of a later round, which compared its own responses alone; empty for the first.
    """
    names = (f"{own}3-responses.jsonl",) if own else ("2-responses.jsonl", "3-responses.jsonl")
    sampled = [path / name for name in names]
    responses = {row.id: row for name in sampled if name.exists() for row in read_records(name, Response)}
    revised = path / "3-revisions.jsonl"
    here = revised.exists() and not own
    revisions = {row.id: row for row in read_records(revised, Revision)} if here else {}
    texts = {
        **{key: row.text for key, row in responses.items()},
        **{key: row.text for key, row in revisions.items()},
    }
    calls = {row.call for row in responses.values()}
    calls |= {call for row in revisions.values() for call in row.calls}
    labels = f"{own}4-labels.jsonl"
    for label in read_records(path / labels, Label):
        replies = (label.response_a, label.response_b)
        for source, reply in zip(label.sources or (), replies, strict=False):
            if texts.get(source) != reply:
                yield f"{labels}: {label.id}: no response or revision {source} has that text"
        calls |= {judgement.call for judgement in label.judgements if judgement.call}
    missing = calls - _calls(path / "ledger.db")
    if missing:
        yield f"ledger.db: {len(missing)} of {len(calls)} calls are not in it, such as {min(missing)}"


def _probes(path: Path) -> Iterator[str]:
    """Every reply to a probe is a call in the ledger."""
    from preceptor.evaluation.probes import ProbeRow

    name = "8-probes.jsonl"
    if not (path / name).exists():
        return
    rows = read_records(path / name, ProbeRow)
    calls = {said.call for row in rows for said in (*row.before, *row.after)}
    if missing := calls - _calls(path / "ledger.db"):
        yield f"{name}: {len(missing)} of {len(calls)} calls are not in ledger.db, such as {min(missing)}"


def _calls(path: Path) -> set[str]:
    if not path.exists():
        return set()
    ledger = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {key for (key,) in ledger.execute("select key from calls where status = 'answered'")}
    finally:
        ledger.close()
