"""Proximal policy optimisation of a LoRA policy, against a reward model, a function or the judge.

    Schulman et al. 2017 (arXiv 1707.06347) for the algorithm, Ziegler et al. 2019 (arXiv 1909.08593) and Ouyang
    et al. 2022 (arXiv 2203.02155) for language models; every formula stands in `train.ppo.objective`.

A step, in the order of this file:

    roll out    the policy answers the next prompts                                  `train.ppo.rollouts`
    reward      whoever gives rewards does; a reply without one leaves the step           `train.rollout.rewards`
    look back   reference and value function read the replies; advantages follow
    update      policy and value function in turn, in minibatches of whole prompts            `train.ppo.update`
    steer       the KL coefficient, the KL budget, the guard; a row, a checkpoint         `train.ppo.checkpoint`

Left out of the papers: pretraining gradients mixed in (Ouyang et al.), a fixed reward for unfinished replies
(Ziegler et al. give -1; here a penalty is taken off their reward), a coefficient of the value loss (Schulman et
al.; policy and value share no weight here).

Every random number depends on the seed and the number of the step alone, so that a training resumed from a
checkpoint is the unbroken one to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from preceptor.prompts.records import Prompt
from preceptor.train.data.collate_replies import ReplyBatch, ReplyTokens, groups_of
from preceptor.train.loop.manifest import Measured
from preceptor.train.loop.metrics import PpoMetrics, PpoRolloutFigures, PpoStepFigures, RolloutFigures
from preceptor.train.loop.output_folder import (
    METRICS,
    Trained,
    TrainingResult,
    begin_folder,
    finish_folder,
    found_finished,
    start_folder,
)
from preceptor.train.loop.run import OnTrainingProgress
from preceptor.train.models.adapters import POLICY, same_base, save_adapter
from preceptor.train.models.base import load_for
from preceptor.train.ppo import objective
from preceptor.train.ppo.checkpoint import Carried, Journal, copy_weights, open_optimisers, put_weights
from preceptor.train.ppo.guard_protocol import Decision, Ended, Guard, Moment
from preceptor.train.ppo.roles import VALUE, Roles, open_roles
from preceptor.train.ppo.rollouts import roll_out
from preceptor.train.ppo.scorer import open_scorer
from preceptor.train.ppo.update import Experience, policy_numbers, update, value_numbers
from preceptor.train.rollout.prompts import (
    TokenisedPrompt,
    drawings,
    encode_prompts,
    prompts_of_step,
    text_of,
)
from preceptor.train.rollout.rewards import (
    Replied,
    RewardSource,
    Scorer,
    reward_folder,
    reward_identity,
    told_of_masked,
)
from preceptor.train.rollout.sampling import Rollout
from preceptor.train.settings import PpoSettings

__all__ = ["train_ppo"]


class Rolled(NamedTuple):
    """A step's replies that have a reward."""

    rollouts: list[Rollout]
    rewards: Tensor  # (B,) float32, as they came
    masked: int
    """Replies that have none."""


def train_ppo(
    prompts: Sequence[Prompt],
    settings: PpoSettings,
    out: str | Path,
    *,
    reward: RewardSource,
    guard: Guard | None = None,
    server: str | None = None,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a policy on prompts; run again, it goes on from the last checkpoint.

    `reward`: the folder of a reward model, `module:function`, or a function (`train.rollout.rewards`); `guard`: see
    `train.ppo.guard_protocol`; `read`: what reading the rows set aside and which files they came from, for the
    manifest.
    Raises TrainDataError where no prompt can be trained on or a reward function fails, CheckpointError and
    RunFolderError for models and folder.
    """
    began_s = time.monotonic()
    hashes = {"reward": reward_identity(reward)} | ({"guard": guard.identity} if guard else {})
    hashes |= {"rollouts": "vllm"} if server else {}
    opened = start_folder("ppo", prompts, settings, Path(out), hashes)
    if (finished := found_finished(opened)) is not None:
        return finished
    base = load_for(settings)
    asked, rows = encode_prompts(
        prompts, base, max_new_tokens=settings.max_new_tokens, max_length=settings.max_length
    )
    folder = reward_folder(reward)
    shared = folder is not None and same_base(folder, base.source)
    roles = open_roles(base, settings, folder if shared else None)
    roles.server = server
    notes = roles.choose_layout([one.tokens for one in asked], settings.samples)
    scorer = open_scorer(reward, roles, shared)
    begin_folder(opened)
    journal = Journal(opened, settings, watch)
    try:
        ended = run(asked, roles, scorer, journal, settings, guard)
        final = measured(asked, roles, scorer, settings, opened.path)
    finally:
        scorer.close()
    save_adapter(roles.adapted, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    metrics: dict[str, Any] = {**journal.last(), "final": {"step": ended.step, **(final or {})}}
    notes = (*notes, *roles.room.notes, *told_of_masked(opened.path / METRICS))
    if ended.stopped:
        metrics["stopped"] = ended.stopped
        stop = "stopped after step {step}: {reason}; handed back is the policy of step {returned_step}"
        notes = (*notes, stop.format(**ended.stopped))
    if guard is not None and (guarded := guard.conclude(opened.path, ended)) is not None:
        metrics["guard"], notes = guarded.figures, (*notes, *guarded.notes)
    steps, wall_s = ended.stopped.get("step", ended.step), time.monotonic() - began_s
    speed: Measured = {"samples_per_s": journal.samples_per_s()}
    return finish_folder(
        opened, TrainingResult(rows, metrics, steps, wall_s, dict(read or {}), {}, speed, notes)
    )


def run(
    asked: Sequence[TokenisedPrompt],
    roles: Roles,
    scorer: Scorer,
    journal: Journal,
    settings: PpoSettings,
    guard: Guard | None,
) -> Ended:
    """All steps, from the folder's last checkpoint on."""
    steps = drawings(
        len(asked), epochs=settings.epochs, samples=settings.samples, batch_size=settings.batch_size
    )
    optimisers = open_optimisers(roles)
    carried = journal.resume(roles, optimisers)
    if carried.step == 0 and guard is not None:
        carried = carried.ordered(_look(guard, roles, scorer, journal, carried, steps, {}).kl_coef)
        journal.save(carried, roles, optimisers, keep_all=True)
    while carried.step < steps:
        step = carried.step + 1
        times = [time.monotonic()]
        rolled = reward_rollouts(
            asked, roll_out(asked, roles, settings, step, journal.opened.path), scorer, roles, settings, step
        )
        times.append(time.monotonic())
        always: PpoStepFigures = {"kl_coef": carried.kl_coef, "masked": rolled.masked}
        figures: PpoMetrics = always
        decision = Decision()
        if rolled.rollouts:
            first = not carried.running.seen
            carried = carried._replace(running=carried.running.joined(rolled.rewards))
            seen = experience_of(rolled, carried, roles, settings, fit_values=first)
            times.append(time.monotonic())
            drawn: PpoRolloutFigures = {**rollout_figures(rolled, seen), **always}
            figures = drawn
            decision = within_budget(drawn["kl_nats"], settings.kl_budget, carried.within_step)
            if not decision.stop:
                if settings.kl_budget is not None:
                    carried = carried._replace(within=copy_weights(roles, POLICY), within_step=step - 1)
                rate = objective.linear_rate(1.0, step, steps, settings.warmup)
                learned = update(
                    seen,
                    roles,
                    optimisers,
                    policy_numbers(settings),
                    value_numbers(settings),
                    rates=(settings.learning_rate * rate, settings.value_learning_rate * rate),
                    epochs=settings.ppo_epochs,
                    minibatches=settings.minibatches,
                    shuffled_by=f"{settings.seed}:{step}",
                )
                figures = {**drawn, **learned}
                coefficient = objective.adapted_coefficient(
                    carried.kl_coef, drawn["kl_nats"], settings.kl_target
                )
                carried = carried._replace(kl_coef=coefficient)
        carried = carried._replace(step=step)
        times.append(time.monotonic())
        if guard is not None and not decision.stop and (step % settings.guard_every == 0 or step == steps):
            decision = _look(guard, roles, scorer, journal, carried, steps, figures)
            carried = carried.ordered(decision.kl_coef)
        journal.write(step, steps, figures, times)
        if decision.stop:
            return _stop(decision, carried, roles, journal)
        looked = guard is not None and step % settings.guard_every == 0
        if looked or step % settings.checkpoint_every == 0:
            journal.save(carried, roles, optimisers, keep_all=guard is not None)
    return Ended(carried.step, {})


def _look(
    guard: Guard,
    roles: Roles,
    scorer: Scorer,
    journal: Journal,
    carried: Carried,
    steps: int,
    figures: Mapping[str, Any],
) -> Decision:
    """Ask the guard, with the policy acting."""
    with roles.board.as_role(POLICY):
        moment = Moment(
            carried.step,
            steps,
            figures,
            carried.kl_coef,
            roles.adapted,
            roles.base,
            journal.opened.path,
            roles,
            scorer.score,
        )
        return guard(moment)


def _stop(decision: Decision, carried: Carried, roles: Roles, journal: Journal) -> Ended:
    """Put the policy back to the step that was asked for."""
    returned = carried.step if decision.return_step is None else decision.return_step
    if returned == carried.within_step and carried.within:
        put_weights(roles, POLICY, carried.within)
    elif returned != carried.step:
        put_weights(roles, POLICY, journal.policy_of(returned))
    return Ended(returned, {"step": carried.step, "reason": decision.reason, "returned_step": returned})


# Reward


def reward_rollouts(
    asked: Sequence[TokenisedPrompt],
    rollouts: Sequence[Rollout],
    scorer: Scorer,
    roles: Roles,
    settings: PpoSettings,
    step: int,
) -> Rolled:
    """The step's replies with their rewards; those that have none are left out of all that follows."""
    some = prompts_of_step(len(asked), settings.batch_size // settings.samples, settings.seed, step)
    prompts = [asked[at].prompt for at in some for _ in range(settings.samples)]
    texts = [text_of(roles.base.tokenizer, rollout.reply, rollout.ended) for rollout in rollouts]
    rewards = scorer.score(
        [
            Replied(prompt, (rollout.prompt, rollout.reply), text)
            for prompt, rollout, text in zip(prompts, rollouts, texts, strict=True)
        ]
    )
    kept = [(rollout, value) for rollout, value in zip(rollouts, rewards, strict=True) if value is not None]
    return Rolled(
        [rollout for rollout, _ in kept],
        torch.tensor([value for _, value in kept], dtype=torch.float32),
        len(rollouts) - len(kept),
    )


def shaped_rewards(
    rewards: Tensor,
    rollouts: Sequence[Rollout],
    *,
    missing_eos_penalty: float,
    length_penalty: float,
    max_new_tokens: int,
    overlong_buffer: int,
) -> Tensor:
    """Rewards (B,) of the replies as they are learned from, less the penalties. The numbers are as in PpoSettings."""
    unfinished = torch.tensor([not rollout.ended for rollout in rollouts])  # (B,)
    lengths = torch.tensor([float(len(rollout.reply)) for rollout in rollouts])  # (B,)
    penalties = objective.length_penalties(lengths, length_penalty, max_new_tokens, overlong_buffer)
    return rewards - missing_eos_penalty * unfinished - penalties


# Look back


def experience_of(
    rolled: Rolled, carried: Carried, roles: Roles, settings: PpoSettings, fit_values: bool = False
) -> Experience:
    """What is learned from the step's replies: `shaped_rewards` and `look_back` with the numbers of the settings."""
    normal = settings.normalise_rewards
    shaped = shaped_rewards(
        carried.running.normalised(rolled.rewards) if normal else rolled.rewards,
        rolled.rollouts,
        missing_eos_penalty=settings.missing_eos_penalty,
        length_penalty=settings.length_penalty,
        max_new_tokens=settings.max_new_tokens,
        overlong_buffer=settings.overlong_buffer,
    )
    return look_back(
        rolled.rollouts,
        shaped,
        carried.kl_coef,
        roles,
        kl_estimator=settings.kl_estimator,
        gamma=settings.gamma,
        lam=settings.lam,
        whiten_advantages=settings.whiten_advantages,
        fit_values=fit_values,
    )


def look_back(
    rollouts: Sequence[Rollout],
    shaped: Tensor,
    kl_coef: float,
    roles: Roles,
    *,
    kl_estimator: objective.Estimator,
    gamma: float,
    lam: float,
    whiten_advantages: bool,
    fit_values: bool = False,
) -> Experience:
    """What reference and value function say of the replies, and what each token was worth.

    shaped: the replies' rewards (B,), as `shaped_rewards` has them. fit_values: first put the value head on the scale
    of these rewards. The other numbers are as in PpoSettings.
    """
    replies = [(rollout.prompt, rollout.reply) for rollout in rollouts]
    lengths = torch.tensor([len(rollout.reply) for rollout in rollouts], device=roles.device)
    mask = torch.arange(int(lengths.max()), device=roles.device) < lengths[:, None]  # (B, L)
    old = torch.zeros(mask.shape, device=roles.device)
    old[mask] = torch.cat([rollout.logprobs for rollout in rollouts]).to(roles.device)
    reference = per_token(replies, mask, roles, roles.reference, lambda batch: roles.logprobs(batch).logprobs)
    values = per_token(replies, mask, roles, VALUE, roles.values)
    shaped = shaped.to(roles.device)
    if fit_values:
        values = fit_value_head(roles, values, shaped, mask)
    kl = objective.kl_per_token(old, reference, kl_estimator) * mask  # (B, L)
    rewards = objective.token_rewards(shaped, kl, kl_coef, mask)  # (B, L)
    advantages, returns = objective.gae(rewards, values, mask, gamma, lam)
    if whiten_advantages:
        advantages = objective.whitened(advantages, mask)
    return Experience(replies, mask, old, reference, values, advantages, returns)


@torch.no_grad()
def per_token(
    replies: Sequence[ReplyTokens],
    mask: Tensor,
    roles: Roles,
    role: str,
    compute: Callable[[ReplyBatch], Tensor],
) -> Tensor:
    """(B, L): what `compute` says of each batch's tokens (N,), with `role` acting."""
    groups = groups_of(replies)

    def read() -> Tensor:
        found = torch.zeros(mask.shape, device=mask.device)
        for batch in roles.batches(replies, groups):
            spread = torch.zeros_like(found[batch.number])  # (b, L)
            found[batch.number] = spread.masked_scatter(mask[batch.number], compute(batch))
        return found

    with roles.board.as_role(role):
        return roles.fitting(read, replies, groups)


@torch.no_grad()
def fit_value_head(roles: Roles, values: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """The values (B, L) after the head was scaled and shifted to come closest to the rewards (B,).

    A head taken from a reward model knows replies by their last token only; by least squares over all tokens,
    a * value + b ~ reward, it keeps what it knows of the others and begins no worse than a constant.
    """
    said, wanted = values[mask], rewards[:, None].expand_as(values)[mask]  # (N,)
    spread = said.var(unbiased=False)
    slope = ((said - said.mean()) * (wanted - wanted.mean())).mean() / spread if spread > 0 else spread
    shift = wanted.mean() - slope * said.mean()
    roles.value_head.weight.mul_(slope)
    roles.value_head.bias.mul_(slope).add_(shift)
    return (slope * values + shift) * mask


class _SamplerGap(TypedDict, total=False):
    sampler_gap_nats: float


def rollout_figures(rolled: Rolled, seen: Experience) -> RolloutFigures:
    """What the step's replies say about the policy that wrote them."""
    count = len(rolled.rollouts)
    of_tokens = objective.kl_per_token(seen.old, seen.reference, "k1")  # (B, L)
    kl = (of_tokens * seen.mask).sum(dim=1)  # (B,)
    entropies = torch.cat([rollout.entropies for rollout in rolled.rollouts])
    apart = [(one.logprobs - one.sampler).abs() for one in rolled.rollouts if one.sampler is not None]
    gap: _SamplerGap = {"sampler_gap_nats": float(torch.cat(apart).mean())} if apart else {}
    return {
        **gap,
        "reward": float(rolled.rewards.mean()),
        "reward_std": float(rolled.rewards.std()) if count > 1 else 0.0,
        "kl_nats": float(kl.mean()),
        "reply_tokens": float(seen.mask.sum()) / count,
        "ended": sum(rollout.ended for rollout in rolled.rollouts) / count,
        "entropy": float(entropies.mean()),
    }


def measured(
    asked: Sequence[TokenisedPrompt], roles: Roles, scorer: Scorer, settings: PpoSettings, folder: Path
) -> RolloutFigures | None:
    """The figures of the policy as it is handed back, on one more batch of rollouts; None where none has a reward."""
    rollouts = roll_out(asked, roles, settings, 0, folder)
    rolled = reward_rollouts(asked, rollouts, scorer, roles, settings, 0)
    if not rolled.rollouts:
        return None
    nothing = Carried(0, 0.0, objective.Running(), [], 0)
    return rollout_figures(rolled, experience_of(rolled, nothing, roles, settings))


# Steer


def within_budget(kl_nats: float, budget_nats: float | None, within_step: int) -> Decision:
    """Whether the policy that wrote the step's replies may stand; else that of `within_step` is handed back."""
    if budget_nats is None or kl_nats <= budget_nats:
        return Decision()
    reason = f"KL of {kl_nats:.2f} nats is over the budget of {budget_nats:g}"
    return Decision(stop=True, return_step=within_step, reason=reason)
