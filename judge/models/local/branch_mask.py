"""Many prompts that begin alike, read in one pass: what they share once, each one's own end as a branch after it.

    row        trunk | branch 1 | branch 2 | ...      positions of every branch start where the trunk ends
    attention  a token sees those before it in the trunk and in its own branch; in a sliding layer only those less
               than the window away, counted in positions

So every token sees just what it would see in a prompt of its own, and the pair of replies that eight principles are
asked about is read once and not eight times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Packed(NamedTuple):
    """R rows of T tokens, padded right."""

    ids: torch.Tensor  # (R, T) int64
    positions: torch.Tensor  # (R, T) int64, of the token in its own prompt
    part: torch.Tensor  # (R, T) int64: TRUNK, or the branch's number from 1; padding is a branch of its own


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


def batches(rows: Sequence[PackedRow], budget: int) -> Iterator[list[PackedRow]]:
    """Rows, longest first, in batches of at most `budget` tokens, padding counted; a longer row is alone."""
    batch: list[PackedRow] = []
    for row in rows:
        if batch and batch[0].size * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pack(rows: Sequence[PackedRow], device: Any) -> Packed:
    """Rows -> one batch."""
    import torch

    width = max(row.size for row in rows)
    ids, positions, part = (torch.zeros((len(rows), width), dtype=torch.long) for _ in range(3))
    for number, row in enumerate(rows):
        begin = len(row.trunk)
        ids[number, :begin] = torch.tensor(row.trunk, dtype=torch.long)
        positions[number, :begin] = torch.arange(begin)
        for branch, tokens in enumerate(row.branches, start=1):
            end = begin + len(tokens)
            ids[number, begin:end] = torch.tensor(tokens, dtype=torch.long)
            positions[number, begin:end] = torch.arange(len(row.trunk), len(row.trunk) + len(tokens))
            part[number, begin:end] = branch
            begin = end
        part[number, begin:] = len(row.branches) + 1
    return Packed(ids.to(device), positions.to(device), part.to(device))


def places(rows: Sequence[PackedRow], keep: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(prompt, [(row, place), ...]) of each prompt's last `keep[prompt]` tokens, which may reach into the trunk."""
    for number, row in enumerate(rows):
        begin = len(row.trunk)
        for prompt, tokens in zip(row.prompts, row.branches, strict=True):
            own = [*range(len(row.trunk)), *range(begin, begin + len(tokens))]
            yield prompt, [(number, place) for place in own[-keep[prompt] :]]
            begin += len(tokens)


def mask_of(part: torch.Tensor, positions: torch.Tensor, config: Any, dtype: torch.dtype) -> Any:
    """The mask to give a model of `config`: one (R, 1, T, T), or one for each kind of layer;
    blocks of it for FlexAttention.

    Padding sees the trunk and itself, so that no row of the softmax is empty. Raises ValueError for a model whose
    attention cannot be told such a mask.
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
            return _blocks(part, positions, window)
        return _added(_seen(part, positions, window), dtype)

    window = getattr(text, "sliding_window", None)
    if window is None or (kinds and SLIDING not in kinds):
        return mask(None)
    if not kinds:  # all layers slide
        return mask(window)
    return {FULL: mask(None), SLIDING: mask(window)}


def _seen(part: torch.Tensor, positions: torch.Tensor, window: int | None) -> torch.Tensor:
    """Which places (R, T, T) each place sees."""
    import torch

    width = part.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool, device=part.device).tril()
    seen = causal & ((part[:, None] == TRUNK) | (part[:, None] == part[..., None]))
    return seen if window is None else seen & (positions[..., None] - positions[:, None] < window)


def _blocks(part: torch.Tensor, positions: torch.Tensor, window: int | None) -> Any:
    """The same for FlexAttention (Dong et al. 2024, arXiv 2412.05496): blocks that see nothing are passed over."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(row: torch.Tensor, _head: torch.Tensor, at: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        seen = (to <= at) & ((part[row, to] == TRUNK) | (part[row, to] == part[row, at]))
        return seen if window is None else seen & (positions[row, at] - positions[row, to] < window)

    rows, width = part.shape
    return create_block_mask(sees, rows, None, width, width, device=part.device)


def _added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is to be added to attention scores: eager attention takes no other form, and SDPA both."""
    import torch

    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return hidden.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
