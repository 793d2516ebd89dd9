"""Write what vectors share once: names for values, the nearest one and its changes; and put them together again.

A folder's `given.json` holds named values. Wherever a value can stand, these stand for one:

- `"$name"`: the value of that name; `"$zero"`: 32 zero bytes;
- in a list, `"$name[2:5]"`: items 2 to 4 of that list, and `"$zero*31"`: that many items;
- `{"like": "$name", "changes": {"path.to[3].field": value}}`: the value of that name with parts replaced.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from learnchain_conformance.vector_json import Listing, Record

ZERO = "0x" + "00" * 32


NAMED_FROM_BYTES = 160
"""A shorter value is written out where it stands."""


LIKE_FROM_BYTES = 240
"""A shorter value is not worth a comparison."""


WIDTH = 116


_SPLICE = re.compile(r"\$(\w+)(?:\[(\d*):(\d*)\]|\*(\d+))")


_PATH_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


# --- reading -------------------------------------------------------------------------------------------------------


class GivenValues:
    """Put values together from the named ones of a folder; each name is put together once."""

    def __init__(self, written: Mapping[str, Any]) -> None:
        """Start with the content of a `given.json`."""
        self._written = written
        self._values: dict[str, Any] = {"zero": ZERO}

    def __contains__(self, name: str) -> bool:
        """Return whether a value has this name."""
        return name in self._written

    def value(self, name: str) -> Any:
        """Return the value of a name."""
        if name not in self._values:
            self._values[name] = self.expand(self._written[name])
        return self._values[name]

    def expand(self, written: Any) -> Any:
        """Return a value with every reference and every change carried out; nothing shared is altered."""
        if isinstance(written, str):
            return self.value(written[1:]) if written.startswith("$") else written
        if isinstance(written, list):
            return [item for each in written for item in self._expand_item(each)]
        if not isinstance(written, dict):
            return written
        if set(written) == {"like", "changes"}:
            return self.change(self.expand(written["like"]), written["changes"])
        return {key: self.expand(each) for key, each in written.items()}

    def change(self, value: Any, changes: Mapping[str, Any]) -> Any:
        """Return a value with the parts at these paths replaced."""
        for path, each in changes.items():
            parts = [name or int(index) for name, index in _PATH_PART.findall(path)]
            value = _replace_part(value, parts, self.expand(each))
        return value

    def _expand_item(self, written: Any) -> list[Any]:
        found = _SPLICE.fullmatch(written) if isinstance(written, str) else None
        if found is None:
            return [self.expand(written)]
        name, first, end, times = found.groups()
        if times:
            return [self.value(name)] * int(times)
        return self.value(name)[int(first) if first else None : int(end) if end else None]


def _replace_part(value: Any, parts: list[Any], new: Any) -> Any:
    """Return a copy of a value along a path, with a new value at its end."""
    if not parts:
        return new
    copy = value.copy()
    copy[parts[0]] = _replace_part(value[parts[0]], parts[1:], new)
    return copy


# --- writing -------------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Node:
    """Hold one of the different values of a folder; equal values are one node, so that `is` compares them."""

    kind: str
    content: Any
    size: int = 0
    parents: int = 0
    name: str = ""
    number: int = 1 << 60
    written: Any = None


@dataclass(slots=True)
class SharedValues:
    """Collect the values of a folder, name what occurs twice, and write values by these names."""

    _nodes: dict[str, _Node] = field(default_factory=dict)
    _named: list[_Node] = field(default_factory=list)
    _by_kind: dict[str, list[_Node]] = field(default_factory=dict)
    _sequences: dict[str, list[_Node]] = field(default_factory=dict)

    def add(self, tree: Any) -> None:
        """Count a value that a case states, with all its parts."""
        self._intern(tree)[0].parents += 1

    def name_value(self, name: str, tree: Any) -> None:
        """Give a value a name of its own, unless it has one."""
        node, _ = self._intern(tree)
        if not node.name:
            node.name = name

    def add_walks(self, named: Mapping[str, list[Any]], walks: Mapping[str, list[Any]]) -> None:
        """Name lists of events, and beginnings that two others have in common and no named list has.

        The longest come first, so that a shorter one is written by them.
        """
        self._sequences = {name: [self._intern(each)[0] for each in events] for name, events in named.items()}
        nodes = {name: [self._intern(each)[0] for each in events] for name, events in walks.items()}
        order = sorted(nodes, key=lambda name: (-len(nodes[name]), name))
        for name in order:
            covered = self._find_beginning(nodes[name])[1]
            longest = max((_common(nodes[name], nodes[other]) for other in order if other != name), default=0)
            if longest > covered + 1:
                self._sequences[name] = nodes[name][:longest]
        whole = self._sequences
        self._sequences = {}
        for name, events in (*whole.items(), *nodes.items()):
            for each in events[self._find_beginning(events)[1] :]:
                each.parents += 1
            if name in whole and name not in self._sequences:
                self._sequences[name] = events
        self._sequences = whole

    def given(self) -> dict[str, Any]:
        """Name what occurs more than once and return every named value as it is written."""
        self._assign_names()
        values = {each.name: self._write(each, each.number) for each in self._named}
        done: dict[str, list[_Node]] = {}
        waiting, self._sequences = self._sequences, done
        for name, nodes in waiting.items():
            values[name] = self._write_events(nodes)
            done[name] = nodes
        return values

    def write(self, tree: Any) -> Any:
        """Return a value as it is written by names and changes."""
        return self._refer(self._intern(tree)[0])

    def write_events(self, trees: list[Any]) -> list[Any]:
        """Return a list of events as it is written, by a named beginning where one is its own."""
        return self._write_events([self._intern(each)[0] for each in trees])

    # Collecting.

    def _intern(self, tree: Any) -> tuple[_Node, str]:
        """Return the one node of a value and its text, and count each part once for each value that it is in."""
        if isinstance(tree, dict):
            members = {key: self._intern(each) for key, each in tree.items()}
            text = "{" + ",".join(f"{key}:{part}" for key, (_, part) in members.items()) + "}"
            content: Any = {key: node for key, (node, _) in members.items()}
        elif isinstance(tree, list):
            items = [self._intern(each) for each in tree]
            text = "[" + ",".join(part for _, part in items) + "]"
            content = [node for node, _ in items]
        else:
            if isinstance(tree, str) and tree.startswith("$"):
                raise ValueError(f"{tree} looks like a name")
            text, content = json.dumps(tree), tree
        kind = tree.kind if isinstance(tree, Record | Listing) else ""
        text = text if len(text) < 64 or isinstance(content, str) else f"{len(text)}:{_hash_text(text)}"
        node = self._nodes.get(kind + text)
        if node is None:
            node = self._nodes[kind + text] = _Node(kind, content)
            parts = _parts(node)
            keys = sum(len(key) + 3 for key in tree) if isinstance(tree, dict) else 0
            node.size = keys + 2 + sum(each.size + 1 for each in parts) if parts else len(text)
            for each in parts:
                each.parents += 1
        return node, text

    def _assign_names(self) -> None:
        """Number the shared values so that each comes after its parts."""
        taken = {each.name for each in self._nodes.values()} | set(self._sequences)
        numbers: Counter[str] = Counter()
        # A node is made after its parts, so the order of making is the order of numbers.
        for node in self._nodes.values():
            is_shared = node.kind and node.parents > 1 and node.size >= NAMED_FROM_BYTES
            if not node.name and not is_shared:
                continue
            while not node.name or node.name in taken - {node.name}:
                stem = _snake(node.kind)
                numbers[stem] += 1
                candidate = f"{stem}_{numbers[stem]}"
                if candidate not in taken:
                    node.name = candidate
            taken.add(node.name)
            node.number = len(self._named)
            self._named.append(node)
            self._by_kind.setdefault(node.kind, []).append(node)

    # Writing values.

    def _refer(self, node: _Node, limit: int = 1 << 60) -> Any:
        return f"${node.name}" if node.name and node.number < limit else self._write(node, limit)

    def _write(self, node: _Node, limit: int) -> Any:
        """Return a value as it is written where only names before a limit may stand."""
        if node.written is None:
            node.written = self._write_nearest(node, limit, self._write_plain(node, limit))
        return node.written

    def _write_plain(self, node: _Node, limit: int) -> Any:
        if isinstance(node.content, dict):
            return {key: self._refer(each, limit) for key, each in node.content.items()}
        if isinstance(node.content, list):
            return _join_zeros([self._refer(each, limit) for each in node.content])
        return "$zero" if node.content == ZERO else node.content

    def _write_nearest(self, node: _Node, limit: int, plain: Any) -> Any:
        """Return the changes to the nearest named value of the same kind, where that is a third shorter."""
        if not node.kind or node.size < LIKE_FROM_BYTES or not isinstance(node.content, dict):
            return plain
        best, least = plain, 2 * len(json.dumps(plain)) // 3
        for other in self._by_kind.get(node.kind, []):
            if other.number >= min(limit, node.number):
                continue
            changes: dict[str, Any] = {}
            self._compare(node, other, "", changes, limit)
            size = len(json.dumps(changes)) + 30
            if changes and size < least:
                best, least = {"like": f"${other.name}", "changes": changes}, size
        return best

    def _compare(self, node: _Node, other: _Node, path: str, changes: dict[str, Any], limit: int) -> None:
        """Note what to replace in the other value to get this one."""
        if node is other:
            return
        mine, others = node.content, other.content
        if path and node.name and node.number < limit:
            changes[path] = f"${node.name}"
        elif isinstance(mine, dict) and isinstance(others, dict) and list(mine) == list(others):
            for key, each in mine.items():
                self._compare(each, others[key], f"{path}.{key}" if path else key, changes, limit)
        elif isinstance(mine, list) and isinstance(others, list) and len(mine) == len(others):
            for index, each in enumerate(mine):
                self._compare(each, others[index], f"{path}[{index}]", changes, limit)
        else:
            changes[path] = self._refer(node, limit)

    # Writing lists of events.

    def _find_beginning(self, nodes: list[_Node]) -> tuple[str, int]:
        """Return the named list that shares the longest beginning with this one, and how long that is."""
        lengths = [(name, _common(nodes, known)) for name, known in self._sequences.items()]
        name, length = max(lengths, key=lambda each: each[1], default=("", 0))
        return (name, length) if length else ("", 0)

    def _write_events(self, nodes: list[_Node]) -> list[Any]:
        name, covered = self._find_beginning(nodes)
        if not name:
            return [self._refer(each) for each in nodes]
        return [f"${name}[:{covered}]", *(self._refer(each) for each in nodes[covered:])]


def _hash_text(text: str) -> str:
    """Return a short name of a long text that is equal in every process."""
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(node: _Node) -> list[_Node]:
    if isinstance(node.content, dict):
        return list(node.content.values())
    return node.content if isinstance(node.content, list) else []


def _common(left: list[_Node], right: list[_Node]) -> int:
    """Return how many items two lists begin with alike."""
    for index, (mine, other) in enumerate(zip(left, right, strict=False)):
        if mine is not other:
            return index
    return min(len(left), len(right))


def _join_zeros(items: list[Any]) -> list[Any]:
    """Return a list in which runs of zero hashes are one item."""
    joined: list[Any] = []
    run = 0
    for each in [*items, None]:
        if each == "$zero":
            run += 1
            continue
        joined += ["$zero"] if run == 1 else [f"$zero*{run}"] if run else []
        run = 0
        joined.append(each)
    return joined[:-1]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def lift_changes(written: Any, path: str, changes: dict[str, Any]) -> Any:
    """Move the changes within an argument to the case, by their whole path; return what they are changes of."""
    if isinstance(written, dict) and set(written) == {"like", "changes"}:
        changes.update({f"{path}.{part}": each for part, each in written["changes"].items()})
        return written["like"]
    if isinstance(written, dict):
        return {key: lift_changes(each, f"{path}.{key}", changes) for key, each in written.items()}
    if isinstance(written, list) and not any(isinstance(each, str) and _SPLICE.fullmatch(each) for each in written):
        return [lift_changes(each, f"{path}[{index}]", changes) for index, each in enumerate(written)]
    return written


# --- layout --------------------------------------------------------------------------------------------------------


def lay_out(value: Any, indent: int = 0) -> str:
    """Return JSON of which short objects and lists stand on one line, and numbers side by side."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or isinstance(value, str | int | float):
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {lay_out(each, indent + 1)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(_fill_lines(value, pad)) + "\n" + " " * indent + "]"


def _fill_lines(items: list[Any], pad: str) -> list[str]:
    lines: list[str] = []
    is_joinable = False
    for each in items:
        text = lay_out(each, len(pad))
        is_short = not isinstance(each, dict) and "\n" not in text
        if is_short and is_joinable and len(lines[-1]) + len(text) + 2 <= WIDTH:
            lines[-1] += f", {text}"
        else:
            lines.append(pad + text)
        is_joinable = is_short
    return lines
