"""`preceptor train ppo`: a policy against a reward model, a function or the judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from preceptor.cli import console
from preceptor.cli.flags import Flags, given
from preceptor.cli.options import ColumnsOption, JsonOption, Out, PromptsArgument, TrainingPlanOption
from preceptor.cli.train.options import PLACES, training
from preceptor.cli.train.planned import tell_plan
from preceptor.cli.train.rewards import Former, JudgeAsking, Rewarding, sources_of
from preceptor.cli.train.shared import settled, tell, told_of_prompts
from preceptor.constitution.errors import UserError
from preceptor.prompts.records import Settings
from preceptor.settings import CHECKS, Asking
from preceptor.train.settings import PpoSettings

if TYPE_CHECKING:
    from preceptor.train.guard.held_out import HeldOutGuard
    from preceptor.train.loop.output_folder import Trained


class GuardOptions(Settings):
    """Who looks on while PPO trains."""

    guard_judge: str | None = None
    """Looks whether the reward is being gamed: oracle/embedded, checks, or provider/model. Not who labelled."""
    guard_prompts: str | None = None
    """What the guard looks at: a shipped pool's name or a file of prompts."""
    guard_rule: tuple[str, ...] = ()
    """NAME>LIMIT:ACTION, such as 'kl>8:stop'. Names: gold-drop, kl, distinct-2 (with <), perplexity, length-drift;
    actions: off, warn, raise_kl, stop."""
    guard_text: Path | None = None
    """Rows with a plain `text` each, for the perplexity; else a shipped file."""


def ppo(
    prompts: PromptsArgument,
    out: Out,
    rewarding: Annotated[Rewarding, Flags("Reward")],
    settings: Annotated[PpoSettings, training("compile", "report_to")],
    guard: Annotated[GuardOptions, Flags("Guard")],
    asking: JudgeAsking,
    former: Former,
    columns: ColumnsOption = None,
    plan: TrainingPlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy by PPO against a reward. The same command again goes on where it stopped."""
    settings = settled(settings)
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import source_facts
    from preceptor.prompts.pool import prompts_from

    named = mapping_of(columns or [])
    rows = list(prompts_from(prompts, named))
    sources = sources_of(rewarding, asking, former, settings.seed, _guard_goes_by(guard.guard_judge))
    looking = _guard(guard, settings, rewarding, sources.asking, named)
    if plan:
        from preceptor.train.ppo.plan import plan_ppo

        tell_plan(plan_ppo(rows, settings, sources.reward, looking is not None), as_json)
        return
    from preceptor.train.ppo.train import train_ppo

    with console.training("ppo") as watch:
        trained = train_ppo(
            rows,
            settings,
            out,
            reward=sources.reward,
            guard=looking,
            server=sources.server,
            watch=watch,
            read=source_facts(prompts, {}),
        )
    tell("ppo", trained, _told(trained), as_json)


def _guard_goes_by(judge: str | None) -> tuple[str, ...]:
    """Fields of a judge's flags that have an effect through the guard: none with an oracle."""
    from preceptor.evaluation.oracles import ORACLE

    if judge is None or judge.startswith(ORACLE):
        return ()
    return ("constitution",) if judge == CHECKS else ("constitution", *PLACES)


def _guard(
    guard: GuardOptions,
    settings: PpoSettings,
    rewarding: Rewarding,
    asking: Asking,
    columns: Mapping[str, str],
) -> HeldOutGuard | None:
    """The guard that the flags describe; `columns` holds for its file of prompts too.

    Raises UserError where they do not go together.
    """
    if guard.guard_judge is None:
        said = [*given(guard), *(["guard_every"] if "guard_every" in settings.model_fields_set else [])]
        if said:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in said)
            raise UserError(f"{flags} without --guard-judge: nobody would look")
        return None
    if guard.guard_prompts is None:
        raise UserError(
            "--guard-judge without --guard-prompts: name held-out prompts, which training does not see"
        )
    from preceptor.constitution.files import load
    from preceptor.evaluation.oracles import guard_judge, refuse_labeller
    from preceptor.prompts.pool import prompts_from
    from preceptor.train.guard.held_out import PLAIN_TEXT, HeldOutGuard
    from preceptor.train.guard.rules import rules_from

    if rewarding.reward is not None:
        refuse_labeller(guard.guard_judge, rewarding.reward)
    rules = rules_from(guard.guard_rule)
    constitution = None if rewarding.constitution is None else load(rewarding.constitution)
    judge = guard_judge(guard.guard_judge, constitution, asking)
    prompts = list(prompts_from(guard.guard_prompts, columns))
    return HeldOutGuard(prompts, judge, rules, settings, guard.guard_text or PLAIN_TEXT)


def _told(trained: Trained) -> list[str]:
    """What became of the prompts, which policy was handed back, and what the guard saw."""
    lines = [told_of_prompts(trained), *trained.notes]
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
