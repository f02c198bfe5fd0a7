"""The replies of a step of PPO, drawn here or by a server, each with what the policy thinks of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from preceptor.train.data.collate_replies import groups_of
from preceptor.train.models.adapters import POLICY
from preceptor.train.ppo.roles import Roles
from preceptor.train.rollout.prompts import TokenisedPrompt, prompts_of_step, sampling_of, seed_of
from preceptor.train.rollout.sampling import Rollout, Sampling, sample
from preceptor.train.rollout.vllm import draw_served
from preceptor.train.rollout.vllm_client import Drawn
from preceptor.train.settings import PpoSettings


def roll_out(
    asked: Sequence[TokenisedPrompt], roles: Roles, settings: PpoSettings, step: int, folder: Path
) -> list[Rollout]:
    """B replies to the step's prompts, those to one prompt side by side. `folder`: where an adapter may lie while a
    server draws them."""
    some = prompts_of_step(len(asked), settings.batch_size // settings.samples, settings.seed, step)
    how = sampling_of(settings, roles.base, roles.device)
    tokens, seed = [asked[at].tokens for at in some], seed_of(settings.seed, step)
    with roles.board.as_role(POLICY):
        if roles.server is None:
            return draw(roles, tokens, settings.samples, how, seed)
        drawn = draw_served(roles.adapted, tokens, settings.samples, how, seed, roles.server, folder)
    return reread([prompt for prompt in tokens for _ in range(settings.samples)], drawn, roles)


def draw(roles: Roles, prompts: Sequence[list[int]], samples: int, how: Sampling, seed: int) -> list[Rollout]:
    """`samples` replies to each prompt by whoever acts, fewer prompts at a time where memory runs out."""
    longest = (max(map(len, prompts)) + how.max_new_tokens) * samples

    def work(tokens: int) -> list[Rollout]:
        with roles.half():
            return sample(roles.adapted, prompts, samples, how._replace(batch_tokens=tokens), seed)

    return roles.room.drawing(work, longest)


@torch.no_grad()
def reread(prompts: Sequence[list[int]], drawn: Sequence[Drawn], roles: Roles) -> list[Rollout]:
    """What the policy here thinks of replies that were drawn elsewhere."""
    replies = [(prompt, one.tokens) for prompt, one in zip(prompts, drawn, strict=True)]
    groups = groups_of(replies)

    def read() -> list[Rollout]:
        found: dict[int, Rollout] = {}
        for batch in roles.batches(replies, groups):
            said = roles.logprobs(batch, with_entropies=True)
            assert said.entropies is not None
            lengths = [len(replies[at][1]) for at in batch.number.tolist()]
            logprobs = torch.split(said.logprobs.cpu(), lengths)
            entropies = torch.split(said.entropies.cpu(), lengths)
            for at, logp, entropy in zip(batch.number.tolist(), logprobs, entropies, strict=True):
                prompt, reply = replies[at]
                own = torch.tensor(drawn[at].logprobs)
                found[at] = Rollout(prompt, reply, logp, entropy, drawn[at].ended, own)
        return [found[at] for at in range(len(replies))]

    with roles.board.as_role(POLICY):
        return roles.fitting(read, replies, groups)
