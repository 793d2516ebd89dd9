"""Draw the live display of a real run as SVG: `python benchmarks/live_display.py docs/figures/live.svg`.

A network of real processes is started as `learnchain up` does, four blocks are mined by training, and the table is kept
as it stands while the fifth height is trained. Nothing is posed: every number is the run's.
"""

import io
import re
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from learnchain.tasks.built_in_tasks import BUILT_IN
from rich.console import Console

from learnchain.cli.display import LiveDisplay
from learnchain.cli.local_run import LocalRun, LocalRunPlan
from learnchain.cli.observation import Snapshot

BLOCKS, TRAINED_POINTS, WIDTH = 4, 12, 140
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Kept:
    """Stand for a live display and keep the picture that shows most: enough blocks, and curves that have begun."""

    def __init__(self, header: str) -> None:
        self._display = LiveDisplay(Console(record=True, width=WIDTH, file=io.StringIO()), header)
        self.picture = ""

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_raised: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Keep a note."""
        self._display.note(text)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the state, once there is something to see."""
        self._display.update(snapshot)
        curves = [each.status["curve"] for each in snapshot.nodes if each.status is not None and each.status["curve"]]
        height = max((curve[-1]["height"] for curve in curves), default=0)
        points = [point for curve in curves for point in curve if point["height"] == height]
        busy = len(points) >= TRAINED_POINTS and height > len(snapshot.blocks)
        if busy and len(snapshot.won_blocks) >= BLOCKS - 1:
            self._display.console.print(self._display.draw())
            picture = self._display.console.export_svg(title="learnchain up --task digits")
            # A picture in a repository loads nothing from elsewhere: the reader's own fixed-width font will do.
            self.picture = FONT.sub("", picture)


def main() -> None:
    """Run the network and write the picture."""
    with TemporaryDirectory(prefix="learnchain-") as directory:
        wanted = LocalRunPlan(Path(directory) / "network", "dlbc", 3, ("digits",), BLOCKS + 1, rpc_port=0)
        run = LocalRun(wanted, time.monotonic())
        network = run.provision_network()
        kept = Kept(f"RPC http://127.0.0.1:8545   consensus {network.consensus}   data .learnchain/local")
        run.run(network, kept, [BUILT_IN["digits"]])
    if not kept.picture:
        raise SystemExit("the run ended before there was anything to see; is the machine overloaded?")
    Path(sys.argv[1]).write_text(kept.picture)


if __name__ == "__main__":
    main()
