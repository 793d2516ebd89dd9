"""A key-value store that may keep a batch back and write it with the next one: a node that catches up syncs seldom.

What this node signed: it is on disk before it leaves the node, so that no later life says anything else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from learnchain.encoding.codec import Hash32, decode, encode
from learnchain.encoding.files import KeyValueStore, MemoryStore
from learnchain.protocol.audit_messages import AuditReport, ChallengeResponse
from learnchain.protocol.messages import Commitment, Evidence, ReleaseAnnouncement, TrainingRecord
from learnchain.protocol.task_specification import Cid

MAXIMUM_KEPT_BACK = 256


class BufferedStore:
    """Pass everything through but `put_later`; order holds: what is written later is never on disk before.

    A kill loses only what was kept back, and all of it together: the node fetches those blocks again.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._later = MemoryStore()
        self._kept_back: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, whether it is on disk yet or not."""
        found = self._later.get(key)
        return self._store.get(key) if found is None else found

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write these items and everything kept back in one batch."""
        self._store.put_many({**self._kept_back, **items})
        self._kept_back.clear()
        self._later = MemoryStore()

    def put_later(self, items: Mapping[bytes, bytes]) -> None:
        """Keep items back until the next batch, or until too many are."""
        if len(self._kept_back) + len(items) > MAXIMUM_KEPT_BACK:
            self.put_many(items)
            return
        self._kept_back.update(items)
        self._later.put_many(items)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs under a prefix, ascending, whether they are on disk yet or not."""
        if not self._kept_back:
            return self._store.scan(prefix)
        return iter(sorted({**dict(self._store.scan(prefix)), **dict(self._later.scan(prefix))}.items()))


REPORT, CHALLENGED_SEGMENT, RESPONSE = b"report/", b"challenged/", b"response/"


@dataclass(frozen=True, slots=True)
class CommitmentOpening:
    """Hold what this miner committed to and must be able to open."""

    commitment: Commitment
    model_cid: Cid
    training: TrainingRecord
    payload_hash: Hash32
    payload_cid: Cid
    salt: Hash32


class SlashingProtectionStore:
    """Keep commitments, releases, reports, answers and evidence of this node."""

    def __init__(self, store: BufferedStore) -> None:
        self._store = store

    def store_candidate(self, own: CommitmentOpening) -> None:
        """Write what this miner committed to, before the commitment leaves the node."""
        self._store.put_many({b"candidate/" + own.commitment.parent: encode(own)})

    def load_candidate(self, parent: Hash32) -> CommitmentOpening | None:
        """Return what this miner committed to on a parent."""
        data = self._store.get(b"candidate/" + parent)
        return None if data is None else decode(CommitmentOpening, data)

    def store_release(self, announcement: ReleaseAnnouncement) -> None:
        """Write the release that this publisher signed, before it leaves the node."""
        self._store.put_many({b"release/" + announcement.release.parent: encode(announcement)})

    def load_release(self, parent: Hash32) -> ReleaseAnnouncement | None:
        """Return the release that this publisher signed on a parent."""
        data = self._store.get(b"release/" + parent)
        return None if data is None else decode(ReleaseAnnouncement, data)

    def store_report(self, report: AuditReport) -> None:
        """Write what this auditor found, with its salt, before its commitment leaves the node."""
        self._store.put_many({REPORT + report.height.to_bytes(8, "big") + report.parent: encode(report)})

    def load_reports(self) -> tuple[AuditReport, ...]:
        """Return the reports of this auditor that may still be opened or accused, lowest height first."""
        return tuple(decode(AuditReport, value) for _, value in self._store.scan(REPORT))

    def forget_reports(self, below_height: int) -> None:
        """Drop reports on heights that nobody can ask about any more."""
        self._forget_below(REPORT, below_height)

    def store_response(self, answer: ChallengeResponse) -> None:
        """Write the steps that this node shows of a segment, before they leave the node."""
        self._store.put_many({_response_key(answer.height, answer.parent, answer.disclosure.segment): encode(answer)})

    def load_response(self, height: int, parent: Hash32, segment: int) -> ChallengeResponse | None:
        """Return what this node showed when it was asked for a segment."""
        data = self._store.get(_response_key(height, parent, segment))
        return None if data is None else decode(ChallengeResponse, data)

    def forget_responses(self, below_height: int) -> None:
        """Drop answers about heights that nobody can ask about any more."""
        self._forget_below(RESPONSE, below_height)

    def store_evidence(self, evidence: Evidence) -> None:
        """Write a contradiction that this node has seen, until its height is a block and it can be sent."""
        self._store.put_many({CHALLENGED_SEGMENT + evidence.fault_id: encode(evidence)})

    def load_evidence(self) -> tuple[Evidence, ...]:
        """Return the contradictions that were seen and not sent yet."""
        return tuple(decode(Evidence, value) for _, value in self._store.scan(CHALLENGED_SEGMENT))

    def forget_evidence(self, fault_id: Hash32) -> None:
        """Drop a contradiction that was sent or is of no use."""
        self._store.put_many({CHALLENGED_SEGMENT + fault_id: None})

    def _forget_below(self, prefix: bytes, below_height: int) -> None:
        limit = prefix + below_height.to_bytes(8, "big")
        over = [key for key, _ in self._store.scan(prefix) if key < limit]
        if over:
            self._store.put_many(dict.fromkeys(over))


def _response_key(height: int, parent: Hash32, segment: int) -> bytes:
    return RESPONSE + height.to_bytes(8, "big") + parent + segment.to_bytes(8, "big")
