"""`preceptor train`: adapters from revisions and preferences. Torch is imported by the command that trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from preceptor.cli import console, launch, train_flags
from preceptor.cli.options import Format, Json, Out, Seed
from preceptor.cli.planned import beside, tell_plan
from preceptor.constitution.errors import UserError
from preceptor.doctor import need_training

if TYPE_CHECKING:
    from preceptor.train.loop.output_folder import Trained
    from preceptor.train.settings import LoopSettings

app = typer.Typer(no_args_is_help=True, help="Train LoRA adapters: sft, a reward model, or a policy.")

SomeSettings = TypeVar("SomeSettings", bound="LoopSettings")


@app.command()
def sft(
    rows: Annotated[str, typer.Argument(help="Revisions, or rows of prompt and completion.")],
    out: Out,
    model: train_flags.BaseModelName = None,
    adapter: train_flags.Adapter = None,
    epochs: train_flags.Epochs = None,
    learning_rate: train_flags.LearningRate = None,
    batch_size: train_flags.BatchSize = None,
    max_length: train_flags.MaxLength = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    compile_model: train_flags.Compile = False,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    report_to: train_flags.ReportTo = None,
    tensorboard: train_flags.TensorBoard = False,
    plan: train_flags.PlanOnly = False,
    nproc: launch.Nproc = 1,
    accelerate_config: launch.AccelerateConfig = None,
    json: Json = False,
) -> None:
    """Teach the model its own revised replies. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.train.data.readers import read_demonstrations
    from preceptor.train.settings import SftSettings

    settings = settings_of(SftSettings, flags)
    read = read_demonstrations(rows)
    from preceptor.train.sft import (  # torch loads only now: a fault in the rows is told at once
        plan_sft,
        train_sft,
    )

    if plan:
        tell_plan(plan_sft(read.rows, settings), json)
        return
    if launch.launched(nproc, accelerate_config):
        return
    with console.training("sft") as watch:
        trained = train_sft(read.rows, settings, out, watch=watch, read=source_of(rows, read.set_aside))
    _tell_of_rows("sft", trained, read.set_aside, json)


@app.command()
def reward(
    rows: Annotated[str, typer.Argument(help="Preferences: prompt, chosen, rejected, probability.")],
    out: Out,
    model: train_flags.BaseModelName = None,
    adapter: train_flags.Adapter = None,
    epochs: train_flags.Epochs = None,
    learning_rate: train_flags.LearningRate = None,
    batch_size: train_flags.BatchSize = None,
    max_length: train_flags.MaxLength = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    held_out: train_flags.HeldOut = None,
    take: train_flags.Take = None,
    label_smoothing: train_flags.LabelSmoothing = None,
    margin: train_flags.Margin = None,
    centre: train_flags.Centre = None,
    ensemble: train_flags.Ensemble = None,
    spread_penalty: train_flags.SpreadPenalty = None,
    per_principle: train_flags.PerPrinciple = False,
    constitution: Annotated[
        str | None,
        typer.Option(
            "--constitution", "-c", help="With --per-principle: where weights and applies_to stand."
        ),
    ] = None,
    length_debias: train_flags.LengthDebias = False,
    samples: Annotated[
        Path | None,
        typer.Option(help="Responses of the policy to come: the card says how far rewards vary on them."),
    ] = None,
    attention: train_flags.Attention = None,
    pass_tokens: train_flags.PassTokens = None,
    form: Format = "rows",
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    compile_model: train_flags.Compile = False,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    report_to: train_flags.ReportTo = None,
    tensorboard: train_flags.TensorBoard = False,
    plan: train_flags.PlanOnly = False,
    nproc: launch.Nproc = 1,
    accelerate_config: launch.AccelerateConfig = None,
    json: Json = False,
) -> None:
    """Train a reward model on preferences. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.judge.records import Response
    from preceptor.prompts.rows import read_records
    from preceptor.train.data.readers import read_preferences
    from preceptor.train.settings import RewardSettings

    if constitution is not None:
        flags |= _of_principles(constitution, per_principle)
    settings = settings_of(RewardSettings, flags)
    read = read_preferences(rows, form)
    sampled = [] if samples is None else list(read_records(samples, Response))
    from preceptor.train.reward import plan_reward, train_reward

    if plan:
        tell_plan(plan_reward(read.rows, settings), json)
        return
    if launch.launched(nproc, accelerate_config):
        return
    with console.training("reward") as watch:
        said = source_of(rows, read.set_aside)
        trained = train_reward(read.rows, settings, out, watch=watch, read=said, samples=sampled)
    _tell_of_rows("reward", trained, read.set_aside, json)


@app.command()
def dpo(
    rows: Annotated[str, typer.Argument(help="Preferences: prompt, chosen, rejected, probability.")],
    out: Out,
    model: train_flags.BaseModelName = None,
    adapter: train_flags.Adapter = None,
    epochs: train_flags.Epochs = None,
    learning_rate: train_flags.DpoLearningRate = None,
    batch_size: train_flags.BatchSize = None,
    max_length: train_flags.MaxLength = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    held_out: train_flags.DpoHeldOut = None,
    take: train_flags.Take = None,
    on_top: train_flags.OnTop = False,
    reference_adapter: train_flags.Reference = None,
    loss: train_flags.Loss = None,
    beta: train_flags.Beta = None,
    label_smoothing: train_flags.LabelSmoothing = None,
    margin: train_flags.Margin = None,
    gamma: train_flags.Gamma = None,
    length_alpha: train_flags.LengthAlpha = None,
    anchor: train_flags.Anchor = None,
    attention: train_flags.Attention = None,
    pass_tokens: train_flags.PassTokens = None,
    cache: train_flags.Cache = Path(".preceptor"),
    form: Format = "rows",
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    compile_model: train_flags.Compile = False,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    report_to: train_flags.ReportTo = None,
    tensorboard: train_flags.TensorBoard = False,
    plan: train_flags.PlanOnly = False,
    nproc: launch.Nproc = 1,
    accelerate_config: launch.AccelerateConfig = None,
    json: Json = False,
) -> None:
    """Train a policy on preferences. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.train.data.readers import read_preferences
    from preceptor.train.settings import DpoSettings

    settings = settings_of(DpoSettings, flags)
    read = read_preferences(rows, form)
    from preceptor.train.dpo import plan_dpo, train_dpo

    if plan:
        tell_plan(plan_dpo(read.rows, settings), json)
        return
    if launch.launched(nproc, accelerate_config):
        return
    with console.training("dpo") as watch:
        said = source_of(rows, read.set_aside)
        trained = train_dpo(read.rows, settings, out, watch=watch, read=said, cache=cache)
    _tell_of_rows("dpo", trained, read.set_aside, json)


@app.command()
def kto(
    rows: Annotated[
        str, typer.Argument(help="Scores, or rows of prompt, completion and label (true: a good reply).")
    ],
    out: Out,
    model: train_flags.BaseModelName = None,
    adapter: train_flags.Adapter = None,
    epochs: train_flags.Epochs = None,
    learning_rate: train_flags.DpoLearningRate = None,
    batch_size: train_flags.BatchSize = None,
    max_length: train_flags.MaxLength = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    beta: train_flags.Beta = None,
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    compile_model: train_flags.Compile = False,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    report_to: train_flags.ReportTo = None,
    tensorboard: train_flags.TensorBoard = False,
    plan: train_flags.PlanOnly = False,
    nproc: launch.Nproc = 1,
    accelerate_config: launch.AccelerateConfig = None,
    json: Json = False,
) -> None:
    """Train a policy on single replies that are good or bad. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.train.data.unpaired import read_verdicts
    from preceptor.train.settings import KtoSettings

    settings = settings_of(KtoSettings, flags)
    read = read_verdicts(rows)
    from preceptor.train.kto import plan_kto, train_kto

    if plan:
        tell_plan(plan_kto(read.rows, settings), json)
        return
    if launch.launched(nproc, accelerate_config):
        return
    with console.training("kto") as watch:
        trained = train_kto(read.rows, settings, out, watch=watch, read=source_of(rows, read.set_aside))
    _tell_of_rows("kto", trained, read.set_aside, json)


def settings_of(kind: type[SomeSettings], flags: Mapping[str, Any]) -> SomeSettings:
    """The stage's settings out of its flags; UserError names the flags that cannot be."""
    from pydantic import ValidationError

    flags = {"compile" if name == "compile_model" else name: value for name, value in flags.items()}
    given = {name: value for name, value in flags.items() if name in kind.model_fields and value is not None}
    adapter = given.get("adapter")
    if adapter is None and given.get("on_top"):
        raise UserError("--on-top needs --adapter, the one to be frozen beneath the fresh one")
    if adapter is not None:
        if not given.get("on_top") and (
            both := [f"--{name}" for name in ("rank", "alpha", "dora", "rslora") if given.get(name)]
        ):
            raise UserError(
                f"{' and '.join(both)} cannot be set: --adapter goes on with an adapter that has its own, "
                "unless --on-top"
            )
        from preceptor.train.models.base import base_of_adapter

        given = {"model": base_of_adapter(adapter), **given, "adapter": str(adapter)}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults = [
            f"--{str(fault['loc'][0]).replace('_', '-')} is {fault['input']!r}: {fault['msg'].lower()}"
            if fault["loc"]
            else fault["msg"].removeprefix("Value error, ")
            for fault in error.errors(include_url=False)
        ]
        raise UserError("\n".join(faults)) from None


def _of_principles(constitution: str, per_principle: bool) -> dict[str, Any]:
    """The settings that a constitution gives. Raises UserError where they would have no effect."""
    from preceptor.constitution.files import load
    from preceptor.train.settings import principle_settings

    if not per_principle:
        raise UserError("--constitution has no effect without --per-principle")
    return principle_settings(load(constitution))


def source_of(source: str, set_aside: Mapping[str, int]) -> dict[str, Any]:
    """What the manifest says about the file of rows."""
    from preceptor.prompts.manifest import file_hash

    path = Path(source)
    return {
        "source": source,
        "sha256": file_hash(path) if path.is_file() else "",
        "set_aside": dict(set_aside),
    }


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
        typer.echo(str(trained.folder))


from preceptor.cli.train_online import grpo, online_dpo, rloo  # noqa: E402 - their flags are those above
from preceptor.cli.train_ppo import ppo  # noqa: E402

for policy in (ppo, grpo, rloo, online_dpo):
    app.command(policy.__name__.replace("_", "-"))(policy)
