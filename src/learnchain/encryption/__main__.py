"""Carry out one encryption job and end: `python -m learnchain.encryption NAME`, the job on standard input.

The process holds no torch and the node no numba; keys come by standard input, never on the command line.
"""

import json
import sys

from learnchain.encoding.codec import decode
from learnchain.encryption.jobs import JOBS
from learnchain.rejection import Rejected, Unavailable

MAXIMUM_JOB_BYTES = 1 << 28


def main() -> None:
    """Print the result, or the reason of a refusal, as one JSON object."""
    try:
        job = decode(JOBS[sys.argv[1]], sys.stdin.buffer.read(MAXIMUM_JOB_BYTES))
        # The room raises `Unavailable` where its extra is not installed.
        from learnchain.encryption.work import carry_out

        answer = {"result": carry_out(job)}
    except Rejected as error:
        answer = {"error": {"reason": error.reason.value, "detail": error.detail[:1_000]}}
    except Unavailable as error:
        answer = {"error": {"reason": "unavailable", "detail": error.what}}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
