"""What a run would ask of its models, told before anything is asked or trained.

Each prompt's way through the run is one dialogue, from its first reply to the last comparison, so that
`judge.asking.plan` can walk it: on the ledger's answers as far as they go, then on replies as long as they may be. What
is still to be trained is stood in for by a model of its own, which costs nothing, as the trained one will.

Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.asking import stages
from preceptor.constitution.files import load as load_constitution
from preceptor.constitution.principle import Constitution
from preceptor.evaluation import head_to_head, probes
from preceptor.evaluation.oracles import ORACLE
from preceptor.judge.models.protocol import Capabilities, Completion, Dialogue, Model, Request
from preceptor.judge.records import Pair, Response, Revision
from preceptor.judge.respond import respond
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.cascade import together
from preceptor.prompts.records import Prompt
from preceptor.run import ppo, rounds
from preceptor.run.config import RunConfig
from preceptor.run.guard import part
from preceptor.run.running import POLICY, SFT, chosen_prompts, compared_with_start, held_out_replies
from preceptor.settings import CHECKS
from preceptor.train.estimate.schedule import saved_steps
from preceptor.train.rollout.prompts import drawings


@dataclass
class Untrained:
    """A model that the run will have trained when it asks it; satisfies `judge.models.protocol.Model`."""

    name: str
    endpoint: str
    dialect: str
    capabilities = Capabilities()

    async def complete(self, request: Request) -> Completion:
        """Never asked: a plan carries nothing out."""
        raise AssertionError(f"{self.name} was asked {request.key}")

    async def close(self) -> None:
        """Nothing to let go of."""


class Cast(NamedTuple):
    """Who is asked in a run, as far as there is anyone yet."""

    config: RunConfig
    path: Path
    start: Model
    critic: Model
    judge: Model | None

    def trained(self, name: str) -> Model:
        """The model of a folder of the run."""
        if (self.path / name / "manifest.json").exists():
            return self.config.open(f"hf/{self.path / name}")
        return Untrained(f"hf/{self.path / name}", "", self.start.dialect)


def asks(config: RunConfig) -> Iterator[Dialogue[Any]]:
    """All that a run would ask. Raises UserError where the run could not begin."""
    constitution = load_constitution(config.constitution)
    train, held_out, _ = chosen_prompts(config)
    start = config.open(config.model)
    critic = config.open(config.critic or config.model)
    cast = Cast(config, Path(config.out), start, critic, config.open_judge(config.judge))
    for number, prompt in enumerate(train):
        yield _labelled(prompt, number, cast, constitution)
    for policy in _policies(config):
        settings = compared_with_start(config, policy)
        sides = (start, cast.trained(policy))
        judge = config.open_judge(settings.judge)
        yield from head_to_head.asks(held_out, constitution, settings, sides, judge)
    yield from _guarded(config, train, held_out, constitution)
    if config.probes is not None:
        named = probes.Sides(POLICY, config.model, held_out_replies(config))
        yield from probes.asks((start, cast.trained(POLICY)), named, config.probes)


def _guarded(
    config: RunConfig, train: Sequence[Prompt], held_out: Sequence[Prompt], constitution: Constitution
) -> Iterator[Dialogue[Any]]:
    """What a model that guards PPO is asked at most, with replies as long as they may be: no look after a stop."""
    if config.ppo is None or (guarded := config.ppo.guard) is None:
        return
    if guarded.judge == CHECKS or guarded.judge.startswith(ORACLE):
        return
    judge = config.open_judge(guarded.judge)
    parted = part(train, held_out, guarded, config.seed)
    steps = drawings(config.ppo, len(parted.train))
    for step in (0, *saved_steps(steps, guarded.every)):
        new, old = (f"{name} {step}" + " mmm" * config.ppo.max_new_tokens for name in ("policy", "start"))
        pairs = [
            Pair(id=f"guard-{prompt.id}", prompt=prompt, response_a=new, response_b=old)
            for prompt in parted.looked_at
        ]
        yield from stages.labelling(pairs, constitution, judge, LabelSettings())


def _policies(config: RunConfig) -> list[str]:
    """The folders that are compared with the run's start."""
    every = rounds.rounds_of(config)
    first = [SFT] if config.rounds > 1 and config.sft is not None else []
    return [*first, *(each.policy for each in every), *([ppo.PPO_POLICY] if config.ppo else [])]


def _labelled(prompt: Prompt, number: int, cast: Cast, constitution: Constitution) -> Dialogue[None]:
    """A prompt's way from its first replies to the last round's labels. number: its place among the run's prompts."""
    config = cast.config
    own = [
        each
        for each in rounds.rounds_of(config)
        if config.round_prompts == "same" or number % config.rounds == each.number - 1
    ]
    replies: Sequence[Response] = ()
    revisions: Sequence[Revision] = ()
    if config.sft is not None or own[0].number == 1:
        settings = config.respond.model_copy(update={"seed": config.seed})
        replies = yield from respond(prompt, cast.start, settings)
        if config.revise is not None:
            seeded = config.revise.model_copy(update={"seed": config.seed})
            first = replies[: config.revised_samples]
            revisions = yield from together(list(stages.revising(first, constitution, cast.critic, seeded)))
    for each in own:
        seeded_replies = config.respond.model_copy(update={"seed": each.seed})
        if each.number > 1:
            before = cast.trained(rounds.rounds_of(config)[each.number - 2].policy)
            replies, revisions = (yield from respond(prompt, before, seeded_replies)), ()
        elif config.sft is not None:
            replies, revisions = (yield from respond(prompt, cast.trained(SFT), seeded_replies)), ()
        pairs = stages.pairs_to_label(replies, revisions, config.pairs, config.truncated)
        judged = config.label.model_copy(update={"seed": each.seed})
        yield from together(list(stages.labelling(pairs, constitution, cast.judge, judged)))
