"""The auditor: replays the segments that the seed gives it, is paid for it, and proves what others forged.

Whoever has no coins earns the first ones here. It audits winners of recent heights, commits before anybody opens, opens
in its turn, and checks the other auditors. Where bits differ inside its class it accuses; of machines of other classes
it keeps away.
"""

import logging
from dataclasses import dataclass

from learnchain.consensus import audits
from learnchain.consensus.evidence import build_trace_evidence
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.learning.jobs import AuditLine
from learnchain.node.chain import Ports
from learnchain.node.roles.disputes import Challenger
from learnchain.protocol import audit_messages
from learnchain.protocol.actions import OpenHeight
from learnchain.protocol.messages import Block, Evidence
from learnchain.protocol.state import HeightRecord
from learnchain.rejection import Rejected, Unavailable
from learnchain.verification.measurer import EvidenceMeasurer
from learnchain.verification.replay import ReplayScope, TraceReplayer, convert_to_segments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditTools:
    """Join what an auditor replays with and measures by."""

    judge: TraceReplayer
    measuring: EvidenceMeasurer
    accuser: Challenger


class Auditor:
    """Audit one height at a time, the oldest open one first, whenever a block is added."""

    def __init__(self, ports: Ports, auditing: AuditTools) -> None:
        self._ports = ports
        self._judge, self._measuring, self._accuser = auditing.judge, auditing.measuring, auditing.accuser
        self._class = audit_messages.UNDECLARED_CLASS
        self._reports = {(each.height, each.parent): each for each in ports.archive.slashing_protection.load_reports()}
        self._checked: set[Hash32] = set()
        self._busy = False

    async def open_height(self, action: OpenHeight) -> None:
        """Open what is due, audit what is open, check what others opened."""
        if self._busy or not self._ports.chain.is_current:
            return
        self._busy = True
        try:
            self._class = await self._ports.evaluator.machine_class()
            await self._open_due()
            await self._audit_next()
            await self._check_others()
            await self._accuser.open_height()
        finally:
            self._busy = False

    # --- our own audits ------------------------------------------------------------------------------------------

    async def _audit_next(self) -> None:
        for fact in self._ports.chain.round.parent.bonds.height_records:
            if not self._is_open(fact):
                continue
            report = self._reports.get((fact.height, fact.parent))
            if report is None:
                await self._audit(fact)
            else:
                # Our commitment stands in no block yet: a kill or a full block may have cost it its place.
                await self._say(self._commitment(fact, audit_messages.report_digest(report)))

    def _is_open(self, fact: HeightRecord) -> bool:
        """Return whether our commitment to this height would count now: the winner must be of our class, for one."""
        state = self._ports.chain.round
        draft = self._commitment(fact, b"\0" * 32)
        try:
            audits.check_audit_commitment(state.parent.bonds, draft, state.parent.height + 1, state.parameters)
        except Rejected:
            return False
        return True

    async def _audit(self, fact: HeightRecord) -> None:
        """Check the run as a whole, replay our segments and bind ourselves to what was found."""
        state = self._ports.chain.round
        given = audits.assign_segments(state.parent.bonds, fact, self._ports.wallet.address, state.parameters)
        block = self._ports.archive.block(fact.block)
        if given is None or not isinstance(block, Block):
            return
        selection = self._measuring.selection(fact)
        try:
            await self._prove_faults(fact, block, given.sample.indices)
            lines = await self._judge.replay_segments(block, selection, given)
        except Unavailable as error:
            logger.info("the audit of height %d waits: %s", fact.height, error)
            return
        found = convert_to_segments(lines)
        for segment in _find_differing_segments(lines, given):
            # Of our class and other bits: the winner shows its steps, or pays for its silence.
            await self._accuser.record_mismatch(fact, fact.winner, segment)
        if tuple(each.segment for each in found) != given.sample.indices:
            return
        report = self._report(fact, found)
        # On disk before on the wire: whoever forgets its salt cannot open what it is bound to.
        self._ports.archive.slashing_protection.store_report(report)
        self._reports[fact.height, fact.parent] = report
        self._note(fact, "audited", segments=len(found), reproduced=sum(each.reproduced for each in found))
        await self._say(self._commitment(fact, audit_messages.report_digest(report)))

    async def _prove_faults(self, fact: HeightRecord, block: Block, indices: tuple[int, ...]) -> None:
        """Report what the published bytes alone show to be forged: a quarter of the miner's bond is ours."""
        selection = self._measuring.selection(fact)
        lines = await self._judge.audit(block, selection, ReplayScope(indices, replay=False))
        finding, segment = lines[-1].finding, lines[-1].segment
        if finding not in audits.HARDWARE_INDEPENDENT_FINDINGS:
            return
        self._note(fact, "found forged", finding=finding.value, segment=segment)
        openings = ()
        if segment >= 0 and finding is not audits.AuditFinding.FAULT_MERKLE_PATH:
            openings = (audits.open_segment(await self._judge.leaves(block), segment),)
        proof = audits.FraudProof(
            self._ports.chain.parameters.chain_id,
            fact.commitment,
            finding,
            openings,
            (),
            (),
            self._ports.wallet.address,
            UNSIGNED,
        )
        key = self._ports.wallet.private_key
        evidence = sign(build_trace_evidence(sign(proof, key), fact), key)
        await self._say(evidence)

    def _report(
        self, fact: HeightRecord, lines: tuple[audit_messages.AuditedSegment, ...]
    ) -> audit_messages.AuditReport:
        salt: Hash32 = self._ports.random_source.randbytes(32)
        report = audit_messages.AuditReport(
            self._ports.chain.parameters.chain_id,
            fact.height,
            fact.parent,
            self._ports.wallet.address,
            lines,
            salt,
            UNSIGNED,
        )
        return sign(report, self._ports.wallet.private_key)

    def _commitment(self, fact: HeightRecord, digest: Hash32) -> audit_messages.AuditCommitment:
        chain_id, auditor = self._ports.chain.parameters.chain_id, self._ports.wallet.address
        draft = audit_messages.AuditCommitment(
            chain_id, fact.height, fact.parent, auditor, digest, self._class, UNSIGNED
        )
        return sign(draft, self._ports.wallet.private_key)

    async def _open_due(self) -> None:
        """Open the reports whose turn it is; repeat until a block carries them."""
        state = self._ports.chain.round
        oldest = min((each.height for each in state.parent.bonds.height_records), default=0)
        self._reports = {key: each for key, each in self._reports.items() if key[0] >= oldest}
        self._ports.archive.slashing_protection.forget_reports(oldest)
        for report in tuple(self._reports.values()):
            try:
                audits.check_audit_report(state.parent.bonds, report, state.parent.height + 1, state.parameters)
            except Rejected:
                continue
            await self._say(report)

    # --- the audits of others ------------------------------------------------------------------------------------

    async def _check_others(self) -> None:
        """Replay what other auditors reported; who guessed cannot show its steps, and a quarter of its fine is ours.

        Only inside our class: everybody's bits that were admitted are of the winner's, and elsewhere they may differ.
        """
        head = self._ports.chain.round.parent
        for state in self._ports.archive.branch(head.block_hash, max(0, head.height - 2)):
            block = self._ports.archive.block(state.block_hash)
            for report in block.audit_reports if isinstance(block, Block) else ():
                digest = audit_messages.report_digest(report)
                if digest not in self._checked and report.auditor != self._ports.wallet.address:
                    self._checked.add(digest)
                    await self._check(report)

    async def _check(self, report: audit_messages.AuditReport) -> None:
        book = self._ports.chain.round.parent.bonds
        fact = book.height_record(report.height, report.parent)
        block = None if fact is None else self._ports.archive.block(fact.block)
        if fact is None or not isinstance(block, Block) or fact.training_records[0].machine_class != self._class:
            return
        given = audits.assign_segments(book, fact, report.auditor, self._ports.chain.parameters)
        if given is None:
            return
        try:
            lines = await self._judge.replay_segments(block, self._measuring.selection(fact), given)
        except Unavailable as error:
            logger.info("checking an audit waits: %s", error)
            self._checked.discard(audit_messages.report_digest(report))
            return
        ours = {each.segment: each for each in convert_to_segments(lines)}
        for line in report.segments:
            if ours.get(line.segment, line) != line:
                await self._accuser.record_mismatch(fact, report.auditor, line.segment)
                return

    async def _say(self, message: audit_messages.AuditCommitment | audit_messages.AuditReport | Evidence) -> None:
        try:
            await self._ports.announce(message)
        except (Rejected, Unavailable) as error:
            logger.info("%s is of no use now: %s", type(message).__name__, error)

    def _note(self, fact: HeightRecord, what: str, **facts: float | int | str) -> None:
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, fact.height, what, "0x" + fact.winner.hex(), **facts)


def _find_differing_segments(lines: tuple[AuditLine, ...], given: audits.AuditAssignment) -> tuple[int, ...]:
    """Return the first segment whose bits differ although nothing was corrupted; one proof punishes the whole run."""
    found = (each.segment for each in lines if each.finding is audits.AuditFinding.NUMERIC_MISMATCH)
    return tuple(each for each in found if each not in given.forced)[:1]
