"""The table of a run's stages: everything that a run does, in order, as its run file asks for it.

    1-prompts -> 2-responses -> 3-revisions -> 4-labels -> 5-preferences -> 6-reward, 7-policy -> 8-heldout, 8-probes

Carrying out, going on where it stopped, planning, summary and report all go by this table: a stage is one entry more.
Stages of other packages (`preceptor.run.outside`) come last, in the order in which the run file names them.

Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from preceptor.constitution.errors import UserError
from preceptor.run import once, outside, ppo, rounds
from preceptor.run.config import RunConfig
from preceptor.run.files import FILES, base_name
from preceptor.run.running import Stage

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
OWN_PLACE = re.compile(r"[0-9]+-[A-Za-z0-9._-]+")
"""The files that another package's stage may write, such as `10-words.jsonl`."""


def stages_of(config: RunConfig) -> list[Stage]:
    """The stages of a run, each after those whose files it reads.

    Raises UserError where a stage of another package does not fit in.
    """
    every = own_stages(config)
    for name in config.stages:
        stage = outside.stage_of(name, config)
        if faults := list(_misplaced(name, stage, every)):
            raise UserError(
                f"the stage {name} of another package does not fit into this run: {'; '.join(faults)}"
            )
        every.append(stage)
    return every


def own_stages(config: RunConfig) -> list[Stage]:
    """The stages that Preceptor brings."""
    every = [
        once.prompts(config),
        *rounds.shares(config),
        once.responses(config),
        *once.revisions(config),
        *once.sft(config),
    ]
    for each in rounds.rounds_of(config):
        comparing, training = rounds.stages_of_round(config, each)
        every += [*comparing, *(once.reward(config) if each.number == 1 else []), *training]
    return [*every, *rounds.result(config), *ppo.stages(config), *once.probing(config)]


def faults_of(stage: Stage, before: Sequence[Stage]) -> Iterator[str]:
    """Why a stage cannot stand behind those before it."""
    written = {name for one in before for name in one.outputs}
    if any(one.name == stage.name for one in before):
        yield f"there is a stage {stage.name} already"
    for name in stage.inputs:
        if name not in written:
            yield f"it reads {name}, which no stage before it writes; there are {', '.join(sorted(written))}"
    for name in stage.outputs:
        if name in written:
            yield f"it writes {name}, which another stage writes"


def _misplaced(name: str, stage: Stage, before: Sequence[Stage]) -> Iterator[str]:
    """`faults_of`, and what is asked of a stage of another package alone."""
    yield from faults_of(stage, before)
    if stage.name != name or not NAME.fullmatch(name):
        yield f"it calls itself {stage.name}; wanted {name}, in lower case with hyphens"
    for output in stage.outputs:
        if not OWN_PLACE.fullmatch(output) or base_name(output) in FILES:
            yield f"it writes {output}; wanted a name of its own with a number before it, such as 10-{name}.jsonl"


def described(stages: Sequence[Stage]) -> str:
    """The table in Markdown, as docs/stages.md has it."""

    def cell(names: Sequence[str]) -> str:
        return " ".join(f"`{name}`" for name in names) or "–"

    rows = [
        f"| {stage.name} | {cell(stage.inputs)} | {cell([_shown(name) for name in stage.outputs])} "
        f"| {cell(stage.sections)} |"
        for stage in stages
    ]
    return "\n".join(["| stage | reads | writes | keys of the run file |", "|---|---|---|---|", *rows]) + "\n"


def _shown(name: str) -> str:
    """A folder with a slash behind it."""
    return name if PurePosixPath(name).suffix else f"{name}/"
