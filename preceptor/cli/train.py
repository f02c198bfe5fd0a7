"""`preceptor train`: adapters from revisions and preferences. Torch is imported by the command that trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from constitution.errors import UserError
from preceptor.cli import console
from preceptor.cli.options import Format, Json, Out, Seed
from preceptor.cli.planned import beside, tell_plan

if TYPE_CHECKING:
    from train.folder import Trained
    from train.loop import Watch
    from train.settings import LoopSettings

app = typer.Typer(no_args_is_help=True, help="Train LoRA adapters: sft, a reward model, or a policy.")

SomeSettings = TypeVar("SomeSettings", bound="LoopSettings")
NEEDED = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors")

# Flags not given are None, and the settings' own defaults then hold; the ones shown here are held to them by a test.
BaseModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="embedded, hf/ID or a model folder.",
        show_default="the base of --adapter, else embedded",
    ),
]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to go on from.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the rows.", show_default="1.0")]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak; it rises over the warm-up and falls to zero.", show_default="0.0002"),
]
DpoLearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Peak; it rises over the warm-up and falls.", show_default="5e-05"),
]
BatchSize = Annotated[int | None, typer.Option(help="Rows in a step.", show_default="16")]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Tokens of prompt and reply; the prompt is shortened to fit.", show_default="1024"),
]
Rank = Annotated[int | None, typer.Option(help="Of the LoRA adapter.", show_default="16")]
Alpha = Annotated[float | None, typer.Option(help="LoRA scale is alpha / rank.", show_default="32.0")]
Beta = Annotated[
    float | None, typer.Option(help="Larger keeps the policy closer to its reference.", show_default="0.1")
]
Loss = Annotated[
    str | None,
    typer.Option(help="dpo, ipo, hinge, robust, simpo, dpo-norm or ld-dpo.", show_default="dpo"),
]
LabelSmoothing = Annotated[
    float | None, typer.Option(help="Share of the labels taken to be exchanged.", show_default="0.0")
]
Margin = Annotated[
    float | None,
    typer.Option(
        help="By how much the chosen reply must win, a unit of the row's margin.", show_default="0.0"
    ),
]
Gamma = Annotated[
    float | None, typer.Option(help="With simpo: by how much a chosen reply must win.", show_default="0.5")
]
LengthAlpha = Annotated[
    float | None,
    typer.Option(help="With ld-dpo: weight of tokens beyond the shorter reply.", show_default="0.5"),
]
Anchor = Annotated[
    float | None,
    typer.Option(help="Weight of the chosen reply's own log-likelihood.", show_default="0.0"),
]
Centre = Annotated[
    float | None,
    typer.Option(help="Keeps rewards around zero; 0.01 serves.", show_default="0.0"),
]
Ensemble = Annotated[
    int | None, typer.Option(help="Heads on the one adapter that can disagree.", show_default="1")
]
SpreadPenalty = Annotated[
    float | None,
    typer.Option(help="With --ensemble: share of its spread taken from a reward.", show_default="0.5"),
]
PerPrinciple = Annotated[
    bool, typer.Option("--per-principle", help="A head for each principle, from the judgements about it.")
]
LengthDebias = Annotated[
    bool, typer.Option("--length-debias", help="Take the length direction out of the rewards.")
]
OnTop = Annotated[bool, typer.Option("--on-top", help="Freeze --adapter and train a fresh one on top of it.")]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference-adapter",
        help="Folder of a LoRA adapter to be the reference, or base for the model without any.",
        show_default="what training starts from",
    ),
]
Cache = Annotated[
    Path, typer.Option(help="Folder where the reference's log-probabilities are kept for other runs.")
]
PassTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens through the model at a time; fewer take less memory.",
        show_default="1024 on a CPU, else 8192",
    ),
]
HeldOut = Annotated[
    float | None, typer.Option(help="Share of the prompts kept for the report card.", show_default="0.1")
]
Precision = Annotated[str | None, typer.Option(help="auto, fp32 or bf16.", show_default="auto")]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="Less memory, about a third more time.",
        show_default="where memory would not do without",
    ),
]
PlanOnly = Annotated[
    bool,
    typer.Option("--plan", help="Say what it would take in memory, steps, time and disk, and do nothing."),
]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Steps from one checkpoint to the next.", show_default="50")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")]


@app.command()
def sft(
    rows: Annotated[str, typer.Argument(help="Revisions, or rows of prompt and completion.")],
    out: Out,
    model: BaseModelName = None,
    adapter: Adapter = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    rank: Rank = None,
    alpha: Alpha = None,
    seed: Seed = 0,
    precision: Precision = None,
    gradient_checkpointing: Checkpointing = None,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: TensorBoard = False,
    plan: PlanOnly = False,
    json: Json = False,
) -> None:
    """Teach the model its own revised replies. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_train()
    from train.rows import read_demonstrations
    from train.settings import SftSettings

    settings = _settings(SftSettings, flags)
    read = read_demonstrations(rows)
    from train.sft import plan_sft, train_sft  # torch loads only now: a fault in the rows is told at once

    if plan:
        tell_plan(plan_sft(read.rows, settings), json)
        return
    with training_bar("sft") as watch:
        trained = train_sft(read.rows, settings, out, watch=watch, read=_read(rows, read.set_aside))
    _tell("sft", trained, read.set_aside, json)


@app.command()
def reward(
    rows: Annotated[str, typer.Argument(help="Preferences: prompt, chosen, rejected, probability.")],
    out: Out,
    model: BaseModelName = None,
    adapter: Adapter = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    rank: Rank = None,
    alpha: Alpha = None,
    held_out: HeldOut = None,
    label_smoothing: LabelSmoothing = None,
    margin: Margin = None,
    centre: Centre = None,
    ensemble: Ensemble = None,
    spread_penalty: SpreadPenalty = None,
    per_principle: PerPrinciple = False,
    constitution: Annotated[
        str | None,
        typer.Option(
            "--constitution", "-c", help="With --per-principle: where weights and applies_to stand."
        ),
    ] = None,
    length_debias: LengthDebias = False,
    samples: Annotated[
        Path | None,
        typer.Option(help="Responses of the policy to come: the card says how far rewards vary on them."),
    ] = None,
    pass_tokens: PassTokens = None,
    form: Format = "rows",
    seed: Seed = 0,
    precision: Precision = None,
    gradient_checkpointing: Checkpointing = None,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: TensorBoard = False,
    plan: PlanOnly = False,
    json: Json = False,
) -> None:
    """Train a reward model on preferences. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_train()
    from judge.records import Response
    from prompts.rows import read_records
    from train.rows import read_preferences
    from train.settings import RewardSettings

    if constitution is not None:
        flags |= _of_principles(constitution, per_principle)
    settings = _settings(RewardSettings, flags)
    read = read_preferences(rows, form)
    sampled = [] if samples is None else list(read_records(samples, Response))
    from train.reward import plan_reward, train_reward

    if plan:
        tell_plan(plan_reward(read.rows, settings), json)
        return
    with training_bar("reward") as watch:
        said = _read(rows, read.set_aside)
        trained = train_reward(read.rows, settings, out, watch=watch, read=said, samples=sampled)
    _tell("reward", trained, read.set_aside, json)


@app.command()
def dpo(
    rows: Annotated[str, typer.Argument(help="Preferences: prompt, chosen, rejected, probability.")],
    out: Out,
    model: BaseModelName = None,
    adapter: Adapter = None,
    epochs: Epochs = None,
    learning_rate: DpoLearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    rank: Rank = None,
    alpha: Alpha = None,
    on_top: OnTop = False,
    reference_adapter: Reference = None,
    loss: Loss = None,
    beta: Beta = None,
    label_smoothing: LabelSmoothing = None,
    margin: Margin = None,
    gamma: Gamma = None,
    length_alpha: LengthAlpha = None,
    anchor: Anchor = None,
    pass_tokens: PassTokens = None,
    cache: Cache = Path(".preceptor"),
    form: Format = "rows",
    seed: Seed = 0,
    precision: Precision = None,
    gradient_checkpointing: Checkpointing = None,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: TensorBoard = False,
    plan: PlanOnly = False,
    json: Json = False,
) -> None:
    """Train a policy on preferences. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_train()
    from train.rows import read_preferences
    from train.settings import DpoSettings

    settings = _settings(DpoSettings, flags)
    read = read_preferences(rows, form)
    from train.dpo import plan_dpo, train_dpo

    if plan:
        tell_plan(plan_dpo(read.rows, settings), json)
        return
    with training_bar("dpo") as watch:
        said = _read(rows, read.set_aside)
        trained = train_dpo(read.rows, settings, out, watch=watch, read=said, cache=cache)
    _tell("dpo", trained, read.set_aside, json)


@app.command()
def kto(
    rows: Annotated[
        str, typer.Argument(help="Scores, or rows of prompt, completion and label (true: a good reply).")
    ],
    out: Out,
    model: BaseModelName = None,
    adapter: Adapter = None,
    epochs: Epochs = None,
    learning_rate: DpoLearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    rank: Rank = None,
    alpha: Alpha = None,
    beta: Beta = None,
    seed: Seed = 0,
    precision: Precision = None,
    gradient_checkpointing: Checkpointing = None,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: TensorBoard = False,
    plan: PlanOnly = False,
    json: Json = False,
) -> None:
    """Train a policy on single replies that are good or bad. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_train()
    from train.settings import KtoSettings
    from train.unpaired import read_verdicts

    settings = _settings(KtoSettings, flags)
    read = read_verdicts(rows)
    from train.kto import plan_kto, train_kto

    if plan:
        tell_plan(plan_kto(read.rows, settings), json)
        return
    with training_bar("kto") as watch:
        trained = train_kto(read.rows, settings, out, watch=watch, read=_read(rows, read.set_aside))
    _tell("kto", trained, read.set_aside, json)


def need_train() -> None:
    """Raises UserError where the training libraries are not installed."""
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"training needs {', '.join(absent)}; install with: pip install 'preceptor[train]'")


def _settings(kind: type[SomeSettings], flags: Mapping[str, Any]) -> SomeSettings:
    """The stage's settings out of its flags; UserError names the flags that cannot be."""
    from pydantic import ValidationError

    given = {name: value for name, value in flags.items() if name in kind.model_fields and value is not None}
    adapter = given.get("adapter")
    if adapter is None and given.get("on_top"):
        raise UserError("--on-top needs --adapter, the one to be frozen beneath the fresh one")
    if adapter is not None:
        if not given.get("on_top") and (both := [f"--{name}" for name in ("rank", "alpha") if name in given]):
            raise UserError(
                f"{' and '.join(both)} cannot be set: --adapter goes on with an adapter that has its own, "
                "unless --on-top"
            )
        from train.roles import base_of_adapter

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
    from constitution.files import load
    from train.settings import principle_settings

    if not per_principle:
        raise UserError("--constitution has no effect without --per-principle")
    return principle_settings(load(constitution))


def _read(source: str, set_aside: Mapping[str, int]) -> dict[str, Any]:
    """What the manifest says about the file of rows."""
    from prompts.manifest import file_hash

    path = Path(source)
    return {
        "source": source,
        "sha256": file_hash(path) if path.is_file() else "",
        "set_aside": dict(set_aside),
    }


@contextmanager
def training_bar(stage: str) -> Iterator[Watch]:
    """A bar on stderr with loss, accuracy, rows a second and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console.console(),
    )
    with bar:
        task = bar.add_task(stage, total=None, figures="loading")

        told = 0

        def watch(now: Any) -> None:
            nonlocal told
            for note in now.notes[told:]:
                bar.console.print(f"{stage}: {note}")
            told = max(told, len(now.notes))
            accuracy = now.metrics.get("accuracy", now.metrics.get("mean_token_accuracy", 0.0))
            figures = (
                f"loss {now.metrics['loss']:.3f}  accuracy {accuracy:.2f}  "
                f"{now.pairs_per_s:.0f} rows/s  {now.left_s:.0f} s left"
            )
            bar.update(task, completed=now.step, total=now.steps, figures=figures)

        yield watch


def _tell(stage: str, trained: Trained, unread: Mapping[str, int], as_json: bool) -> None:
    """The result on stdout; what became of every row, and the figures, on stderr."""
    if trained.finished_before:
        console.say(
            f"{stage}: {trained.folder} had been finished by the same command before; nothing was done"
        )
    rows = trained.rows
    console.say(
        f"{stage}: {rows['in']} rows in, {rows['used']} trained on, {rows['held_out']} held out, "
        f"{rows['shortened']} with a shortened prompt; {trained.steps} steps in {trained.wall_s:.1f} s"
    )
    for reason, count in [*unread.items(), *rows["set_aside"].items()]:
        ids = rows.get("ids_aside", {}).get(reason, [])
        named = f" ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)})" if ids else ""
        console.say(f"  set aside: {count} because {reason}{named}")
    for note in trained.notes:
        console.say(f"  {note}")
    if compared := beside(trained.plan, trained.measured):
        console.say(f"  {compared}")
    card = trained.metrics.get("held_out", {})
    if card.get("n"):
        low, high = card["ci95"]
        console.say(
            f"  held out: accuracy {card['accuracy']:.3f} [{low:.3f}, {high:.3f}] of {card['n']} pairs, "
            f"NLL {card['nll']:.3f} (least {card['nll_floor']:.3f}), Brier {card['brier']:.3f}, ECE {card['ece']:.3f}"
        )
    if as_json:
        console.result({**trained._asdict(), "folder": str(trained.folder), "unread": dict(unread)})
    else:
        typer.echo(str(trained.folder))


from preceptor.cli.train_online import grpo, online_dpo, rloo  # noqa: E402 - their flags are those above
from preceptor.cli.train_ppo import ppo  # noqa: E402

for policy in (ppo, grpo, rloo, online_dpo):
    app.command(policy.__name__.replace("_", "-"))(policy)
