"""Print the figures of the learning room as JSON, one line for each benchmark named, or for all."""

import json
import sys

from learnchain.benchmarks.training import BENCHMARKS

for name in sys.argv[1:] or BENCHMARKS:
    print(json.dumps(BENCHMARKS[name]()))
