"""Accuracy growing over the blocks of one task, with champion and stop (PoDL III-B, IV-C, Figure 3).

`python reproduce/podl/growth.py [DATA_DIRECTORY NAME [EPOCHS]]` prints one JSON line a block; without arguments it
takes the digits of scikit-learn. DATA_DIRECTORY is where `learnchain data import KIND PATH --name NAME` put images. One
miner, one thread; all but the seconds follows from the names that seeds are made of. Figure 3 shows a speech model and
prints no numbers: its shape can be compared, nothing else.
"""

import json
import platform
import sys
from dataclasses import replace
from typing import Any

from course import Task, run, task

from learnchain.encoding.codec import Accuracy
from learnchain.engines.podl.multi_block_progress import TEN_THOUSAND, MultiBlockProgress, StoppingRule
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.train import configure_torch
from learnchain.protocol.task_specification import Metric

BLOCKS = 8


def grown(known: Task, epochs: int) -> list[dict[str, Any]]:
    """Return each block: count on its fresh set, the champion's on the same set, and whether the engine stops."""
    lines: list[dict[str, Any]] = []
    champion, progress, stopping = None, None, StoppingRule()
    for block, (weights, seconds) in enumerate(run(known, "miner", BLOCKS, epochs)):
        fresh = known.tests[block]
        own = evaluate(known.model, weights, known.training, fresh, Metric.ACCURACY)
        line: dict[str, Any] = {"block": block + 1, "epochs": (block + 1) * epochs, "correct": own.correct}
        line |= {"total": own.total, "accuracy": round(own.correct / own.total, 4), "seconds": round(seconds, 2)}
        before = (0, 0)
        if champion is not None:
            met = evaluate(known.model, champion, known.training, fresh, Metric.ACCURACY)
            before = (met.correct, met.total)
            line |= {"best_before": met.correct}
        progress = _next(stopping, progress, (own.correct, own.total), before)
        if champion is None or own.correct > before[0]:
            champion = weights
        line["engine_stops"] = progress.stalled_blocks >= stopping.stalled_blocks or block + 1 == BLOCKS
        lines.append(line)
    return lines


def _next(
    stopping: StoppingRule, before: MultiBlockProgress | None, own: tuple[int, int], met: tuple[int, int]
) -> MultiBlockProgress:
    """Return how the task stands, by the engine's own numbers (PODL-R1, R4)."""
    if before is None:
        return MultiBlockProgress(b"\0" * 32, 0, b"\0" * 32, b"", b"\0" * 20, *own, 0)
    gain = TEN_THOUSAND * (Accuracy(*own).share - Accuracy(*met).share)
    has_gained = gain >= stopping.gain_ten_thousandths
    return replace(before, stalled_blocks=0 if has_gained else before.stalled_blocks + 1)


def main() -> None:
    """Run the task and print what every block shows."""
    configure_torch()
    directory, name = (sys.argv[1], sys.argv[2]) if len(sys.argv) > 2 else ("", "digits")
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    known = task(BLOCKS, directory, name)
    machine = f"{platform.machine()}, one thread, python {platform.python_version()}"
    sys.stdout.write(json.dumps({**known.described(), "epochs_a_block": epochs, "machine": machine}) + "\n")
    for line in grown(known, epochs):
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
