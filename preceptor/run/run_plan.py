"""What a run would ask of its models, told before anything is asked or trained.

Each prompt's way through the stages is one dialogue, from its first reply to the last comparison, so that
`judge.asking.plan` can walk it: on the ledger's answers as far as they go, then on replies as long as they may be. What
is still to be trained is stood in for by a model of its own, which costs nothing, as the trained one will.

Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from preceptor.constitution.files import load as load_constitution
from preceptor.judge.models.protocol import Dialogue
from preceptor.run.cast import Cast, Way
from preceptor.run.config import RunConfig
from preceptor.run.files import PROMPTS
from preceptor.run.running import Stage, chosen_prompts
from preceptor.run.stages import stages_of


def asks(config: RunConfig) -> Iterator[Dialogue[Any]]:
    """All that a run would ask. Raises UserError where the run could not begin."""
    constitution = load_constitution(config.constitution)
    table = stages_of(config)
    train, held_out, _ = chosen_prompts(config)
    start = config.open(config.model)
    critic = config.open(config.critic or config.model)
    cast = Cast(config, constitution, train, held_out, start, critic, config.open_judge(config.judge))
    for number, prompt in enumerate(train):
        yield _through(table, Way(number, {PROMPTS: [prompt]}), cast)
    for stage in table:
        if stage.asks is not None:
            yield from stage.asks(cast)


def _through(table: Sequence[Stage], way: Way, cast: Cast) -> Dialogue[None]:
    for stage in table:
        if stage.walk is not None:
            yield from stage.walk(way, cast)
