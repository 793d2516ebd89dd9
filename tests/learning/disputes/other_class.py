"""Train in another reproducibility class: `python -m tests.learning.disputes.other_class DIR FIRST COUNT THREADS`.

One process makes many runs: it writes, for each, the states of every step of one segment, as an accused miner would.
"""

import hashlib
import sys
from pathlib import Path

import torch

from learnchain.learning.data import digits, iris, split
from learnchain.learning.disputes.settling import State
from learnchain.learning.safe_tensors import write_tensors
from learnchain.learning.trace import state_path
from learnchain.learning.train import TrainingPlan, TrainingRun, configure_torch
from learnchain.protocol.model_presets import keyword_cnn, mlp, strided_cnn
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, Watermark

STEPS = 2
"""Steps of a segment."""
MARK = Watermark(bytes(range(64)), 100_000, 999_900)
_CHOSEN = {
    Optimiser.SGD: HyperParameters(50_000, 900_000, 0, 32, 2),
    Optimiser.ADAM: HyperParameters(2_000, 0, 100, 32, 2),
}


def case(number):
    """Return the plan, the data and the first step of the audited segment of run `number`."""
    training = split(digits(), b"split", 360)[0]
    kinds = (
        (mlp((1, 8, 8), 10, (32,)), training),
        (strided_cnn((1, 8, 8), 10, (8, 8), 16), training),
        (keyword_cnn((1, 8, 8), 10, 4), training),
        (mlp((4,), 3, (8,)), iris()),
    )
    specification, data = kinds[number % len(kinds)]
    optimiser = list(Optimiser)[number // len(kinds) % 2]
    terms = MARK if number % 3 == 0 and specification.input_shape != (4,) else FreeTraining()
    seed = hashlib.sha256(b"class" + number.to_bytes(4, "big")).digest()
    plan = TrainingPlan(specification, optimiser, _CHOSEN[optimiser], terms, seed, STEPS)
    return plan, data, STEPS * (number % 4)


def segment_states(number) -> list[State]:
    """Return the states of the audited segment, both ends included."""
    plan, data, first = case(number)
    run = TrainingRun(plan, data)
    found = []
    for step in range(first, first + STEPS + 1):
        run.advance_to(step)
        found.append({name: array.copy() for name, array in run.state().items()})
    return found


if __name__ == "__main__":
    place, first_number, count, threads = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    configure_torch(threads)
    for number in range(first_number, first_number + count):
        (place / str(number)).mkdir(parents=True)
        for offset, state in enumerate(segment_states(number)):
            write_tensors(state_path(place / str(number), offset), state)
    sys.stdout.write(torch.backends.cpu.get_cpu_capability())
