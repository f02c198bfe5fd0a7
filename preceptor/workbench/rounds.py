"""How the rounds of a synthesis are asked: of which model, how many calls at once, under what is left of the cap."""

from __future__ import annotations

from collections.abc import Sequence

from preceptor.asking.stages import AskJob, OpenBar
from preceptor.asking.work import run_job
from preceptor.judge.records import Response
from preceptor.judge.settings import RespondSettings
from preceptor.prompts.records import Prompt
from preceptor.settings import Asking, in_this_process
from preceptor.workbench.proposing import asking_of
from preceptor.workbench.settings import SynthesisSettings
from preceptor.workbench.synthesis import LOCAL_ROUND, ROUND, AskRound, RoundReplies, Synthesis


def round_job(prompts: Sequence[Prompt], model: str, settings: SynthesisSettings, asking: Asking) -> AskJob:
    """The job of asking one round."""
    sampling = RespondSettings(
        samples=1, max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed
    )
    return asking_of(prompts, model, asking, sampling)


def calls_of_a_round(model: str, made: Synthesis, asking: Asking) -> int:
    """How many calls a round has at most. A batch takes hours, so that everything goes at once."""
    if asking.in_batches:
        return made.calls_at_best()
    return LOCAL_ROUND if in_this_process(model) else ROUND


def ask_rounds(model: str, settings: SynthesisSettings, asking: Asking, bar: OpenBar) -> AskRound:
    """What asks one round after another, each under what the rounds before it left of the cap."""
    spent = 0.0

    def ask(prompts: Sequence[Prompt]) -> RoundReplies:
        nonlocal spent
        replies: list[Response] = []
        job = round_job(list(prompts), model, settings, asking)
        with bar("synthesize") as watch:
            asked = run_job(job, asking.less(spent), replies.extend, watch)
        spent += asked.progress.cost_usd
        return RoundReplies(replies, asked.progress, asked.stopped)

    return ask
