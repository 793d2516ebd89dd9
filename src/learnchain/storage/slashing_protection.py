"""What this node signed: it is on disk before it leaves the node, so that no later life says anything else."""

from dataclasses import dataclass

from learnchain.node.storage.buffered import BufferedStore
from learnchain.primitives.audit_messages import AuditReport
from learnchain.primitives.codec import Hash32, decode, encode
from learnchain.primitives.dispute_messages import DisputeAnswer
from learnchain.primitives.evidence_messages import Evidence
from learnchain.primitives.messages import Commitment, ReleaseAnnouncement, TrainingRecord
from learnchain.primitives.task_specification import Cid

REPORT, ACCUSED, ANSWER = b"report/", b"accused/", b"answer/"


@dataclass(frozen=True, slots=True)
class OwnCandidate:
    """Hold what this miner committed to and must be able to open."""

    commitment: Commitment
    model_cid: Cid
    training: TrainingRecord
    payload_hash: Hash32
    payload_cid: Cid
    salt: Hash32


class OwnWords:
    """Keep commitments, releases, reports, answers and evidence of this node."""

    def __init__(self, store: BufferedStore) -> None:
        self._store = store

    def keep_candidate(self, own: OwnCandidate) -> None:
        """Write what this miner committed to, before the commitment leaves the node."""
        self._store.put_many({b"candidate/" + own.commitment.parent: encode(own)})

    def candidate(self, parent: Hash32) -> OwnCandidate | None:
        """Return what this miner committed to on a parent."""
        data = self._store.get(b"candidate/" + parent)
        return None if data is None else decode(OwnCandidate, data)

    def keep_release(self, announcement: ReleaseAnnouncement) -> None:
        """Write the release that this publisher signed, before it leaves the node."""
        self._store.put_many({b"release/" + announcement.release.parent: encode(announcement)})

    def release(self, parent: Hash32) -> ReleaseAnnouncement | None:
        """Return the release that this publisher signed on a parent."""
        data = self._store.get(b"release/" + parent)
        return None if data is None else decode(ReleaseAnnouncement, data)

    def keep_report(self, report: AuditReport) -> None:
        """Write what this auditor found, with its salt, before its commitment leaves the node."""
        self._store.put_many({REPORT + report.height.to_bytes(8, "big") + report.parent: encode(report)})

    def reports(self) -> tuple[AuditReport, ...]:
        """Return the reports of this auditor that may still be opened or accused, lowest height first."""
        return tuple(decode(AuditReport, value) for _, value in self._store.scan(REPORT))

    def forget_reports(self, below_height: int) -> None:
        """Drop reports on heights that nobody can ask about any more."""
        self._forget_below(REPORT, below_height)

    def keep_answer(self, answer: DisputeAnswer) -> None:
        """Write the steps that this node shows of a segment, before they leave the node."""
        self._store.put_many({_answer_key(answer.height, answer.parent, answer.answer.segment): encode(answer)})

    def answer(self, height: int, parent: Hash32, segment: int) -> DisputeAnswer | None:
        """Return what this node showed when it was asked for a segment."""
        data = self._store.get(_answer_key(height, parent, segment))
        return None if data is None else decode(DisputeAnswer, data)

    def forget_answers(self, below_height: int) -> None:
        """Drop answers about heights that nobody can ask about any more."""
        self._forget_below(ANSWER, below_height)

    def keep_evidence(self, evidence: Evidence) -> None:
        """Write a contradiction that this node has seen, until its height is a block and it can be sent."""
        self._store.put_many({ACCUSED + evidence.fault_id: encode(evidence)})

    def evidence(self) -> tuple[Evidence, ...]:
        """Return the contradictions that were seen and not sent yet."""
        return tuple(decode(Evidence, value) for _, value in self._store.scan(ACCUSED))

    def forget_evidence(self, fault_id: Hash32) -> None:
        """Drop a contradiction that was sent or is of no use."""
        self._store.put_many({ACCUSED + fault_id: None})

    def _forget_below(self, prefix: bytes, below_height: int) -> None:
        limit = prefix + below_height.to_bytes(8, "big")
        over = [key for key, _ in self._store.scan(prefix) if key < limit]
        if over:
            self._store.put_many(dict.fromkeys(over))


def _answer_key(height: int, parent: Hash32, segment: int) -> bytes:
    return ANSWER + height.to_bytes(8, "big") + parent + segment.to_bytes(8, "big")
