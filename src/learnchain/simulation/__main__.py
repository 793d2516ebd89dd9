"""Run `learnchain lab compare` in a process of its own."""

import json
import sys

from learnchain.simulation.comparison import Experiment, compare


def _note(engine: str, height: int) -> None:
    """Tell whoever started this process how far it is: one JSON line, so that traces stay apart from it."""
    sys.stderr.write(json.dumps({"engine": engine, "height": height}) + "\n")
    sys.stderr.flush()


def main() -> None:
    """Read the engines and the numbers of an experiment, write the result."""
    asked = json.loads(sys.stdin.read())
    seed, blocks, miners, latency = (int(asked[each]) for each in ("seed", "blocks", "miners", "latency_milliseconds"))
    experiment = Experiment(seed, blocks, miners, latency)
    result = compare(experiment, tuple(asked["engines"]), _note)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
