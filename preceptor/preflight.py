"""What a command needs and can be known before it asks anybody: found now, it costs nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.constitution.errors import UserError
from preceptor.constitution.outputs import will_write
from preceptor.judge.audit.audit import AGREEMENT, FIGURES
from preceptor.judge.conditions import check, names_in
from preceptor.judge.dataset.label_folder import FILES, MANIFEST

if TYPE_CHECKING:
    from preceptor.label.run import Job

OUT_FLAGS = ("--out", "-o", "--dropped", "--disagreement")
"""Flags that name a file or folder to be written."""
ATTACKS = ("attack_rate", "attack_control_rate", "attack_excess")
DRIFT = ("drift_rate", "drift_shift")
PANEL = ("alpha",)
FORMS = ("options", "principles", "words")
"""Of an ask, that `--perturb` changes; `options_flip_rate` and so on are their figures."""


def check_gate(
    expression: str,
    job: Job,
    *,
    canaries: bool,
    gold: bool,
    planting: str = "--canaries",
    perturbed: Collection[str] = (),
) -> None:
    """Raises UserError where the gate is no expression, names no figure, or one that this job will not have.

    gold: whether the rows may have a known better reply; agreement with it is a figure only then. planting: the flag
    that plants attacks. perturbed: which forms are changed.
    """
    lacking: dict[str, str] = {}
    if not canaries:
        lacking |= dict.fromkeys(ATTACKS, planting)
    if not job.recheck:
        lacking |= dict.fromkeys(DRIFT, "--recheck")
    if sum(len(names) for names, _ in job.panels) < 2:
        lacking |= dict.fromkeys(PANEL, "several judges")
    if not gold:
        lacking |= dict.fromkeys(AGREEMENT, "rows with `preferred`, and these have none")
    flips = {f"{form}_flip_rate": f"--perturb {form}" for form in FORMS}
    lacking |= {name: flag for name, flag in flips.items() if flag.split()[1] not in perturbed}
    check(expression, (*FIGURES, *ATTACKS, *DRIFT, *PANEL, *flips))
    for name in sorted(names_in(expression)):
        if name in lacking:
            raise UserError(
                f"{name} in {expression!r} needs {lacking[name]}; leave it out of the gate, or add that"
            )


def names_agreement(expression: str) -> bool:
    """Whether the gate asks for a figure that only gold gives."""
    return not names_in(expression).isdisjoint(AGREEMENT)


def check_file(out: Path, inputs: Iterable[str | Path], flag: str = "--out") -> None:
    """Raises UserError where a command would write its result over what it reads."""
    for given in inputs:
        if _same(out, Path(given)):
            raise UserError(
                f"{flag} {out} is the input; name another file, so that the input stays as it was"
            )


def check_words(words: Sequence[str]) -> None:
    """Raises UserError where a command line names one file both to be written and as anything else; from then on no
    reader takes a file that is to be written over, by whatever way it comes to it."""
    outs: list[tuple[str, str]] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in OUT_FLAGS:
            outs.append((name, value if equals else next(rest, "")))
        elif word.startswith("-o") and not word.startswith("--"):
            outs.append(("-o", word[2:]))
        else:
            others += [word, value] if equals else [word]
    outs = [(flag, out) for flag, out in outs if out]
    for at, (flag, out) in enumerate(outs):
        if Path(out).is_file():
            check_file(Path(out), [*others, *(other for _, other in outs[:at])], flag)
    will_write(outs)


def check_over(out: Path, names: Iterable[str], inputs: Iterable[str | Path | None]) -> None:
    """Raises UserError where one of the files that are to be written to a folder is an input."""
    for given in (one for one in inputs if one):
        for name in names:
            if _same(out / name, Path(given)):
                raise UserError(f"{given}: would be written over, as {out / name}; name another folder")


def check_folder(out: Path, inputs: Iterable[str | Path]) -> None:
    """The same for a folder of labels, and where the folder is none or holds something else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; wanted a folder for labels, preferences, card and manifest")
    held = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if held and held.isdisjoint(FILES):
        raise UserError(f"--out {out} holds something else; name a new folder, or one that holds labels")
    check_over(out, (*FILES, MANIFEST), inputs)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.exists() and other.exists() and one.samefile(other)
    except (OSError, ValueError):  # a word that is no path at all
        return False
