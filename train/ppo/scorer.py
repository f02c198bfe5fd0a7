"""The scorer of PPO's replies: a reward model on the policy's own base is one more adapter among the roles."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from preceptor.train.data.collate_replies import groups_of
from preceptor.train.forward.reward_heads import rewards, shares
from preceptor.train.ppo.roles import REWARD, Roles
from preceptor.train.rollout.rewards import Replied, RewardSource, Scorer, finite_or_none, open_outside


def open_scorer(source: RewardSource, roles: Roles, shared: bool) -> Scorer:
    """The scorer for a reward; `shared` where its adapter is among the roles already."""
    return by_adapter(roles) if shared else open_outside(source, roles.device)


def by_adapter(roles: Roles) -> Scorer:
    """The REWARD adapter of the same base."""

    @torch.no_grad()
    def score(replies: Sequence[Replied]) -> list[float | None]:
        assert roles.reward is not None
        heads = roles.reward.heads
        rows = [reply.tokens for reply in replies]
        groups = groups_of(rows)

        def read() -> torch.Tensor:
            found = torch.zeros(len(rows), len(heads.names))  # (B, K)
            for batch in roles.batches(rows, groups):
                found[batch.number.cpu()] = roles.scores(batch).cpu()
            return found

        with roles.board.as_role(REWARD):
            scores = roles.fitting(read, rows, groups)
        found = rewards(scores, heads, shares(heads, [reply.prompt.tags for reply in replies])).tolist()
        return [finite_or_none(value) for value in found]

    return Scorer(score, lambda: None)
