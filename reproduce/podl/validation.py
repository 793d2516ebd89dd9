"""What judging costs beside training: hash, order, search and 1,000 validations (PoDL IV-B, Table I, Figure 2).

`python reproduce/podl/validation.py [DATA_DIRECTORY NAME [TIMES]]` prints one JSON line a quantity; without arguments
it takes the digits of scikit-learn. Validation is what a full node does with a candidate: read its safetensors file,
check it, compile it to fixed point, and count exactly on the released test set. The paper's 1.96 s are of another model
on other data and a GPU: what can be compared is the share of a block interval. One process, one thread.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from course import Task, seed_of, task

from learnchain.encoding.codec import Accuracy
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.model import initial_weights, load_weights, save_weights
from learnchain.learning.train import configure_torch
from learnchain.protocol.messages import MAXIMUM_COMMITMENTS
from learnchain.protocol.model_presets import strided_cnn
from learnchain.protocol.task_specification import Metric
from learnchain.storage.blobs.blob_files import tree_of_file

PRINTED = {"hash_ms_per_mb": 5.9, "sort_ms_per_million": 154.9, "validation_seconds": 1.96, "times": 1_000}
"""What the paper prints; the first two are quoted there from others' benchmarks."""
MODEL_BYTES = 100 << 20
SORTED = 100_000


def seconds(act: Callable[[], object]) -> float:
    """Return how long the fastest of three takes."""
    taken = []
    for _ in range(3):
        started = perf_counter()
        act()
        taken.append(perf_counter() - started)
    return min(taken)


def table_1(directory: Path) -> dict[str, Any]:
    """Measure H(model), the order of claims and the search for a header, as the chain does them."""
    model = directory / "model"
    model.write_bytes(os.urandom(MODEL_BYTES))
    megabytes, content = MODEL_BYTES / 1e6, model.read_bytes()
    keys = [seed_of("claim", each) for each in range(SORTED)]
    claims = {key: Accuracy(int.from_bytes(key[:2], "big") % 1_001, 1_000) for key in keys}

    def ordered() -> object:
        return sorted(claims, key=lambda key: (-claims[key].share, key))

    return {
        "model_megabytes": megabytes,
        "content_id_ms_per_mb": round(1000 * seconds(lambda: tree_of_file(model)) / megabytes, 3),
        "sha256_ms_per_mb": round(1000 * seconds(lambda: hashlib.sha256(content).digest()) / megabytes, 3),
        "claims": SORTED,
        "order_ms": round(1000 * seconds(ordered), 1),
        "search_ms": round(1000 * seconds(lambda: [claims[key] for key in keys]), 2),
        "claims_in_a_block_at_most": MAXIMUM_COMMITMENTS,
    }


def figure_2(known: Task, times: int, directory: Path) -> dict[str, Any]:
    """Validate so many different models, one after the other; what they have learnt makes no difference in time."""
    specification = strided_cnn(known.training.sample_shape, 10, (8, 16, 32), 64)
    path, taken = directory / "candidate.safetensors", list[float]()
    for each in range(times):
        save_weights(path, initial_weights(specification, seed_of("candidate", each)))
        started = perf_counter()
        evaluate(specification, load_weights(path, specification), known.training, known.tests[0], Metric.ACCURACY)
        taken.append(perf_counter() - started)
    mean = fmean(taken)
    return {
        "data": known.name,
        "test_rows": len(known.tests[0]),
        "model": "three strided convolutions of 8, 16, 32 channels",
        "times": times,
        "mean_seconds": round(mean, 4),
        "p99_seconds": round(quantiles(taken, n=100)[98], 4),
        "longest_seconds": round(max(taken), 4),
        # A full node stops at the first true claim; liars above it are what "this will be small" leaves out.
        "all_but_the_last_claim_false_seconds": round(MAXIMUM_COMMITMENTS * mean, 1),
        "share_of_ten_minutes": round(mean / 600, 6),
        "share_of_fifteen_seconds": round(mean / 15, 6),
    }


def main() -> None:
    """Print the paper's numbers, then ours."""
    configure_torch()
    directory, name = (sys.argv[1], sys.argv[2]) if len(sys.argv) > 2 else ("", "digits")
    times = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000
    machine = f"{platform.machine()}, one thread, python {platform.python_version()}"
    with TemporaryDirectory(prefix="learnchain-reproduce-") as place:
        for line in (
            {"printed": PRINTED, "machine": machine},
            table_1(Path(place)),
            figure_2(task(1, directory, name), times, Path(place)),
        ):
            sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
