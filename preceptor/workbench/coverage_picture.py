"""Coverage as a picture: tags by principles, each cell with its count, the empty and the undecided ones marked."""

from __future__ import annotations

from html import escape

from preceptor.judge.dataset.coverage import ALL, UNTAGGED, CoverageCell, CoverageFigures
from preceptor.prompts.shown import one_line

WIDTH, HEIGHT, MARGIN, HEAD = 110, 34, 170, 90
"""Pixels of a cell, of the column of tags, of the row of principles."""
LONGEST = 24
"""Letters of a name that are shown."""
FULL, NONE, TIES, INK, PAPER = "#2457c5", "#c0392b", "#c2731a", "#1c2430", "#ffffff"


def picture(found: CoverageFigures) -> str:
    """An SVG text that stands by itself. A cell is the darker the more pairs its principle told apart, or, without
    labels, the more prompts it has."""
    cells = {(cell["tag"], cell["principle"]): cell for cell in found["cells"]}
    tags = list(dict.fromkeys(tag for tag, _ in cells))
    principles = list(dict.fromkeys(principle for _, principle in cells))
    most = max((_count(cell) or 0 for cell in cells.values()), default=0)
    ties = {(tag, principle) for tag, principle in found["all_tie"]}
    parts = []
    for column, principle in enumerate(principles):
        x = MARGIN + WIDTH * column + WIDTH // 2
        turned = f'transform="rotate(-20 {x} {HEAD - 10})"'
        parts.append(
            f'<text x="{x}" y="{HEAD - 10}" text-anchor="middle" {turned}>{_shown(principle)}</text>'
        )
    for row, tag in enumerate(tags):
        y = HEAD + HEIGHT * row
        name = {ALL: "all", UNTAGGED: "(no tag)"}.get(tag, tag)
        parts.append(
            f'<text x="{MARGIN - 10}" y="{y + HEIGHT // 2 + 4}" text-anchor="end">{_shown(name)}</text>'
        )
        for column, principle in enumerate(principles):
            if (cell := cells.get((tag, principle))) is not None:
                parts += _drawn(cell, MARGIN + WIDTH * column, y, most, (tag, principle) in ties)
    what = "prompts" if found["labels"] is None else "pairs told apart of those judged"
    below = HEAD + HEIGHT * len(tags) + 24
    key = f"{what}; red: no prompt; orange: judged, and only ties; –: not known"
    parts.append(f'<text x="10" y="{below}">{_shown(found["constitution"], 80)}: {key}</text>')
    width, height = max(MARGIN + WIDTH * len(principles), 620) + 20, below + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="Coverage" font-family="sans-serif" font-size="12" fill="{INK}">\n'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _count(cell: CoverageCell) -> int | None:
    return cell["prompts"] if cell["judged"] is None else cell["told_apart"]


def _drawn(cell: CoverageCell, x: int, y: int, most: int, ties: bool) -> list[str]:
    count = _count(cell)
    share = (count or 0) / most if most else 0.0
    edge = NONE if not cell["prompts"] else TIES if ties else "none"
    ink = PAPER if share > 0.5 else INK
    words = str(cell["prompts"]) if cell["judged"] is None else f"{cell['told_apart']} of {cell['judged']}"
    box = f'x="{x + 2}" y="{y + 2}" width="{WIDTH - 4}" height="{HEIGHT - 4}"'
    middle = f'x="{x + WIDTH // 2}" y="{y + HEIGHT // 2 + 4}" text-anchor="middle"'
    return [
        f'<rect {box} fill="{FULL}" fill-opacity="{0.06 + 0.94 * share:.2f}" stroke="{edge}" stroke-width="2"/>',
        f'<text {middle} fill="{ink}">{words}</text>',
    ]


def _shown(text: str, longest: int = LONGEST) -> str:
    plain = one_line(text)
    return escape(plain if len(plain) <= longest else f"{plain[: longest - 1]}…")
