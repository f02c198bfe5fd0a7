"""Where a reply gives its verdict, and what the tokens there say about the verdicts that it did not give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from preceptor.prompts.verdict import Verdict, parse


class TokenChoice(NamedTuple):
    """One generated token and the alternatives that the model weighed at its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]
    """(token, log-probability) of the likeliest tokens here, the generated one usually among them."""


class VerdictSpan(NamedTuple):
    """Where a verdict stands in a text."""

    letter: str
    start: int
    end: int
    at: int | None = None
    """Where its words begin to differ from the other verdicts', where the parser knows."""


def last_verdict(text: str, menu: Mapping[str, str]) -> VerdictSpan | None:
    """Where the verdict stands that counts, None if none does.

    `prompts.verdict.parse` says which, so that the probability is never read at another place than the letter: a judge
    that quotes a forged "Verdict: B" and ends in "**Verdict:** A" has said A, to both readers.
    """
    found = parse(text, menu) if menu else None
    return VerdictSpan(*found[:4]) if isinstance(found, Verdict) else None


def verdict_probabilities(tokens: Sequence[TokenChoice], menu: Mapping[str, str]) -> dict[str, float] | None:
    """Probability of each letter of the menu at the place of the last verdict; they sum to 1 over the menu.

    The place is the token that holds the first character by which the verdict's words differ from the
    others'.
    An alternative token counts for a letter if it continues the reply towards that letter's words and no
    other's; a letter that no alternative leads to gets 0. None where no verdict is found, or no alternatives
    came.
    """
    text = "".join(choice.token for choice in tokens)
    place = last_verdict(text, menu)
    if place is None:
        return None
    shared = _shared(menu.values())
    differ = place.at if place.at is not None else _differing(text, place, menu[place.letter], shared)
    begin = 0
    for choice in tokens:
        if begin <= differ < begin + len(choice.token):
            break
        begin += len(choice.token)
    else:
        return None
    if not choice.top:
        return None
    folded = len({words.casefold() for words in menu.values()}) == len(menu)
    # each letter's words as they would continue the reply from the beginning of this token
    ahead = {letter: text[begin:differ] + words[shared:] for letter, words in menu.items()}
    mass = dict.fromkeys(menu, 0.0)
    for token, logprob in dict([(choice.token, choice.logprob), *choice.top]).items():
        letter = _leads_to(token, ahead, folded)
        if letter is not None:
            mass[letter] += math.exp(logprob)
    total = sum(mass.values())
    return {letter: share / total for letter, share in mass.items()} if total > 0 else None


def _shared(words: Iterable[str]) -> int:
    """How many characters all the words begin with."""
    count = 0
    for letters in zip(*words, strict=False):
        if len(set(letters)) > 1:
            break
        count += 1
    return count


def _differing(text: str, place: VerdictSpan, words: str, shared: int) -> int:
    """Index in the text of the first character by which a verdict's words differ from the others'.

    Marks, white space and letter case may differ between the words and the text ("**Verdict:**A"), so the words'
    characters are looked up one after the other.
    """
    at = place.start - 1
    for mark in words[: shared + 1]:
        if not mark.isspace():
            rest = range(at + 1, place.end)
            at = next((index for index in rest if text[index].casefold() == mark.casefold()), at)
    return at if shared < len(words) else place.end


def _leads_to(token: str, ahead: Mapping[str, str], folded: bool) -> str | None:
    """The one letter whose words the token begins; blanks before the token are nobody's.

    folded: letter case does not count, as where the menu does not need it.
    """
    token = token.casefold().lstrip() if folded else token.lstrip()
    fits = []
    for letter, words in ahead.items():
        words = words.casefold().lstrip() if folded else words.lstrip()
        rest = token[len(words) :]
        if token and (words.startswith(token) or (token.startswith(words) and not rest[:1].isalnum())):
            fits.append((letter, len(words)))
    if len(fits) > 1:
        # a token that spells one option out in full and merely begins another means the former
        fits = [(letter, size) for letter, size in fits if size == len(token.rstrip())]
    return fits[0][0] if len(fits) == 1 else None
