"""Replies that were cut off at their length: kept they are compared like others, dropped they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preceptor.asking import stages
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load as load_constitution
from preceptor.evaluation import head_to_head
from preceptor.judge.asking.fanout import Progress
from preceptor.judge.label import LabelSettings
from preceptor.judge.records import ReplyStatus, Response
from preceptor.judge.respond import RespondSettings
from preceptor.prompts.pool import prompts_from
from preceptor.prompts.records import Message, Prompt
from preceptor.run.config import load

PROMPT = Prompt(id="p", messages=(Message(role="user", content="Why?"),))
STATUSES: tuple[ReplyStatus, ...] = ("ok", "truncated", "refused", "truncated", "empty", "failed", "ok")
SMOLLM2 = Path(stages.__file__).parent.parent / "quickstart-smollm2.yaml"


@contextmanager
def _silent(_: str) -> Iterator[Callable[[Progress], None]]:
    yield lambda _: None


def replies() -> list[Response]:
    return [
        Response(
            id=f"r{at}", prompt=PROMPT, sample=at, text=f"text {at}", status=status, model="m", call=f"c{at}"
        )
        for at, status in enumerate(STATUSES)
    ]


@pytest.mark.parametrize(("truncated", "used"), [("keep", {"r0", "r1", "r3", "r6"}), ("drop", {"r0", "r6"})])
def test_which_replies_are_compared(truncated: stages.Truncated, used: set[str]) -> None:
    pairs = stages.pairs_to_label(replies(), [], "all", truncated)
    assert {source for pair in pairs for source in pair.sources} == used
    assert len(pairs) == len(used) * (len(used) - 1) // 2


@pytest.mark.parametrize(("truncated", "n"), [("keep", 3), ("drop", 0)])
def test_a_comparison_counts_what_was_cut_off(tmp_path: Path, truncated: stages.Truncated, n: int) -> None:
    """A policy that never comes to an end is measured, and not left out for it."""
    constitution = load_constitution("brief")
    settings = head_to_head.HeadToHeadSettings(
        policy="embedded",
        baseline="embedded",
        judge="checks",
        truncated=truncated,
        respond=RespondSettings(samples=1, max_tokens=2),
        label=LabelSettings(),
    )
    prompts = list(prompts_from("everyday"))[:3]
    asking = stages.Asking(ledger=str(tmp_path / "ledger.db"))
    if not n:
        with pytest.raises(UserError, match="none got a usable reply"):
            head_to_head.evaluate(prompts, constitution, settings, asking, _silent)
        return
    compared = head_to_head.evaluate(prompts, constitution, settings, asking, _silent)
    assert (len(compared.rows), compared.lost) == (n, 0)
    assert not any(row.satisfied_after["finished"] for row in compared.rows)


def test_the_quickstart_of_the_real_model_measures_what_a_machine_decides_on_prompts_never_seen() -> None:
    config = load(SMOLLM2)
    constitution = load_constitution(config.constitution)
    assert all(principle.check for principle in constitution.principles)
    assert config.prompts.held_out is not None
    seen, unseen = (
        {prompt.messages[-1].content.casefold() for prompt in prompts_from(name)}
        for name in (config.prompts.file, config.prompts.held_out)
    )
    assert len(seen) + len(unseen) == 160
    assert not seen & unseen
    assert config.truncated == "keep"
