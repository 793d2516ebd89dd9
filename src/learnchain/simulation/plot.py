"""Draw a comparison as one SVG file, written by hand: one panel of bars for every figure, each with its own scale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

Report = dict[str, Any]
_COLOURS = ("#3b6ea5", "#c2593f", "#5f9e6e", "#8d6cab", "#b8860b", "#4a8f8f", "#8a8a8a", "#a85577")
_COLUMNS, _PANEL, _NAMES, _NUMBERS, _MARGIN = 2, 440, 112, 64, 16
_BAR, _PITCH, _HEAD, _GAP, _TOP, _FOOT = 14, 20, 42, 18, 64, 34
_INK, _PALE, _LINE = "#222", "#666", "#ccc"


@dataclass(frozen=True, slots=True)
class Figure:
    """Name one panel: what is drawn, in which unit, on a scale to `full` at least, and how a value is written."""

    title: str
    unit: str
    read: Callable[[Report], float]
    full: float
    form: str


_FIGURES = (
    Figure("Block interval, mean", "seconds", lambda each: each["intervals"]["mean_seconds"], 1.0, "{:.1f}"),
    Figure(
        "Block interval, variation", "% of the mean", lambda each: 100 * each["intervals"]["variation"], 1.0, "{:.1f}"
    ),
    Figure("Stale work", "% of all work", lambda each: 100 * each["stale_share"], 100.0, "{:.1f}"),
    Figure("Training share", "% of all miners' time", lambda each: 100 * each["training_share"], 100.0, "{:.1f}"),
    Figure(
        "Verification", "exact counts a block, all nodes", lambda each: each["evaluations_per_block"], 1.0, "{:.2f}"
    ),
    Figure(
        "Late solutions", "after the release, a block", lambda each: each["late_solutions_per_block"], 1.0, "{:.2f}"
    ),
    Figure("Forks", "blocks beside the branch", lambda each: each["forks"], 1.0, "{:.0f}"),
    Figure("Gini of rewards", "0 all alike, 1 one earns all", lambda each: each["reward_gini"], 1.0, "{:.3f}"),
)


def svg(result: dict[str, Any]) -> str:
    """Return the drawing; every bar carries its number, so that nothing has to be read off an axis."""
    reports: list[Report] = result["reports"]
    panel = _HEAD + _PITCH * len(reports) + _GAP
    rows = -(-len(_FIGURES) // _COLUMNS)
    width, height = _COLUMNS * _PANEL + _MARGIN, _TOP + rows * panel + _FOOT
    drawn = [
        _panel(figure, reports, _MARGIN + _PANEL * (place % _COLUMNS), _TOP + panel * (place // _COLUMNS))
        for place, figure in enumerate(_FIGURES)
    ]
    chosen = result["experiment"]
    title = ", ".join(each["engine"] for each in reports)
    setting = f"{chosen['blocks']} blocks, {chosen['miners']} equal miners, seed {chosen['seed']}, "
    setting += f"one-way delay {_delay(chosen)}, virtual time; training and hashing are real"
    foot = f"each panel has its own scale; digest {result['digest']}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    style = f'font-family="sans-serif" font-size="12" fill="{_INK}"><rect width="100%" height="100%" fill="white"/>'
    lines = (
        _text(_MARGIN, 26, f"Engines compared: {title}", 'font-size="16" font-weight="bold"'),
        _text(_MARGIN, 46, setting, f'fill="{_PALE}"'),
        *drawn,
        _text(_MARGIN, height - 14, foot, f'fill="{_PALE}" font-size="10"'),
    )
    return head + style + "".join(lines) + "</svg>\n"


def _panel(figure: Figure, reports: list[Report], left: int, top: int) -> str:
    """Return one figure of all engines; the longest bar ends before its number leaves the panel."""
    values = [float(figure.read(each)) for each in reports]
    longest, start = max(*values, figure.full), left + _NAMES
    room = _PANEL - _NAMES - _NUMBERS - _MARGIN
    parts = [
        f'<text x="{left}" y="{top + 14}"><tspan font-weight="bold">{escape(figure.title)}</tspan>'
        f'<tspan fill="{_PALE}">  {escape(figure.unit)}</tspan></text>'
    ]
    bottom = top + _HEAD - 16 + _PITCH * len(reports)
    parts.append(f'<path d="M{start} {top + _HEAD - 20}V{bottom}" stroke="{_LINE}"/>')
    for place, (report, value) in enumerate(zip(reports, values, strict=True)):
        upper, length = top + _HEAD - 16 + _PITCH * place, room * value / longest
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(_text(start - 8, upper + 11, report["engine"], 'text-anchor="end"'))
        parts.append(f'<rect x="{start}" y="{upper}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>')
        parts.append(_text(start + length + 6, upper + 11, figure.form.format(value), ""))
    return "".join(parts)


def _delay(chosen: dict[str, Any]) -> str:
    milliseconds = chosen["latency_milliseconds"]
    return f"{milliseconds / 1000:g} s in the mean" if milliseconds else "5 to 50 ms"


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {attributes}>{escape(text)}</text>'
