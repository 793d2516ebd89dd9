"""Print the figures of network and blobs as JSON, one line for each benchmark named, or for all."""

import json
import sys

from learnchain.benchmarks.network import BENCHMARKS

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        print(json.dumps(BENCHMARKS[name]()))
