"""Show a local network while it runs: a live table on a terminal, plain lines anywhere else."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from learnchain.cli.observation import NodeView, Snapshot, View
from learnchain.cli.output import ether

_LEVELS = "▁▂▃▄▅▆▇█"
_CURVE_POINTS = 16
_SHOWN_BLOCKS = 8
_SHOWN_NOTES = 6


class Display(Protocol):
    """What the run tells a person."""

    def __enter__(self) -> Self:
        """Start showing."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Stop showing."""
        ...

    def note(self, text: str) -> None:
        """Say something that happened once."""
        ...

    def update(self, snapshot: Snapshot) -> None:
        """Show the state of all nodes."""
        ...


@dataclass(slots=True)
class PlainDisplay:
    """Print one line for each thing that happens."""

    console: Console
    _seen: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        return None

    def note(self, text: str) -> None:
        """Print the note."""
        self.console.print(text, markup=False, soft_wrap=True)

    def update(self, snapshot: Snapshot) -> None:
        """Print the blocks that are new."""
        for view in snapshot.blocks:
            # A winner reports its training a moment after its block is seen.
            if view["hash"] not in self._seen and (
                view["height"] < snapshot.blocks[-1]["height"] or view["empty"] or "training" in view
            ):
                self._seen.add(view["hash"])
                self.note(block_line(view))


def block_line(view: View) -> str:
    """Return one block as a line for people."""
    start = f"block {view['height']:>4}  {view['hash'][:12]}  {work_text(view):<17}"
    end = f"{view['interval_seconds']:.1f} s"
    if view["empty"]:
        return f"{start}  empty: no {view['missed']} in time  {end}"
    won = f"{start}  won by {view['winner'][:10]}"
    if not view["trained"]:
        return f"{won}  {hashing_text(view)}  {end}"
    return f"{won}  {accuracy_text(view)}  {view['epochs']} epochs  training {share_text(view)}  {end}"


def work_text(view: View) -> str:
    """Name what a height was about: a commissioned task, one of the chain's own, or no task but a hash puzzle."""
    if view["won_by"] == "hashing":
        return "hash puzzle"
    return view["task"]["name"] + (" (standing)" if view["is_standing"] else "")


def hashing_text(view: View) -> str:
    """Say what a solved puzzle cost: what its winner tells of its search, else what such a target costs on average."""
    search, expected = view.get("training", {}), view["puzzle"]["expected_attempts"]
    if "attempts" not in search:
        return f"by hashing, {expected:,} hashes expected"
    return f"by hashing: {search['attempts']:,} of {expected:,} hashes expected, {search['search_seconds']:.1f} s"


def accuracy_text(view: View) -> str:
    """Return an accuracy as the exact counts and a decimal."""
    correct, total = view["accuracy"]["correct"], view["accuracy"]["total"]
    return f"{correct}/{total} = {correct / total:.4f}"


def share_text(view: View) -> str:
    """Return the training share in per cent; a dash when the winner's node has forgotten it."""
    share = view.get("training", {}).get("training_share")
    return "-" if share is None else f"{100 * share:.0f} %"


def sparkline(values: list[float]) -> str:
    """Return values as bars between their own extremes."""
    shown = values[-_CURVE_POINTS:]
    if not shown:
        return ""
    low, width = min(shown), max(shown) - min(shown)
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[top if width == 0 else round((each - low) / width * top)] for each in shown)


@dataclass(slots=True)
class LiveDisplay:
    """Draw header, phase, nodes with their curves, blocks and escrow; redrawn in place."""

    console: Console
    header: str
    _notes: list[str] = field(default_factory=list)
    _snapshot: Snapshot | None = None
    _live: Live | None = None

    def __enter__(self) -> Self:
        self._live = Live(console=self.console, refresh_per_second=4, get_renderable=self.draw)
        self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Keep the note among the last few."""
        self._notes = [*self._notes, text][-_SHOWN_NOTES:]

    def update(self, snapshot: Snapshot) -> None:
        """Take the new state; the next redraw shows it."""
        self._snapshot = snapshot

    def draw(self) -> RenderableType:
        """Return the whole picture."""
        parts: list[RenderableType] = [Text(self.header, style="bold")]
        if self._snapshot is not None:
            parts += [_phase(self._snapshot), _nodes(self._snapshot), _blocks(self._snapshot), _escrow(self._snapshot)]
        parts += [Text(each, style="dim") for each in self._notes]
        return Panel(Group(*parts), title="learnchain", border_style="cyan")


def _phase(snapshot: Snapshot) -> RenderableType:
    leader = snapshot.leader
    if leader is None or leader.status is None:
        return Text("no node answers yet")
    deciding, phase = leader.status["deciding"], leader.status["phase"]
    whole = deciding["commitment_milliseconds"] - deciding["start_milliseconds"]
    length = whole if phase["name"] in ("training", "hashing") else 5_000
    left = min(phase["ends_in_milliseconds"], length)
    row = Table.grid(padding=(0, 1))
    task = "hash puzzle" if phase["name"] == "hashing" else f"task {deciding['name']}{_standing(deciding)}"
    text = f"height {deciding['height']}  {task}  phase {phase['name']}  at most {left / 1000:.1f} s left"
    row.add_row(text, ProgressBar(total=max(1, length), completed=length - left, width=30))
    return row


def _standing(deciding: View) -> str:
    return " (standing: nobody commissioned one)" if deciding["is_standing"] else ""


def _nodes(snapshot: Snapshot) -> RenderableType:
    table = Table(expand=True, box=None, header_style="bold")
    for title in ("node", "role", "head", "weight", "balance (ether)", "training", "loss", "accuracy"):
        table.add_column(title, no_wrap=True)
    for node in snapshot.nodes:
        table.add_row(*_node_cells(node))
    return table


def _node_cells(node: NodeView) -> tuple[str, ...]:
    if node.status is None:
        return (node.name, node.role, "does not answer", "", ether(node.balance_wei), "", "", "")
    curve = node.status["curve"]
    points = [each for each in curve if each["height"] == curve[-1]["height"]] if curve else []
    progress, loss, accuracy = "", "", ""
    if points:
        last = points[-1]
        progress = f"epoch {min(last['epoch'] + 1, last['epochs'])}/{last['epochs']}"
        loss = f"{sparkline([each['loss'] for each in points])} {last['loss']:.3f}"
        accuracy = f"{sparkline([each['accuracy'] for each in points])} {last['accuracy']:.3f}"
    head = node.status["head"]
    place = f"{head['height']} {head['hash'][:8]}"
    return (node.name, node.role, place, str(head["weight"]), ether(node.balance_wei), progress, loss, accuracy)


def _blocks(snapshot: Snapshot) -> RenderableType:
    table = Table(expand=True, box=None, header_style="bold")
    for title in ("height", "task", "winner", "result", "epochs", "training share", "interval"):
        table.add_column(title, no_wrap=True)
    for view in reversed(snapshot.blocks[-_SHOWN_BLOCKS:]):
        names = {each.address: each.name for each in snapshot.nodes}
        winner = names.get(view.get("winner", ""), view.get("winner", "")[:10])
        result = f"empty: no {view['missed']}" if view["empty"] else ""
        result = result or (accuracy_text(view) if view["trained"] else hashing_text(view))
        table.add_row(
            str(view["height"]),
            work_text(view),
            winner,
            result,
            str(view.get("epochs", "")),
            share_text(view) if view["trained"] else "",
            f"{view['interval_seconds']:.1f} s",
        )
    return table


def _escrow(snapshot: Snapshot) -> RenderableType:
    ledger = snapshot.ledger
    if not ledger:
        return Text("")
    amounts = "  ".join(f"{name} {ether(ledger[name + '_wei'])}" for name in ("escrowed", "paid", "refunded", "locked"))
    return Text(f"escrow (ether): {amounts}   minted {ledger['minted_gwei'] / 10**9:,.4f}")
