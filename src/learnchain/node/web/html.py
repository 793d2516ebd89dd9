"""Build HTML from parts that escape themselves: whatever a stranger wrote into the chain stays text."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""Nothing is loaded but our own style sheet, nothing runs, nobody frames the page."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ROOT = "/explorer"
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem;color:#1c2430;
background:#fff}nav a{margin-right:1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid
#d9dee6;vertical-align:top;overflow-wrap:anywhere}th{font-weight:600;white-space:nowrap}
code{font:13px ui-monospace,monospace}.bad{color:#a1160a;font-weight:600}.good{color:#0b6b2e}input{width:60%}
@media(prefers-color-scheme:dark){body{color:#e3e7ee;background:#12161c}a{color:#8ab4f8}th,td{border-color:#2c3440}}
"""
SHORT = 18


@dataclass(frozen=True, slots=True)
class Markup:
    """Hold text that is HTML already; everything else is escaped."""

    text: str


def escaped(value: Any) -> str:
    """Return a value as HTML text; only `Markup` passes unchanged."""
    return value.text if isinstance(value, Markup) else html.escape(str(value), quote=True)


def link(path: str, label: Any) -> Markup:
    """Return a link to another page of the explorer; `path` is made of our own words, hex and numbers."""
    target = f"{ROOT}{path}" if path.startswith("?") else f"{ROOT}/{path}"
    return Markup(f'<a href="{html.escape(target, quote=True)}">{escaped(label)}</a>')


def code(value: Any) -> Markup:
    """Return a value in the type of hashes."""
    return Markup(f"<code>{escaped(value)}</code>")


def mark(good: bool, value: Any) -> Markup:
    """Return a value that is good or bad news."""
    return Markup(f'<span class="{"good" if good else "bad"}">{escaped(value)}</span>')


def pairs(rows: Iterable[tuple[str, Any]]) -> Markup:
    """Return a table of names and values."""
    lines = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in rows)
    return Markup(f"<table>{lines}</table>")


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Return a table with a head; an empty one says so."""
    lines = ["".join(f"<td>{escaped(cell)}</td>" for cell in row) for row in rows]
    if not lines:
        return Markup("<p>none</p>")
    head = "".join(f"<th>{escaped(title)}</th>" for title in titles)
    return Markup(f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")


def section(title: str, content: Markup) -> Markup:
    """Return a part of a page under its title."""
    return Markup(f"<h2>{escaped(title)}</h2>{content.text}")


def page(title: str, parts: Iterable[Markup]) -> str:
    """Return a whole page with the way back and the search field."""
    search = (
        f'<form action="{ROOT}/find"><input name="q" aria-label="height, hash or address"> <button>Find</button></form>'
    )
    navigation = (
        f'<nav><a href="{ROOT}">Blocks</a><a href="{ROOT}/tasks">Tasks</a><a href="{ROOT}/round">Round</a>'
        f'<a href="{ROOT}/disputes">Disputes</a></nav>'
    )
    body = "".join(part.text for part in parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escaped(title)}</title>'
    style = f'<link rel="stylesheet" href="{ROOT}/style.css">'
    return (
        f'<!doctype html><html lang="en"><head>{head}{style}</head>'
        f"<body>{navigation}{search}<h1>{escaped(title)}</h1>{body}</body></html>\n"
    )
