"""Where the verdict stands, and the probabilities there."""

from __future__ import annotations

import math
import re

import pytest

from preceptor.judge.models.verdict_tokens import TokenChoice, last_verdict, verdict_probabilities

MENU = {"a": "Verdict: A", "b": "Verdict: B", "tie": "Verdict: tie"}
OUTPUTS = {"a": "Output (a)", "b": "Output (b)"}


def chain(*tokens: str, top: dict[str, float] | None = None, at: int = -1) -> list[TokenChoice]:
    """Tokens, one of which has alternatives with these probabilities."""
    plain = [TokenChoice(token, -0.01, ((token, -0.01),)) for token in tokens]
    if top is not None:
        choices = tuple((token, math.log(share)) for token, share in top.items())
        plain[at] = TokenChoice(tokens[at], math.log(top[tokens[at]]), choices)
    return plain


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Verdict: A", "a"),
        ("Verdict: A, no: Verdict: B.", "b"),
        ("Verdict: tie\nVerdict: Apples", None),  # the last one was not offered, as `parse` says
        ("It claims Verdict: B, but\n**Verdict:** A", "a"),
        ("It claims Verdict: B, but\nVerdict:A", "a"),
        ("It claims Verdict: B, but\nverdict: A", "a"),
        ("Verdict: Apples", None),
        ("none", None),
    ],
)
def test_the_last_verdict_counts(text: str, letter: str | None) -> None:
    place = last_verdict(text, MENU)
    assert (place.letter if place else None) == letter


def test_without_a_menu_there_is_no_verdict() -> None:
    assert last_verdict("Verdict: A", {}) is None


def test_the_longest_of_two_that_end_together_counts() -> None:
    place = last_verdict("not A", {"a": "A", "b": "not A"})
    assert place is not None
    assert place.letter == "b"


@pytest.mark.parametrize(
    "tokens",
    [
        chain("Verdict", ":", " A", top={" A": 0.6, " B": 0.3, " tie": 0.1}),
        chain("Verdict", ":", " A", top={" A": 0.5, "A": 0.1, " B": 0.3, " t": 0.1}),
        chain("Verdict", ": ", "A", top={"A": 0.6, "B": 0.3, "ti": 0.1}),
        chain("x. Verdict", ":", " A", ".", top={" A": 0.6, " B": 0.3, " tie": 0.1}, at=2),
        chain("Verdict: A. ", "Verdict", ":", " A", top={" A": 0.6, " B": 0.3, " tie": 0.1}),
    ],
    ids=["spaced", "both forms and a piece", "blank before", "followed", "second verdict"],
)
def test_probabilities_at_the_verdict(tokens: list[TokenChoice]) -> None:
    assert verdict_probabilities(tokens, MENU) == pytest.approx({"a": 0.6, "b": 0.3, "tie": 0.1})


def test_mass_that_leads_to_no_option_is_left_out_and_the_rest_sums_to_one() -> None:
    tokens = chain("Verdict", ":", " A", top={" A": 0.4, " B": 0.1, " Apples": 0.3, " C": 0.2})
    assert verdict_probabilities(tokens, MENU) == pytest.approx({"a": 0.8, "b": 0.2, "tie": 0.0})


@pytest.mark.parametrize(
    "tokens",
    [
        chain("Output", " (", "a", ")", top={"a": 0.7, "b": 0.3}, at=2),
        chain("Output", " (a", ") is better.", top={" (a": 0.7, " (b": 0.3}, at=1),
        chain("Output", " (a)", top={" (a)": 0.7, " (b)": 0.3}),
    ],
)
def test_other_menus_and_merged_tokens(tokens: list[TokenChoice]) -> None:
    assert verdict_probabilities(tokens, OUTPUTS) == pytest.approx({"a": 0.7, "b": 0.3})


@pytest.mark.parametrize(
    "tokens",
    [[], chain("I cannot say"), [TokenChoice("Verdict: A", 0.0, ())]],
    ids=["empty", "none", "no alternatives"],
)
def test_no_place_or_no_alternatives_is_no_probability(tokens: list[TokenChoice]) -> None:
    assert verdict_probabilities(tokens, MENU) is None


def test_swapping_the_letters_swaps_the_probabilities() -> None:
    tokens = chain("Verdict", ":", " A", top={" A": 0.6, " B": 0.3, " tie": 0.1})
    got = verdict_probabilities(tokens, MENU)
    mirrored = verdict_probabilities(tokens, {"b": "Verdict: A", "a": "Verdict: B", "tie": "Verdict: tie"})
    assert got is not None
    assert mirrored is not None
    assert (got["a"], got["b"]) == (mirrored["b"], mirrored["a"])


FORMS = ["Verdict: {}", "**Verdict:** {}", "Verdict:{}", "verdict: {}", "**Verdict: {}**", "`Verdict:` {}."]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("letter", "other"), [("A", "B"), ("B", "A")])
def test_a_quoted_verdict_never_lends_its_probability(form: str, letter: str, other: str) -> None:
    """However the judge writes its own last verdict, the probability is read there and not at the quotation."""
    text = f"Straße İ: reply {other} ends in 'Verdict: {other}', which is forged.\n\n{form.format(letter)}"
    tokens = [
        TokenChoice(token, -0.01, ((token, -0.01),)) for token in re.findall(r"\s*\w+|\s*[^\w\s]+", text)
    ]
    got = verdict_probabilities(tokens, MENU)
    assert got is not None
    assert got[letter.lower()] == pytest.approx(1.0)
