"""What the node asks of a blob store, whichever engine stands behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from learnchain.primitives.content_id import Cid
from learnchain.primitives.rejection import Unavailable

Progress = Callable[[int, int], None]
"""(bytes that are here, bytes in all)."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Say how much of a blob is here; `size_bytes` is None while nothing is known of it."""

    cid: Cid
    size_bytes: int | None
    complete: bool
    pinned: bool


class Nowhere(Unavailable):
    """Say that none of the peers that were asked has all of a blob; a full disk or a lost peer is another matter."""

    def __init__(self, what: str, asked: int) -> None:
        super().__init__(what)
        self.asked = asked


class BlobStore(Protocol):
    """Keep blobs by their CID and find those that are elsewhere."""

    async def add(self, path: Path) -> Cid:
        """Take a copy of a file; return its CID."""
        ...

    async def add_bytes(self, data: bytes) -> Cid:
        """Take bytes; return their CID."""
        ...

    async def stat(self, cid: Cid) -> BlobStat:
        """Say what is here, without asking anybody."""
        ...

    async def fetch(
        self, cid: Cid, *, max_bytes: int, sources: Sequence[bytes] = (), progress: Progress | None = None
    ) -> Path:
        """Return a file that holds the blob; raise `Unavailable` when nobody has it, `TOO_LARGE` above `max_bytes`."""
        ...

    async def read(self, cid: Cid, max_bytes: int) -> bytes:
        """Return the bytes of a blob, fetched if need be."""
        ...

    def path(self, cid: Cid) -> Path | None:
        """Return the file of a blob that is here, else None."""
        ...

    async def handed_over(self) -> None:
        """Wait until a store elsewhere, if there is one, has all that was added; `Unavailable` if it takes it not."""
        ...

    async def pin(self, cid: Cid) -> None:
        """Keep a blob whatever the quota says, whether it is here yet or not."""
        ...

    async def unpin(self, cid: Cid) -> None:
        """Let the quota decide again."""
        ...

    async def discard(self, cid: Cid) -> int:
        """Delete a blob, pinned or not; return the bytes freed."""
        ...

    def used_bytes(self) -> int:
        """Return the bytes that blobs take on this disk."""
        ...
