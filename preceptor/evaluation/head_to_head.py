"""Policy against baseline on the same prompts: both reply, a judge compares in both orders, an oracle looks at each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from preceptor.asking import stages
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.evaluation.oracles import open_oracle
from preceptor.judge.asking.fanout import Progress
from preceptor.judge.label import LabelSettings
from preceptor.judge.models.protocol import Dialogue, Model
from preceptor.judge.models.registry import open_model
from preceptor.judge.records import Label, Pair, Response
from preceptor.judge.respond import RespondSettings, respond
from preceptor.judge.voting.cascade import together
from preceptor.prompts.records import Prompt, Record, content_id
from preceptor.records import HeldOut
from preceptor.train.evaluation.compare import distinct_n, satisfied, win_rate


class Settings(Record):
    """Who is compared, by whom, and how."""

    policy: str
    baseline: str
    judge: str
    oracle: str = "checks"
    respond: RespondSettings
    """One sample a prompt; more are not compared."""
    label: LabelSettings


class Compared(NamedTuple):
    """The comparisons, and the prompts that have none."""

    rows: list[HeldOut]
    lost: int
    """Prompts to which one of the two gave no usable reply."""
    cost_usd: float


Bar = Callable[[str], AbstractContextManager[Callable[[Progress], None]]]


def evaluate(
    prompts: Sequence[Prompt], constitution: Constitution, settings: Settings, asking: stages.Asking, bar: Bar
) -> Compared:
    """Compare the two on every prompt. In the labels, response a is the policy's and b the baseline's.

    Raises what stopped the run; what had been asked is in the ledger.
    """
    oracle = open_oracle(settings.oracle, constitution)
    before, cost_before = _replies("baseline", settings.baseline, prompts, settings.respond, asking, bar)
    left = asking.less(cost_before)
    after, cost_after = _replies("policy", settings.policy, prompts, settings.respond, left, bar)
    left = left.less(cost_after)
    pairs = [
        _pair(old, new) for old, new in zip(before, after, strict=True) if old.status == new.status == "ok"
    ]
    if not pairs:
        raise UserError(
            f"of {len(prompts)} prompts none got a usable reply from both {settings.policy} and {settings.baseline}; "
            "try a larger --max-tokens, and look at what `preceptor respond` gets from each"
        )
    judge = stages.open_judge(settings.judge, asking.base_url)
    labels: list[Label] = []
    with bar("judge") as watch:
        dialogues = list(stages.labelling(pairs, constitution, judge, settings.label))
        asked = stages.whole(dialogues, judge, left, labels.append, watch)
    rows = [
        HeldOut(
            id=label.id,
            prompt=label.prompt,
            before=label.response_b,
            after=label.response_a,
            label=label,
            satisfied_before=oracle(label.prompt, label.response_b),
            satisfied_after=oracle(label.prompt, label.response_a),
        )
        for label in labels
    ]
    return Compared(rows, len(prompts) - len(rows), cost_before + cost_after + asked.progress.cost_usd)


def asks(
    prompts: Sequence[Prompt],
    constitution: Constitution,
    settings: Settings,
    sides: tuple[Model, Model],
    judge: Model | None,
) -> Iterator[Dialogue[Label]]:
    """All that a comparison would ask, one dialogue a prompt: for the plan, which carries out none.

    sides: baseline and policy; judge: None for machine checks. They are who `settings` names.
    """
    once = settings.respond.model_copy(update={"samples": 1})
    for prompt in prompts:
        yield _compared(prompt, sides, judge, once, constitution, settings.label)


def _compared(
    prompt: Prompt,
    models: tuple[Model, Model],
    judge: Model | None,
    once: RespondSettings,
    constitution: Constitution,
    settings: LabelSettings,
) -> Dialogue[Label]:
    (old,), (new,) = yield from together([respond(prompt, model, once) for model in models])
    (dialogue,) = stages.labelling([_pair(old, new)], constitution, judge, settings)
    return (yield from dialogue)


def _pair(old: Response, new: Response) -> Pair:
    return Pair(
        id=content_id("heldout", new.id, old.id),
        prompt=old.prompt,
        response_a=new.text,
        response_b=old.text,
        sources=(new.id, old.id),
    )


def figures(rows: Sequence[HeldOut]) -> dict[str, Any]:
    """The figures of a comparison, under the names of `summary.json`.

    `before` and `after`: principle -> share of replies that satisfy it, of those that the oracle can decide; `ci95`
    holds their intervals. A figure that rests on nothing is None.
    """
    wins = win_rate([row.label for row in rows])
    before = satisfied([row.satisfied_before for row in rows if row.satisfied_before])
    after = satisfied([row.satisfied_after for row in rows if row.satisfied_after])
    return {
        "n": len(rows),
        "win_rate": wins.rate if wins.judged else None,
        "win_rate_ci95": [wins.low, wins.high],
        "wins": {
            "won": wins.wins,
            "lost": wins.losses,
            "tied": wins.ties,
            "unjudged": sum(wins.unjudged.values()),
        },
        "before": {name: share.share for name, share in before.items() if share.n},
        "after": {name: share.share for name, share in after.items() if share.n},
        "ci95": {name: [share.low, share.high] for name, share in after.items() if share.n},
        "distinct_2": {
            "before": distinct_n([row.before for row in rows], 2),
            "after": distinct_n([row.after for row in rows], 2),
        },
    }


def _replies(
    stage: str,
    name: str,
    prompts: Sequence[Prompt],
    settings: RespondSettings,
    asking: stages.Asking,
    bar: Bar,
) -> tuple[list[Response], float]:
    model = open_model(name)
    replies: list[Response] = []
    with bar(stage) as watch:
        dialogues = list(stages.responding(prompts, model, settings.model_copy(update={"samples": 1})))
        asked = stages.whole(dialogues, model, asking, replies.extend, watch)
    return replies, asked.progress.cost_usd
