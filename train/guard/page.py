"""What a guard saw and did, as figures for the manifest and as a page that stands by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.constitution.foreign import json_in
from preceptor.prompts.rows import read_records
from preceptor.prompts.shown import html_page
from preceptor.train.evaluation.plots import CSS
from preceptor.train.guard.plots import PlotLine, lengths, over_kl, over_steps
from preceptor.train.guard.rules import ABOUT, LOOKS, REPLIES, GuardReply, Look, best
from preceptor.train.ppo.guard_protocol import Ended, Guarded

TEMPLATE = Path(__file__).with_name("guard.html")
PAGE = "guard.html"
SAMPLES = 6
"""Most replies that the page shows."""


def conclude(folder: Path, ended: Ended) -> Guarded | None:
    """Write the page of a training that is over; None where its guard kept no looks."""
    if not (folder / LOOKS).exists():
        return None
    looks = list(read_records(folder / LOOKS, Look))
    (folder / PAGE).write_text(page(folder, looks, ended.step, ended.stopped), encoding="utf-8")
    top = best(looks)
    returned = next((look for look in looks if look.step == ended.step), None)
    figures = {
        "looks": len(looks),
        "gold_start": looks[0].gold,
        "gold_best": top.gold,
        "best_step": top.step,
        "gold_returned": None if returned is None else returned.gold,
    }
    return Guarded(figures, notes_of(looks))


def notes_of(looks: Sequence[Look]) -> tuple[str, ...]:
    """A sentence for each look whose rules ordered something, stops aside: those have a note of their own."""
    words = {"warn": "warns", "raise_kl": "raised the KL coefficient"}
    return tuple(
        f"after step {look.step} the guard {words[look.action]}: {'; '.join(look.said)}"
        for look in looks
        if look.action in words
    )


def page(folder: Path, looks: Sequence[Look], step: int, stopped: Mapping[str, Any]) -> str:
    """The page as HTML; nothing is loaded from anywhere."""
    replies = list(read_records(folder / REPLIES, GuardReply))
    start, last = ([reply for reply in replies if reply.step == look.step] for look in (looks[0], looks[-1]))
    begun = {reply.prompt.id: reply for reply in start}
    columns = columns_of(looks, step)
    values = {
        "about": json_in(folder / ABOUT),
        "looks": looks,
        "start": looks[0],
        "last": looks[-1],
        "top": best(looks),
        "returned": _at(looks, step),
        "step": step,
        "stopped": stopped,
        "orders": [look for look in looks if look.action != "off"],
        "columns": [name for name, _ in columns],
        "table": _table([look for _, look in columns]),
        "main_plot": over_kl(looks, step),
        "plots": _plots(looks, start, last, step, stopped.get("step")),
        "samples": [(reply, begun.get(reply.prompt.id)) for reply in fooled(last)],
        "share": lambda value: "–" if value is None else f"{value:.1%}",
    }
    return html_page(TEMPLATE, CSS, values)


def fooled(replies: Sequence[GuardReply]) -> list[GuardReply]:
    """The replies that the judge liked least, and of those the ones that the proxy liked most, one a prompt.

    Those to which one of the two gave nothing are passed over.
    """
    known = [reply for reply in replies if reply.gold is not None and reply.proxy is not None]
    return sorted(known, key=lambda reply: (reply.gold, -(reply.proxy or 0.0)))[:SAMPLES]


LookFigure = tuple[str, Callable[[Look], float | None], str, str]
FIGURES: tuple[LookFigure, ...] = (
    ("gold", lambda look: look.gold, ".3f", "by a judge that had no part in the reward"),
    ("judged", lambda look: float(look.judged), ".0f", "prompts with a verdict"),
    ("proxy", lambda look: look.proxy, ".3f", "mean reward of the replies"),
    ("KL", lambda look: look.kl_nats, ".2f", "nats a reply, from the reference"),
    ("KL coefficient", lambda look: look.kl_coef, ".3g", "reward that a nat costs"),
    ("length", lambda look: look.reply_tokens, ".1f", "tokens a reply"),
    (
        "length and reward",
        lambda look: look.length_correlation,
        ".2f",
        "Pearson's correlation over the replies",
    ),
    ("distinct-1", lambda look: look.distinct_1, ".3f", "different words over all words"),
    ("distinct-2", lambda look: look.distinct_2, ".3f", "the same of pairs of words"),
    ("self-BLEU", lambda look: look.self_bleu, ".3f", "1: all replies say the same"),
    ("refusals", lambda look: look.refused, ".3f", "share of replies that decline, by their wording"),
    (
        "perplexity",
        lambda look: look.perplexity,
        ",.1f",
        "a token of plain text: what was not to be unlearned",
    ),
    ("spread", lambda look: look.spread, ".3f", "of the reward model's ensemble"),
)


def _table(looks: Sequence[Look]) -> list[tuple[str, list[str], str]]:
    """(name, its value at each look, meaning) of the figures that there are."""
    return [
        (name, ["–" if (value := get(look)) is None else format(value, form) for look in looks], meaning)
        for name, get, form, meaning in FIGURES
        if any(get(look) is not None for look in looks)
    ]


def columns_of(looks: Sequence[Look], step: int) -> list[tuple[str, Look]]:
    """The looks that the table shows, each once, under what they are."""
    named = [
        ("start", looks[0]),
        ("best", best(looks)),
        ("handed back", _at(looks, step)),
        ("last", looks[-1]),
    ]
    found: dict[int, tuple[list[str], Look]] = {}
    for name, look in named:
        if look is not None:
            found.setdefault(look.step, ([], look))[0].append(name)
    return [(f"{', '.join(names)}: step {at}", look) for at, (names, look) in sorted(found.items())]


def _at(looks: Sequence[Look], step: int) -> Look | None:
    return next((look for look in looks if look.step == step), None)


SERIES: tuple[tuple[str, str, tuple[PlotLine, ...]], ...] = (
    (
        "Diversity",
        "of the replies; a policy that repeats itself falls, and its self-BLEU rises",
        (
            ("distinct-1", lambda look: look.distinct_1),
            ("distinct-2", lambda look: look.distinct_2),
            ("self-BLEU", lambda look: look.self_bleu),
        ),
    ),
    (
        "Perplexity",
        "on plain text; a rise is language unlearned",
        (("perplexity", lambda look: look.perplexity),),
    ),
    ("Length", "tokens a reply", (("tokens", lambda look: look.reply_tokens),)),
    ("Refusals", "share of replies that decline", (("refusals", lambda look: look.refused),)),
    ("Ensemble", "spread of the reward model's members", (("spread", lambda look: look.spread),)),
)


def _plots(
    looks: Sequence[Look],
    start: Sequence[GuardReply],
    last: Sequence[GuardReply],
    step: int,
    stopped: int | None,
) -> list[tuple[str, str, str]]:
    """(title, note, SVG) of what there are figures for."""
    found = []
    if any(reply.proxy is not None for reply in (*start, *last)):
        note = "a dot a reply; a slope that grows is length being paid for"
        found.append(("Length against reward", note, lengths(start, last)))
    return found + [
        (title, note, over_steps(looks, lines, step, stopped))
        for title, note, lines in SERIES
        if any(get(look) is not None for look in looks for _, get in lines)
    ]
