"""What a reply has beside its content, as numbers: what a user can name to be taken out of a reward."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from preceptor.train.data.pairs import PairTokens
from preceptor.train.settings import Attribute

LIST_ITEM = re.compile(r"\s{0,6}(?:[-*+]|\d{1,3}[.)])\s+\S")
FORMATTED = re.compile(r"\s{0,3}(?:#{1,6}\s+\S|```|\|.*\|\s*$)|.*\*\*\S")
"""A heading, the fence of a code block, a row of a table, or words in bold."""
KNOTS = (32, 128, 512)
"""Tokens at which a reading of length may bend: what is short, what is a paragraph, what is long."""


def _length(_: str, tokens: int) -> list[float]:
    return [float(tokens)]


def _length_curve(_: str, tokens: int) -> list[float]:
    """Any function of length that is linear in tokens, plus one that is linear in their logarithm between the knots.

    A reward follows length linearly in short replies and less than that in longer ones (FiMi-RM, arXiv 2505.12843).
    """
    log = math.log2(1 + tokens)
    return [float(tokens), log, *(max(0.0, log - math.log2(1 + knot)) for knot in KNOTS)]


def _share(pattern: re.Pattern[str], text: str) -> list[float]:
    lines = [line for line in text.splitlines() if line.strip()]
    return [sum(pattern.match(line) is not None for line in lines) / len(lines) if lines else 0.0]


def _lists(text: str, _: int) -> list[float]:
    return _share(LIST_ITEM, text)


def _formatting(text: str, _: int) -> list[float]:
    return _share(FORMATTED, text)


READINGS: Mapping[Attribute, Callable[[str, int], list[float]]] = MappingProxyType(
    {"length": _length, "length-curve": _length_curve, "list-share": _lists, "formatting": _formatting}
)
"""(text, tokens) of a reply -> the numbers that an attribute is: one, or several functions of one thing."""


def readings(names: Sequence[Attribute], pairs: Sequence[PairTokens], tokenizer: Any) -> dict[str, Tensor]:
    """Attribute -> (P, A) float64, the chosen replies' readings less the rejected ones'."""
    found: dict[str, Tensor] = {}
    texts = [
        [tokenizer.decode(reply, skip_special_tokens=True) for reply in (pair.chosen, pair.rejected)]
        for pair in pairs
    ]
    for name in names:
        read = READINGS[name]
        sides = [
            [read(text, len(reply)) for text, reply in zip(both, (pair.chosen, pair.rejected), strict=True)]
            for both, pair in zip(texts, pairs, strict=True)
        ]
        both_sides = torch.tensor(sides, dtype=torch.float64)  # (P, 2, A)
        found[name] = both_sides[:, 0] - both_sides[:, 1]
    return found


def told(margins: Tensor, columns: Tensor) -> float | None:
    """The multiple correlation of margins (P,) with an attribute's columns (P, A): the root of the share of the
    margins' squares that a linear reading of the columns explains. About 0, as a pair's sign is arbitrary; None where
    nothing varies."""
    margins = margins.double()
    whole = float(margins.square().sum())
    if not whole or not columns.any():
        return None
    scaled = columns / columns.square().mean(dim=0).sqrt().clamp_min(1e-12)
    fitted = scaled @ torch.linalg.pinv(scaled, rtol=1e-9) @ margins
    return math.sqrt(min(1.0, float(fitted.square().sum()) / whole))
