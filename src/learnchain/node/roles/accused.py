"""The accused: shows the steps of a segment when a block asks it to, as winner or as auditor, until a block has them.

Keeping silent costs the bond, so the answer survives a kill: it is on disk before it is sent, and is sent again at
every height. The states that it needs are kept as long as anybody may ask.
"""

import logging

from learnchain.node.evidence_measuring import EvidenceMeasuring
from learnchain.node.ports import Ports
from learnchain.node.step_answers import DisputedRun, StepAnswers
from learnchain.primitives.actions import OpenHeight
from learnchain.primitives.audit_rules import assignment
from learnchain.primitives.bonds import BondBook, Dispute, DisputeOutcome, RoundFact
from learnchain.primitives.dispute_messages import DisputeAnswer
from learnchain.primitives.dispute_rules import bound_by
from learnchain.primitives.messages import Block
from learnchain.primitives.rejection import Rejected, Unavailable
from learnchain.primitives.signatures import sign

logger = logging.getLogger(__name__)


class Accused:
    """Answer what this node is asked for, one segment after the other, the oldest question first."""

    def __init__(self, ports: Ports, measuring: EvidenceMeasuring, answers: StepAnswers) -> None:
        self._ports, self._measuring, self._answers = ports, measuring, answers
        self._busy = False

    async def open_height(self, action: OpenHeight) -> None:
        """Look whether a block asks for steps of ours; send what is shown already again."""
        if self._busy or not self._ports.chain.is_current:
            return
        self._busy = True
        try:
            self._ports.archive.own.forget_answers(_oldest(self._book()))
            for dispute in self._book().disputes:
                if dispute.accused == self._ports.wallet.address and dispute.outcome is DisputeOutcome.ASKED:
                    await self._answer(dispute)
        finally:
            self._busy = False

    async def _answer(self, dispute: Dispute) -> None:
        place = (dispute.height, dispute.parent, dispute.segment)
        answer = self._ports.archive.own.answer(*place)
        try:
            if answer is None:
                answer = await self._written(dispute)
                if answer is None:
                    return
                # On disk before on the wire: after a kill the same steps are shown, and no others.
                self._ports.archive.own.keep_answer(answer)
            await self._ports.announce(answer)
        except (Rejected, Unavailable) as error:
            # Said at every height until the deadline has passed: nobody wants to lose its bond in silence.
            logger.warning("the steps of segment %d of height %d wait: %s", dispute.segment, dispute.height, error)

    async def _written(self, dispute: Dispute) -> DisputeAnswer | None:
        book = self._book()
        fact = book.fact(dispute.height, dispute.parent)
        block = None if fact is None else self._ports.archive.block(fact.block)
        commitment = None if fact is None else bound_by(book, fact, dispute.accused)
        if fact is None or commitment is None or not isinstance(block, Block):
            return None
        run = DisputedRun(block, self._measuring.selection(fact), self.forced_seed(fact, dispute))
        self._note(dispute, "asked for steps", segment=dispute.segment)
        unsigned, opening = await self._answers.written(run, dispute.segment, commitment)
        # Under the height that is asked about: they go when its states go, not before.
        files = (unsigned.digests_cid, unsigned.states_cid)
        self._ports.archive.blobs.note(dispute.height, files)
        for cid in files:
            await self._ports.blobs.pin(cid)
        self._note(dispute, "shows steps", segment=dispute.segment, states=unsigned.states)
        signed = sign(unsigned, self._ports.wallet.private_key)
        return DisputeAnswer(dispute.height, dispute.parent, dispute.accused, signed, opening)

    def forced_seed(self, fact: RoundFact, dispute: Dispute) -> bytes:
        """Return the seed that corrupted where an accused auditor began; nothing for a winner."""
        if dispute.accused == fact.winner:
            return b""
        given = assignment(self._book(), fact, dispute.accused, self._ports.chain.parameters)
        return given.seed if given is not None and dispute.segment in given.forced else b""

    def _book(self) -> BondBook:
        return self._ports.chain.round.parent.bonds

    def _note(self, dispute: Dispute, what: str, **facts: int) -> None:
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, dispute.height, what, "0x" + dispute.accuser.hex(), **facts)


def _oldest(book: BondBook) -> int:
    return min((each.height for each in book.facts), default=0)
