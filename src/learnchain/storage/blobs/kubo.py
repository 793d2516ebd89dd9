"""Blobs in IPFS: a kubo node over its RPC, or any gateway that gives blocks (the trustless gateway specification).

Blocks go in and come out one by one under the CIDs that we computed, so the importer on the other side has no say in
them, and no block is believed that does not hash to its CID.
"""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
from typing_extensions import override

from learnchain.encoding.codec import parse_json
from learnchain.encoding.content_id import MAXIMUM_BLOCK_BYTES, Cid, Codec, HashKind, IpldBlock, cid_text, parse_cid
from learnchain.rejection import Unavailable
from learnchain.storage.blobs.blob_store import REQUEST_SECONDS, Leaf, Tree, nodes_of_tree, walk_tree

_ANSWER_BYTES = 1 << 16
_HASH_NAMES = {HashKind.BLAKE3: "blake3", HashKind.SHA2_256: "sha2-256"}
_CODEC_NAMES = {Codec.RAW: "raw", Codec.DAG_PB: "dag-pb"}
_PIN_SECONDS = 600
"""Pinning walks the whole tree on the other side."""


class _BlockServer:
    """Read blobs block by block; the session opens at the first request, for a node is put together before its loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: aiohttp.ClientSession | None = None

    async def tree(self, cid: Cid, max_bytes: int) -> bytes | None:
        """Return the written tree, walked node by node."""
        return await walk_tree(cid, max_bytes, self._block)

    async def leaf(self, root: Cid, leaf: Leaf, limit_bytes: int) -> bytes | None:
        """Return one leaf by its own CID."""
        return await self._block(leaf.cid, limit_bytes)

    async def close(self) -> None:
        """End all connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession()
        return self._opened

    async def _block(self, cid: Cid, limit_bytes: int = MAXIMUM_BLOCK_BYTES) -> bytes | None:
        raise NotImplementedError


class Kubo(_BlockServer):
    """Use the RPC of a kubo node, which must be its owner's: whoever reaches it may do anything with it."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/") + "/api/v0")

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Store leaves, then nodes: whoever finds the root finds all of it."""
        for leaf in dict.fromkeys(tree.leaves):
            await self._put(IpldBlock(leaf.cid, await asyncio.to_thread(_part, path, leaf)))
        nodes = await asyncio.to_thread(nodes_of_tree, tree.root, written)
        for node in reversed(nodes):
            await self._put(node)

    async def pin(self, cid: Cid) -> None:
        """Pin the whole tree."""
        await self._command("pin/add", {"arg": cid_text(cid), "recursive": "true"}, seconds=_PIN_SECONDS)

    async def unpin(self, cid: Cid) -> None:
        """Unpin the tree; one that was not pinned stays so."""
        status, raw = await self._ask("pin/rm", {"arg": cid_text(cid), "recursive": "true"})
        if status != 200 and b"not pinned" not in raw:
            raise _refusal_error("pin/rm", status, raw)

    @override
    async def _block(self, cid: Cid, limit_bytes: int = MAXIMUM_BLOCK_BYTES) -> bytes | None:
        query = {"arg": cid_text(cid), "timeout": f"{REQUEST_SECONDS}s"}
        status, raw = await self._ask("block/get", query, limit_bytes=limit_bytes)
        return raw if status == 200 else None

    async def _put(self, block: IpldBlock) -> None:
        parts = parse_cid(block.cid)
        query = {"cid-codec": _CODEC_NAMES[parts.codec], "mhtype": _HASH_NAMES[parts.hash_kind], "pin": "false"}
        if parts.codec is Codec.RAW:
            # Servers older than `cid-codec` take dag-pb unless told by the older name, which newer ones still read.
            query["format"] = "raw"
        form = aiohttp.FormData()
        form.add_field("data", block.data, filename="block", content_type="application/octet-stream")
        answer = await self._command("block/put", query, form)
        if answer.get("Key") != cid_text(block.cid):
            raise Unavailable(f"kubo to store blocks as they are: it named {cid_text(block.cid)} {answer.get('Key')}")

    async def _command(
        self, name: str, query: dict[str, str], form: aiohttp.FormData | None = None, seconds: float = REQUEST_SECONDS
    ) -> dict[str, Any]:
        status, raw = await self._ask(name, query, form, seconds=seconds)
        try:
            answer = parse_json(raw)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"kubo: {name} did not answer JSON") from error
        if status != 200 or not isinstance(answer, dict):
            raise _refusal_error(name, status, raw)
        return answer

    async def _ask(
        self,
        name: str,
        query: dict[str, str],
        form: aiohttp.FormData | None = None,
        *,
        limit_bytes: int = _ANSWER_BYTES,
        seconds: float = REQUEST_SECONDS,
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=seconds + 5)
        request = self._session().post(f"{self._url}/{name}", params=query, data=form, timeout=timeout)
        return await _answer(request, limit_bytes)


class Gateway(_BlockServer):
    """Read blobs through a gateway; it takes none."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/") + "/ipfs")

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Refuse: gateways are for reading."""
        raise Unavailable("a store that takes blobs: this one is a gateway")

    async def pin(self, cid: Cid) -> None:
        """Leave it to the gateway's owner."""

    async def unpin(self, cid: Cid) -> None:
        """Leave it to the gateway's owner."""

    @override
    async def _block(self, cid: Cid, limit_bytes: int = MAXIMUM_BLOCK_BYTES) -> bytes | None:
        url, accept = f"{self._url}/{cid_text(cid)}", {"Accept": "application/vnd.ipld.raw"}
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        request = self._session().get(url, params={"format": "raw"}, headers=accept, timeout=timeout)
        status, raw = await _answer(request, limit_bytes)
        return raw if status == 200 else None


async def _answer(request: Any, limit_bytes: int) -> tuple[int, bytes]:
    """Return status and body of a request; a body that is announced or turns out to be too long is not read on."""
    raw = bytearray()
    try:
        async with request as response:
            limit = limit_bytes if response.status == 200 else _ANSWER_BYTES
            if (response.content_length or 0) > limit:
                raise Unavailable(f"the blob store: it sends {response.content_length} bytes where {limit} are allowed")
            async for chunk in response.content.iter_chunked(1 << 16):
                raw += chunk
                if len(raw) > limit:
                    raise Unavailable(f"the blob store: it sends more than {limit} bytes")
            return response.status, bytes(raw)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(f"the blob store: {type(error).__name__} {error}") from error


def _part(path: Path, leaf: Leaf) -> bytes:
    with path.open("rb") as file:
        file.seek(leaf.offset)
        return file.read(leaf.size)


def _refusal_error(name: str, status: int, raw: bytes) -> Unavailable:
    return Unavailable(f"kubo: {name} answered {status}: {raw[:200].decode(errors='replace')}")
