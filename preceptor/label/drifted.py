"""A label folder's judges asked again: some rows at every look, kept beside the labels, with what all looks prove."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from preceptor.asking.stages import AskingResult, OpenBar
from preceptor.constitution.errors import UserError
from preceptor.judge.asking import prices
from preceptor.judge.audit.certificate import step_of
from preceptor.judge.audit.drift import TOLERANCE, compared, verdict
from preceptor.judge.dataset.card import drifted
from preceptor.judge.dataset.label_folder import DRIFT, FILES, LabelFolder, constitution_of, file_facts
from preceptor.judge.dataset.manifest import LabelManifest
from preceptor.judge.figures import ChangedFigures
from preceptor.judge.records import DriftLook, Label, Pair
from preceptor.judge.settings import CHECKS, Price
from preceptor.judge.voting.panel import DAWID_SKENE
from preceptor.label.certified import by_people
from preceptor.label.run import Job, job_of_folder, look_again, look_number, pair_of
from preceptor.prompts.manifest import write_manifest, write_text
from preceptor.prompts.rows import write_rows
from preceptor.settings import Access, Asking

CARD_HEADING = "\n## Drift since\n"
"""Where the card's part about later looks begins; it goes to the end of the card."""


class Watched(NamedTuple):
    """A label folder whose judges are looked at."""

    folder: LabelFolder
    manifest: LabelManifest
    job: Job
    """Its judges, but for people."""
    asking: Asking
    looks: list[DriftLook]
    """Those so far."""
    tolerance: float
    rows: list[Label]
    """Those that the next look asks again."""

    @property
    def pairs(self) -> list[Pair]:
        """What the next look asks about."""
        return [pair_of(label) for label in self.rows]

    def due(self, days: float | None, today: date) -> bool:
        """Whether so many days have gone by since the last look."""
        return days is None or due(self.looks, days, today)


def due(looks: Sequence[DriftLook], days: float, today: date) -> bool:
    """Whether so many days have gone by since the last look, or there was none."""
    return not looks or (today - date.fromisoformat(looks[-1].date)).days >= days


def watched(path: Path, asking: Asking, rows: int, tolerance: float | None) -> Watched:
    """The folder and the rows of its next look: drawn by a hash of their ids and of the look, so that every look draws
    from all labels anew.

    Raises UserError where the folder is none of `label`'s, where its judges cannot be asked as they were, and where a
    tolerance is not that of the looks before.
    """
    folder = LabelFolder(path)
    manifest = folder.read_manifest()
    if manifest is None:
        raise UserError(
            f"{path} holds no labels with their manifest; wanted a folder that `preceptor label` has finished"
        )
    looks = folder.read_drift()
    job = _job(manifest, path, asking)
    known = {name: Price.model_validate(price) for name, price in manifest.get("prices", {}).items()}
    asking = asking.model_copy(update={"prices": known | dict(asking.prices)})
    asked = [label for label in folder.read_labels() if step_of(label) < len(job.panels) and _asked(label)]
    if not asked:
        raise UserError(f"{folder.labels} holds no label of a model that could be asked again")
    drawn = sorted(asked, key=lambda label: _place(label.id, len(looks) + 1))[:rows]
    return Watched(folder, manifest, job, asking, looks, _tolerance(manifest, looks, tolerance), drawn)


def _job(manifest: LabelManifest, path: Path, asking: Asking) -> Job:
    job = job_of_folder(manifest, constitution_of(manifest, path))
    if job.combine == DAWID_SKENE:
        raise UserError(
            "these labels come of --combine dawid-skene, which looks at all rows together; look at labels by mean or "
            "majority"
        )
    said = manifest["settings"].get("template_sha256")
    if said != job.resolved["template_sha256"]:
        raise UserError(
            f"{job.settings.template} is not the template of these labels any more; bring that back, or label anew"
        )
    panels = [(names, when) for names, when in job.panels if not by_people(names)]
    if not any(name != CHECKS for names, _ in panels for name in names):
        raise UserError("these labels were made by no model; there is nothing that could drift")
    given = {name: getattr(asking, name) for name in Access.model_fields if name in asking.model_fields_set}
    return job._replace(panels=panels, access=job.access.model_copy(update=given))


def _asked(label: Label) -> bool:
    """Whether a model decided it."""
    return label.status != "failed" and any(one.call is not None for one in label.judgements)


def _place(identity: str, look: int) -> str:
    return hashlib.sha256(f"drift:{look}:{identity}".encode()).hexdigest()


def _tolerance(manifest: LabelManifest, looks: Sequence[DriftLook], given: float | None) -> float:
    """As given; as in the looks before; as a look on the day of labelling found it, at the upper end; or the usual."""
    if looks:
        if given is not None and given != looks[-1].tolerance:
            raise UserError(
                f"--tolerate {given:g}: the looks before were held to {looks[-1].tolerance:g}, and a bound that is "
                "moved between looks proves nothing; leave it out"
            )
        return looks[-1].tolerance
    if given is not None:
        return given
    measured = manifest["audit"].get("drift")
    bounds = measured["ci95"] if measured else None
    return min(0.5, bounds[1]) if bounds else TOLERANCE


def look(one: Watched, bar: OpenBar) -> tuple[ChangedFigures, AskingResult]:
    """Ask the rows again, keep the look in the folder, and say what all looks prove.

    What stopped the asking is raised; the same command then goes on with the look.
    """
    number = look_number(one.pairs, one.job, one.asking)
    made, asked = look_again(one.pairs, one.job, number, one.asking, bar)
    if asked.stopped is not None:
        raise asked.stopped
    whole, principles = compared(one.rows, made)
    found = DriftLook(
        date=prices.today().isoformat(),
        look=number,
        tolerance=one.tolerance,
        n=whole.n,
        changed=whole.changed,
        principles={name: (own.n, own.changed) for name, own in principles.items()},
        failed=len(one.rows) - whole.n,
    )
    return keep(one.folder, one.manifest, [*one.looks, found]), asked


def keep(folder: LabelFolder, manifest: LabelManifest, looks: Sequence[DriftLook]) -> ChangedFigures:
    """Write the looks and what they prove into the folder and its card, and seal it anew; a signature goes."""
    figures = verdict(looks)
    write_rows(folder.drift, looks)
    card = folder.card.read_text(encoding="utf-8").partition(CARD_HEADING)[0]
    write_text(
        folder.card, f"{card}{CARD_HEADING}\n{drifted(figures, manifest.get('certificate') is not None)}"
    )
    files = {
        **manifest["files"],
        **{name: file_facts(folder.path / name) for name in (folder.card.name, DRIFT)},
    }
    sealed: LabelManifest = {**manifest, "files": files, "drift": figures}
    hashes = {name: facts["sha256"] for name, facts in files.items()}
    write_manifest(folder.path, sealed, [name for name in FILES if name in files], hashes)
    return figures
