"""The accuser: asks for the steps of a segment whose bits differ, reads the answer, and proves the step nobody takes.

A difference proves nothing, so this role punishes nobody by itself: silence is punished by the clock of heights, and
steps by evidence that every node measures. It goes by the book alone, so that a kill loses nothing.

The accused: shows the steps of a segment when a block asks it to, as winner or as auditor, until a block has them.

Keeping silent costs the bond, so the answer survives a kill: it is on disk before it is sent, and is sent again at
every height. The states that it needs are kept as long as anybody may ask.
"""

import logging

from learnchain.consensus.audits import AuditFinding, FraudProof, StepOpening, assign_segments, open_step
from learnchain.consensus.disputes import bound_commitment, check_challenge
from learnchain.consensus.evidence import build_audit_evidence, build_trace_evidence
from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import UNSIGNED, message_hash, sign
from learnchain.node.chain import Ports
from learnchain.protocol.actions import OpenHeight
from learnchain.protocol.audit_messages import AuditReport, Challenge, ChallengeResponse
from learnchain.protocol.messages import Block, Evidence
from learnchain.protocol.state import BondRegistry, Dispute, DisputeOutcome, HeightRecord
from learnchain.rejection import Rejected, Unavailable
from learnchain.verification.measurer import EvidenceMeasurer
from learnchain.verification.state_disclosures import DisputedRun, StateDisclosures

logger = logging.getLogger(__name__)

Suspect = tuple[int, Hash32, Address, int]
"""Height, parent, who trained, and the segment whose bits differ."""


class Challenger:
    """Hold whom to accuse until a block asks it, and read the answers to what anybody asked."""

    def __init__(self, ports: Ports, measuring: EvidenceMeasurer, answers: StateDisclosures) -> None:
        self._ports, self._measuring, self._answers = ports, measuring, answers
        self._suspects: dict[Suspect, None] = {}
        self._read: set[Hash32] = set()

    async def record_mismatch(self, fact: HeightRecord, trainer: Address, segment: int) -> None:
        """Remember that somebody's bits differ from ours, and ask for its steps as soon as that is covered."""
        place = (fact.height, fact.parent, trainer, segment)
        if place not in self._suspects:
            self._suspects[place] = None
            self._note_decision(fact, "bits differ", trainer, segment=segment)

    async def open_height(self) -> None:
        """Ask what is to be asked; prove what the answers show."""
        book = self._bond_registry()
        remembered = {(each.height, each.parent) for each in book.height_records}
        asked = {(each.height, each.parent, each.respondent, each.segment) for each in book.disputes}
        for place in tuple(self._suspects):
            if place in asked or place[:2] not in remembered:
                del self._suspects[place]
                continue
            await self._send_challenge(place)
        # A segment is disputed once: where a forger's friend asked, the proof has to come from somebody else.
        for dispute in book.disputes:
            if dispute.respondent != self._ports.wallet.address and dispute.outcome is DisputeOutcome.RESPONDED:
                await self._prove(dispute)

    async def _send_challenge(self, suspect: Suspect) -> None:
        height, parent, trainer, segment = suspect
        state = self._ports.chain.round
        chain_id, accuser = state.parameters.chain_id, self._ports.wallet.address
        draft = Challenge(chain_id, height, parent, trainer, segment, accuser, UNSIGNED)
        accusation = sign(draft, self._ports.wallet.private_key)
        try:
            check_challenge(state.parent.bonds, accusation, state.parent.height + 1, state.parameters)
            await self._ports.announce(accusation)
        except (Rejected, Unavailable) as error:
            # Without a deposit, or while others ask enough, it waits; what is out of the window is forgotten above.
            logger.info("accusing 0x%s waits: %s", trainer.hex(), error)

    async def _prove(self, dispute: Dispute) -> None:
        """Read an answer once; bring the fault that it shows."""
        if dispute.disclosure_hash in self._read:
            return
        found = self._find_response(dispute)
        fact = self._bond_registry().height_record(dispute.height, dispute.parent)
        block = None if fact is None else self._ports.archive.block(fact.block)
        if found is None or fact is None or not isinstance(block, Block):
            return
        try:
            proof = await self._find_fault(fact, block, found)
        except Unavailable as error:
            logger.info("reading the steps of 0x%s waits: %s", dispute.respondent.hex(), error)
            return
        self._read.add(dispute.disclosure_hash)
        if proof is None:
            self._note_decision(fact, "steps may be honest", dispute.respondent, segment=dispute.segment)
            return
        self._note_decision(
            fact, "found forged", dispute.respondent, finding=proof.finding.value, segment=dispute.segment
        )
        await self._announce_proof(fact, dispute, proof)

    async def _find_fault(self, fact: HeightRecord, block: Block, shown: ChallengeResponse) -> FraudProof | None:
        """Return the proof of what is wrong with an answer: its ends, or a step that no honest machine takes."""
        selection = self._measuring.selection(fact)
        chain = self._build_proof(shown, AuditFinding.FAULT_STEP_CHAIN, ())
        draft = self._build_evidence(fact, shown.respondent, chain)
        if await self._measuring.is_evidence_valid(draft, fact, self._bond_registry()):
            return chain
        run = DisputedRun(block, selection)
        outlier = await self._answers.find_first_out_of_bounds(run, shown.disclosure, shown.opening)
        if outlier is None:
            return None
        states = (outlier.before, outlier.after)
        self._ports.archive.blobs.note(self._ports.chain.round.parent.height + 1, states)
        for cid in states:
            await self._ports.blobs.pin(cid)
        step = open_step(outlier.digests, outlier.offset, outlier.before, outlier.after)
        return self._build_proof(shown, AuditFinding.FAULT_OUT_OF_BOUNDS, (step,))

    def _build_proof(
        self, shown: ChallengeResponse, finding: AuditFinding, steps: tuple[StepOpening, ...]
    ) -> FraudProof:
        answer, reporter = shown.disclosure, self._ports.wallet.address
        parts = ((shown.opening,), (answer,), steps)
        draft = FraudProof(answer.chain_id, answer.commitment, finding, *parts, reporter, UNSIGNED)
        return sign(draft, self._ports.wallet.private_key)

    def _build_evidence(self, fact: HeightRecord, accused: Address, proof: FraudProof) -> Evidence:
        if accused == fact.winner:
            draft = build_trace_evidence(proof, fact)
        else:
            draft = build_audit_evidence(self._find_report(fact, accused), proof)
        return sign(draft, self._ports.wallet.private_key)

    async def _announce_proof(self, fact: HeightRecord, dispute: Dispute, proof: FraudProof) -> None:
        try:
            await self._ports.announce(self._build_evidence(fact, dispute.respondent, proof))
        except (Rejected, Unavailable) as error:
            logger.info("the proof is of no use now: %s", error)

    def _find_response(self, dispute: Dispute) -> ChallengeResponse | None:
        """Return the answer that a block of our branch carried."""
        head = self._ports.chain.round.head
        state = self._ports.archive.on_branch(head, dispute.responded_height)
        block = self._ports.archive.block(state.block_hash)
        return next(
            (each for each in block.responses if message_hash(each.disclosure) == dispute.disclosure_hash), None
        )

    def _find_report(self, fact: HeightRecord, auditor: Address) -> AuditReport:
        """Return the report that a block of our branch opened."""
        place = (fact.height, fact.parent, auditor)
        entries = (each for each in self._bond_registry().audits if (each.height, each.parent, each.auditor) == place)
        state = self._ports.archive.on_branch(self._ports.chain.round.head, next(entries).opened_height)
        block = self._ports.archive.block(state.block_hash)
        listed = block.audit_reports if isinstance(block, Block) else ()
        return next(each for each in listed if (each.height, each.parent, each.auditor) == place)

    def _bond_registry(self) -> BondRegistry:
        return self._ports.chain.round.parent.bonds

    def _note_decision(self, fact: HeightRecord, what: str, about: Address, **facts: float | int | str) -> None:
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, fact.height, what, "0x" + about.hex(), **facts)


class Respondent:
    """Answer what this node is asked for, one segment after the other, the oldest question first."""

    def __init__(self, ports: Ports, measuring: EvidenceMeasurer, answers: StateDisclosures) -> None:
        self._ports, self._measuring, self._answers = ports, measuring, answers
        self._busy = False

    async def open_height(self, action: OpenHeight) -> None:
        """Look whether a block asks for steps of ours; send what is shown already again."""
        if self._busy or not self._ports.chain.is_current:
            return
        self._busy = True
        try:
            self._ports.archive.slashing_protection.forget_responses(_oldest_open_height(self._bond_registry()))
            for dispute in self._bond_registry().disputes:
                if dispute.respondent == self._ports.wallet.address and dispute.outcome is DisputeOutcome.CHALLENGED:
                    await self._respond(dispute)
        finally:
            self._busy = False

    async def _respond(self, dispute: Dispute) -> None:
        place = (dispute.height, dispute.parent, dispute.segment)
        answer = self._ports.archive.slashing_protection.load_response(*place)
        try:
            if answer is None:
                answer = await self._build_response(dispute)
                if answer is None:
                    return
                # On disk before on the wire: after a kill the same steps are shown, and no others.
                self._ports.archive.slashing_protection.store_response(answer)
            await self._ports.announce(answer)
        except (Rejected, Unavailable) as error:
            # Said at every height until the deadline has passed: nobody wants to lose its bond in silence.
            logger.warning("the steps of segment %d of height %d wait: %s", dispute.segment, dispute.height, error)

    async def _build_response(self, dispute: Dispute) -> ChallengeResponse | None:
        book = self._bond_registry()
        fact = book.height_record(dispute.height, dispute.parent)
        block = None if fact is None else self._ports.archive.block(fact.block)
        commitment = None if fact is None else bound_commitment(book, fact, dispute.respondent)
        if fact is None or commitment is None or not isinstance(block, Block):
            return None
        run = DisputedRun(block, self._measuring.selection(fact), self.find_forced_seed(fact, dispute))
        self._note_decision(dispute, "asked for steps", segment=dispute.segment)
        unsigned, opening = await self._answers.write_disclosure(run, dispute.segment, commitment)
        # Under the height that is asked about: they go when its states go, not before.
        files = (unsigned.digests_cid, unsigned.states_cid)
        self._ports.archive.blobs.note(dispute.height, files)
        for cid in files:
            await self._ports.blobs.pin(cid)
        self._note_decision(dispute, "shows steps", segment=dispute.segment, states=unsigned.states)
        signed = sign(unsigned, self._ports.wallet.private_key)
        return ChallengeResponse(dispute.height, dispute.parent, dispute.respondent, signed, opening)

    def find_forced_seed(self, fact: HeightRecord, dispute: Dispute) -> bytes:
        """Return the seed that corrupted where an accused auditor began; nothing for a winner."""
        if dispute.respondent == fact.winner:
            return b""
        given = assign_segments(self._bond_registry(), fact, dispute.respondent, self._ports.chain.parameters)
        return given.seed if given is not None and dispute.segment in given.forced else b""

    def _bond_registry(self) -> BondRegistry:
        return self._ports.chain.round.parent.bonds

    def _note_decision(self, dispute: Dispute, what: str, **facts: int) -> None:
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, dispute.height, what, "0x" + dispute.challenger.hex(), **facts)


def _oldest_open_height(book: BondRegistry) -> int:
    return min((each.height for each in book.height_records), default=0)
