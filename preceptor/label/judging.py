"""Who judges, as flags say it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from preceptor.constitution.errors import UserError
from preceptor.judge.settings import Combine
from preceptor.prompts.records import Settings

WHEN = 'status != "ok"'
"""Which pairs are escalated where nothing else is said."""
JUDGING = ("sample",)
"""Fields of LabelSettings that are no flags: a command looks again by --recheck."""


class Judges(Settings):
    """Who judges, step by step."""

    judge: tuple[str, ...] = ()
    """Who judges: provider/model, or `checks` for machine checks alone. Several form a panel."""
    combine: Combine = "mean"
    """How a panel's votes add up."""
    escalate_to: tuple[str, ...] = ()
    """A judge for the pairs that --when names; several are further steps."""
    when: tuple[str, ...] = ()
    """Which pairs go on, over status, probability, margin and confidence; else those that are not ok."""
    human: bool = False
    """Ask a person here, as the last step."""

    @property
    def panels(self) -> list[tuple[list[str], str]]:
        """The first panel, the judges to whom its doubtful pairs go, and last a person. Raises UserError."""
        first = list(self.judge)
        rest = [*self.escalate_to, *(["human"] if self.human else [])]
        if not first:
            first, rest = rest[:1], rest[1:]
        if not first:
            raise UserError("nobody judges; name a model with --judge, `checks`, or a person with --human")
        if self.when and not rest:
            raise UserError(
                "--when without --escalate-to or --human; nobody is there to whom pairs could go on"
            )
        if len(self.when) > 1 and len(self.when) != len(rest):
            raise UserError(
                f"{len(self.when)} times --when for {len(rest)} further steps; give one for all or one each"
            )
        conditions = (
            list(self.when) if len(self.when) == len(rest) else (list(self.when) or [WHEN]) * len(rest)
        )
        return [(first, ""), *(([name], condition) for name, condition in zip(rest, conditions, strict=True))]

    @property
    def names(self) -> list[str]:
        """Every judge, by name."""
        return [name for names, _ in self.panels for name in names]


class Certifying(Settings):
    """What labels are held to."""

    certify: float | None = Field(default=None, gt=0.5, lt=1)
    """Keep only labels whose agreement with gold is at least this, at 95 % confidence: 0.90."""
    gold: str | None = None
    """With --certify: pairs whose better reply is known, like the rows."""
    reference: str | None = None
    """With --certify: a judge of --escalate-to whose verdicts are the gold, so that its labels stand as they are."""
    adaptive: bool = False
    """With --certify: ask the second order only where it can change what is certified."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.gold is not None and self.certify is None:
            raise ValueError("--gold without --certify; say what agreement is wanted: --certify 0.90")
        if self.reference is not None and self.certify is None:
            raise ValueError("--reference without --certify; it says whose labels need no certificate")
        if self.adaptive and self.certify is None:
            raise ValueError(
                "--adaptive without --certify; only a certificate says what a second order can change"
            )
        return self


class OneJudge(Settings):
    """Who judges, where a panel cannot."""

    judge: tuple[str, ...] = ()
    """Who judges: provider/model, or `checks` for machine checks alone."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.judge) > 1:
            raise ValueError(
                f"--judge is given {len(self.judge)} times, and one judges here; panels are for `preceptor label` and "
                "`preceptor audit`"
            )
        return self

    @property
    def name(self) -> str | None:
        """The judge; None: none was named."""
        return self.judge[0] if self.judge else None

    @property
    def needed(self) -> str:
        """The judge. Raises UserError where none was named."""
        if not self.judge:
            raise UserError("nobody judges; name a model with --judge, or `checks`")
        return self.judge[0]
