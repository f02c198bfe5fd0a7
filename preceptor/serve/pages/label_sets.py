"""Labels that pages show: of jobs, of files that were uploaded, and of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.records import Label
from preceptor.run.files import CONSTITUTION, LABELS, LEDGER
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import Jobs
from preceptor.serve.jobs.store import StoredFile
from preceptor.serve.jobs.worker import ledger_of
from preceptor.serve.pages.label_index import BeingIndexed, LabelIndex, LabelIndexes
from preceptor.serve.pages.session import Looking, Visitor
from preceptor.serve.problems import Problem
from preceptor.serve.service import Served, Service

ENDING = "labels.jsonl"
"""Of names of files that hold labels, as label jobs and runs write them."""


class LabelSet(NamedTuple):
    """Labels under one name."""

    name: str
    """In addresses: the configuration's name, or a file's id."""
    told: str
    """For people."""
    path: Path
    ledger: str | None
    """Where the calls behind them are; None: not known, or not this visitor's to see."""
    constitution: Constitution | None
    """None: it is not here, and so it is not known which principle decided."""


class LabelSets:
    """The labels that a visitor may see."""

    def __init__(self, served: Service, crew: Crew, looking: Visitor, indexes: LabelIndexes) -> None:
        """Raises Problem 403 where they may see none."""
        self._served, self._crew, self._indexes = served, crew, indexes
        self._owner = looking.owner

    def all(self) -> list[tuple[str, str]]:
        """(name, for people) of each, those of the configuration first, then the latest."""
        files = [
            (file.id, self._told(file))
            for file in self._crew.store.files(self._owner)
            if file.filename.endswith(ENDING)
        ]
        return [*((name, name) for name in self._served.config.labels), *files]

    def found(self, name: str) -> LabelSet:
        """The labels of this name. Raises Problem 404."""
        entry = self._served.config.labels.get(name)
        if entry is not None:
            folder = entry.path if entry.path.is_dir() else entry.path.parent
            places = [folder / LABELS, LabelFolder(folder).labels]
            path = entry.path
            if path.is_dir():
                path = next((place for place in places if place.is_file()), places[-1])
            beside = entry.ledger or folder / LEDGER
            return LabelSet(
                name,
                name,
                path,
                str(beside) if beside.is_file() else None,
                self._constitution(path, entry.constitution, folder / CONSTITUTION),
            )
        file = self._crew.store.file(name, self._owner)
        if file is None:
            raise Problem(404, "not_found", f"there are no labels {name!r}")
        path = self._crew.store.path_of(file)
        # whoever uploads a file may write any call's key into it
        mine = bool(file.job) or self._owner is None
        own = path.parent.parent / CONSTITUTION if file.job else Path("/nonexistent")
        ledger = ledger_of(self._crew.store) if mine else None
        return LabelSet(name, self._told(file), path, ledger, self._constitution(path, None, own))

    def index(self, found: LabelSet) -> LabelIndex | BeingIndexed:
        """Its index, or how far that is. Raises UserError."""
        return self._indexes.of(found.path, found.constitution)

    def whole_index(self, name: str) -> tuple[LabelSet, LabelIndex]:
        """Labels with their index. Raises Problem 503 while it is being made."""
        found = self.found(name)
        index = self.index(found)
        if isinstance(index, BeingIndexed):
            said = f"these labels are being indexed ({index.rows} rows so far); come back in a moment"
            raise Problem(503, "being_indexed", said, "server_error", headers={"Retry-After": "2"})
        return found, index

    def _told(self, file: StoredFile) -> str:
        job = self._crew.store.job(file.job) if file.job else None
        if job is None:
            return f"{file.filename} ({file.id})"
        by = job.request.get("judge") or ""
        words = [job.kind, str(job.request.get("constitution") or ""), "by", by if by else "?"]
        said = " ".join(one if isinstance(one, str) else " + ".join(map(str, one)) for one in words if one)
        return f"{said} ({job.id})"

    def _constitution(self, labels: Path, name: str | None, own: Path) -> Constitution | None:
        """The one that made the labels: only that of their own identity says which principle decided."""
        wanted = _identity_in(labels)
        known = self._served.rewards.constitutions
        if name is not None and known[name].identity == wanted:
            return known[name]
        if own.is_file():
            try:
                there = load(str(own))
            except UserError:
                there = None
            if there is not None and there.identity == wanted:
                return there
        return next((one for one in known.values() if one.identity == wanted), None)


def _identity_in(labels: Path) -> str:
    """The constitution of the first label; empty where there is none."""
    try:
        with labels.open("rb") as stream:
            return Label.model_validate_json(stream.readline().rstrip(b"\r\n")).constitution
    except (OSError, ValueError):
        return ""


def label_sets(request: Request, served: Served, crew: Jobs, looking: Looking) -> LabelSets:
    """The labels that a visitor may see, as a dependency of a page."""
    return LabelSets(served, crew, looking, request.app.state.indexes)


Sets = Annotated[LabelSets, Depends(label_sets)]
