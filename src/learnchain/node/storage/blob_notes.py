"""Which blobs a height brought, which model of a task is kept for ever, and what the chain names."""

from collections.abc import Iterable
from dataclasses import dataclass

from learnchain.node.storage.buffered import BufferedStore
from learnchain.primitives.codec import Hash32, decode, encode
from learnchain.primitives.task_specification import Cid

BLOB, BEST, NAMED = b"blob/", b"best/", b"named/"


@dataclass(frozen=True, slots=True)
class BestModel:
    """Name the best model of a task among the blocks whose models were let go."""

    height: int
    model_cid: Cid
    correct: int
    total: int

    def beats(self, other: "BestModel") -> bool:
        """Compare exact shares; of equals the earlier one stays."""
        return self.correct * other.total > other.correct * self.total


class BlobNotes:
    """Write beside the chain what its blobs are good for: what is noted can be let go again."""

    def __init__(self, store: BufferedStore) -> None:
        self._store = store

    def note(self, height: int, cids: Iterable[Cid]) -> None:
        """Write which blobs a height brought, before they are fetched: what is noted is deleted in the end."""
        keys = (BLOB + height.to_bytes(8, "big") + cid for cid in cids)
        # Each write waits for the disk and holds up the event loop, and most blobs are noted more than once.
        new = {key: b"" for key in keys if self._store.get(key) is None}
        if new:
            self._store.put_many(new)

    def below(self, height: int) -> dict[int, tuple[Cid, ...]]:
        """Return the noted blobs of all heights below one, leaving out those that a later height brought too."""
        early: dict[int, list[Cid]] = {}
        later: set[Cid] = set()
        for key, _ in self._store.scan(BLOB):
            at, cid = int.from_bytes(key[len(BLOB) : len(BLOB) + 8], "big"), key[len(BLOB) + 8 :]
            if at < height:
                early.setdefault(at, []).append(cid)
            else:
                later.add(cid)
        return {at: tuple(cid for cid in cids if cid not in later) for at, cids in early.items()}

    def forget(self, height: int) -> None:
        """Drop the notes of a height, after its blobs are deleted."""
        self._store.put_many({key: None for key, _ in self._store.scan(BLOB + height.to_bytes(8, "big"))})

    def best_model(self, task_id: Hash32) -> BestModel | None:
        """Return the model that is kept for a task for ever (DLBC IV-H, PoDL III-C)."""
        data = self._store.get(BEST + task_id)
        return None if data is None else decode(BestModel, data)

    def keep_best_model(self, task_id: Hash32, best: BestModel) -> None:
        """Write which model is kept for a task."""
        self._store.put_many({BEST + task_id: encode(best)})

    def name(self, cids: Iterable[Cid], block_hash: Hash32) -> None:
        """Write that a block names blobs; it reaches the disk with the block or before."""
        self._store.put_later({NAMED + cid: block_hash for cid in cids})

    def naming_block(self, cid: Cid) -> Hash32 | None:
        """Return the last block that named a blob."""
        return self._store.get(NAMED + cid)
