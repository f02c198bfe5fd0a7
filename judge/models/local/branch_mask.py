"""Many prompts that begin alike, read in one pass: what they share once, each one's own end as a branch after it.

    row        trunk | branch 1 | branch 2 | ...      positions of every branch start where the trunk ends
    attention  a token sees those before it in the trunk and in its own branch; in a sliding layer only those less
               than the window away, counted in positions

So every token sees just what it would see in a prompt of its own, and the pair of replies that eight principles are
asked about is read once and not eight times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

TRUNK = 0
FULL, SLIDING = "full_attention", "sliding_attention"
"""The kinds of layers, as transformers' configs name them, for which masks can be made here."""
FLEX = "flex_attention"
"""FlexAttention, as transformers' configs name it."""
LEAST_SHARED = 0.3
"""Share of a prompt that it must have in common with a row's trunk to become a branch of it."""
WIDEST = 4.0
"""Longest row, in lengths of its longest prompt: attention costs the square of it."""


class RowPart(NamedTuple):
    """Tokens of a row that see one another, and some of the parts before them."""

    tokens: tuple[int, ...]
    begins: int
    """Position of the first of them."""
    sees: tuple[int, ...]
    """Numbers of the earlier parts of the row that they see."""


class PackableRow(Protocol):
    """Parts that lie one behind the other, and the prompts that end in some of them."""

    @property
    def size(self) -> int: ...  # tokens

    @property
    def parts(self) -> Sequence[RowPart]: ...

    @property
    def ways(
        self,
    ) -> Sequence[tuple[int, tuple[int, ...]]]: ...  # (prompt, parts in which its last tokens lie)


RowT = TypeVar("RowT", bound=PackableRow)


class PackedRow(NamedTuple):
    """Prompts that share a trunk."""

    trunk: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    """What each prompt has after the trunk, at least one token."""
    prompts: tuple[int, ...]
    """Number of the prompt that each branch ends."""

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.trunk) + sum(map(len, self.branches))

    @property
    def parts(self) -> Sequence[RowPart]:
        """The trunk, and the branches in their order."""
        behind = len(self.trunk)
        return [RowPart(self.trunk, 0, ()), *(RowPart(branch, behind, (TRUNK,)) for branch in self.branches)]

    @property
    def ways(self) -> Sequence[tuple[int, tuple[int, ...]]]:
        """Each prompt's tokens: those of the trunk and of its branch."""
        return [(prompt, (TRUNK, branch)) for branch, prompt in enumerate(self.prompts, start=1)]


class Packed(NamedTuple):
    """R rows of T tokens, padded right."""

    ids: torch.Tensor  # (R, T) int64
    positions: torch.Tensor  # (R, T) int64, of the token in its own prompt
    part: (
        torch.Tensor
    )  # (R, T) int64: number of the token's part; padding is a part of its own behind all of them
    sees: torch.Tensor  # (R, P, P) bool: whether a part sees another one


def rows_of(prompts: Sequence[tuple[int, ...]], apart: bool = False) -> list[PackedRow]:
    """Prompts in tokens -> rows, longest first. `apart`: each in a row of its own."""
    order = sorted(range(len(prompts)), key=lambda i: (prompts[i], i))
    rows: list[PackedRow] = []
    group: list[int] = []
    trunk = 0
    for i in order:
        shared = min(trunk, _common(prompts[group[0]], prompts[i])) if group else 0
        longest = max((len(prompts[j]) for j in (*group, i)), default=0)
        size = shared + sum(len(prompts[j]) - shared for j in (*group, i))
        fits = not apart and shared >= LEAST_SHARED * len(prompts[i]) and size <= WIDEST * longest
        if group and not fits:
            rows.append(_row(prompts, group, trunk))
            group = []
        # the last token of a prompt is never of the trunk: each branch has an end to be read at
        trunk = min(shared, len(prompts[i]) - 1) if group else len(prompts[i]) - 1
        group.append(i)
    if group:
        rows.append(_row(prompts, group, trunk))
    return sorted(rows, key=lambda row: -row.size)


def _row(prompts: Sequence[tuple[int, ...]], group: Sequence[int], trunk: int) -> PackedRow:
    first = prompts[group[0]]
    return PackedRow(first[:trunk], tuple(prompts[i][trunk:] for i in group), tuple(group))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # slices compare in C; token by token this was the slowest part
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def batches(rows: Sequence[RowT], budget: int) -> Iterator[list[RowT]]:
    """Rows, longest first, in batches of at most `budget` tokens, padding counted; a longer row is alone."""
    batch: list[RowT] = []
    for row in rows:
        if batch and batch[0].size * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pack(rows: Sequence[PackableRow], device: Any) -> Packed:
    """Rows -> one batch."""
    import torch

    width, most = max(row.size for row in rows), max(len(row.parts) for row in rows) + 1
    ids, positions, part = (torch.zeros((len(rows), width), dtype=torch.long) for _ in range(3))
    sees = torch.eye(most, dtype=torch.bool).repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        begin = 0
        for own, (tokens, position, seen) in enumerate(row.parts):
            end = begin + len(tokens)
            ids[number, begin:end] = torch.tensor(tokens, dtype=torch.long)
            positions[number, begin:end] = torch.arange(position, position + len(tokens))
            part[number, begin:end] = own
            sees[number, own, list(seen)] = True
            begin = end
        part[number, begin:] = len(row.parts)
        sees[number, len(row.parts) :, TRUNK] = True  # padding sees something that is there
    return Packed(ids.to(device), positions.to(device), part.to(device), sees.to(device))


def places(rows: Sequence[PackableRow], keep: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(prompt, [(row, place), ...]) of each prompt's last `keep[prompt]` tokens, which may reach into the trunk."""
    for number, row in enumerate(rows):
        begins = [0, *accumulate(len(part.tokens) for part in row.parts)]
        for prompt, way in row.ways:
            own = [place for part in way for place in range(begins[part], begins[part + 1])]
            yield prompt, [(number, place) for place in own[-keep[prompt] :]]


def mask_of(
    part: torch.Tensor,
    positions: torch.Tensor,
    config: Any,
    dtype: torch.dtype,
    sees: torch.Tensor | None = None,
) -> Any:
    """The mask to give a model of `config`: one (R, 1, T, T), or one for each kind of layer;
    blocks of it for FlexAttention.

    sees: as in `Packed`; None: every part sees the trunk and itself. Padding sees the trunk and itself, so that no row
    of the softmax is empty. Raises ValueError for a model whose attention cannot be told such a mask.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if strange := kinds - {FULL, SLIDING}:
        raise ValueError(f"its layers are of kind {', '.join(sorted(strange))}")
    implementation = text._attn_implementation
    if implementation not in ("sdpa", "eager", FLEX):
        raise ValueError(f"its attention is {implementation}")

    def mask(window: int | None) -> Any:
        if implementation == FLEX:
            return _blocks(part, positions, window, sees)
        return _added(_seen(part, positions, window, sees), dtype)

    window = getattr(text, "sliding_window", None)
    if window is None or (kinds and SLIDING not in kinds):
        return mask(None)
    if not kinds:  # all layers slide
        return mask(window)
    return {FULL: mask(None), SLIDING: mask(window)}


def _seen(
    part: torch.Tensor, positions: torch.Tensor, window: int | None, sees: torch.Tensor | None
) -> torch.Tensor:
    """Which places (R, T, T) each place sees."""
    import torch

    width = part.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool, device=part.device).tril()
    if sees is None:
        seen = causal & ((part[:, None] == TRUNK) | (part[:, None] == part[..., None]))
    else:
        row = torch.arange(len(part), device=part.device)[:, None, None]
        seen = causal & sees[row, part[..., None], part[:, None]]
    return seen if window is None else seen & (positions[..., None] - positions[:, None] < window)


def _blocks(
    part: torch.Tensor, positions: torch.Tensor, window: int | None, sees: torch.Tensor | None
) -> Any:
    """The same for FlexAttention (Dong et al. 2024, arXiv 2412.05496): blocks that see nothing are passed over."""
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(row: torch.Tensor, _head: torch.Tensor, at: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        if sees is None:
            seen = (to <= at) & ((part[row, to] == TRUNK) | (part[row, to] == part[row, at]))
        else:
            seen = (to <= at) & sees[row, part[row, at], part[row, to]]
        return seen if window is None else seen & (positions[row, at] - positions[row, to] < window)

    rows, width = part.shape
    return create_block_mask(allowed, rows, None, width, width, device=part.device)


def _added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is to be added to attention scores: eager attention takes no other form, and SDPA both."""
    import torch

    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return hidden.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
