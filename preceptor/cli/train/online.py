"""`preceptor train grpo | rloo | online-dpo`: policies that learn from replies which they write as they go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from preceptor.cli import console, runs
from preceptor.cli.flags import Flags, given
from preceptor.cli.options import (
    ColumnsOption,
    ConstitutionName,
    JsonOption,
    Out,
    PlanOption,
    PromptsArgument,
    TrainingPlanOption,
)
from preceptor.cli.train.options import training
from preceptor.cli.train.planned import tell_plan
from preceptor.cli.train.rewards import Former, FormerFlags, JudgeAsking, Rewarding, sources_of
from preceptor.cli.train.shared import settled, tell, told_of_prompts
from preceptor.doctor import need_training
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.label.judging import JUDGING, OneJudge
from preceptor.prompts.records import Settings
from preceptor.run.config import EvaluateSettings, PromptSettings, RoundSettings, RunConfig
from preceptor.settings import Asking, AskSettings
from preceptor.train.settings import DpoSettings, GroupSettings, GrpoSettings, RlooSettings

if TYPE_CHECKING:
    from preceptor.train.loop.output_folder import Trained


def grpo(
    prompts: PromptsArgument,
    out: Out,
    rewarding: Annotated[Rewarding, Flags("Reward")],
    settings: Annotated[GrpoSettings, training()],
    asking: JudgeAsking,
    former: Former,
    columns: ColumnsOption = None,
    plan: TrainingPlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy by GRPO against a reward. The same command again goes on where it stopped."""
    _train_online("grpo", prompts, out, settings, rewarding, asking, former, columns, plan, as_json)


def rloo(
    prompts: PromptsArgument,
    out: Out,
    rewarding: Annotated[Rewarding, Flags("Reward")],
    settings: Annotated[RlooSettings, training()],
    asking: JudgeAsking,
    former: Former,
    columns: ColumnsOption = None,
    plan: TrainingPlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy by RLOO against a reward. The same command again goes on where it stopped."""
    _train_online("rloo", prompts, out, settings, rewarding, asking, former, columns, plan, as_json)


def _train_online(
    kind: str,
    prompts: str,
    out: Path,
    settings: GroupSettings,
    rewarding: Rewarding,
    asking: Asking,
    former: FormerFlags,
    columns: list[str] | None,
    plan: bool,
    as_json: bool,
) -> None:
    settings = settled(settings)
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import source_facts
    from preceptor.prompts.pool import prompts_from

    rows = list(prompts_from(prompts, mapping_of(columns or [])))
    sources = sources_of(rewarding, asking, former, settings.seed)
    from preceptor.train.grpo.train import plan_group, train_grpo, train_rloo

    if plan:
        tell_plan(plan_group(kind, rows, settings, sources.reward), as_json)
        return
    start: Any = train_grpo if kind == "grpo" else train_rloo
    with console.training(kind) as watch:
        more = {"server": sources.server, "read": source_facts(prompts, {})}
        trained = start(rows, settings, out, reward=sources.reward, watch=watch, **more)
    tell(kind, trained, _told(trained), as_json)


def _told(trained: Trained) -> list[str]:
    """What became of the prompts, and the figures of the last step."""
    metrics = trained.metrics
    reward = "none" if metrics.get("reward") is None else f"{metrics['reward']:.3f}"
    return [
        told_of_prompts(trained),
        f"last step: reward {reward}, KL {metrics['kl_nats']:.2f} nats a reply, "
        f"{metrics['reply_tokens']:.0f} tokens a reply, {metrics['masked']:.0f} without a reward",
    ]


class Start(Settings):
    """What the rounds start from."""

    model: str = "embedded"
    """embedded, smollm2, hf/ID, hf/FOLDER or hf/FILE.gguf."""


def online_dpo(
    prompts: Annotated[PromptSettings, Flags("Prompts", argument="file")],
    out: Out,
    constitution: ConstitutionName,
    judge: Annotated[OneJudge, Flags("Judging")],
    judging: Annotated[LabelSettings, Flags("Judging", omit=(*JUDGING, "max_tokens"))],
    start: Annotated[Start, Flags("Training")],
    rounds: Annotated[
        RoundSettings,
        Flags("Training", defaults={"rounds": 4, "round_prompts": "split", "reference": "first"}),
    ],
    replies: Annotated[
        RespondSettings,
        Flags("Sampling", names={"max_tokens": "--max-new-tokens"}, defaults={"samples": 2}),
    ],
    dpo: Annotated[
        DpoSettings,
        training(
            *("model", "adapter", "stack_adapter", "reference_adapter", "held_out", "final_checkpoint"),
            *("compile", "tensorboard", "report_to"),
        ),
    ],
    evaluate: Annotated[EvaluateSettings, Flags("Comparing at the end", only=("oracle",))],
    asking: Annotated[
        AskSettings,
        Flags(
            omit=("dtype", "device_map", "four_bit"),
            defaults={"concurrency": RunConfig.model_fields["concurrency"].default},
            old={"base_url": "--judge-base-url"},
        ),
    ],
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Online DPO in rounds: the policy's own replies, judged, and DPO on them, again and again; a run folder."""
    need_training()
    from preceptor.run.config import checked

    values = {
        **{name: getattr(asking, name) for name in given(asking)},
        **rounds.model_dump(),
        "out": str(out),
        "seed": replies.seed,
        "model": start.model,
        "judge": judge.needed,
        "constitution": constitution,
        "prompts": given(prompts),
        "respond": given(replies),
        "pairs": "adjacent" if replies.samples == 2 else "all",
        "label": given(judging),
        "dpo": given(dpo),
        "evaluate": given(evaluate),
    }
    runs.run_or_plan(checked(values, "the flags do not describe a run"), plan, as_json)
