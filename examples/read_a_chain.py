"""Read a block, all its candidates and the winner's model from a running node, in the standard library and `blake3`.

    python read_a_chain.py                                    # the newest trained block of http://127.0.0.1:8545
    python read_a_chain.py --rpc http://127.0.0.1:9545 --height 3 --out model.safetensors

A network to read: `learnchain up` in another terminal. The file appears only if its bytes hash to the content
identifier (CID) that the block names, so the node that is asked need not be trusted for the model's bytes. CIDs of
this chain are BLAKE3, which Python's hashlib lacks: `pip install blake3`, or the environment of learnchain.
"""

# ruff: noqa: T201

import argparse
import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

from blake3 import blake3

LEAF_BYTES = 1024 * 1024
"""A file of at most this size is one leaf, whose CID is the hash of its bytes alone; larger files are trees."""


class Node:
    """A node's JSON-RPC interface over HTTP."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, *params: Any) -> Any:
        """Return the result of one method; an error of the node ends the program with the node's words."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self._address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            reply = json.load(response)
        if "error" in reply:
            raise SystemExit(f"{method}: {reply['error']}")
        return reply["result"]


def newest_trained_block(node: Node) -> dict[str, Any]:
    """Return the newest block that training won, on the branch that the node follows."""
    trained = [block for block in node.call("learn_blocks") if block["trained"]]
    if not trained:
        raise SystemExit("no block among the newest was won by training; wait a little, or name one with --height")
    return trained[-1]


def show_block(block: dict[str, Any]) -> None:
    """Print who won the block with what, and what became of every other commitment."""
    correct, total = block["accuracy"]["correct"], block["accuracy"]["total"]
    print(f"block {block['height']}  {block['hash']}")
    print(f"task {block['task']['name']}, interval {block['interval_seconds']} s")
    print(f"winner {block['winner']}: {correct} of {total} right = {correct / total:.4f} ({block['label']})")
    for candidate in block["verdict"]:
        reason = f" ({candidate['reason']})" if candidate["reason"] else ""
        print(f"  candidate {candidate['miner']}  claimed {candidate['correct']:>5}  {candidate['outcome']}{reason}")


def download(node: Node, cid: str) -> bytes:
    """Return a blob, fetched in chunks as large as the node gives them."""
    content, size = b"", 1
    while len(content) < size:
        chunk = node.call("learn_blob", cid, len(content))
        size = chunk["size"]
        if not chunk["data"]:
            break
        content += bytes.fromhex(chunk["data"])
    return content


def leaf_cid(content: bytes) -> str:
    """Return the CID of a file of one leaf: version 1, raw bytes (0x55), BLAKE3 (0x1e), 32 bytes, in base32."""
    return "b" + base64.b32encode(b"\x01\x55\x1e\x20" + blake3(content).digest()).decode().lower().rstrip("=")


def tensors(content: bytes) -> dict[str, Any]:
    """Return the header of a safetensors file: the name, type and shape of every tensor."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def save_model(node: Node, cid: str, out: Path) -> None:
    """Download a model, compare it with its CID, write it, and print its tensors."""
    content = download(node, cid)
    if len(content) > LEAF_BYTES:
        raise SystemExit(f"{len(content)} bytes are a tree of leaves: use `learnchain model download`, which checks it")
    if leaf_cid(content) != cid:
        raise SystemExit(f"the node sent {leaf_cid(content)} instead of {cid}; nothing is written")
    out.write_bytes(content)
    print(f"{out}: {len(content)} bytes, verified as {cid}")
    for name, entry in tensors(content).items():
        print(f"  {name}  {entry['dtype']} {entry['shape']}")


def main() -> None:
    """Read the arguments, then one block."""
    parser = argparse.ArgumentParser(description="Read a block, its candidates and its model from a running node.")
    parser.add_argument("--rpc", default="http://127.0.0.1:8545", help="address of a node")
    parser.add_argument("--height", type=int, help="a trained block; the newest without it")
    parser.add_argument("--out", type=Path, help="write the winner's model here")
    arguments = parser.parse_args()
    node = Node(arguments.rpc)
    block = newest_trained_block(node) if arguments.height is None else node.call("learn_block", arguments.height)
    if not block["trained"]:
        raise SystemExit(f"block {block['height']} was not won by training")
    show_block(block)
    if arguments.out is not None:
        save_model(node, block["model"], arguments.out)


if __name__ == "__main__":
    main()
