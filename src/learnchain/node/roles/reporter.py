"""The reporter: every node that sees a rule broken in signed words says so, and earns a quarter of the bond."""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from learnchain.consensus.evidence import Statement, build_evidence
from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import check_signature, sign
from learnchain.network.concurrency import retry
from learnchain.node.chain import PendingMessage, Ports, WireMessage
from learnchain.protocol import messages
from learnchain.protocol.actions import MeasureEvidence, MeasureResponse, OpenHeight, RevealModel, TrainModel
from learnchain.protocol.audit_messages import Challenge, ChallengeResponse
from learnchain.protocol.events import MeasurementFinished
from learnchain.protocol.measurement import Measurement, MeasurementRequest
from learnchain.protocol.state import Selection
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.tasks.publishing import OpenedKeys
from learnchain.verification.measurer import EvidenceMeasurer
from learnchain.verification.state_disclosures import StateDisclosures

logger = logging.getLogger(__name__)

MAXIMUM_ACCUSATIONS = 64
"""Accusations that wait for their height to be a block; the oldest is dropped first."""


class Reporter:
    """Compare what is refused with what is known, open published data, measure others' evidence."""

    def __init__(self, ports: Ports, measuring: EvidenceMeasurer, answers: StateDisclosures) -> None:
        self._ports = ports
        self._measuring, self._answers = measuring, answers
        self._pending_evidence = OrderedDict(
            (each.fault_id, each) for each in ports.archive.slashing_protection.load_evidence()
        )

    # --- what signed words prove ---------------------------------------------------------------------------------

    def compare(self, message: WireMessage, refused: RejectionReason | None) -> None:
        """Look for a contradiction between a message from the wire and what this node took for the same height."""
        state = self._ports.chain.round
        if isinstance(message, messages.Commitment):
            rivals = (each for each in state.commitments.values() if each.miner == message.miner)
            self._report_contradiction(messages.Fault.DOUBLE_COMMITMENT, message.miner, message, next(rivals, None))
        elif isinstance(message, messages.Reveal):
            opened = (each for each in state.reveals.values() if each.miner == message.miner)
            self._report_contradiction(messages.Fault.DOUBLE_REVEAL, message.miner, message, next(opened, None))
        elif isinstance(message, messages.ReleaseAnnouncement | messages.Block):
            known = state.announcement
            if known is not None:
                self._report_contradiction(
                    messages.Fault.DOUBLE_RELEASE, self._publisher(), message.release, known.release
                )
            if isinstance(message, messages.Block):
                self._compare_siblings(message)
        if refused is RejectionReason.KEY_MISMATCH and isinstance(
            message, messages.KeyRelease | messages.ReleaseAnnouncement
        ):
            signed = message if isinstance(message, messages.KeyRelease) else message.release
            self._build_evidence(messages.Fault.DATA_CHANGED, self._publisher(), (signed,))

    def _compare_siblings(self, block: messages.Block) -> None:
        """Compare the release of a block with those of known blocks on the same parent."""
        for record in tuple(self._ports.chain.round.tree.records.values()):
            other = record.block
            if isinstance(other, messages.Block) and other.parent == block.parent and other.release != block.release:
                selection = self._selection(block)
                if selection is not None:
                    pair = (block.release, other.release)
                    self._report_contradiction(messages.Fault.DOUBLE_RELEASE, selection.task.publisher, *pair)

    def _selection(self, block: messages.Block) -> Selection | None:
        tree, chain = self._ports.chain.round.tree, self._ports.chain
        return chain.rules.select_task(tree.state(block.parent), chain.parameters) if block.parent in tree else None

    def _report_contradiction(
        self,
        fault: messages.Fault,
        offender: Address,
        first: messages.Commitment | messages.Reveal | messages.Release,
        other: Statement | None,
    ) -> None:
        if other is None or first == other or (first.parent, first.height) != (other.parent, other.height):
            return
        self._build_evidence(fault, offender, (first, other))

    def _publisher(self) -> Address:
        return self._ports.chain.round.selection.task.publisher

    def _build_evidence(self, fault: messages.Fault, offender: Address, signed: tuple[Statement, ...]) -> None:
        """Sign an accusation, unless its statements are forged by a third party; it is sent once its height is over."""
        try:
            for each in signed:
                check_signature(each, offender)
        except Rejected as error:
            logger.debug("no accusation from a forged statement: %s", error)
            return
        draft = build_evidence(fault, offender, self._ports.wallet.address, signed)
        if draft.fault_id in self._pending_evidence or offender == self._ports.wallet.address:
            return
        evidence = sign(draft, self._ports.wallet.private_key)
        self._ports.archive.slashing_protection.store_evidence(evidence)
        self._pending_evidence[draft.fault_id] = evidence
        while len(self._pending_evidence) > MAXIMUM_ACCUSATIONS:
            self._forget(next(iter(self._pending_evidence)))
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, draft.height, "reported", "0x" + offender.hex(), fault=fault.value)

    # --- what opened data prove ----------------------------------------------------------------------------------

    async def train_model(self, action: TrainModel) -> None:
        """Open the training data as soon as the key is out; data other than promised are the publisher's fault."""
        await self._compare_data(action.selection, action.key_release)

    async def reveal_model(self, action: RevealModel) -> None:
        """Open the test set as soon as its key is out."""
        await self._compare_data(action.selection, action.announcement.release)

    async def _compare_data(self, selection: Selection, signed: messages.KeyRelease | messages.Release) -> None:
        if not self._measuring.verifies_models or selection.task.is_standing:
            return
        specification, data = selection.posted_task.specification, self._ports.data
        try:
            if isinstance(signed, messages.KeyRelease):
                keys = OpenedKeys(signed.key, self._ports.chain.rules.parts.functional_key(signed))
                await data.training(keys, specification, self._measuring.terms(selection))
            else:
                await data.open_part(selection.test_set, signed.key, specification)
        except Rejected as error:
            # Our own disk may lie too: the accusation rests on a second opening of the file itself.
            logger.warning("the data of task %s are not as promised: %s", selection.task.task_id.hex()[:16], error)
            if await self._measuring.is_data_changed(selection, signed):
                self._build_evidence(messages.Fault.DATA_CHANGED, selection.task.publisher, (signed,))

    # --- sending and measuring -----------------------------------------------------------------------------------

    async def open_height(self, action: OpenHeight) -> None:
        """Send the accusations whose height is a block now, and again what waits of ours: a kill may cut it off."""
        for message in self._ports.chain.list_pending_messages().values():
            if signer_of(message) == self._ports.wallet.address:
                await self._ports.network.publish(message)
        for key, evidence in tuple(self._pending_evidence.items()):
            try:
                await self._ports.announce(evidence)
            except Unavailable:
                continue
            except Rejected as error:
                logger.info("an accusation is of no use: %s", error)
            self._forget(key)

    def _forget(self, fault_id: Hash32) -> None:
        self._pending_evidence.pop(fault_id, None)
        self._ports.archive.slashing_protection.forget_evidence(fault_id)

    async def measure_response(self, action: MeasureResponse) -> None:
        """Fetch and check what an answer names until it is here, or nobody asks any more."""
        head = self._ports.chain.round.parent.height + 1
        files = (action.response.disclosure.digests_cid, action.response.disclosure.states_cid)
        self._ports.archive.blobs.note(head, files)
        found = await self._retry_measuring(
            action.request, lambda: self._measuring.measure_response(action, self._answers)
        )
        if found is not None:
            now = self._ports.clock.now_milliseconds()
            facts = {"finding": found.finding.value, "segment": action.response.disclosure.segment}
            self._ports.decisions.note(now, action.record.height, "measured answer", found.candidate.hex(), **facts)
            self._ports.chain.feed(MeasurementFinished(found, now))

    async def measure_evidence(self, action: MeasureEvidence) -> None:
        """Measure evidence until what it rests on is here or it does not count any more."""
        found = await self._retry_measuring(action.request, lambda: self._measuring.measure(action))
        if found is not None:
            now = self._ports.clock.now_milliseconds()
            facts = {"finding": found.finding.value, "fault": action.evidence.fault.value}
            self._ports.decisions.note(now, action.evidence.height, "measured evidence", found.candidate.hex(), **facts)
            self._ports.chain.feed(MeasurementFinished(found, now))

    async def _retry_measuring(
        self, measure: MeasurementRequest, measuring: Callable[[], Awaitable[Measurement]]
    ) -> Measurement | None:
        """Return what measuring comes to once everything is here; None when nobody asks any more."""

        async def attempt() -> Measurement | None:
            is_requested = (measure.candidate, measure.kind) in self._ports.chain.round.requested_measurements
            return await measuring() if is_requested else None

        return await retry(f"measuring {measure.kind.value}", attempt)


def signer_of(message: PendingMessage) -> Address:
    """Return who signed a message that waits for a block."""
    if isinstance(message, messages.Evidence):
        return message.reporter
    if isinstance(message, Challenge):
        return message.challenger
    return message.respondent if isinstance(message, ChallengeResponse) else message.auditor
