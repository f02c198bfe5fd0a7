"""The guard of a run's PPO: who looks, at which prompts, and what became of it, for summary and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, field_validator

from preceptor.constitution.errors import UserError
from preceptor.figures import PpoFigures
from preceptor.prompts.pool import prompts_from, split
from preceptor.prompts.records import Prompt, Settings
from preceptor.prompts.rows import read_records
from preceptor.report.report import GuardShown
from preceptor.train.guard.plots import over_kl
from preceptor.train.guard.rules import LOOKS, Look, best, rules_from


class GuardSettings(Settings):
    """How a run's PPO is guarded."""

    judge: str
    """Looks whether the reward is being gamed: oracle/embedded, checks, or provider/model. Not who labels."""
    prompts: str | None = None
    """What the guard looks at: a shipped pool's name or a file of prompts; else a share of the run's own, which PPO is
    not given."""
    share: float = Field(default=0.2, gt=0, lt=1)
    """Without `prompts`: how many of the run's prompts are kept for the guard, chosen by id."""
    limit: int | None = Field(default=None, gt=0)
    """Only the first of these."""
    every: int = Field(default=10, gt=0)
    """Steps from one look to the next."""
    rules: tuple[str, ...] = ()
    """As `--guard-rule`: "kl>8:stop"."""

    @field_validator("rules")
    @classmethod
    def _readable(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        try:
            rules_from(rules)
        except UserError as error:
            raise ValueError(str(error)) from None
        return rules


class Parted(NamedTuple):
    """A run's prompts, those that PPO learns on and those that its guard looks at: no prompt is in both."""

    train: list[Prompt]
    looked_at: list[Prompt]
    set_aside: dict[str, int]
    """Reason -> the run's prompts that PPO is not given."""
    left_out: int
    """Prompts of the guard's file at which it does not look, because the run's policies are measured on them at the
    end."""


def part(
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt],
    settings: GuardSettings,
    seed: int,
    columns: Mapping[str, str] | None = None,
) -> Parted:
    """Keep the guard's prompts from training, and those of the last measurement from the guard, which chooses a policy
    by what it sees. columns: names of ours -> those of the guard's file.

    Raises UserError where either is left without any.
    """
    if settings.prompts is None:
        kept = split(prompts, settings.share, seed)
        train, looked_at = list(kept.train), list(kept.held_out)[: settings.limit]
        aside = {"kept for the guard": len(kept.held_out)}
        left_out = 0
    else:
        measured = {prompt.messages for prompt in held_out}
        every = list(prompts_from(settings.prompts, columns))
        unmeasured = [prompt for prompt in every if prompt.messages not in measured]
        looked_at, left_out = unmeasured[: settings.limit], len(every) - len(unmeasured)
        seen = {prompt.messages for prompt in looked_at}
        train = [prompt for prompt in prompts if prompt.messages not in seen]
        aside = {"the same as a guard's prompt": len(prompts) - len(train)}
    if not train or not looked_at:
        raise UserError(
            f"ppo.guard leaves {len(train)} prompts to train on and {len(looked_at)} to look at; wanted at least one "
            "of each: give ppo.guard.prompts a file of its own, or another ppo.guard.share"
        )
    return Parted(train, looked_at, {reason: count for reason, count in aside.items() if count}, left_out)


def shown(folder: Path, figures: PpoFigures | None) -> GuardShown | None:
    """What the report shows of a guarded training in `folder`, with its figures from `summary.json`; None for one
    without a guard."""
    if figures is None or "guard" not in figures or not (folder / LOOKS).exists():
        return None
    looks = list(read_records(folder / LOOKS, Look))
    stopped = figures.get("stopped")
    returned = stopped["returned_step"] if stopped else looks[-1].step
    at = next((look for look in looks if look.step == returned), None)
    return {
        "plot": over_kl(looks, returned),
        "judge": figures["guard"]["judge"],
        "meaning": figures["guard"]["meaning"],
        "prompts": figures["guard"]["prompts"],
        "stopped": stopped,
        "orders": [
            {"step": look.step, "action": look.action.replace("_", " "), "why": "; ".join(look.said)}
            for look in looks
            if look.action != "off"
        ],
        "looks": len(looks),
        "cards": [
            {"value": _share(value), "meaning": meaning}
            for value, meaning in (
                (looks[0].gold, "gold at the start"),
                (best(looks).gold, f"best gold, step {best(looks).step}"),
                (looks[-1].gold, f"gold at the last look, step {looks[-1].step}"),
                (None if at is None else at.gold, f"gold of what was handed back, step {returned}"),
            )
        ],
        "page": f"{folder.name}/guard.html",
    }


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
