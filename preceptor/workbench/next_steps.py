"""What to do next with a project, told from what lies in its folder. Nothing is asked, and no price is guessed.

A price is what the same work cost before, for as many rows. Where that is not known it is None, and the command shows a
plan, which tells it.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.files import load, shipped
from preceptor.constitution.foreign import json_in
from preceptor.constitution.lint import lint
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.coverage import ALL, coverage
from preceptor.judge.dataset.label_folder import LabelFolder, constitution_of
from preceptor.judge.dataset.manifest import LabelManifest
from preceptor.judge.records import Label
from preceptor.settings import CHECKS, in_this_process

DEEPEST = 3
"""Folders in one another that are looked into."""
UNSURE = ("inconsistent", "tie", "unparsed", "refused", "abstained")
STALE_DAYS = 30
"""Days after which it is worth a look whether a provider's model still says the same."""
LOOK_SHARE = 0.01
GOLD_ROWS = 100
"""Pairs that a person is asked about, so that the judge's agreement is known to within ten points."""
WEAK = 0.8
"""Share of held-out replies below which a principle is weak."""


class NextStep(TypedDict):
    """One thing to do."""

    why: str
    command: str
    cost_usd: float | None
    """0 where nobody is paid; None: not known, and the command plans."""
    people: int
    """Questions to a person."""


class Project(NamedTuple):
    """What of a folder's files bears on what to do."""

    constitutions: Mapping[Path, Constitution]
    faulty: Mapping[Path, str]
    """Files that are meant as constitutions and do not load -> the first fault."""
    labels: Mapping[Path, LabelManifest]
    runs: Mapping[Path, Mapping[str, Any]]
    """Folder of a run -> its manifest."""
    plans: tuple[Path, ...]
    """Run files without a run."""


def look(root: Path) -> Project:
    """Raises UserError where there is no such folder."""
    if not root.is_dir():
        raise UserError(f"{root} is no folder; wanted the folder of a project")
    constitutions: dict[Path, Constitution] = {}
    faulty: dict[Path, str] = {}
    labels: dict[Path, LabelManifest] = {}
    runs: dict[Path, Mapping[str, Any]] = {}
    plans = []
    for path in _files(root):
        if path.name == "manifest.json":
            if (label := LabelFolder(path.parent).read_manifest()) is not None:
                labels[path.parent] = label
            elif (run := _json(path)).get("kind") == "run":
                runs[path.parent] = run
        elif path.suffix in (".yaml", ".yml"):
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(line.startswith(("principles:", "extends:")) for line in text.splitlines()):
                try:
                    constitutions[path] = load(path)
                except ConstitutionError as error:
                    faulty[path] = str(error.faults[0])
            elif {"prompts", "out"} <= {line.partition(":")[0] for line in text.splitlines()}:
                plans.append(path)
    inside = {
        one for one in constitutions if one.parent in runs
    }  # a run's own copy is judged where it came from
    own = {path: one for path, one in constitutions.items() if path not in inside}
    return Project(own, faulty, labels, runs, () if runs else tuple(plans))


def _files(root: Path) -> Iterator[Path]:
    def walk(folder: Path, depth: int) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.is_symlink():
                continue
            if path.is_dir() and depth < DEEPEST:
                yield from walk(path, depth + 1)
            elif path.is_file():
                yield path

    return walk(root, 0)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json_in(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def next_steps(root: Path, now: float | None = None) -> list[NextStep]:
    """In the order in which they matter. now: seconds of the epoch; None: the clock's."""
    project = look(root)
    now = time.time() if now is None else now
    found = [*_constitutions(project), *_plans(project)]
    for folder, manifest in project.labels.items():
        found += _labels(folder, manifest, project, now)
    for folder, run in project.runs.items():
        found += _run(folder, run)
    if not (project.constitutions or project.faulty or project.runs):
        found.insert(0, _step("there is no constitution here", ["constitution", "new", "my-constitution"]))
    return found


def _step(why: str, words: list[str], cost_usd: float | None = 0.0, people: int = 0) -> NextStep:
    return {"why": why, "command": shlex.join(["preceptor", *words]), "cost_usd": cost_usd, "people": people}


def _constitutions(project: Project) -> Iterator[NextStep]:
    for path, fault in project.faulty.items():
        yield _step(f"{path} does not load: {fault}", ["constitution", "edit", str(path)])
    for path, rules in project.constitutions.items():
        counts = Counter(remark.severity for remark in lint(rules))
        if counts:
            said = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in sorted(counts.items()))
            yield _step(f"{path} has {said}", ["constitution", "lint", str(path)])


def _plans(project: Project) -> Iterator[NextStep]:
    for path in project.plans:
        yield _step(f"{path} was never run", ["run", str(path), "--plan"], None)


def _labels(folder: Path, manifest: LabelManifest, project: Project, now: float) -> Iterator[NextStep]:
    source = str(manifest["input"].get("path", ""))
    rules = _source_of(manifest["constitution"], project)
    again = _command(manifest, source, rules)
    labels = list(LabelFolder(folder).read_labels())
    each = _price_of_a_row(manifest)
    if again is not None:
        yield from _asked_again(folder, manifest, labels, again, each, now)
    if labels:
        yield from _principles(folder, manifest, labels, source, rules)


def _source_of(identity: str, project: Project) -> str | None:
    """What a command names the constitution by; None: it is not here as it was."""
    found = next(
        (str(path) for path, rules in project.constitutions.items() if rules.identity == identity), None
    )
    return found or next((name for name in shipped() if load(name).identity == identity), None)


def _command(manifest: LabelManifest, source: str, rules: str | None) -> list[str] | None:
    """The words that label the same once more; None: they cannot be told from the manifest."""
    panels = manifest["settings"].get("panels", [])
    if not source or not Path(source).exists() or rules is None or len(panels) != 1:
        return None
    words = ["label", source, "-c", rules]
    for judge in panels[0][0]:
        words += ["--judge", judge]
    if (way := manifest["settings"].get("principles", "joint")) != "joint":
        words += ["--principles", way]
    return words


def _price_of_a_row(manifest: LabelManifest) -> float | None:
    """What a label cost; None where it is not known, as of labels that came out of the ledger."""
    names = [name for step, _ in manifest["settings"].get("panels", []) for name in step]
    if all(name == CHECKS or in_this_process(name) for name in names):
        return 0.0
    cost, rows = manifest["cost_usd"], manifest["rows"]["out"]
    return cost / rows if cost and rows else None


def _asked_again(
    folder: Path,
    manifest: LabelManifest,
    labels: list[Label],
    again: list[str],
    each: float | None,
    now: float,
) -> Iterator[NextStep]:
    beside = str(folder.with_name(f"{folder.name}-people"))
    if not manifest["complete"] or manifest["calls_failed"]:
        left = (
            "was stopped before its end"
            if not manifest["complete"]
            else f"{manifest['calls_failed']} calls failed"
        )
        yield _step(
            f"{folder}: {left}; what was asked is in the ledger",
            [*again, "--out", str(folder), "--plan"],
            None,
        )
    if labels and not any(label.preferred for label in labels):
        count = min(GOLD_ROWS, len(labels))
        words = ["label", *again[1:4], "--human", "--limit", str(count), "--out", beside]
        yield _step(f"{folder}: nobody knows how far its judge agrees with people", words, people=count)
    unsure = sum(label.status in UNSURE for label in labels)
    if unsure and "human" not in manifest["judge"]:
        words = [*again, "--human", "--out", beside]
        yield _step(f"{folder}: {unsure} of {len(labels)} pairs have no winner", words, people=unsure)
    days = int((now - LabelFolder(folder).manifest.stat().st_mtime) / 86400)
    if labels and days >= STALE_DAYS and each != 0.0:
        cost = None if each is None else each * max(1, round(LOOK_SHARE * len(labels)))
        words = [*again, "--out", str(folder), "--recheck", f"{LOOK_SHARE:.0%}"]
        yield _step(f"{folder}: made {days} days ago; does the judge still say the same?", words, cost)


def _principles(
    folder: Path, manifest: LabelManifest, labels: list[Label], source: str, rules: str | None
) -> Iterator[NextStep]:
    constitution = constitution_of(manifest, folder)
    prompts = {label.prompt.id: label.prompt for label in labels}
    found = coverage(constitution, prompts.values(), labels)
    idle = [cell for cell in found["cells"] if cell["tag"] == ALL and cell["judged"] and not cell["decided"]]
    if rules is not None and source and found["all_tie"]:
        names = sorted({principle for _, principle in found["all_tie"]})
        words = ["prompts", "synthesize", source, "--fill", "-c", rules, "--labels", str(folder)]
        words += ["--model", "MODEL", "--out", str(folder.with_name("more-prompts.jsonl")), "--plan"]
        yield _step(f"{folder}: cells where no pair was told apart, of {', '.join(names)}", words, None)
    for cell in idle:
        if len(constitution.principles) > 1:
            words = ["constitution", "replay", str(folder), "--without", cell["principle"]]
            yield _step(f"{folder}: {cell['principle']} decided none of {cell['judged']} labels", words)


def _run(folder: Path, manifest: Mapping[str, Any]) -> Iterator[NextStep]:
    after = _json(folder / "summary.json").get("after")
    shares = {
        name: one for name, one in (after or {}).items() if isinstance(one, int | float) and name != "overall"
    }
    prompts = manifest.get("settings", {}).get("prompts", {})
    source = prompts.get("file") if isinstance(prompts, Mapping) else None
    if not shares or not source:
        return
    weakest = min(shares, key=lambda name: shares[name])
    if shares[weakest] < WEAK:
        words = ["prompts", "synthesize", str(source), "--fill", "-c", str(folder / "constitution.yaml")]
        words += ["--model", "MODEL", "--out", str(folder.with_name("more-prompts.jsonl")), "--plan"]
        yield _step(f"{folder}: {weakest} holds in {shares[weakest]:.0%} of held-out replies", words, None)
