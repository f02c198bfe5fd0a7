"""What every training command does: its settings made whole, its rows' source, and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from preceptor.cli import console
from preceptor.cli.flags import given
from preceptor.cli.train.launch import Launch, launched
from preceptor.cli.train.planned import beside, tell_plan
from preceptor.constitution.errors import UserError
from preceptor.doctor import need_training

if TYPE_CHECKING:
    from preceptor.train.estimate.plan import TrainingPlan
    from preceptor.train.loop.output_folder import Trained
    from preceptor.train.settings import LoopSettings

SomeSettingsT = TypeVar("SomeSettingsT", bound="LoopSettings")
ALONE = ("embedded", "smollm2")
"""Models that a package carries, whose name needs no provider."""


def settled(settings: SomeSettingsT) -> SomeSettingsT:
    """The settings with the base of `adapter` as model where none was named. Raises UserError for flags that do not go
    with the adapter, and where the training libraries are missing."""
    need_training()
    said = given(settings)
    if "model" in said:
        _warn_of_bare_path(settings.model)
    if settings.adapter is not None:
        from preceptor.train.models.adapters import going_on

        return going_on(settings)
    if said.get("stack_adapter", False):
        raise UserError("--stack-adapter needs --adapter, the one to be frozen beneath the fresh one")
    return settings.model_copy(update={"model": settings.model})


def _warn_of_bare_path(model: str) -> None:
    """Say so where a folder stands without the provider that every other command names it by."""
    if model not in ALONE and not model.startswith("hf/") and Path(model).exists():
        console.say(
            f"warning: --model is provider/model everywhere, so say hf/{model}; the bare path goes with the next "
            "version"
        )


def train_or_plan(
    stage: str,
    plan: Callable[[], TrainingPlan],
    train: Callable[..., Trained],
    launch: Launch,
    unread: Mapping[str, int],
) -> None:
    """The plan of a training on rows, or the training, here or in several processes. unread: reason -> rows of the
    file that were set aside."""
    if launch.plan:
        tell_plan(plan(), launch.as_json)
        return
    if launched(launch):
        return
    with console.training(stage) as watch:
        trained = train(watch=watch)
    _tell_of_rows(stage, trained, unread, launch.as_json)


def _tell_of_rows(stage: str, trained: Trained, unread: Mapping[str, int], as_json: bool) -> None:
    """What became of every row, the figures on those held out, and the result."""
    rows = trained.rows
    lines = [
        f"{rows['in']} rows in, {rows['used']} trained on, {rows['held_out']} held out, "
        f"{rows['shortened']} with a shortened prompt; {trained.steps} steps in {trained.wall_s:.1f} s"
    ]
    for reason, count in [*unread.items(), *rows["set_aside"].items()]:
        ids = rows.get("ids_aside", {}).get(reason, [])
        named = f" ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)})" if ids else ""
        lines.append(f"set aside: {count} because {reason}{named}")
    lines += trained.notes
    if compared := beside(trained.plan, trained.measured):
        lines.append(compared)
    card = trained.metrics.get("held_out", {})
    if card.get("n"):
        low, high = card["ci95"]
        lines.append(
            f"held out: accuracy {card['accuracy']:.3f} [{low:.3f}, {high:.3f}] of {card['n']} pairs, "
            f"NLL {card['nll']:.3f} (least {card['nll_floor']:.3f}), Brier {card['brier']:.3f}, ECE {card['ece']:.3f}"
        )
    tell(stage, trained, lines, as_json, unread=dict(unread))


def told_of_prompts(trained: Trained) -> str:
    """What became of the prompts of a policy that learns from replies of its own."""
    rows = trained.rows
    return (
        f"{rows['in']} prompts in, {rows['used']} trained on, {rows['shortened']} shortened; "
        f"{trained.steps} steps in {trained.wall_s:.1f} s"
    )


def tell(stage: str, trained: Trained, lines: Sequence[str], as_json: bool, **more: Any) -> None:
    """The lines on stderr, the result on stdout."""
    if trained.finished_before:
        console.say(
            f"{stage}: {trained.folder} had been finished by the same command before; nothing was done"
        )
    console.say("\n  ".join([f"{stage}: {lines[0]}", *lines[1:]]))
    if as_json:
        console.result({**trained._asdict(), "folder": str(trained.folder), **more})
    elif console.speaks():
        console.show(str(trained.folder))
