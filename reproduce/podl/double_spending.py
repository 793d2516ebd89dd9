"""How hard is it to replace blocks with better models (PoDL III-C, "Hardness of double spending")?

`python reproduce/podl/double_spending.py [DATA_DIRECTORY NAME [EPOCHS [RIVALS]]]`. The paper drops the list of
headers for a moment (the majority of full nodes colludes) and conjectures that a longer branch "where all blocks must
contain DL models with higher accuracy" stays "extremely challenging unless the adversary possesses more than 51% of
the computing resources". Here the accepted branch is the best of three miners at every block. An adversary who knows
the released test sets

- trains honestly with one miner's power (`one_run`): the share of its runs that beat all of the last blocks;
- makes n such runs, each under a name of its own, and takes the best one at every block (`best_of`): that costs n
  times one miner's time, and time is what it has: nothing dates the branch;
- trains on the released test rows too (`test_rows_used`), which "repeatable with training datasets only" forbids and
  a replay finds out (docs/audits.md), and which nothing finds out where nobody repeats the training.

What holds it off on the chain is the commitment before the release, which blocks carry and signatures date; accuracy
does not.
"""

import json
import platform
import sys
from dataclasses import replace
from itertools import chain, combinations
from math import comb
from typing import Any

import numpy as np
from course import Task, run, task

from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.train import configure_torch
from learnchain.protocol.task_specification import Metric

BLOCKS, MINERS = 4, 3
BEST_OF = (3, 10, 30)

Counts = tuple[int, ...]


def counts(known: Task, judged: Task, miner: int | str, epochs: int) -> Counts:
    """Return what one run of `known` counts on every block's released test set."""
    models = (weights for weights, _ in run(known, miner, BLOCKS, epochs))
    return tuple(
        evaluate(judged.model, weights, judged.training, judged.tests[block], Metric.ACCURACY).correct
        for block, weights in enumerate(models)
    )


def cheating(known: Task) -> Task:
    """Return the task with all released test rows among the training rows."""
    inputs = np.concatenate([known.training.inputs, *(each.inputs for each in known.tests)])
    labels = np.concatenate([known.training.labels, *(each.labels for each in known.tests)])
    return replace(known, training=DataSet(inputs, labels))


def beats(rival: Counts, accepted: Counts, first: int) -> bool:
    """Return whether every model from block `first` on counts more than the accepted one."""
    return all(own > best for own, best in zip(rival[first:], accepted[first:], strict=True))


def best_of_beats(rivals: list[Counts], accepted: Counts, first: int, kept: int) -> float:
    """Return how likely `kept` runs drawn from the rivals hold a better model for every block from `first` on.

    Exact, by inclusion and exclusion over the blocks that none of the drawn runs beats; nothing is sampled.
    """
    chance, replaced = 0.0, range(first, BLOCKS)
    for unbeaten in chain.from_iterable(combinations(replaced, size) for size in range(len(replaced) + 1)):
        helpless = sum(all(each[block] <= accepted[block] for block in unbeaten) for each in rivals)
        chance += (-1) ** len(unbeaten) * comb(helpless, kept) / comb(len(rivals), kept)
    return chance


def answer(known: Task, epochs: int, rivals: int) -> list[dict[str, Any]]:
    """Return one line for each number of blocks to be replaced."""
    miners = [counts(known, known, f"miner-{each}", epochs) for each in range(MINERS)]
    accepted = tuple(max(column) for column in zip(*miners, strict=True))
    runs = [counts(known, known, f"rival-{each}", epochs) for each in range(rivals)]
    cheat = cheating(known)
    cheats = [counts(cheat, known, f"cheat-{each}", epochs) for each in range(max(1, rivals // 4))]
    lines: list[dict[str, Any]] = [{"accepted": accepted, "of": len(known.tests[0]), "rivals": rivals}]
    for first in reversed(range(BLOCKS)):
        line: dict[str, Any] = {"blocks_replaced": BLOCKS - first}
        line["one_run"] = round(sum(beats(each, accepted, first) for each in runs) / len(runs), 4)
        line["best_of"] = {
            str(kept): round(best_of_beats(runs, accepted, first, kept), 4) for kept in BEST_OF if kept <= len(runs)
        }
        line["test_rows_used"] = round(sum(beats(each, accepted, first) for each in cheats) / len(cheats), 4)
        lines.append(line)
    return lines


def main() -> None:
    """Print one JSON line for each number of blocks."""
    configure_torch()
    directory, name = (sys.argv[1], sys.argv[2]) if len(sys.argv) > 2 else ("", "digits")
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    rivals = int(sys.argv[4]) if len(sys.argv) > 4 else 60
    known = task(BLOCKS, directory, name)
    machine = f"{platform.machine()}, one thread, python {platform.python_version()}"
    said = {**known.described(), "epochs_a_block": epochs, "blocks": BLOCKS, "miners": MINERS, "machine": machine}
    for line in (said, *answer(known, epochs, rivals)):
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
