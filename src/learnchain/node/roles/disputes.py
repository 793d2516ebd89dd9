"""The accuser: asks for the steps of a segment whose bits differ, reads the answer, and proves the step nobody takes.

A difference proves nothing, so this role punishes nobody by itself: silence is punished by the clock of heights, and
steps by evidence that every node measures. It goes by the book alone, so that a kill loses nothing.
"""

import logging

from learnchain.node.evidence_measuring import EvidenceMeasuring
from learnchain.node.ports import Ports
from learnchain.node.step_answers import DisputedRun, StepAnswers
from learnchain.primitives.audit import AuditFinding, FraudProof, StepOpening, open_step
from learnchain.primitives.audit_messages import AuditReport
from learnchain.primitives.bonds import BondBook, Dispute, DisputeOutcome, RoundFact
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.dispute_messages import Accusation, DisputeAnswer
from learnchain.primitives.dispute_rules import check_accusation
from learnchain.primitives.evidence import false_audit, forged_trace
from learnchain.primitives.evidence_messages import Evidence
from learnchain.primitives.hashing import noun_hash
from learnchain.primitives.messages import Block
from learnchain.primitives.rejection import Rejected, Unavailable
from learnchain.primitives.signatures import UNSIGNED, sign

logger = logging.getLogger(__name__)

Suspect = tuple[int, Hash32, Address, int]
"""Height, parent, who trained, and the segment whose bits differ."""


class Accuser:
    """Hold whom to accuse until a block asks it, and read the answers to what anybody asked."""

    def __init__(self, ports: Ports, measuring: EvidenceMeasuring, answers: StepAnswers) -> None:
        self._ports, self._measuring, self._answers = ports, measuring, answers
        self._suspects: dict[Suspect, None] = {}
        self._read: set[Hash32] = set()

    async def suspect(self, fact: RoundFact, trainer: Address, segment: int) -> None:
        """Remember that somebody's bits differ from ours, and ask for its steps as soon as that is covered."""
        place = (fact.height, fact.parent, trainer, segment)
        if place not in self._suspects:
            self._suspects[place] = None
            self._note(fact, "bits differ", trainer, segment=segment)

    async def open_height(self) -> None:
        """Ask what is to be asked; prove what the answers show."""
        book = self._book()
        remembered = {(each.height, each.parent) for each in book.facts}
        asked = {(each.height, each.parent, each.accused, each.segment) for each in book.disputes}
        for place in tuple(self._suspects):
            if place in asked or place[:2] not in remembered:
                del self._suspects[place]
                continue
            await self._accuse(place)
        # A segment is disputed once: where a forger's friend asked, the proof has to come from somebody else.
        for dispute in book.disputes:
            if dispute.accused != self._ports.wallet.address and dispute.outcome is DisputeOutcome.ANSWERED:
                await self._prove(dispute)

    async def _accuse(self, place: Suspect) -> None:
        height, parent, trainer, segment = place
        state = self._ports.chain.round
        chain_id, accuser = state.parameters.chain_id, self._ports.wallet.address
        draft = Accusation(chain_id, height, parent, trainer, segment, accuser, UNSIGNED)
        accusation = sign(draft, self._ports.wallet.private_key)
        try:
            check_accusation(state.parent.bonds, accusation, state.parent.height + 1, state.parameters)
            await self._ports.announce(accusation)
        except (Rejected, Unavailable) as error:
            # Without a deposit, or while others ask enough, it waits; what is out of the window is forgotten above.
            logger.info("accusing 0x%s waits: %s", trainer.hex(), error)

    async def _prove(self, dispute: Dispute) -> None:
        """Read an answer once; bring the fault that it shows."""
        if dispute.answer in self._read:
            return
        found = self._shown(dispute)
        fact = self._book().fact(dispute.height, dispute.parent)
        block = None if fact is None else self._ports.archive.block(fact.block)
        if found is None or fact is None or not isinstance(block, Block):
            return
        try:
            proof = await self._fault(fact, block, found)
        except Unavailable as error:
            logger.info("reading the steps of 0x%s waits: %s", dispute.accused.hex(), error)
            return
        self._read.add(dispute.answer)
        if proof is None:
            self._note(fact, "steps may be honest", dispute.accused, segment=dispute.segment)
            return
        self._note(fact, "found forged", dispute.accused, finding=proof.finding.value, segment=dispute.segment)
        await self._bring(fact, dispute, proof)

    async def _fault(self, fact: RoundFact, block: Block, shown: DisputeAnswer) -> FraudProof | None:
        """Return the proof of what is wrong with an answer: its ends, or a step that no honest machine takes."""
        selection = self._measuring.selection(fact)
        chain = self._proof(shown, AuditFinding.FAULT_STEP_CHAIN, ())
        draft = self._evidence(fact, shown.accused, chain)
        if await self._measuring.holds(draft, fact, self._book()):
            return chain
        run = DisputedRun(block, selection)
        outlier = await self._answers.outlier(run, shown.answer, shown.opening)
        if outlier is None:
            return None
        states = (outlier.before, outlier.after)
        self._ports.archive.blobs.note(self._ports.chain.round.parent.height + 1, states)
        for cid in states:
            await self._ports.blobs.pin(cid)
        step = open_step(outlier.digests, outlier.offset, outlier.before, outlier.after)
        return self._proof(shown, AuditFinding.FAULT_OUT_OF_BOUNDS, (step,))

    def _proof(self, shown: DisputeAnswer, finding: AuditFinding, steps: tuple[StepOpening, ...]) -> FraudProof:
        answer, reporter = shown.answer, self._ports.wallet.address
        parts = ((shown.opening,), (answer,), steps)
        draft = FraudProof(answer.chain_id, answer.commitment, finding, *parts, reporter, UNSIGNED)
        return sign(draft, self._ports.wallet.private_key)

    def _evidence(self, fact: RoundFact, accused: Address, proof: FraudProof) -> Evidence:
        if accused == fact.winner:
            draft = forged_trace(proof, fact)
        else:
            draft = false_audit(self._reported(fact, accused), proof)
        return sign(draft, self._ports.wallet.private_key)

    async def _bring(self, fact: RoundFact, dispute: Dispute, proof: FraudProof) -> None:
        try:
            await self._ports.announce(self._evidence(fact, dispute.accused, proof))
        except (Rejected, Unavailable) as error:
            logger.info("the proof is of no use now: %s", error)

    def _shown(self, dispute: Dispute) -> DisputeAnswer | None:
        """Return the answer that a block of our branch carried."""
        head = self._ports.chain.round.head
        state = self._ports.archive.on_branch(head, dispute.answered_height)
        block = self._ports.archive.block(state.block_hash)
        return next((each for each in block.answers if noun_hash(each.answer) == dispute.answer), None)

    def _reported(self, fact: RoundFact, auditor: Address) -> AuditReport:
        """Return the report that a block of our branch opened."""
        place = (fact.height, fact.parent, auditor)
        entries = (each for each in self._book().audits if (each.height, each.parent, each.auditor) == place)
        state = self._ports.archive.on_branch(self._ports.chain.round.head, next(entries).opened_height)
        block = self._ports.archive.block(state.block_hash)
        listed = block.audit_reports if isinstance(block, Block) else ()
        return next(each for each in listed if (each.height, each.parent, each.auditor) == place)

    def _book(self) -> BondBook:
        return self._ports.chain.round.parent.bonds

    def _note(self, fact: RoundFact, what: str, about: Address, **facts: float | int | str) -> None:
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, fact.height, what, "0x" + about.hex(), **facts)
