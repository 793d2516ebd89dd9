"""Let a real kubo (as a library) read what we write: blocks laid into its repository, the file asked for by our CID.

Run as `unshare --net`, so that the node reaches nobody. Arguments: the library, a folder. Prints one JSON object.
"""

import base64
import ctypes
import hashlib
import json
import os
import sys
from pathlib import Path

from learnchain.encoding.content_id import HashKind, Layout, blocks_of_chunks, cid_text

DATA = hashlib.shake_128(b"kubo").digest(3 * 1024 * 1024 + 17)
LEAF_BYTES = 1024 * 1024


def text(value: Path | str) -> ctypes.c_char_p:
    return ctypes.c_char_p(str(value).encode())


def lay(repository: Path, kind: HashKind) -> str:
    """Write a file's blocks where kubo's datastore keeps them; return the CID of the root."""
    chunks = (DATA[start : start + LEAF_BYTES] for start in range(0, len(DATA), LEAF_BYTES))
    root = b""
    for block in blocks_of_chunks(chunks, Layout(hash_kind=kind)):
        key = base64.b32encode(block.cid[2:]).decode().rstrip("=")
        folder = repository / "blocks" / key[-3:-1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.data").write_bytes(block.data)
        root = block.cid
    return cid_text(root)


def main(library: str, folder: Path) -> dict[str, bool]:
    kubo, repository = ctypes.CDLL(library), folder / "repository"
    repository.mkdir()
    if kubo.CreateRepo(text(repository)) < 0:
        raise SystemExit("kubo made no repository")
    config = repository / "config"
    config.write_text(json.dumps({**json.loads(config.read_text()), "Bootstrap": []}))
    kubo.RunNode(text(repository))
    found = {}
    for kind in HashKind:
        name, out = lay(repository, kind), folder / kind.name
        code = kubo.Download(text(repository), text(name), text(out))
        found[kind.name] = code == 0 and out.read_bytes() == DATA
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))) + "\n")
    sys.stdout.flush()
    # Its threads do not end by themselves.
    os._exit(0)
