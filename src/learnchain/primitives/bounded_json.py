"""Parse JSON from strangers: nesting is bounded before the parser sees it.

The parser recurses in C. The embedded execution engine raises Python's recursion limit for the whole process, so a
deeply nested text would no longer raise an error but overflow the stack and end the process.
"""

import json
import re
from typing import Any

MAXIMUM_DEPTH = 64
"""Deeper than anything that the interfaces or files of this chain hold."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def parse_json(data: bytes | str, maximum_depth: int = MAXIMUM_DEPTH, **hooks: Any) -> Any:
    """Return the value of a JSON text; raise ValueError when it is none, or nested deeper than the bound.

    `hooks` are those of `json.loads`.
    """
    raw = data.encode() if isinstance(data, str) else data
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if match.group() in b"[{" else -1
        if depth > maximum_depth:
            raise ValueError(f"nested deeper than {maximum_depth}")
    return json.loads(raw, **hooks)
