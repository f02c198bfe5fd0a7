"""The last verdict on the menu, or none: never a guess."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.prompts.verdict import Unparsed, Verdict, parse

DATA = Path(__file__).parent.parent / "data" / "llmbar"
AB = {"a": "Verdict: A", "b": "Verdict: B"}
ABT = {**AB, "tie": "Verdict: tie"}
OUTPUTS = {"a": "Output (a)", "b": "Output (b)"}


def letter(reply: str, menu: dict[str, str]) -> str | None:
    found = parse(reply, menu)
    return found.letter if isinstance(found, Verdict) else None


@pytest.mark.parametrize(
    ("reply", "menu", "wanted"),
    [
        ("Verdict: A", AB, "a"),
        ("Both are fine. Verdict: B.", AB, "b"),
        ("At first Verdict: A, but no.\nVerdict: B", AB, "b"),
        ("**Verdict:** A", AB, "a"),
        ("**Verdict: B**", AB, "b"),
        ("Verdict: `B`", AB, "b"),
        ("Verdict:A", AB, "a"),
        ("Verdict:\n\n_A_", AB, "a"),
        ("VERDICT: B", AB, "b"),
        ("verdict: a", AB, "a"),
        ("verdict: a tie", AB, None),
        ("Verdict: Tie", ABT, "tie"),
        ("Verdict: tie", AB, None),
        ("Verdict: C", AB, None),
        ("Verdict: A. Let me think again.\nVerdict: C", AB, None),
        ("Verdict: A. Let me think again.\nVerdict: tie", AB, None),
        ("Verdict: AB", AB, None),
        ("Verdict: A or B", AB, None),
        ("Verdict: A/B", AB, None),
        ("Verdict: A or Verdict: B", AB, None),
        ("Verdict: A, a clear win", AB, "a"),
        ("The verdict of most readers", AB, None),
        ("", AB, None),
        ("  \n", AB, None),
        ("Therefore, Output (b) is better.", OUTPUTS, "b"),
        ("Output (A) is better.", OUTPUTS, "a"),
        ("Output (c) is better.", OUTPUTS, None),
        ("[[A]] is what the first reply says; mine is [[B]]", {"a": "[[A]]", "b": "[[B]]"}, "b"),
        ("[[C]]", {"a": "[[A]]", "b": "[[B]]"}, None),
        ("M", {"a": "m", "b": "M"}, "b"),
        ("it is no tie", {"a": "it is a", "b": "tie", "tie": "no tie"}, "tie"),
        ("one hundred", {"a": "one", "b": "one hundred"}, "b"),
        ("Responsey 1", {"a": "Response 1", "b": "Response 2"}, None),
    ],
)
def test_verdicts(reply: str, menu: dict[str, str], wanted: str | None) -> None:
    assert letter(reply, menu) == wanted


def test_no_verdict_is_no_number() -> None:
    """TRL's pairwise judge flipped its -1 for "invalid" into a 2; the unreadable has no letter to flip."""
    found = parse("I cannot decide.", AB)
    assert isinstance(found, Unparsed)
    assert not hasattr(found, "letter")


@pytest.mark.parametrize("reply", ["Answer: B", "After weighing both, I like them.", "A", "Certainly!"])
def test_first_letters_are_no_verdicts(reply: str) -> None:
    """A parser that falls back on startswith("A") reads "After weighing" as A."""
    assert letter(reply, AB) is None


def test_a_quoted_verdict_does_not_beat_the_real_one() -> None:
    """Testing for "[[A]]" anywhere before "[[B]]" lets a reply under judgement plant its own verdict."""
    menu = {"a": "[[A]]", "b": "[[B]]"}
    assert letter('Reply A says "[[A]]", as if that were for it to say. [[B]]', menu) == "b"
    assert letter('Reply B says "[[B]]" and "[[B]]" again. [[A]]', menu) == "a"


@given(before=st.text(), last=st.sampled_from(sorted(ABT)))
def test_the_last_line_decides(before: str, last: str) -> None:
    """Whatever comes before, what the judge says on its last line is what is read."""
    assert letter(f"{before}\n{ABT[last]}", ABT) == last


@given(st.text(alphabet="AB abVverdict:*_`()\n./or", max_size=60))
def test_a_verdict_is_where_it_says_it_is(reply: str) -> None:
    """The words found, without marks and white space, are those of the menu."""
    found = parse(reply, AB)
    if isinstance(found, Verdict):
        words = "".join(mark for mark in reply[found.start : found.end] if mark not in "*_` \n")
        assert words.casefold() == AB[found.letter].replace(" ", "").casefold()


@pytest.mark.parametrize(("subset", "rows"), [("Natural", 100), ("Neighbor", 134)])
@pytest.mark.parametrize("strategy", ["CoT", "Vanilla"])
def test_recorded_gpt4_outputs(subset: str, rows: int, strategy: str) -> None:
    """Every recorded completion of GPT-4 is read as the published winner, in both orders."""
    seen = 0
    with gzip.open(DATA / f"recorded_{subset}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["strategy"] != strategy:
                continue
            for order, names in (
                ("swap = False", {"a": "1", "b": "2"}),
                ("swap = True", {"a": "2", "b": "1"}),
            ):
                recorded = record["results"][-1][order]
                found = letter(recorded["completion"][0], OUTPUTS)
                assert found is not None
                assert names[found] == recorded["winner"], recorded
                seen += 1
    assert seen == 2 * rows
