"""Several replies to one prompt -> which of them are compared, and what the comparisons say of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.pairs import Candidate, slotted
from preceptor.judge.records import Group, Label, Pair, Preference, Ranking
from preceptor.judge.settings import RankingPairing, Schedule
from preceptor.judge.voting.cascade import together
from preceptor.prompts.records import Message, content_id

LabelPair = Callable[[Pair], Dialogue[Label]]
"""How one pair is judged."""

SMOOTHING = 0.05
"""Comparisons that every reply is taken to have won and lost against every other, so that strengths stay finite
where one reply wins all of its own."""
EVEN_NATS = 1e-6
"""Strengths nearer to each other are equal: the iteration's own error."""


class Ranked(NamedTuple):
    """A group, ranked, and the comparisons that it rests on."""

    ranking: Ranking
    labels: tuple[Label, ...]


def rank(group: Group, label_pair: LabelPair, schedule: Schedule) -> Dialogue[Ranked]:
    """Compare the group's replies by a schedule and rank them.

    `all`: every reply with every other, n (n - 1) / 2 comparisons. `circular`: each with the next, n of them (NeMo
    Gym's genrm_compare). `swiss`: ceil(log2 n) rounds, in each of which replies of like standing meet who have not
    met before; fewest comparisons for large groups.
    """
    n = len(group.responses)
    labels: dict[tuple[int, int], Label] = {}
    for _ in range(math.ceil(math.log2(n)) if schedule == "swiss" else 1):
        meeting = _swiss(group, labels) if schedule == "swiss" else static(n, schedule)
        made = yield from together([label_pair(_pair(group, i, j)) for i, j in meeting])
        labels |= dict(zip(meeting, made, strict=True))
    return Ranked(_ranking(group, labels), tuple(labels.values()))


def static(n: int, schedule: Schedule) -> list[tuple[int, int]]:
    """The comparisons of a schedule that does not look at results."""
    if schedule == "circular" and n > 2:
        return [(i, (i + 1) % n) for i in range(n)]
    return list(combinations(range(n), 2))


def _swiss(group: Group, labels: dict[tuple[int, int], Label]) -> list[tuple[int, int]]:
    """The next round: neighbours in standing who have not met. Of an odd number one rests, as in the Swiss system: the
    rest counts as a win, and nobody rests twice before everybody has. Of those whose turn it can be, it is the one
    whose rest makes the others' meetings most even; of several, the last in standing.

    Who stand alike are ordered by a draw, the hash of the group and the reply: the place in the file has no say.
    """
    n = len(group.responses)
    points, rests = _standing(group, labels)
    drawn = [content_id("swiss", group.id, source) for source in group.sources]
    standing = sorted(range(n), key=lambda i: (-points[i], drawn[i], i))
    met = {frozenset(pair) for pair in labels}
    if n % 2 == 0:
        return _paired(standing, met)
    least = min(rests)
    allowed = [i for i in reversed(standing) if rests[i] == least]
    rounds = [_paired([i for i in standing if i != rester], met) for rester in allowed]
    return min(rounds, key=lambda pairs: (-len(pairs), sum(abs(points[i] - points[j]) for i, j in pairs)))


def _standing(group: Group, labels: dict[tuple[int, int], Label]) -> tuple[list[float], list[int]]:
    """Of every reply: its points, one for a win or a rest, and the rounds in which it met nobody."""
    n = len(group.responses)
    points, played = [0.0] * n, [0] * n
    for (i, j), label in labels.items():
        share = won(group, i, label)
        points[i] += 0.5 if share is None else share
        points[j] += 0.5 if share is None else 1 - share
        played[i] += 1
        played[j] += 1
    rests = [max(played) - games for games in played]
    return [mine + rested for mine, rested in zip(points, rests, strict=True)], rests


def _paired(standing: Sequence[int], met: set[frozenset[int]]) -> list[tuple[int, int]]:
    """Every reply with the next in standing whom it has not met. Two that are left over, having met, take one each of
    the lowest pair that lets them.
    """
    waiting, pairs, left = list(standing), list[tuple[int, int]](), list[int]()
    while waiting:
        one = waiting.pop(0)
        other = next((i for i in waiting if frozenset((one, i)) not in met), None)
        if other is None:
            left.append(one)
        else:
            waiting.remove(other)
            pairs.append((one, other))
    while len(left) > 1:
        u, v = left.pop(), left.pop()
        swaps = (
            (at, (u, x), (v, y))
            for at in range(len(pairs) - 1, -1, -1)
            for x, y in (pairs[at], pairs[at][::-1])
            if frozenset((u, x)) not in met and frozenset((v, y)) not in met
        )
        if swap := next(swaps, None):
            pairs[swap[0] : swap[0] + 1] = swap[1:]
    return pairs


def _pair(group: Group, i: int, j: int) -> Pair:
    names = group.models or ("",) * len(group.responses)
    one, other = (Candidate(group.sources[k], group.responses[k], names[k]) for k in (i, j))
    return slotted(group.prompt, one, other)


def won(group: Group, i: int, label: Label) -> float | None:
    """The probability that reply i of the group is the better of the label's two; None: not known.

    An inconsistent label of letters alone is not known: orders that disagree have measured the slot, not the replies.
    To call it even would give both replies of a group of two the reward 0, which nobody gave them.
    """
    assert label.sources is not None
    if label.probability is None:
        return None
    return label.probability if label.sources[0] == group.sources[i] else 1 - label.probability


def scores(group: Group, labels: Mapping[tuple[int, int], Label]) -> tuple[float | None, ...]:
    """The strength of each reply by the comparisons of a group, by the places of the two; None: it has no usable
    one."""
    known = {
        pair: share for pair, label in labels.items() if (share := won(group, pair[0], label)) is not None
    }
    compared = {i for pair in known for i in pair}
    found = strengths(len(group.responses), known)
    return tuple(score if i in compared else None for i, score in enumerate(found))


def _ranking(group: Group, labels: dict[tuple[int, int], Label]) -> Ranking:
    return Ranking(
        id=group.id,
        prompt=group.prompt,
        responses=group.responses,
        sources=group.sources,
        scores=scores(group, labels),
        labels=tuple(label.id for label in labels.values()),
        constitution=next(iter(labels.values())).constitution,
        judge=next(iter(labels.values())).judge,
    )


def strengths(n: int, shares: dict[tuple[int, int], float]) -> list[float]:
    """Bradley-Terry strengths with mean 0, in nats: P(i better than j) = sigmoid(s_i - s_j).

    shares: (i, j) -> probability that i is the better, counted as so much of one win. The maximum of the likelihood
    by iterative Luce spectral ranking (Maystre & Grossglauser 2015, arXiv 1507.07956), with every pair `SMOOTHING`
    wins to either side.
    """
    import choix
    import numpy as np

    wins = np.full((n, n), SMOOTHING)
    np.fill_diagonal(wins, 0.0)
    for (i, j), share in shares.items():
        wins[i, j] += share
        wins[j, i] += 1 - share
    found = choix.ilsr_pairwise_dense(wins, max_iter=1000)
    return [float(strength) for strength in found - found.mean()]


def preferences_of(ranking: Ranking, pairing: RankingPairing) -> Iterator[Preference]:
    """The preferences that a ranking stands for: its best against its worst, neighbours, or every two.

    The probability is Bradley-Terry's. Replies without a usable comparison are in none, nor are two of equal strength
    or equal text.
    """
    order = sorted(
        (i for i, score in enumerate(ranking.scores) if score is not None),
        key=lambda i: -(ranking.scores[i] or 0.0),
    )
    if len(order) < 2:
        return
    chosen = {
        "best-worst": [(order[0], order[-1])],
        "adjacent": list(pairwise(order)),
        "all": list(combinations(order, 2)),
    }[pairing]
    for better, worse in chosen:
        gap = (ranking.scores[better] or 0.0) - (ranking.scores[worse] or 0.0)
        if gap > EVEN_NATS and ranking.responses[better] != ranking.responses[worse]:
            yield _preference(ranking, better, worse, 1 / (1 + math.exp(-gap)))


def _preference(ranking: Ranking, better: int, worse: int, probability: float) -> Preference:
    return Preference(
        id=f"{ranking.id}-{better + 1}-{worse + 1}",
        prompt=ranking.prompt.messages,
        chosen=(Message(role="assistant", content=ranking.responses[better]),),
        rejected=(Message(role="assistant", content=ranking.responses[worse]),),
        probability=probability,
        margin=2 * probability - 1,
        constitution=ranking.constitution,
        judge=ranking.judge,
        tags=ranking.prompt.tags,
    )
