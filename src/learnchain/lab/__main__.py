"""Run one comparison in a process of its own: `python -m learnchain.lab` with an experiment as JSON on its input."""

import json
import sys

from learnchain.lab.comparison import Experiment, compare


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    """Read `{"engines": [...], "seed": ..., "blocks": ..., "miners": ...}`, write the result."""
    asked = json.loads(sys.stdin.read())
    experiment = Experiment(int(asked["seed"]), int(asked["blocks"]), int(asked["miners"]))
    result = compare(experiment, tuple(asked["engines"]), _note)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
