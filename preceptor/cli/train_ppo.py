"""`preceptor train ppo`: a policy against a reward model, a function or the judge."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, rewarding, train, train_flags
from preceptor.cli.asking import asking_of
from preceptor.cli.options import CONCURRENCY, LEDGER, Concurrency, Json, Ledger, Out, Seed
from preceptor.constitution.errors import UserError
from preceptor.doctor import need_training

if TYPE_CHECKING:
    from preceptor.train.guard.held_out import HeldOutGuard
    from preceptor.train.loop.output_folder import Trained
    from preceptor.train.settings import PpoSettings

LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", help="Of the policy; peak.", show_default="0.0002")
]
ValueLearningRate = Annotated[
    float | None, typer.Option(help="Of the value function; peak.", show_default="0.001")
]
BatchSize = Annotated[int | None, typer.Option(help="Replies in a step.", show_default="64")]
Samples = Annotated[int | None, typer.Option(help="Replies to each prompt in a step.", show_default="4")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens of a reply at most.", show_default="128")]
Temperature = Annotated[float | None, typer.Option(help="Of the rollouts.", show_default="1.0")]
TopP = Annotated[float | None, typer.Option(help="Of the rollouts.", show_default="1.0")]
RolloutTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens generated together, prompts included.", show_default="8192 on a CPU, else 65536"
    ),
]
KlBeta = Annotated[
    float | None, typer.Option(help="What a nat of distance from the reference costs.", show_default="0.1")
]
KlTarget = Annotated[
    float | None, typer.Option(help="Nats a reply to which --kl-beta is steered.", show_default="none")
]
KlBudget = Annotated[
    float | None, typer.Option(help="Nats a reply at which training stops.", show_default="none")
]
KlEstimator = Annotated[str | None, typer.Option(help="Of the penalty: k1 or k3.", show_default="k1")]
Gamma = Annotated[float | None, typer.Option(help="Discount a token.", show_default="1.0")]
Lam = Annotated[float | None, typer.Option(help="Of the advantages.", show_default="0.95")]
Clip = Annotated[float | None, typer.Option(help="Of the policy's ratio.", show_default="0.2")]
ValueClip = Annotated[float | None, typer.Option(help="Of the value's move in a step.", show_default="0.2")]
Entropy = Annotated[float | None, typer.Option(help="Reward for a nat a token.", show_default="0.0")]
PpoEpochs = Annotated[int | None, typer.Option(help="Passes over a step's replies.", show_default="2")]
Minibatches = Annotated[int | None, typer.Option(help="Updates in such a pass.", show_default="4")]
MaxKl = Annotated[
    float | None,
    typer.Option(help="Nats a token moved at which a step's updates end.", show_default="0.1"),
]
MissingEos = Annotated[float | None, typer.Option(help="What an unfinished reply loses.", show_default="1.0")]
LengthPenalty = Annotated[float | None, typer.Option(help="What each token costs.", show_default="0.0")]
OverlongBuffer = Annotated[
    int | None,
    typer.Option(help="Tokens before the limit over which a penalty rises to 1.", show_default="0"),
]
GuardJudge = Annotated[
    str | None,
    typer.Option(
        help="Looks whether the reward is being gamed: oracle/embedded, checks, or provider/model. Not who labelled."
    ),
]
GuardPrompts = Annotated[
    str | None, typer.Option(help="What the guard looks at: a shipped pool's name or a file of prompts.")
]
GuardEvery = Annotated[
    int | None, typer.Option(help="Steps from one look of the guard to the next.", show_default="10")
]
GuardRule = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME>LIMIT:ACTION",
        help="Such as 'kl>8:stop'. Names: gold-drop, kl, distinct-2 (with <), perplexity, length-drift; "
        "actions: off, warn, raise_kl, stop.",
    ),
]
GuardText = Annotated[
    Path | None,
    typer.Option(help="Rows with a plain `text` each, for the perplexity.", show_default="a shipped one"),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Say what it would take in memory, steps and disk, and do nothing.")
]


def ppo(
    prompts: Annotated[str, typer.Argument(help="A shipped pool's name or a file of prompts.")],
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
    value_learning_rate: ValueLearningRate = None,
    batch_size: BatchSize = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    max_length: train_flags.MaxLength = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    kl_beta: KlBeta = None,
    kl_target: KlTarget = None,
    kl_budget: KlBudget = None,
    kl_estimator: KlEstimator = None,
    gamma: Gamma = None,
    lam: Lam = None,
    clip: Clip = None,
    value_clip: ValueClip = None,
    entropy: Entropy = None,
    ppo_epochs: PpoEpochs = None,
    minibatches: Minibatches = None,
    max_kl: MaxKl = None,
    missing_eos_penalty: MissingEos = None,
    length_penalty: LengthPenalty = None,
    overlong_buffer: OverlongBuffer = None,
    rank: train_flags.Rank = None,
    alpha: train_flags.Alpha = None,
    dora: train_flags.Dora = False,
    rslora: train_flags.RsLora = False,
    four_bit: train_flags.FourBit = False,
    pass_tokens: train_flags.PassTokens = None,
    rollout_tokens: RolloutTokens = None,
    guard_judge: GuardJudge = None,
    guard_prompts: GuardPrompts = None,
    guard_every: GuardEvery = None,
    guard_rule: GuardRule = None,
    guard_text: GuardText = None,
    seed: Seed = 0,
    precision: train_flags.Precision = None,
    gradient_checkpointing: train_flags.Checkpointing = None,
    checkpoint_every: train_flags.CheckpointEvery = None,
    keep_checkpoints: train_flags.KeepCheckpoints = None,
    tensorboard: train_flags.TensorBoard = False,
    plan: PlanOnly = False,
    json: Json = False,
) -> None:
    """Train a policy by PPO against a reward. The same command again goes on where it stopped."""
    flags = dict(locals())
    need_training()
    from preceptor.prompts.pool import prompts_from
    from preceptor.train.settings import PpoSettings

    settings = train.settings_of(PpoSettings, flags)
    rows = list(prompts_from(prompts))
    source = rewarding.source_of(reward, flags, _guard_goes_by(guard_judge))
    guard = _guard(flags, settings)
    if plan:
        from preceptor.cli.planned import tell_plan
        from preceptor.train.ppo.plan import plan_ppo

        tell_plan(plan_ppo(rows, settings, source, guard is not None), json)
        return
    from preceptor.train.ppo.train import train_ppo

    read, server = train.source_of(prompts, {}), rewarding.server_of(flags)
    with console.training("ppo") as watch:
        trained = train_ppo(
            rows, settings, out, reward=source, guard=guard, server=server, watch=watch, read=read
        )
    train.tell("ppo", trained, _told(trained), json)


def _guard_goes_by(name: str | None) -> tuple[str, ...]:
    """The judge's flags that have an effect through the guard: none with an oracle, all but --judge where it asks."""
    from preceptor.asking.stages import CHECKS
    from preceptor.evaluation.oracles import ORACLE

    if name is None or name.startswith(ORACLE):
        return ()
    return ("constitution",) if name == CHECKS else ("constitution", "max_cost", "judge_base_url")


def _guard(flags: Mapping[str, Any], settings: PpoSettings) -> HeldOutGuard | None:
    """The guard that the flags describe. Raises UserError where they do not go together."""
    name = flags["guard_judge"]
    if name is None:
        alone = [
            f"--{flag.replace('_', '-')}"
            for flag in ("guard_prompts", "guard_every", "guard_rule", "guard_text")
            if flags[flag]
        ]
        if alone:
            raise UserError(f"{' and '.join(alone)} without --guard-judge: nobody would look")
        return None
    if flags["guard_prompts"] is None:
        raise UserError(
            "--guard-judge without --guard-prompts: name held-out prompts, which training does not see"
        )
    _refuse_labeller(name, flags["reward"])
    from preceptor.constitution.files import load
    from preceptor.evaluation.oracles import guard_judge
    from preceptor.prompts.pool import prompts_from
    from preceptor.train.guard.held_out import PLAIN_TEXT, HeldOutGuard
    from preceptor.train.guard.rules import rules_from

    rules = rules_from(flags["guard_rule"] or ())
    asking = asking_of(flags["ledger"], flags["concurrency"], flags["max_cost"], flags["judge_base_url"])
    law = None if flags["constitution"] is None else load(flags["constitution"])
    judge = guard_judge(name, law, asking)
    prompts = list(prompts_from(flags["guard_prompts"]))
    return HeldOutGuard(prompts, judge, rules, settings, flags["guard_text"] or PLAIN_TEXT)


def _refuse_labeller(judge: str, reward: str) -> None:
    """Raise UserError where the judge made the labels that the reward model learned from: both would be wrong
    together, and nobody would see it."""
    manifest = Path(reward) / "manifest.json"
    try:
        judges = jsonlib.loads(manifest.read_text(encoding="utf-8")).get("judges", [])
    except (OSError, ValueError):
        return
    if judge in judges:
        raise UserError(
            f"the guard's judge {judge} made the labels of the reward {reward}, and would be fooled where it is: "
            "name another with --guard-judge"
        )


def _told(trained: Trained) -> list[str]:
    """What became of the prompts, which policy was handed back, and what the guard saw."""
    lines = [train.told_of_prompts(trained), *trained.notes]
    if "reward" in (final := trained.metrics["final"]):
        lines.append(
            f"handed back: the policy of step {final['step']}, reward {final['reward']:.3f}, "
            f"KL {final['kl_nats']:.2f} nats a reply, {final['reply_tokens']:.0f} tokens a reply"
        )
    if (guarded := trained.metrics.get("guard")) is not None:
        page = trained.folder / "guard.html"
        lines.append(
            f"guard: gold {_gold(guarded['gold_start'])} at the start, {_gold(guarded['gold_best'])} at its best "
            f"(step {guarded['best_step']}), {_gold(guarded['gold_returned'])} handed back; {page}"
        )
    return lines


def _gold(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
