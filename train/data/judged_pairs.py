"""Verdicts that judges have given, as asks whose answer a judge in this process is to learn, side by side.

An ask is the one by which the tuned judge is asked later, to the token: `judge.compare.ask` makes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import deciding, opinions
from preceptor.judge.compare import JOINT, ComparisonSetup, ask
from preceptor.judge.models.local.branch_mask import pack, places
from preceptor.judge.models.local.chat_tokens import Loaded, TokenisedSides, beside
from preceptor.judge.models.local.conversation import UnrenderableError
from preceptor.judge.models.local.side_by_side import SidePrompt, side_rows
from preceptor.judge.records import Label, Pair
from preceptor.prompts.records import Record, canonical_json
from preceptor.prompts.template import Template

if TYPE_CHECKING:
    from preceptor.train.models.base import Base

Grid = Int64[Tensor, "B T"]
OfEnd = Int64[Tensor, "2*B"]
Letters = Int64[Tensor, "B 2"]
OfAsk = Float32[Tensor, "B"]
CERTAIN = {"a": 1.0, "b": 0.0, "tie": 0.5}


class JudgedPair(Record):
    """A pair, the principles that were asked about together, and what a judge said."""

    id: str
    pair: Pair
    principles: tuple[str, ...]
    probability: float
    """That response a is the better."""
    constitution: str
    judge: str


def judged_pairs(rows: Iterable[Label | Pair], constitution: Constitution) -> Iterator[JudgedPair]:
    """The verdicts of labels: each principle's own, and that of all together where they were asked about together.

    A pair without judgements counts by its `preferred`, as a verdict of all principles together. What a machine check
    decided is left out, since nobody is asked about it, and so is what nobody gave a verdict on.
    """
    for row in rows:
        asked = [one for one in constitution.for_prompt(row.prompt.tags) if not one.check]
        known = {one.id for one in asked}
        pair = Pair.model_validate({name: getattr(row, name) for name in Pair.model_fields})
        found: list[tuple[tuple[str, ...], float]] = []
        if isinstance(row, Label):
            found = [((one.principle,), one.probability) for one in opinions(row) if one.principle in known]
            together = [
                one.probability
                for one in deciding(row)
                if one.principle == JOINT and one.probability is not None and JOINT not in row.unjudged
            ]
            if together:
                found.append((tuple(one.id for one in asked), sum(together) / len(together)))
        elif row.preferred is not None and asked:
            found = [(tuple(one.id for one in asked), CERTAIN[row.preferred])]
        for principles, probability in found:
            yield JudgedPair(
                id=row.id,
                pair=pair,
                principles=principles,
                probability=probability,
                constitution=constitution.identity,
                judge=row.judge if isinstance(row, Label) else "",
            )


def split_by_prompt(
    rows: Iterable[JudgedPair], share: float, seed: int
) -> tuple[list[JudgedPair], list[JudgedPair]]:
    """(to train on, held out) by a hash of the prompt, so that two pairs about one prompt are on one side."""
    sides: tuple[list[JudgedPair], list[JudgedPair]] = ([], [])
    for row in rows:
        prompt = canonical_json([message.model_dump() for message in row.pair.prompt.messages])
        digest = hashlib.sha256(f"{seed}:{prompt}".encode()).digest()
        sides[int.from_bytes(digest[:8], "big") < share * 2**64].append(row)
    return sides


class JudgedTokens(NamedTuple):
    """An ask in tokens, with its answer."""

    ways: tuple[SidePrompt, SidePrompt]
    """The first reply called A, and called B."""
    letters: tuple[int, int]
    """Tokens of the verdicts A and B."""
    probability: float
    """That the first reply is the better."""
    id: str

    @property
    def tokens(self) -> int:
        """Of the pair's row."""
        return side_rows(self.ways)[0].size

    @property
    def length(self) -> int:
        """Positions."""
        return max(way.depth for way in self.ways)


class EncodedVerdicts(NamedTuple):
    """Tokenised rows and what became of the others."""

    rows: list[JudgedTokens]
    ids_aside: dict[str, list[str]]


def encode_judged(
    rows: Sequence[JudgedPair],
    constitution: Constitution,
    base: Base,
    template: Template,
    judge: Any,
    max_length: int,
) -> EncodedVerdicts:
    """Asks in tokens; none is dropped without a reason. judge: the base as a judge, whose asks these are."""
    by_id: dict[str, Principle] = {one.id: one for one in constitution.principles}
    menu = {letter: words for letter, words in template.menu.items() if letter != "tie"}
    setup = ComparisonSetup(judge=judge, template=template, menu=menu, reasoning=False, max_tokens=1, seed=0)
    eos = base.generation_eos
    stops = frozenset({base.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None})
    loaded = Loaded(base.model, base.tokenizer, stops, 0, None)  # type: ignore[arg-type]  # nothing is asked
    found: list[JudgedTokens] = []
    aside: dict[str, list[str]] = {}
    for row in rows:
        if row.pair.response_a == row.pair.response_b:
            aside.setdefault("both replies are the same", []).append(row.id)
            continue
        try:
            sides = beside(loaded, ask(row.pair, [by_id[name] for name in row.principles], "none", setup))
        except UnrenderableError as fault:
            aside.setdefault(str(fault), []).append(row.id)
            continue
        if sides.depth >= max_length:
            aside.setdefault(f"it is longer than max_length = {max_length} tokens", []).append(row.id)
            continue
        found.append(_tokens(sides, row))
    return EncodedVerdicts(found, aside)


def _tokens(sides: TokenisedSides, row: JudgedPair) -> JudgedTokens:
    first, second = sides.question.options["a"][0], sides.question.options["b"][0]
    one, other = (
        SidePrompt(sides.before, sides.replies, names, sides.question.context)
        for names in (sides.names, sides.names[::-1])
    )
    return JudgedTokens((one, other), (first, second), row.probability, row.id)


class SideBatch(NamedTuple):
    """B asks in B rows of T tokens, of P parts at most."""

    input_ids: Grid
    positions: Grid
    part: Grid
    sees: Tensor  # (B, P, P) bool: `judge.models.local.branch_mask.Packed`
    ends: OfEnd  # places in the B * T tokens: the first reply called A in each row, then called B
    letters: Letters  # tokens of the verdicts A and B
    probability: OfAsk  # that the first reply is the better


def collate_judged(
    rows: Sequence[JudgedTokens], numbers: Sequence[int], pad_id: int, shared: bool = True
) -> SideBatch:
    """Lay out asks as one batch, as `train.loop.pair_trainer.Collate`; padding is seen by nobody, whatever it is."""
    del numbers, pad_id, shared
    laid = [side_rows(row.ways) for row in rows]
    packed = pack([some[0] for some in laid], "cpu")
    width = packed.ids.shape[1]
    ends: list[list[int]] = [[], []]
    for number, some in enumerate(laid):
        for way, [(_, place)] in places(some, [1, 1]):
            ends[way].append(number * width + place)
    return SideBatch(
        input_ids=packed.ids,
        positions=packed.positions,
        part=packed.part,
        sees=packed.sees,
        ends=torch.tensor(ends[0] + ends[1]),
        letters=torch.tensor([row.letters for row in rows]),
        probability=torch.tensor([row.probability for row in rows], dtype=torch.float32),
    )
