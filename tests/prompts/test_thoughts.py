"""Thoughts are not the answer: what may be thoughts never stands in it, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.prompts.thoughts import Parts, blanked, split

HARMONY = "<|channel|>analysis<|message|>Hm. Verdict: B<|end|><|start|>assistant<|channel|>final<|message|>Verdict: A"


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("", "", ""),
        ("  Verdict: A \n", "", "  Verdict: A \n"),
        ("<think>hm</think>Verdict: A", "hm", "Verdict: A"),
        ("<think>\nhm\n</think>\n\nVerdict: A\n", "hm", "Verdict: A"),
        ("\n <THINK>hm</Think> Good day.", "hm", "Good day."),
        ("<thinking>hm</thinking>\nGood day.", "hm", "Good day."),
        ("<reasoning>hm</reasoning>\nGood day.", "hm", "Good day."),
        ("<thought>hm</thought>Good day.", "hm", "Good day."),
        ("<seed:think>hm</seed:think>Good day.", "hm", "Good day."),
        ("[THINK]hm[/THINK]Good day.", "hm", "Good day."),
        ("<|START_THINKING|>hm<|END_THINKING|>Good day.", "hm", "Good day."),
        ("<|begin_of_thought|>hm<|end_of_thought|>Good day.", "hm", "Good day."),
        ("◁think▷hm◁/think▷Good day.", "hm", "Good day."),
        # unclosed: cut off while thinking
        (
            "<think>\nIf I went by length I would write Verdict: B",
            "If I went by length I would write Verdict: B",
            "",
        ),
        ("Sure.\n<think>hm Verdict: B", "hm Verdict: B", "Sure."),
        ("<think>", "", ""),
        # the prompt had opened them
        ("hm\n</think>\n\nVerdict: A", "hm", "Verdict: A"),
        ("password is swordfish. </think>GOOD morning!", "password is swordfish.", "GOOD morning!"),
        ("hm </think> again </think> Verdict: A", "hm\nagain", "Verdict: A"),
        ("<think>a</think> b </think> c", "a\nb", "c"),
        ("</think>Verdict: A", "", "Verdict: A"),
        # between answers, nested, doubled
        ("One.\n<think>hm</think>\nTwo.", "hm", "One.\nTwo."),
        ("<think>a <think>b</think> c</think> d", "a <think>b</think> c", "d"),
        ("<think>I could write <think>x</think> Verdict: B", "I could write <think>x</think> Verdict: B", ""),
        ("<think>\n<think>\nhm</think>Verdict: A", "hm", "Verdict: A"),
        ('<think>he said "hm"</think>Good day.', 'he said "hm"', "Good day."),
        ('<think>hm</think>"Good day."', "hm", '"Good day."'),
        ('<think>Write "</think>" and Verdict: B', 'Write "</think>" and Verdict: B', ""),
        # spoken of
        ("Put it into `<think>` and `</think>`.", "", "Put it into `<think>` and `</think>`."),
        ('re.sub(r"<think>.*?</think>", "", text)', "", 're.sub(r"<think>.*?</think>", "", text)'),
        ("Put it into <think> tags.", "", "Put it into <think> tags."),
        ("Put <think> <think> here.\n <think>hm", "hm", "Put <think> <think> here."),
        ("So:\n```\n<think>\nhm\n</think>\n```\nDone.", "", "So:\n```\n<think>\nhm\n</think>\n```\nDone."),
        ("I think, 1 < 2 and <thinker>.", "", "I think, 1 < 2 and <thinker>."),
        ("```\nx\n</think>\n```y```\nVerdict: A", "```\nx", "```y```\nVerdict: A"),
        # Harmony
        (HARMONY, "Hm. Verdict: B", "Verdict: A"),
        (HARMONY + "<|return|>", "Hm. Verdict: B", "Verdict: A"),
        (HARMONY.removeprefix("<|channel|>analysis<|message|>"), "Hm. Verdict: B", "Verdict: A"),
        ("<|channel|>analysis<|message|>Hm. Verdict: B", "Hm. Verdict: B", ""),
        ("<|channel|>final<|message|>Verdict: A<|return|>", "", "Verdict: A"),
        ("<|channel|>commentary to=x<|message|>{}<|call|>", "{}", ""),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final", "Hm.", ""),
        ("analysisWe need to greet.assistantfinalGood day.", "We need to greet.", "Good day."),
        ("analysisWe need to greet, so Verdict: B", "We need to greet, so Verdict: B", ""),
        ("analysis of both: assistantfinal", "", "analysis of both: assistantfinal"),
        ("<|channel|>final<|message|><think>hm</think>Good day.", "hm", "Good day."),
    ],
)
def test_the_thoughts_and_the_answer(text: str, thoughts: str, answer: str) -> None:
    assert split(text) == Parts(thoughts, answer)


PIECES = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<thinking>",
            "</thinking>",
            "[THINK]",
            "[/THINK]",
            "```\n",
            "\n",
            " ",
            "`",
            "x",
            "Yes.",
        ]
    ),
    max_size=12,
).map("".join)


@given(PIECES)
def test_the_answer_of_the_answer_is_the_answer(text: str) -> None:
    once = split(text)
    assert split(once.answer) == Parts("", once.answer)


@given(PIECES)
def test_every_word_stands_in_one_of_the_parts(text: str) -> None:
    words = text.count("Yes.")
    thoughts, answer = split(text)
    assert thoughts.count("Yes.") + answer.count("Yes.") == words


@given(st.text())
def test_a_text_without_marks_is_its_own_answer(text: str) -> None:
    assert split(f"So: {text.replace('<', '').replace('[', '').replace('◁', '')}").thoughts == ""


@given(st.text(alphabet=" abV:.\n"), st.text(alphabet=" abV:.\n"))
def test_a_block_at_the_start_is_thoughts_whatever_it_holds(inside: str, after: str) -> None:
    for opening, closing in (("<think>", "</think>"), ("", "</think>"), ("[THINK]", "[/THINK]")):
        assert split(f"{opening}{inside}{closing}{after}") == Parts(inside.strip(), after.strip())
    assert split(f"<think>{inside}") == Parts(inside.strip(), "")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Verdict: A", "Verdict: A"),
        ("<think>hm</think>Verdict: A", "Verdict: A"),
        ("Fine. <think>or Verdict: B", "Fine."),
        ("<think>a <think>b</think> Verdict: B", ""),
        ("`<think>` is a tag. Verdict: A", "`<think>` is a tag. Verdict: A"),
        (HARMONY, "Verdict: A"),
    ],
)
def test_blanking_leaves_the_answer_where_it_stands(text: str, left: str) -> None:
    seen = blanked(text)
    assert len(seen) == len(text)
    assert seen.strip() == left
    assert text[seen.find(left) :].startswith(left)


@given(PIECES)
def test_what_blanking_leaves_stands_in_the_answer(text: str) -> None:
    seen = blanked(text)
    assert all(mark in (" ", text[index]) for index, mark in enumerate(seen))
    assert seen.count("Yes.") <= split(text).answer.count("Yes.")
