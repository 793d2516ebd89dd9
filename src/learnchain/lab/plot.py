"""Draw a comparison as one SVG file, written by hand: bars of the figures that differ most between protocols."""

from typing import Any
from xml.sax.saxutils import escape

_FIGURES = (
    ("interval variation", "variation"),
    ("stale share of work", "stale_share"),
    ("training share of time", "training_share"),
    ("Gini of rewards", "reward_gini"),
)
_COLOURS = ("#3b6ea5", "#c2593f", "#5f9e6e", "#8d6cab")
_WIDTH, _BAR, _GAP, _LEFT = 720, 18, 26, 210


def svg(result: dict[str, Any]) -> str:
    """Return the drawing; every bar carries its number, so that nothing has to be read off an axis."""
    reports = result["reports"]
    rows: list[str] = []
    top = 60
    for title, key in _FIGURES:
        values = [float(each["intervals"][key] if key == "variation" else each[key]) for each in reports]
        longest = max(*values, 1.0) if len(values) > 1 else max(values[0], 1.0)
        rows.append(f'<text x="16" y="{top + 14}" font-weight="bold">{escape(title)}</text>')
        for index, (report, value) in enumerate(zip(reports, values, strict=True)):
            length = (_WIDTH - _LEFT - 90) * value / longest
            middle = top + 13
            rows.append(f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(report["engine"])}</text>')
            colour = _COLOURS[index % len(_COLOURS)]
            rows.append(f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR - 4}" fill="{colour}"/>')
            rows.append(f'<text x="{_LEFT + length + 6:.1f}" y="{middle}">{value:.4f}</text>')
            top += _BAR
        top += _GAP
    chosen = result["experiment"]
    heading = f"{chosen['blocks']} blocks, {chosen['miners']} miners, seed {chosen['seed']}, digest "
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" font-family="sans-serif" '
    title = f'<text x="16" y="28">{escape(heading + result["digest"][:16])}</text>'
    return head + 'font-size="12"><rect width="100%" height="100%" fill="white"/>' + title + "".join(rows) + "</svg>\n"
