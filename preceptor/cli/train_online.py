"""`preceptor train grpo | rloo | online-dpo`: policies that learn from replies which they write as they go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli import console, options, rewarding, runs, train, train_flags
from preceptor.cli.options import CONCURRENCY, LEDGER, Concurrency, Json, Ledger, Out, Seed
from preceptor.cli.train_ppo import BatchSize, MaxNewTokens, RolloutTokens, Temperature, TopP
from preceptor.doctor import need_training

if TYPE_CHECKING:
    from preceptor.train.loop.output_folder import Trained

Prompts = Annotated[str, typer.Argument(help="A shipped pool's name or a file of prompts.")]
Samples = Annotated[int | None, typer.Option(help="Replies to each prompt in a step.", show_default="8")]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Peak; it rises over the warm-up and falls.", show_default="0.0001"),
]
GrpoKlBeta = Annotated[
    float | None, typer.Option("--kl-beta", help="Weight of the KL in the loss.", show_default="0.04")
]
RlooKlBeta = Annotated[
    float | None,
    typer.Option("--kl-beta", help="What a nat of distance from the reference costs.", show_default="0.05"),
]
Updates = Annotated[int | None, typer.Option(help="Updates from the same replies.", show_default="1")]
Clip = Annotated[float | None, typer.Option(help="Of the ratio, with several updates.", show_default="0.2")]
Loss = Annotated[
    str | None, typer.Option(help="How tokens add up: grpo, dapo or dr-grpo.", show_default="dapo")
]
ScaleRewards = Annotated[
    str | None,
    typer.Option(help="Whose deviation divides an advantage: group, batch or none.", show_default="group"),
]


def grpo(
    prompts: Prompts,
    reward: rewarding.Reward,
    out: Out,
    judge: rewarding.Judge = None,
    constitution: rewarding.ConstitutionName = None,
    judge_mode: rewarding.JudgeMode = "group",
    principles: rewarding.Principles = "joint",
    judge_base_url: rewarding.JudgeBaseUrl = None,
    max_cost: rewarding.MaxCost = None,
    rollouts: rewarding.Rollouts = "local",
    base_url: rewarding.BaseUrl = None,
    concurrency: Concurrency = CONCURRENCY,
    ledger: Ledger = LEDGER,
    model: train_flags.BaseModelName = None,
    adapter: train_flags.Adapter = None,
    epochs: train_flags.Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    max_length: train_flags.MaxLength = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    kl_beta: GrpoKlBeta = None,
    loss: Loss = None,
    scale_rewards: ScaleRewards = None,
    updates: Updates = None,
    clip: Clip = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    compile_model: train_flags.Compile = False,
    pass_tokens: train_flags.PassTokens = None,
    rollout_tokens: RolloutTokens = None,
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    report_to: train_flags.ReportTo = None,
    tensorboard: train_flags.TensorBoard = False,
    json: Json = False,
) -> None:
    """Train a policy by GRPO against a reward. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.train.settings import GrpoSettings

    _carry_out("grpo", train.settings_of(GrpoSettings, flags), flags)


def rloo(
    prompts: Prompts,
    reward: rewarding.Reward,
    out: Out,
    judge: rewarding.Judge = None,
    constitution: rewarding.ConstitutionName = None,
    judge_mode: rewarding.JudgeMode = "group",
    principles: rewarding.Principles = "joint",
    judge_base_url: rewarding.JudgeBaseUrl = None,
    max_cost: rewarding.MaxCost = None,
    rollouts: rewarding.Rollouts = "local",
    base_url: rewarding.BaseUrl = None,
    concurrency: Concurrency = CONCURRENCY,
    ledger: Ledger = LEDGER,
    model: train_flags.BaseModelName = None,
    adapter: train_flags.Adapter = None,
    epochs: train_flags.Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    max_length: train_flags.MaxLength = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    kl_beta: RlooKlBeta = None,
    updates: Updates = None,
    clip: Clip = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    compile_model: train_flags.Compile = False,
    pass_tokens: train_flags.PassTokens = None,
    rollout_tokens: RolloutTokens = None,
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    report_to: train_flags.ReportTo = None,
    tensorboard: train_flags.TensorBoard = False,
    json: Json = False,
) -> None:
    """Train a policy by RLOO against a reward. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.train.settings import RlooSettings

    _carry_out("rloo", train.settings_of(RlooSettings, flags), flags)


def _carry_out(kind: str, settings: Any, flags: dict[str, Any]) -> None:
    from preceptor.prompts.pool import prompts_from

    rows = list(prompts_from(flags["prompts"]))
    source = rewarding.source_of(flags["reward"], flags)
    from preceptor.train.grpo.train import train_grpo, train_rloo

    start: Any = train_grpo if kind == "grpo" else train_rloo
    with console.training(kind) as watch:
        more = {"server": rewarding.server_of(flags), "read": train.source_of(flags["prompts"], {})}
        trained = start(rows, settings, flags["out"], reward=source, watch=watch, **more)
    train.tell(kind, trained, _told(trained), flags["json"])


def _told(trained: Trained) -> list[str]:
    """What became of the prompts, and the figures of the last step."""
    metrics = trained.metrics
    reward = "none" if metrics.get("reward") is None else f"{metrics['reward']:.3f}"
    return [
        train.told_of_prompts(trained),
        f"last step: reward {reward}, KL {metrics['kl_nats']:.2f} nats a reply, "
        f"{metrics['reply_tokens']:.0f} tokens a reply, {metrics['masked']:.0f} without a reward",
    ]


def online_dpo(
    prompts: Prompts,
    judge: options.Judge,
    constitution: options.ConstitutionName,
    out: Out,
    model: Annotated[str, typer.Option("--model", help="embedded, hf/ID or a model folder.")] = "embedded",
    rounds: Annotated[int, typer.Option(min=1, help="Times that replies are drawn, judged, learned.")] = 4,
    samples: Annotated[int, typer.Option(min=2, help="Replies to each prompt in a round.")] = 2,
    round_prompts: Annotated[
        Literal["split", "same"],
        typer.Option(help="split: each prompt is asked in one round; same: in every round."),
    ] = "split",
    reference: Annotated[
        Literal["first", "last"],
        typer.Option(help="What is kept near to: the start, or what each round starts from."),
    ] = "first",
    limit: options.Limit = None,
    held_out: Annotated[
        str | None, typer.Option(help="Prompts for the comparison at the end.", show_default="a tenth")
    ] = None,
    held_out_limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first of these.", show_default="all")
    ] = None,
    oracle: Annotated[
        Literal["checks", "embedded"],
        typer.Option(help="Who says at the end whether a reply satisfies a principle."),
    ] = "checks",
    principles: options.Principles = "joint",
    max_new_tokens: MaxNewTokens = None,
    max_length: train_flags.MaxLength = None,
    epochs: train_flags.Epochs = None,
    learning_rate: train_flags.DpoLearningRate = None,
    batch_size: train_flags.BatchSize = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    beta: train_flags.Beta = None,
    judge_base_url: rewarding.JudgeBaseUrl = None,
    max_cost: options.MaxCost = None,
    concurrency: Concurrency = 64,
    seed: Seed = 0,
    plan: options.Plan = False,
    json: Json = False,
) -> None:
    """Online DPO in rounds: the policy's own replies, judged, and DPO on them, again and again; a run folder."""
    flags = dict(locals())
    need_training()
    from preceptor.run.config import checked

    values = run_values(flags)
    runs.carry_out(checked(values, "the flags do not describe a run"), plan, json)


def run_values(flags: dict[str, Any]) -> dict[str, Any]:
    """The run file that the flags of `online-dpo` stand for."""
    dpo = ("max_length", "epochs", "learning_rate", "batch_size", "rank", "alpha", "beta")
    drawn = {"max_tokens": flags["max_new_tokens"]} if flags["max_new_tokens"] is not None else {}
    return {
        "out": str(Path(flags["out"])),
        "seed": flags["seed"],
        "model": flags["model"],
        "judge": flags["judge"],
        "constitution": flags["constitution"],
        "base_url": flags["judge_base_url"],
        "concurrency": flags["concurrency"],
        "max_cost_usd": flags["max_cost"],
        "prompts": {
            "file": flags["prompts"],
            "limit": flags["limit"],
            "held_out": flags["held_out"],
            "held_out_limit": flags["held_out_limit"],
        },
        "respond": {"samples": flags["samples"], **drawn},
        "pairs": "adjacent" if flags["samples"] == 2 else "all",
        "label": {"principles": flags["principles"]},
        "dpo": {name: flags[name] for name in dpo if flags[name] is not None},
        "rounds": flags["rounds"],
        "reference": flags["reference"],
        "round_prompts": flags["round_prompts"],
        "evaluate": {"oracle": flags["oracle"]},
    }
