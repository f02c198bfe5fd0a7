"""A stage of a run in a package of its own: how long the held-out replies were before and after training.

In the package's pyproject.toml:

    [project.entry-points."preceptor.stages"]
    lengths = "stage:LENGTHS"

In a run file, or as `stages.lengths.longest=60` on the command line:

    stages: {lengths: {longest: 60}}
"""

from pydantic import Field

from preceptor.prompts.records import Record, Settings
from preceptor.prompts.rows import write_rows
from preceptor.records import HeldOut
from preceptor.run.config import RunConfig
from preceptor.run.files import HELD_OUT
from preceptor.run.outside import OutsideStage
from preceptor.run.running import Run, Stage, StageOutcome

FILE = "10-lengths.jsonl"


class LengthSettings(Settings):
    """The section `stages.lengths` of a run file."""

    longest: int = Field(default=100, gt=0)
    """Words; a reply with more is long."""


class Lengths(Record):
    """A row of the stage's file."""

    id: str
    before: int
    after: int


def lengths(_: RunConfig, settings: LengthSettings) -> Stage:
    """The stage, for this run and this section of its file."""

    def work(run: Run) -> StageOutcome:
        replies = run.read(HELD_OUT, HeldOut)
        rows = [
            Lengths(id=row.id, before=len(row.before.split()), after=len(row.after.split()))
            for row in replies
        ]
        write_rows(run.path / FILE, rows)
        long = sum(row.after > settings.longest for row in rows)
        return StageOutcome(rows_in=len(replies), rows_out=len(rows), figures={"long_after": long})

    return Stage(
        name="lengths",
        sections=("stages",),
        inputs=(HELD_OUT,),
        outputs=(FILE,),
        settings=lambda _: settings.model_dump(mode="json"),
        work=work,
    )


LENGTHS = OutsideStage(LengthSettings, lengths)
