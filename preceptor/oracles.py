"""Who says whether one reply satisfies a principle, without a judge. An oracle labels nothing and trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from constitution.checks import Exchange, passes
from constitution.errors import UserError
from constitution.principle import Constitution
from judge.records import Label, Letter
from prompts.records import Prompt

Oracle = Callable[[Prompt, str], dict[str, bool]]
"""(prompt, reply) -> principle -> satisfied; a principle that it cannot decide is absent."""

ORACLES = ("checks", "embedded")


def open_oracle(name: str, constitution: Constitution) -> Oracle:
    """`checks`: the principles' own machine checks. `embedded`: the front desk's facts and sentences.

    Raises UserError for another name.
    """
    if name == "checks":
        return lambda prompt, reply: by_checks(constitution, prompt, reply)
    if name == "embedded":
        from train.embedded.oracle import oracle

        return lambda prompt, reply: oracle(prompt.model_dump(mode="json"), reply)
    raise UserError(f"{name!r} is no oracle; wanted one of {', '.join(ORACLES)}")


def by_checks(constitution: Constitution, prompt: Prompt, reply: str) -> dict[str, bool]:
    """What the machine checks of the applicable principles say."""
    exchange = exchange_of(prompt)
    return {
        principle.id: passes(principle.check, reply, exchange)
        for principle in constitution.for_prompt(prompt.tags)
        if principle.check
    }


def exchange_of(prompt: Prompt) -> Exchange:
    """The prompt as checks see it: the system text and the last user turn."""
    system = "\n".join(message.content for message in prompt.messages if message.role == "system")
    user = next((message.content for message in reversed(prompt.messages) if message.role == "user"), "")
    return Exchange(system=system, user=user)


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
    """Principle -> share of its judgements that name the one reply which satisfies it.

    Pairs of which both or neither satisfy it are left out.
    """
    right: dict[str, list[bool]] = {}
    for label in labels:
        a, b = oracle(label.prompt, label.response_a), oracle(label.prompt, label.response_b)
        for judgement in label.judgements:
            principle = judgement.principle
            if principle in a and a[principle] != b[principle] and judgement.letter is not None:
                right.setdefault(principle, []).append(judgement.letter == ("a" if a[principle] else "b"))
    return {principle: sum(hits) / len(hits) for principle, hits in right.items()}
