"""Draw what audits find and cost against k as one SVG file: `python -m learnchain.benchmarks.detection_plot IN OUT`.

IN is the answer of `learnchain bench detection --json`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 420, 60, 56, 24, 48
_COLOURS = {"found": "#3b6ea5", "exact": "#c2593f", "cost": "#5f9e6e"}
_NAMES = {"found": "found, measured", "exact": "found, expected", "cost": "cost, share of training"}


def read_curves(result: dict[str, Any]) -> tuple[int, dict[str, list[tuple[int, float]]]]:
    """Return N and, for each curve, its points over k."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in _COLOURS}
    segments = 1
    for figure in result["figures"]:
        matched = re.match(r"k = (\d+) of (\d+) segments", figure["what"])
        if matched is None:
            continue
        drawn, segments = int(matched[1]), int(matched[2])
        if figure["what"].endswith("cost"):
            found["cost"].append((drawn, float(figure["value"])))
        else:
            found["found"].append((drawn, float(figure["value"])))
            found["exact"].append((drawn, float(figure["against"].removeprefix("exact "))))
    return segments, found


def svg(result: dict[str, Any]) -> str:
    """Return the drawing: lines for what is expected and measured, every measured point with its number."""
    segments, found = read_curves(result)
    highest = max(1.0, *(value for points in found.values() for _, value in points))

    def place(drawn: int, value: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * drawn / segments
        return across, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / highest

    rows = [f'<text x="{_LEFT}" y="24">{escape(_title(result, segments))}</text>', _axes(segments, highest, place)]
    for number, (name, points) in enumerate(found.items()):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        dashes = ' stroke-dasharray="5 4"' if name == "exact" else ""
        rows.append(f'<polyline points="{line}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2"{dashes}/>')
        across = _LEFT + 220 * number
        rows.append(f'<text x="{across}" y="44" fill="{_COLOURS[name]}">{escape(_NAMES[name])}</text>')
        if name != "exact":
            for point in points:
                x, y = place(*point)
                rows.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOURS[name]}"/>')
                rows.append(f'<text x="{x + 4:.1f}" y="{y + 13:.1f}" font-size="9">{point[1]:.3f}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
    return head + 'font-size="12"><rect width="100%" height="100%" fill="white"/>' + "".join(rows) + "</svg>\n"


def _title(result: dict[str, Any], segments: int) -> str:
    return f"Audits of k of {segments} segments, two of them forged; {result['challenges']} challenges for each k"


def _axes(segments: int, highest: float, axes: Any) -> str:
    left, bottom = axes(0, 0.0)
    right, top = axes(segments, highest)
    lines = f'<path d="M{left},{top} V{bottom} H{right}" fill="none" stroke="#444"/>'
    for drawn in range(0, segments + 1, max(1, segments // 10)):
        x, _ = axes(drawn, 0.0)
        lines += f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{drawn}</text>'
    for value in (0.0, 0.5, 1.0):
        _, y = axes(0, value)
        lines += f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>'
    return lines + f'<text x="{right:.1f}" y="{bottom + 36:.1f}" text-anchor="end">k</text>'


if __name__ == "__main__":
    answer = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(svg(answer["data"]["results"][0]))
