"""A picture of how far a judge's probabilities are to be believed."""

from __future__ import annotations

from collections.abc import Sequence

from preceptor.judge.figures import ReliabilityBin


def picture(bins: Sequence[ReliabilityBin]) -> str:
    """A reliability diagram as SVG: confidence to the right, share right upwards, a circle's area its labels.

    bins: as in the figures of an audit.
    """
    left, top, size = 60, 20, 300
    most = max((one["n"] for one in bins), default=1)

    def at(confidence: float, right: float) -> tuple[float, float]:
        return left + (confidence - 0.5) * 2 * size, top + (1 - right) * size

    marks = []
    for one in bins:
        x, y = at(one["confidence"], one["right"])
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 + 10 * (one["n"] / most) ** 0.5:.1f}" fill="#2563eb" '
            f'fill-opacity="0.6"><title>{one["n"]} labels: confidence {one["confidence"]:.2f}, right {one["right"]:.2f}'
            "</title></circle>"
        )
    ticks = [
        f'<text x="{at(share, 0)[0]:.0f}" y="{top + size + 18}" text-anchor="middle">{share:.1f}</text>'
        for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    ] + [
        f'<text x="{left - 8}" y="{at(0.5, share)[1] + 4:.0f}" text-anchor="end">{share:.2f}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    (x0, y0), (x1, y1) = at(0.5, 0.5), at(1.0, 1.0)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + size + 20} {top + size + 45}" '
            'width="380" font-family="sans-serif" font-size="12" fill="#333">',
            f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="#fff" stroke="#bbb"/>',
            f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="#999" stroke-dasharray="4 4"/>',
            *ticks,
            f'<text x="{left + size / 2}" y="{top + size + 38}" text-anchor="middle">confidence of the label</text>',
            f'<text transform="translate(14 {top + size / 2}) rotate(-90)" text-anchor="middle">'
            "share that agrees with gold</text>",
            *marks,
            "</svg>",
            "",
        ]
    )
