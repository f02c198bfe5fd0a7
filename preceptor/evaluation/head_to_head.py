"""Policy against baseline on the same prompts: both reply, a judge compares in both orders, an oracle looks at each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from preceptor.asking import stages
from preceptor.asking.work import run_job_or_raise
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.evaluation.oracles import open_oracle
from preceptor.figures import ComparisonFigures, CorrectedFigures
from preceptor.judge.aggregate import winner
from preceptor.judge.audit.length_control import doublings, length_controlled
from preceptor.judge.label import require_order, template_for
from preceptor.judge.models.protocol import Dialogue, Model
from preceptor.judge.records import Label, Pair, Response
from preceptor.judge.respond import respond
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.judge.statistics import rogan_gladen
from preceptor.judge.voting.cascade import together
from preceptor.prompts.records import Prompt, Record, content_id
from preceptor.records import HeldOut
from preceptor.settings import Access, Asking
from preceptor.train.evaluation.compare import UNJUDGED, distinct_n, satisfied, win_rate


class HeadToHeadSettings(Record):
    """Who is compared, by whom, and how."""

    policy: str
    baseline: str
    judge: str
    oracle: str = "checks"
    truncated: stages.Truncated = "keep"
    """Whether replies that were cut off at their length are compared; else their prompts have no comparison."""
    respond: RespondSettings
    """One sample a prompt; more are not compared."""
    label: LabelSettings


class Compared(NamedTuple):
    """The comparisons, and the prompts that have none."""

    rows: list[HeldOut]
    lost: int
    """Prompts to which one of the two gave no usable reply."""
    cost_usd: float


def evaluate(
    prompts: Sequence[Prompt],
    constitution: Constitution,
    settings: HeadToHeadSettings,
    asking: Asking,
    bar: stages.OpenBar,
) -> Compared:
    """Compare the two on every prompt. In the labels, response a is the policy's and b the baseline's.

    Raises what stopped the run; what had been asked is in the ledger. A judge that cannot be opened, or cannot judge by
    this constitution, is found before anybody replies.
    """
    for name in (settings.baseline, settings.policy):
        asyncio.run(asking.open(name).close())
    require_judge(settings.judge, asking, constitution, settings.label)
    oracle = open_oracle(settings.oracle, constitution)
    before, cost_before = _replies("baseline", settings.baseline, prompts, settings.respond, asking, bar)
    left = asking.less(cost_before)
    after, cost_after = _replies("policy", settings.policy, prompts, settings.respond, left, bar)
    left = left.less(cost_after)
    stages.tell_cut([*before, *after], settings.truncated)
    pairs = [
        _pair(old, new)
        for old, new in zip(before, after, strict=True)
        if all(stages.usable(reply, settings.truncated) for reply in (old, new))
    ]
    if not pairs:
        raise UserError(
            f"of {len(prompts)} prompts none got a usable reply from both {settings.policy} and {settings.baseline}; "
            "try a larger --max-tokens, and look at what `preceptor respond` gets from each"
        )
    labels: list[Label] = []
    to_label = partial(stages.to_label, settings.judge, asking, constitution, settings.label)
    with bar("judge") as watch:
        asked = run_job_or_raise(stages.AskJob(pairs, to_label), left, labels.append, watch)
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


def against_gold(
    gold: Sequence[Pair],
    constitution: Constitution,
    settings: HeadToHeadSettings,
    asking: Asking,
    bar: stages.OpenBar,
) -> tuple[list[Label], float]:
    """The same judge's labels of pairs whose better reply is known, and USD. Raises what stopped the asking."""
    labels: list[Label] = []
    to_label = partial(stages.to_label, settings.judge, asking, constitution, settings.label)
    with bar("gold") as watch:
        asked = run_job_or_raise(stages.AskJob(gold, to_label), asking, labels.append, watch)
    return labels, asked.progress.cost_usd


def corrected(rows: Sequence[HeldOut], gold: Sequence[Label]) -> CorrectedFigures:
    """The win rate behind what a judge says who is as often right as it is on the gold pairs."""
    said = [won for row in rows if (won := _won(row.label)) is not None]
    found = [won if label.preferred == "a" else 1 - won for label in gold if (won := _won(label)) is not None]
    made = rogan_gladen(said, found)
    return {
        "win_rate": made.share if made else None,
        "ci95": [made.low, made.high] if made else None,
        "judge_accuracy": sum(found) / len(found) if found else 0.5,
        "gold": len(found),
    }


def _won(label: Label) -> float | None:
    """1 where response a won, 0 where b did, 0.5 where neither; None where nothing was judged, as `win_rate` has it."""
    if label.status in UNJUDGED:
        return None
    if label.status != "ok" or label.probability is None:
        return 0.5
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[winner(label.probability)]


def require_judge(name: str, access: Access, constitution: Constitution, settings: LabelSettings) -> None:
    """Raises UserError where this judge could not be asked later: no key, no library, no fitting template, or for
    `checks` no check. Opening a model loads nothing.
    """
    judge = access.open_judge(name)
    require_order([judge], settings)
    if judge is not None:
        template_for(judge, settings)
        asyncio.run(judge.close())
    elif not any(principle.check for principle in constitution.principles):
        raise UserError(f"{constitution.identity} has no machine checks; name a model as the judge")


def asks(
    prompts: Sequence[Prompt],
    constitution: Constitution,
    settings: HeadToHeadSettings,
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


def figures(rows: Sequence[HeldOut]) -> ComparisonFigures:
    """The figures of a comparison, under the names of `summary.json`.

    `before` and `after`: principle -> share of replies that satisfy it, of those that the oracle can decide; `ci95`
    holds their intervals. A figure that rests on nothing is None.
    """
    wins = win_rate([row.label for row in rows])
    decided = [(row, won) for row in rows if (won := _won(row.label)) in (0.0, 1.0)]
    controlled = length_controlled(
        [won == 1.0 for _, won in decided], [doublings(row.after, row.before) for row, _ in decided]
    )
    before = satisfied([row.satisfied_before for row in rows if row.satisfied_before])
    after = satisfied([row.satisfied_after for row in rows if row.satisfied_after])
    found: ComparisonFigures = {
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
    if controlled is not None:
        found["win_rate_lc"] = controlled
    return found


def _replies(
    stage: str,
    name: str,
    prompts: Sequence[Prompt],
    settings: RespondSettings,
    asking: Asking,
    bar: stages.OpenBar,
) -> tuple[list[Response], float]:
    replies: list[Response] = []
    to_respond = partial(stages.to_respond, name, asking, settings.model_copy(update={"samples": 1}))
    with bar(stage) as watch:
        asked = run_job_or_raise(stages.AskJob(prompts, to_respond), asking, replies.extend, watch)
    return replies, asked.progress.cost_usd
