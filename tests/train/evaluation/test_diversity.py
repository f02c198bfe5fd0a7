"""Self-BLEU against BLEU as its paper writes it, reference by reference."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.train.evaluation.diversity import mean_self_bleu, self_bleu

TEXTS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=8).map(" ".join), min_size=2, max_size=6
)


def bleu(candidate: list[str], references: list[list[str]]) -> float:
    """Papineni et al. 2002, with the smallest number for no match and short texts as far as they go."""
    logs = []
    for order in range(1, min(4, len(candidate)) + 1):
        grams, *others = (
            Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))
            for words in (candidate, *references)
        )
        clipped = sum(min(count, max(other[gram] for other in others)) for gram, count in grams.items())
        logs.append(math.log(max(clipped / grams.total(), 1e-9)))
    nearest = min((abs(len(words) - len(candidate)), len(words)) for words in references)[1]
    penalty = 1.0 if len(candidate) >= nearest else math.exp(1 - nearest / len(candidate))
    return penalty * math.exp(sum(logs) / len(logs))


@given(TEXTS)
def test_it_is_the_bleu_of_each_text_against_all_others(texts: list[str]) -> None:
    words = [text.split() for text in texts]
    wanted = [bleu(own, words[:at] + words[at + 1 :]) for at, own in enumerate(words)]
    assert self_bleu(texts) == pytest.approx(wanted)


def test_the_same_text_everywhere_is_one_and_nothing_in_common_is_nothing() -> None:
    assert self_bleu(["the cat sat on the mat"] * 3) == pytest.approx([1, 1, 1])
    assert max(self_bleu(["a b c d e", "f g h i j", "k l m n o"])) < 1e-6


def test_a_text_without_words_or_company_is_like_nothing() -> None:
    assert self_bleu(["a b c d"]) == [0.0]
    assert self_bleu(["", "a b c d", "a b c d"]) == pytest.approx([0, 1, 1])
    assert self_bleu(["", "a b"]) == [0.0, 0.0]


def test_the_mean_is_of_all_texts_and_nothing_of_none() -> None:
    texts = ["", "the pool is on floor two", "the pool is on floor six", "we close late every night"]
    assert mean_self_bleu(texts) == pytest.approx(sum(self_bleu(texts)) / 4)
    assert 0 < mean_self_bleu(texts) < 1
    assert mean_self_bleu([]) == 0.0
