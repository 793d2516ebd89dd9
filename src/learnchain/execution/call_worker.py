"""The process that runs strangers' calls: it reads the node's store, answers line by line, and may be killed any time.

`python -m learnchain.execution.call_worker DIRECTORY SECONDS`: each line of standard input is a JSON request
`{method, params}`, each line of standard output the answer: `{result}`, or the refusal as `call_process` reads it.
"""

import json
import math
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb
from eth.vm.interrupt import EVMMissingData
from trie.exceptions import MissingTraversalNode, MissingTrieNode

from learnchain.encoding.codec import Hash32
from learnchain.execution.engine import Reverted
from learnchain.execution.pyevm.queries import Queries
from learnchain.execution.pyevm.records import Records
from learnchain.execution.pyevm.transactions import TransactionPool
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_MEMORY_BYTES = 1 << 30
MAXIMUM_ANSWER_BYTES = 32 << 20
_NICE = 10
_GRACE_SECONDS = 5.0
"""The parent kills first; this alarm is for an orphan."""


class ReadOnlyStore:
    """Read an LMDB store that another process writes."""

    __slots__ = ("_environment",)

    def __init__(self, path: Path) -> None:
        self._environment = lmdb.open(str(path), readonly=True, create=False, readahead=False, lock=True)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None when there is none."""
        try:
            return self._read(key)
        except lmdb.MapResizedError:
            # The owner has grown the map: take over its new size.
            self._environment.set_mapsize(0)
            return self._read(key)

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Refuse: only the owner writes."""
        raise Unavailable("the store is open for reading only")

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Refuse: calls read single keys."""
        raise Unavailable("the store is open for single reads only")

    def _read(self, key: bytes) -> bytes | None:
        with self._environment.begin() as transaction:
            value = transaction.get(key)
        return None if value is None else bytes(value)


def answer_request(records: Records, chain_id: int, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request on the head that the owner has chosen last."""
    head = records.head()
    if head is None:
        return {"unavailable": "the execution store is empty"}
    # After the head: whatever it rests on was written before it was chosen.
    records.nodes.refresh()
    try:
        queries = Queries(records, TransactionPool(), chain_id, head, _refuse)
        return {"result": queries.answer(request["method"], request["params"])}
    except Reverted as error:
        return {"reverted": error.data.hex(), "detail": error.detail}
    except Rejected as error:
        return {"rejected": error.reason.value, "detail": error.detail}
    except Unavailable as error:
        return {"unavailable": error.what}
    except (EVMMissingData, MissingTrieNode, MissingTraversalNode):
        # The owner let an old state go between two reads of one call.
        return {"unavailable": "the state of that block, which was let go meanwhile"}


def _refuse(_raw: bytes) -> Hash32:
    raise Rejected(RejectionReason.METHOD_UNKNOWN, "this process keeps no transactions")


def main(arguments: list[str]) -> None:
    """Answer requests until standard input ends."""
    directory, chain_id, seconds = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (MAXIMUM_MEMORY_BYTES, MAXIMUM_MEMORY_BYTES))
    records = Records(ReadOnlyStore(directory))
    _write({"result": "ready"})
    for line in sys.stdin.buffer:
        signal.alarm(math.ceil(seconds + _GRACE_SECONDS))
        _write(answer_request(records, chain_id, json.loads(line)))
        signal.alarm(0)


def _write(content: Mapping[str, Any]) -> None:
    data = json.dumps(content).encode()
    if len(data) > MAXIMUM_ANSWER_BYTES:
        detail = f"the answer has {len(data)} bytes, {MAXIMUM_ANSWER_BYTES} are allowed"
        data = json.dumps({"rejected": RejectionReason.TOO_LARGE.value, "detail": detail}).encode()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
