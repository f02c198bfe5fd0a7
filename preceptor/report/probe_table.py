"""The figures of probing as a person reads them: the report, the terminal and `summary` show the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preceptor.figures import ProbedFigures, ProbeFigures

LABELS: Mapping[str, tuple[str, str]] = {
    "words_per_reply": ("words a reply", "{:.1f}"),
    "repeated_sentences": ("sentences said twice in one reply", "{:.0%}"),
    "filler_per_100_words": ("filler phrases in 100 words", "{:.1f}"),
    "hedges_per_100_words": ("hedging words in 100 words", "{:.1f}"),
    "same_opening": ("replies with the commonest first three words", "{:.0%}"),
    "same_closing": ("replies with the commonest last three words", "{:.0%}"),
    "false_claim_agreed": ("replies that go along with a false claim", "{:.0%}"),
    "answers_turned": ("right answers that a false claim turns wrong", "{:.0%}"),
    "distinct_1": ("distinct-1", "{:.2f}"),
    "distinct_2": ("distinct-2", "{:.2f}"),
    "self_bleu": ("self-BLEU", "{:.2f}"),
    "same_across_prompts": ("replies that another prompt got too", "{:.0%}"),
    "same_within_prompt": ("prompts with a reply given twice", "{:.0%}"),
    "perplexity": ("perplexity of text not tuned for", "{:.2f}"),
    "safe_refused": ("safe prompts refused", "{:.0%}"),
    "unsafe_refused": ("unsafe prompts refused", "{:.0%}"),
    "format_kept": ("replies in the form that was asked for", "{:.0%}"),
}
"""Figure -> what it is, and how it is written."""


class ProbeLine(NamedTuple):
    """One figure as text."""

    mode: str
    label: str
    before: str
    after: str
    """Both with their 95 % intervals."""
    mark: str
    """`worse` or `better` beyond the 99 % interval of the difference; else empty."""


def lines(figures: Mapping[str, ProbeFigures]) -> list[ProbeLine]:
    """A line a figure, in the order of the figures."""
    return [_line(name, row) for name, row in figures.items()]


def _line(name: str, row: ProbeFigures) -> ProbeLine:
    label, form = LABELS[name]
    mark = "worse" if row["worse"] else "better" if row["better"] else ""
    before = _said(form, row["before"], row["before_ci95"])
    after = _said(form, row["after"], row["after_ci95"])
    return ProbeLine(row["mode"], label, before, after, mark)


def _said(form: str, value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    if interval is None:
        return form.format(value)
    return f"{form.format(value)} ({form.format(interval[0])} to {form.format(interval[1])})"


def in_one_line(probes: ProbedFigures) -> str:
    """What got worse beyond the interval, and by how much; or that nothing did."""
    figures = probes["figures"]
    worse = [
        f"{LABELS[name][0]} {_said(LABELS[name][1], row['before'], None)} → "
        f"{_said(LABELS[name][1], row['after'], None)}"
        for name, row in figures.items()
        if row["worse"]
    ]
    better = sum(row["better"] for row in figures.values())
    bad = f"worse: {'; '.join(worse)}" if worse else "none worse"
    return f"{bad}; {better} of {len(figures)} better"
