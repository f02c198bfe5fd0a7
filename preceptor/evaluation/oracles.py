"""Who says what replies are truly worth: an oracle, without a judge, and the judge of a training's guard.

Neither labels nor trains anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.asking import stages
from preceptor.asking.work import run_job
from preceptor.constitution.checks import Exchange, passes
from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_in
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking.first_rows import NothingUsable
from preceptor.judge.models.registry import declared
from preceptor.judge.records import Label, Letter, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.records import Prompt, content_id
from preceptor.settings import CHECKS, Asking

if TYPE_CHECKING:
    from preceptor.train.guard.held_out import GuardJudge

Oracle = Callable[[Prompt, str], dict[str, bool]]
"""(prompt, reply) -> principle -> satisfied; a principle that it cannot decide is absent."""

ORACLES = ("checks", "embedded")
ORACLE = "oracle/"
"""Begins the name of an oracle as a guard's judge; `checks` goes by its own."""


def open_oracle(name: str, constitution: Constitution) -> Oracle:
    """`checks`: the principles' own machine checks. `embedded`: the front desk's facts and sentences.

    Raises UserError for another name.
    """
    if name == "checks":
        return lambda prompt, reply: by_checks(constitution, prompt, reply)
    if name == "embedded":
        return by_world()
    raise UserError(f"{name!r} is no oracle; wanted one of {', '.join(ORACLES)}")


def by_world() -> Oracle:
    """What the front desk's own facts and sentences say."""
    oracle = declared("embedded").oracle_of()
    assert oracle is not None, "the embedded model declares the oracle of its world"
    return lambda prompt, reply: oracle(prompt.model_dump(mode="json"), reply)


def by_checks(constitution: Constitution, prompt: Prompt, reply: str) -> dict[str, bool]:
    """What the machine checks of the applicable principles say."""
    exchange = Exchange.of(prompt)
    return {
        principle.id: passes(principle.check, reply, exchange)
        for principle in constitution.for_prompt(prompt.tags)
        if principle.check
    }


def with_gold(label: Label, oracle: Oracle, constitution: Constitution) -> Label:
    """The label with the oracle's preference as its gold: the reply with the greater weight of satisfied principles.

    Where the two are equal to it there is no gold: no judge can be right or wrong about them.
    """
    weight = {principle.id: principle.weight for principle in constitution.principles}
    a, b = (
        sum(weight[principle] for principle, followed in oracle(label.prompt, reply).items() if followed)
        for reply in (label.response_a, label.response_b)
    )
    gold: Letter | None = None if a == b else "a" if a > b else "b"
    return label.model_copy(update={"preferred": gold})


def agreement(labels: Sequence[Label], oracle: Oracle) -> dict[str, float]:
    """Principle -> share of its judgements that name the one reply which satisfies it; a tie is half right.

    Pairs of which both or neither satisfy it are left out.
    """
    right: dict[str, list[float]] = {}
    for label in labels:
        a, b = oracle(label.prompt, label.response_a), oracle(label.prompt, label.response_b)
        for judgement in label.judgements:
            principle = judgement.principle
            if principle in a and a[principle] != b[principle] and judgement.letter is not None:
                named = "a" if a[principle] else "b"
                hit = 0.5 if judgement.letter == "tie" else float(judgement.letter == named)
                right.setdefault(principle, []).append(hit)
    return {principle: sum(hits) / len(hits) for principle, hits in right.items()}


def guard_judge(name: str, constitution: Constitution | None, asking: Asking) -> GuardJudge:
    """`oracle/embedded` or `checks`, by each reply alone; or a model, which compares it with the start's reply.

    Raises UserError for another name, or without the constitution that `checks` and models go by.
    """
    from preceptor.train.guard.held_out import GuardJudge

    if name == f"{ORACLE}embedded":
        return _by_oracle(by_world(), name, name)
    if name.startswith(ORACLE):
        raise UserError(
            f"no guard judge {name!r}; wanted {ORACLE}embedded, {CHECKS}, or a model such as openai/gpt-6-luna"
        )
    if constitution is None:
        raise UserError(
            f"the guard's judge {name} needs a constitution to go by: name one with --constitution"
        )
    identity = f"{name} {constitution.identity}"
    if name == CHECKS:
        if not any(principle.check for principle in constitution.principles):
            raise UserError(
                f"{constitution.identity} has no machine checks; name a model as the guard's judge"
            )
        return _by_oracle(open_oracle("checks", constitution), name, identity)
    comparing = _Comparing(name, constitution, asking)
    return GuardJudge(
        name,
        "comparisons with the start's reply, in both orders, that the policy's reply wins; a tie is half a win",
        comparing,
        identity,
        lambda: comparing.spent_usd,
    )


def _by_oracle(oracle: Oracle, name: str, identity: str) -> GuardJudge:
    from preceptor.train.guard.held_out import GuardJudge

    def score(
        prompts: Sequence[Prompt],
        replies: Sequence[str],
        start: Sequence[str],  # noqa: ARG001
    ) -> list[float | None]:
        found = [oracle(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
        return [float(all(one.values())) if one else None for one in found]

    return GuardJudge(name, "replies that satisfy every principle", score, identity)


class _Comparing:
    """A judge that compares, over ledger and budget; its model is in memory only while it is asked."""

    def __init__(self, name: str, constitution: Constitution, asking: Asking) -> None:
        self._name = name
        self._constitution = constitution
        self._asking = asking.directly()
        self.spent_usd = 0.0

    def __call__(
        self, prompts: Sequence[Prompt], replies: Sequence[str], start: Sequence[str]
    ) -> list[float | None]:
        """Raises BudgetReached and ProviderStopped, which end the training; it goes on from its last checkpoint."""
        pairs = [
            Pair(
                id=content_id("guard", prompt.id, new, old),
                prompt=prompt,
                response_a=new,
                response_b=old,
            )
            for prompt, new, old in zip(prompts, replies, start, strict=True)
        ]
        labels: list[Label] = []
        to_label = partial(stages.to_label, self._name, self._asking, self._constitution, LabelSettings())
        asked = run_job(stages.AskJob(pairs, to_label), self._asking.less(self.spent_usd), labels.append)
        self.spent_usd += asked.progress.cost_usd
        if isinstance(
            asked.stopped, NothingUsable
        ):  # a look without a verdict is the guard's to tell, not an end
            return [None] * len(pairs)
        if asked.stopped is not None:
            raise asked.stopped
        return [_won(label) for label in labels]


def _won(label: Label) -> float | None:
    """1 where reply a won, 0 where it lost, 1/2 where neither did; None without a verdict."""
    if label.status in ("tie", "inconsistent"):
        return 0.5
    if label.status != "ok" or label.probability is None:
        return None
    return 0.5 if label.probability == 0.5 else float(label.probability > 0.5)


def refuse_labeller(judge: str, reward: str) -> None:
    """Raise UserError where the judge made the labels that the reward model learned from: both would be wrong
    together, and nobody would see it."""
    manifest = Path(reward) / "manifest.json"
    try:
        judges = json_in(manifest)["judges"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if isinstance(judges, list) and judge in judges:
        raise UserError(
            f"the guard's judge {judge} made the labels of the reward {reward}, and would be fooled where it is: "
            "name another with --guard-judge"
        )
