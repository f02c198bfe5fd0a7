"""When a training has gone too far: the rules, each with its limit and its action, and what they make of a history.

Gao et al. 2022 (arXiv 2210.10760): pressed on, a policy goes on gaining proxy reward while what the reward
stands for falls. Which step that begins at, only a judge who had no part in the reward can tell; the other rules
watch what usually comes with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from preceptor.constitution.errors import UserError
from preceptor.prompts.records import Prompt, Record

ABOUT, LOOKS, REPLIES = "guard.json", "guard.jsonl", "guard-replies.jsonl"
"""What a guard keeps in a training's folder: judge and rules, a `Look` a row, a `GuardReply` a row."""

Action = Literal["off", "warn", "raise_kl", "stop"]

STERNNESS: tuple[Action, ...] = ("off", "warn", "raise_kl", "stop")


class GuardRule(Record):
    """What may not be passed, and what is done when it is."""

    limit: float
    action: Action
    """`raise_kl` multiplies the KL coefficient at every look while the rule is broken; `stop` ends the training
    and hands back the policy that the judge liked best of those before."""


class GuardRules(Record):
    """All of a guard's thresholds. "Start" is the policy before its first step."""

    gold_drop: GuardRule = GuardRule(limit=0.0, action="stop")
    """Gold is below the best seen by more than this and by more than the interval of the difference, while the
    proxy is no lower than it was there."""
    kl: GuardRule = GuardRule(limit=30.0, action="raise_kl")
    """Nats a reply from the reference, over the guard's prompts."""
    distinct_2: GuardRule = GuardRule(limit=0.5, action="stop")
    """Share of the start's distinct-2 under which replies repeat one another."""
    perplexity: GuardRule = GuardRule(limit=1.5, action="warn")
    """Times the start's perplexity on plain text."""
    length_drift: GuardRule = GuardRule(limit=2.0, action="warn")
    """Times the start's tokens a reply, or as many times fewer."""
    kl_factor: float = Field(default=2.0, gt=1)
    """What `raise_kl` multiplies the coefficient by."""
    kl_floor: float = Field(default=0.01, gt=0)
    """What `raise_kl` raises it to at least, where there was none to multiply."""


NAMES = ("gold-drop", "kl", "distinct-2", "perplexity", "length-drift")
RULE = re.compile(
    rf"(?P<name>{'|'.join(NAMES)})(?:(?P<sign>[<>])(?P<limit>\d+(?:\.\d+)?))?:(?P<action>off|warn|raise_kl|stop)"
)


def rules_from(texts: Sequence[str]) -> GuardRules:
    """The rules with those changed that the texts name: `NAME>LIMIT:ACTION`, or `NAME:ACTION` at the limit that
    stands. Only distinct-2 is written with `<`. Raises UserError for any other text.
    """
    changed: dict[str, GuardRule] = {}
    for text in texts:
        match = RULE.fullmatch(text.replace(" ", ""))
        wanted_sign = "<" if match and match["name"] == "distinct-2" else ">"
        if match is None or match["sign"] not in (None, wanted_sign):
            raise UserError(
                f"no guard rule {text!r}: wanted NAME>LIMIT:ACTION or NAME:ACTION, as 'kl>8:stop' or 'perplexity:off'; "
                f"the names are {', '.join(NAMES)} (distinct-2 with <), the actions off, warn, raise_kl, stop"
            )
        field = match["name"].replace("-", "_")
        standing = _rule(GuardRules(), field)
        limit = standing.limit if match["limit"] is None else float(match["limit"])
        changed[field] = GuardRule.model_validate({"limit": limit, "action": match["action"]})
    return GuardRules(**changed)


class Look(Record):
    """What a guard measured at one step, on its prompts: one row of guard.jsonl."""

    step: int
    gold: float | None = None
    """By the guard's judge, 0 to 1; None where nothing could be judged."""
    gold_ci95: tuple[float, float]
    judged: int
    unjudged: int
    """Prompts without a verdict, which count for nothing."""
    proxy: float | None = None
    """Mean reward of the replies; None where the reward gave none."""
    kl_nats: float
    """A reply, from the reference."""
    kl_coef: float
    """Before any order of this look."""
    reply_tokens: float
    length_correlation: float | None = None
    """Pearson's, of tokens and reward over the replies; None where either does not vary."""
    distinct_1: float
    distinct_2: float
    self_bleu: float
    refused: float
    """Share of replies that decline, by their wording."""
    perplexity: float
    """A token of plain text."""
    spread: float | None = None
    """Mean standard deviation over the reward model's ensemble; None where there is none."""
    action: Action = "off"
    """What the rules made of it: the sternest."""
    said: tuple[str, ...] = ()
    """Why, a sentence a rule that was broken."""


class GuardReply(Record):
    """What the policy replied to one of a guard's prompts: one row of guard-replies.jsonl."""

    step: int
    prompt: Prompt
    text: str
    tokens: int
    proxy: float | None = None
    gold: float | None = None
    """1, 0, or between; None without a verdict."""


class GuardVerdict(NamedTuple):
    """What is to be done after a look."""

    action: Action
    said: tuple[str, ...]
    kl_coef: float | None
    """With `raise_kl`."""
    return_step: int | None
    """With `stop`."""


def judged(looks: Sequence[Look], rules: GuardRules) -> GuardVerdict:
    """What the rules make of the last look, knowing those before it, the start first."""
    now = looks[-1]
    broken: list[tuple[Action, str]] = [
        (rule.action, words)
        for name, words in _broken(looks, rules).items()
        if (rule := _rule(rules, name)).action != "off"
    ]
    action: Action = max((each for each, _ in broken), key=STERNNESS.index, default="off")
    return GuardVerdict(
        action,
        tuple(words for _, words in broken),
        max(now.kl_coef * rules.kl_factor, rules.kl_floor) if action == "raise_kl" else None,
        best(looks[:-1]).step if action == "stop" else None,
    )


def _rule(rules: GuardRules, name: str) -> GuardRule:
    rule: GuardRule = getattr(rules, name)
    return rule


def best(looks: Sequence[Look]) -> Look:
    """The look with the highest gold, the earliest of equals; the start where none was judged."""
    return max(looks, key=lambda look: -1.0 if look.gold is None else look.gold)


def _broken(looks: Sequence[Look], rules: GuardRules) -> Mapping[str, str]:
    """Rule -> how it is broken, in words."""
    start, now = looks[0], looks[-1]
    if len(looks) == 1:
        return {}
    found = {}
    if fall := _fall(best(looks[:-1]), now, rules.gold_drop.limit):
        found["gold_drop"] = fall
    if now.kl_nats > rules.kl.limit:
        found["kl"] = f"KL is {now.kl_nats:.2f} nats a reply, over {rules.kl.limit:g}"
    if now.distinct_2 < rules.distinct_2.limit * start.distinct_2:
        found["distinct_2"] = (
            f"distinct-2 is {now.distinct_2:.3f}, under {rules.distinct_2.limit:g} of the "
            f"start's {start.distinct_2:.3f}"
        )
    if now.perplexity > rules.perplexity.limit * start.perplexity:
        found["perplexity"] = (
            f"perplexity on plain text is {now.perplexity:.1f}, over {rules.perplexity.limit:g} times the start's "
            f"{start.perplexity:.1f}"
        )
    drift = now.reply_tokens / max(start.reply_tokens, 1e-9)
    if max(drift, 1 / max(drift, 1e-9)) > rules.length_drift.limit:
        found["length_drift"] = (
            f"replies have {now.reply_tokens:.0f} tokens, the start's {start.reply_tokens:.0f}: more than "
            f"{rules.length_drift.limit:g} times {'as many' if drift > 1 else 'fewer'}"
        )
    return found


def _fall(top: Look, now: Look, limit: float) -> str:
    """In words, where gold fell from the best look while the proxy did not; else nothing.

    The interval of the difference is Newcombe's (1998, Statistics in Medicine 17:873, method 10) out of Wilson's
    two. The same prompts stand on both sides, so it is a little too wide.
    """
    if top.gold is None or now.gold is None:
        return ""
    fall = top.gold - now.gold
    half = math.hypot(top.gold - top.gold_ci95[0], now.gold_ci95[1] - now.gold)
    if fall <= max(half, limit):
        return ""
    if top.proxy is not None and now.proxy is not None and now.proxy < top.proxy:
        return ""
    proxy = (
        ""
        if top.proxy is None or now.proxy is None
        else f", while the proxy went from {top.proxy:.3f} to {now.proxy:.3f}"
    )
    return (
        f"gold fell from {top.gold:.3f} at step {top.step} to {now.gold:.3f}, by more than the {half:.3f} of its "
        f"interval{proxy}"
    )
