"""Taking the length direction out of a reward model's head.

Judges and people prefer longer replies beyond what they are worth, and a reward model learns it (Singhal et al. 2023,
arXiv 2310.03716). Chen et al. 2024 (ODIN, arXiv 2402.07319) split the head in two on shared features, one for
quality and one that carries the length, and throw the second away; they do it by penalties on a batch's
correlations. Here the split is made after training, in closed form, so that it neither depends on the batch nor
needs a coefficient. With h the difference of two replies' hidden states, l that of their lengths in tokens, and
means over pairs,

    C = E[h h^T],  c = E[h l],  d = C^-1 c          the least-squares reading of length: l ~ d . h
    w_quality = w - d (w . c) / (c . d)             so that E[(w_quality . h) l] = 0

which is the least change of the rewards' differences, E[((w - w_quality) . h)^2], that makes them uncorrelated with
length: the projection of Belrose et al. 2023 (LEACE, arXiv 2306.03819, theorem 4.2) for one readout. Pairs are
differences, whose sign is arbitrary; so the moments are about 0.

Of several attributes at once, length among them or not: with Q their columns made orthonormal over the pairs,

    c = E[h q^T],  D = C^-1 c,  G = c^T D
    w_quality = w - D G^+ c^T w                     so that E[(w_quality . h) q] = 0

The eigenvalues of G are the squared canonical correlations of states and attributes. Chance gives each about H / P,
with H dimensions and P pairs. What is no more than a few times that is no reading of an attribute, and is left alone:
else every column would cost a direction. Several columns can be functions of one thing: length and its logarithm take
out what is linear in either (`train.forward.attributes`).

What it cannot know is whether an attribute is a merit: where a principle asks for brevity, that goes too.
"""

from __future__ import annotations

import math

from torch import Tensor, eye
from torch.linalg import eigh, solve_ex, svd

RIDGE = 1e-4
"""Of the mean of C's diagonal, added to it: with fewer pairs than dimensions C has no inverse."""
CHANCE = 3.0
"""Times H / P, under which a canonical correlation squared is chance; but never more than half of the largest."""
ALIKE = 1e-6
"""Columns that differ by less than this share of the largest are the same."""


def attribute_part(weight: Tensor, gaps: Tensor, columns: Tensor) -> Tensor:
    """The part (K, H) of a head's weight (K, H) that reads attributes.

    gaps: (P, H), hidden state of the chosen minus that of the rejected reply; columns: (P, A), the same of their
    attributes. Zero where no pair differs in any.
    """
    h, w = gaps.double(), weight.detach().cpu().double()
    size = columns.double().square().mean(dim=0).sqrt()  # (A,)
    if not size.any():
        return weight.detach().cpu() * 0
    left, spread, _ = svd(columns.double()[:, size > 0] / size[size > 0], full_matrices=False)
    q = left[:, spread > ALIKE * spread[0]] * math.sqrt(len(h))  # (P, A)
    c = h.T @ q / len(h)  # (H, A)
    moments = h.T @ h / len(h)  # (H, H)
    moments = moments + RIDGE * moments.diagonal().mean() * eye(len(c), dtype=h.dtype)
    d: Tensor = solve_ex(moments, c, check_errors=True).result  # (H, A)
    values, vectors = eigh(c.T @ d)  # (A,), (A, A)
    held = values > min(CHANCE * len(c) / len(h), float(values[-1]) / 2)
    inverse = vectors[:, held] / values[held] @ vectors[:, held].T  # (A, A)
    part: Tensor = w @ c @ inverse @ d.T  # (K, H)
    return part.to(weight.dtype)


def length_part(weight: Tensor, gaps: Tensor, lengths: Tensor) -> Tensor:
    """`attribute_part` of length alone; lengths: (P,), tokens of the chosen reply less those of the rejected one."""
    return attribute_part(weight, gaps, lengths[:, None])
