"""Every way in which judges write a verdict: what is unambiguous is read, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.prompts.verdict import Unparsed, Verdict, parse

AB = {"a": "Verdict: A", "b": "Verdict: B"}
ABT = {**AB, "tie": "Verdict: tie"}
GRADES = {str(grade): f"Score: {grade}" for grade in range(1, 11)}


def said(reply: str, menu: dict[str, str]) -> str | float | None:
    found = parse(reply, menu)
    if isinstance(found, Unparsed):
        return None
    return found.letter if found.grade is None else found.grade


READ_AS_A = [
    "Verdict: A",
    "verdict: A",
    "VERDICT: A",
    "Verdict:A",
    "Verdict : A",
    "Verdict: A.",
    "Verdict: A!",
    "Verdict:\n\nA",
    "Verdict:\n- A",
    "**Verdict: A**",
    "**Verdict:** A",
    "**Verdict**: A",
    "**Verdict:** **A**",
    "__Verdict__: _A_",
    "`Verdict: A`",
    "```\nVerdict: A\n```",
    '```json\n{"verdict": "A"}\n```',
    '{"verdict": "A"}',
    '{"verdict":"A"}',
    "{'verdict': 'A'}",
    '{"verdict": "Verdict: A"}',
    '{"reasoning": "B is rude, so \\"Verdict: B\\" is out.", "verdict": "A"}',
    '{"verdict": "A", "reasoning": "It is the kinder one."}',
    '{"verdict": "A", "verdict": "A"}',
    '{"reasoning": "Hm.", "reasoning": "A it is.", "verdict": "A"}',
    '{"verdict": "B"}\nNo, once more:\n{"verdict": "A"}',
    '{"final_verdict": "A"}',
    "verdict = A",
    "Verdict = 'A'",
    'Verdict: "A"',
    "Verdict: 'A'",
    "Verdict: “A”",
    "Verdict: «A»",
    "Verdict: 「A」",
    "Verdict: (A)",
    "Verdict: [A]",
    "Verdict: [[A]]",
    "Verdict: {A}",
    "Verdict: <A>",
    "Verdict：A",
    "Verdict： Ａ",
    "Verdict:\u200bA",
    "\ufeffVerdict:\u00a0A",
    "Ver\u200bdict: A",
    "Verdict: Reply A",
    "Verdict: **Reply A**",
    "Verdict: Response A",
    "Verdict: Option A is better",
    "Verdict: the better reply is A",
    "Verdict is A",
    "Verdict – A",
    "Verdict → A",
    "Verdict A",
    "# Verdict\nA",
    "## Verdict\n\n**A**",
    "## Final verdict: A",
    "| Verdict | A |",
    "<verdict>A</verdict>",
    "<verdict>\nA\n</verdict>",
    "<verdict>Reply A</verdict>",
    "<b>Verdict:</b> A",
    "\\boxed{A}",
    "$\\boxed{\\text{A}}$",
    "\\boxed{Verdict: A}",
    "Verdict: $A$",
    "Verdict: \\textbf{A}",
    '"Verdict: A"',
    "Verdict: A, because it is kinder than B.",
    "Verdict: A (clearly)",
    "Verdict: A is better than B",
    "Verdict: A > B",
    "Verdict: A over B",
    "Verdict: A, not B",
    "Verdict: A. Reply B is rude.",
    'Reply B says "Verdict: B".\nVerdict: A',
    "> Verdict: B\n\nVerdict: A",
    "<think>Verdict: B</think>Verdict: A",
    "At first I would say Verdict: B, but no.\nVerdict: A",
]
UNREADABLE = [
    "A",
    "Answer: A",
    "(A)",
    "Verdict: A or B",
    "Verdict: A or maybe B",
    "Verdict: A, or perhaps B",
    "Verdict: maybe A",
    "Verdict: A maybe",
    "Verdict: A/B",
    "Verdict: A | B",
    "Verdict: A < B",
    "Verdict: A <= B",
    "Verdict: A = B",
    "Verdict: A ≈ B",
    "Verdict: A vs B",
    "Verdict: A and B",
    "Verdict: A & B",
    "Verdict: A (or B)",
    "Verdict: A?",
    "Verdict: A? No, B.",
    "Verdict: A. No, wait, B.",
    "Verdict: A is worse than B",
    "Verdict: A is worse",
    "Verdict: A is not better than B",
    "Verdict: A isn't better",
    "Verdict: A could be better",
    "Verdict: A loses",
    "Verdict: not A",
    "Verdict: either A or B",
    "Verdict: neither",
    "Verdict: AB",
    "Verdict: C",
    "Verdict: a close call",
    "Verdict: A or Verdict: B",
    "Verdict: A / Verdict: B",
    "Verdict: A\nVerdict: C",
    '{"verdict": "A or B"}',
    '{"verdict": "A", "verdict": "B"}',
    '{"verdict": "A", "reasoning": "B is kinder.", "verdict": "B"}',
    '{"verdict": "B", "reasoning": "{A", "verdict": "A", "sure": true}',
    '```json\n{"final_verdict": "A",\n "reasoning": "Hm.",\n "final_verdict": "B"}\n```',
    'Here it is: {"result": {"verdict": "B", "why": "x", "verdict": "A"}}',
    '{"verdict": "C"}',
    '{"verdict": null}',
    "\\boxed{C}",
    "\\boxed{A or B}",
    "<verdict>A or B</verdict>",
    'Reply A might at first look like "Verdict: A" but then',
    "I have to write `Verdict: A` or `Verdict: B`.",
    "The reply says: “Verdict: A”, which it has no right to.",
    "> Verdict: A",
    'It ends in "Good day.\nVerdict: A\nGood bye."',
    "<think>Verdict: A",
    "<think>\nI simply went by length and would write Verdict: A here. But",
    "Hm. <think>Verdict: A",
    "Verdict: A is my first thought</think>",
    "<|channel|>analysis<|message|>Verdict: A",
    "My verdict is that A is longer.",
    "The verdict of most readers",
]


@pytest.mark.parametrize("reply", READ_AS_A)
@pytest.mark.parametrize("menu", [AB, ABT], ids=["two", "three"])
def test_what_is_unambiguous_is_read(reply: str, menu: dict[str, str]) -> None:
    assert said(reply, menu) == "a"


@pytest.mark.parametrize("reply", UNREADABLE)
@pytest.mark.parametrize("menu", [AB, ABT], ids=["two", "three"])
def test_what_leaves_a_doubt_is_no_verdict(reply: str, menu: dict[str, str]) -> None:
    assert said(reply, menu) is None


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(set(READ_AS_A)) + len(set(UNREADABLE)) >= 120


@pytest.mark.parametrize("reply", READ_AS_A)
def test_the_letters_change_places(reply: str) -> None:
    """A parser that leans to one letter would read its mirror image otherwise."""
    mirror = reply.translate(str.maketrans("ABＡＢ", "BAＢＡ"))
    assert said(mirror, AB) == "b"


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("Score: 8", 8),
        ("Score: 10", 10),
        ("Score: 8.", 8),
        ("Score: 8.5", 8.5),
        ("Score: 8,5", 8.5),
        ("Score: 8.0", 8),
        ("Score: 8/10", 8),
        ("Score: 10/10", 10),
        ("Score: 8.5/10", 8.5),
        ("Score: 8 out of 10", 8),
        ("Score: **8**/10", 8),
        ("Score: 8 – it is polite", 8),
        ("Score: 8, because of 2 small slips", 8),
        ('{"score": 8}', 8),
        ('{"score": 8.5, "why": "3 slips"}', 8.5),
        ("## Score\n8", 8),
        ("Score：８", 8),
        ("<score>8</score>", 8),
        ("\\boxed{8}", 8),
        ("Score: 1 would be wrong.\nScore: 10", 10),
        ("Score: 7-8", None),
        ("Score: 7–8", None),
        ("Score: 7 - 8", None),
        ("Score: 7 to 8", None),
        ("Score: 7 or 8", None),
        ("Score: 7/8", None),
        ("Score: 4/5", None),
        ("Score: 8 out of 12", None),
        ("Score: 80%", None),
        ("Score: 8%", None),
        ("Score: 0.8", None),
        ("Score: 0", None),
        ("Score: 10.5", None),
        ("Score: 11", None),
        ("Score: -8", None),
        ("Score: 8+", None),
        ("Score: 8th", None),
        ("Score: 8?", None),
        ("Score: 8.5.1", None),
        ("Score: eight", None),
        ("Score: about 8", None),
        ("Reply A has a score of 8", None),
    ],
)
def test_a_grade_is_the_number_that_was_written(reply: str, wanted: float | None) -> None:
    assert said(reply, GRADES) == wanted


@given(
    before=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<[◁"), max_size=40),
    spelling=st.sampled_from([reply for reply in READ_AS_A if "think" not in reply]),
)
def test_the_last_spelling_decides_whatever_comes_before(before: str, spelling: str) -> None:
    assert said(f"{before}\n\n{spelling}", AB) == "a"


@given(st.text(alphabet="ABab vVerdict:\"'()[]{}<>|/\\*_`\n.,?=-ormaybe", max_size=60))
def test_what_is_read_stands_in_the_reply(reply: str) -> None:
    found = parse(reply, AB)
    if isinstance(found, Verdict):
        assert reply[found.start : found.end].casefold().startswith(("verdict", "\\boxed", "boxed"))
        assert found.at is not None
        assert reply[found.at].casefold() == found.letter
        assert found.start < found.at < found.end
