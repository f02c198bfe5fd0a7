"""What the scores of a reward model are, and how they make one reward.

    one          a single score
    ensemble     K scores of one reply, each trained with weights of its own on the pairs:
                 reward = mean - penalty * standard deviation, or the least of them
    principles   a score for each principle: reward = mean over those that apply, by weight

The scores are K linear heads on one adapter, so that any number of them costs one pass through the model.

An ensemble's members see each pair with a weight drawn from the exponential distribution, the Bayesian
bootstrap (Rubin 1981, "The Bayesian Bootstrap"), as Osband et al. 2016 (arXiv 1602.04621) mask data by head. The
penalty is Coste et al. 2023's (arXiv 2310.02743, section 3.2, there the variance) with the standard deviation of Zhai
et al. 2023 (arXiv 2401.00243); the least of the members is Coste's worst-case optimisation. A pairwise loss leaves
each member free to add a constant, which would pass for disagreement: each is therefore centred on the replies that it
was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from preceptor.prompts.records import Record
from preceptor.train.data.pairs import PairTokens

ONE = "reward"
"""Name of the score where there is a single one."""


class Heads(Record):
    """The K scores of a reward model; written beside their weights."""

    kind: Literal["one", "ensemble", "principles"] = "one"
    names: tuple[str, ...] = (ONE,)
    """K of them: the principles', or the members' numbers."""
    penalty: float = 0.0
    """Of an ensemble's standard deviation."""
    least: bool = False
    """Whether an ensemble's reward is that of its most doubtful member, instead of the mean less the penalty."""
    weights: tuple[float, ...] = ()
    """Of the principles; K of them."""
    applies_to: tuple[tuple[str, ...], ...] = ()
    """Tags of the prompts to which each principle applies; none: to all."""

    def reweighted(self, weights: Mapping[str, float]) -> Heads:
        """The same with other weights for some principles, which no training is needed for.

        Raises ValueError for a name that is no principle of this model, and where no weight is left.
        """
        if strange := sorted(set(weights) - set(self.names if self.kind == "principles" else ())):
            known = (
                ", ".join(self.names) if self.kind == "principles" else "none: it has no score by principle"
            )
            raise ValueError(f"no principle {strange[0]!r} in this reward model; it has {known}")
        found = tuple(weights.get(name, old) for name, old in zip(self.names, self.weights, strict=True))
        if min(found) < 0 or not sum(found):
            raise ValueError(
                f"weights are {found}; wanted numbers that are not negative, and one that is not 0"
            )
        return self.model_copy(update={"weights": found})


class Targets(NamedTuple):
    """What each of K heads is to learn of each of P pairs."""

    probability: Tensor
    """(P, K) float32, that the chosen reply is the better."""
    weight: Tensor
    """(P, K) float32, of the head in the pair's loss; the rows sum to 1, those of an ensemble on average."""
    share: Tensor
    """(P, K) float32, of the head in the pair's reward; the rows sum to 1."""

    def of(self, numbers: Tensor) -> Targets:
        """The targets of some pairs, by number, on their device."""
        return Targets(*(column[numbers.cpu()].to(numbers.device) for column in self))


def shares(heads: Heads, tags: Sequence[Sequence[str]]) -> Tensor:
    """(N, K) share of each head in the reward of N replies, by their prompts' tags; the rows sum to 1.

    Where no principle applies, all are taken: a reward of nothing would be a number invented.
    """
    if heads.kind != "principles":
        return torch.full((len(tags), len(heads.names)), 1 / len(heads.names))
    weights = torch.tensor(heads.weights)  # (K,)
    rows = [
        torch.tensor([not wanted or bool({*wanted} & {*some}) for wanted in heads.applies_to]) * weights
        for some in tags
    ]
    table = torch.stack([row if row.sum() > 0 else weights for row in rows])  # (N, K)
    return table / table.sum(dim=1, keepdim=True)


def rewards(scores: Tensor, heads: Heads, share: Tensor) -> Tensor:
    """Rewards (N,) out of scores (N, K) and the heads' shares (N, K)."""
    if heads.least:
        return scores.min(dim=1).values
    value = (scores * share).sum(dim=1)
    return value - heads.penalty * spread(scores) if heads.kind == "ensemble" else value


def spread(scores: Tensor) -> Tensor:
    """Standard deviation (N,) over the members' scores (N, K); 0 for a single one."""
    return scores.std(dim=1, correction=0)


def targets(pairs: Sequence[PairTokens], heads: Heads, seed: int) -> Targets:
    """What the heads are to learn of the pairs; an ensemble's weights are drawn from `seed`."""
    count = len(heads.names)
    label = torch.tensor([pair.probability for pair in pairs], dtype=torch.float32)[:, None]  # (P, 1)
    share = shares(heads, [pair.tags for pair in pairs])
    if heads.kind == "principles":
        said = torch.tensor([[dict(pair.opinions).get(name, -1.0) for name in heads.names] for pair in pairs])
        asked = (said >= 0).float()  # (P, K)
        return Targets(said.clamp_min(0), asked / asked.sum(dim=1, keepdim=True).clamp_min(1), share)
    weight = torch.full((len(pairs), count), 1 / count)
    if heads.kind == "ensemble":
        draw = torch.Generator().manual_seed(seed)
        drawn = torch.empty((len(pairs), count)).exponential_(generator=draw)
        weight = drawn / drawn.mean(dim=0, keepdim=True) / count
    return Targets(label.expand(-1, count), weight, share)
