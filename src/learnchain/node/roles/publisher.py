"""The publisher: task publisher of DLBC, data node of PoLe, model requester of PoDL; also steward of standing tasks."""

import logging

from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.node.ports import Ports
from learnchain.protocol.actions import OpenHeight, ReleaseTestSet
from learnchain.protocol.messages import KeyRelease, Release, ReleaseAnnouncement, release_root, work_id
from learnchain.protocol.selection import Selection
from learnchain.protocol.task_specification import Cid, Encryption
from learnchain.tasks.publishing import issued_key

logger = logging.getLogger(__name__)


class Publisher:
    """Open the data of one's own tasks exactly when the round asks for it, to everybody at once (Assumption 1)."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._released: set[tuple[bytes, str]] = set()

    async def open_height(self, action: OpenHeight) -> None:
        """Release the training-data key when the height starts (step 3, DLBC IV-E)."""
        selection = action.selection
        key = self._load_own_key(selection, selection.posted_task.specification.data.training.key_hash)
        if key is None or (selection.parent, "key") in self._released:
            return
        await self._ports.clock.sleep_until(selection.schedule.start_milliseconds)
        if self._ports.chain.round.selection.parent != selection.parent:
            return
        self._released.add((selection.parent, "key"))
        part = self._ports.chain.rules.parts.key_release_part(await self._functional_key(selection))
        if self._ports.clock.now_milliseconds() > selection.schedule.key_milliseconds:
            await self._announce_again(selection)
            return
        chain_id = self._ports.chain.parameters.chain_id
        task_id = selection.task.task_id
        message = KeyRelease(chain_id, selection.height, selection.parent, task_id, key, part, UNSIGNED)
        await self._ports.announce(sign(message, self._ports.wallet.private_key))
        self._note(selection, "key released")
        await self._announce_again(selection)

    async def _announce_again(self, selection: Selection) -> None:
        """Send the release that an earlier life signed: it may have been killed before anybody had it."""
        announcement = self._ports.archive.slashing_protection.load_release(selection.parent)
        if announcement is not None:
            await self._ports.announce(announcement)

    async def release_test_set(self, action: ReleaseTestSet) -> None:
        """Close the list of commitments and open the test set, once per height: two releases are slashable (step 6)."""
        selection = action.selection
        key = self._load_own_key(selection, selection.test_set.key_hash)
        if key is None:
            return
        announcement = self._ports.archive.slashing_protection.load_release(selection.parent)
        if announcement is None:
            now = max(self._ports.clock.now_milliseconds(), selection.schedule.release_opens_milliseconds)
            release = Release(
                chain_id=self._ports.chain.parameters.chain_id,
                height=selection.height,
                parent=selection.parent,
                task_id=selection.task.task_id,
                root=release_root(action.commitments),
                count=len(action.commitments),
                key=key,
                released_milliseconds=now,
                signature=UNSIGNED,
            )
            announcement = ReleaseAnnouncement(sign(release, self._ports.wallet.private_key), action.commitments)
            # On disk before on the wire: a publisher that restarts must never sign a second release.
            self._ports.archive.slashing_protection.store_release(announcement)
        await self._ports.announce(announcement)
        self._note(selection, "test set released", commitments=len(announcement.commitments))

    async def _functional_key(self, selection: Selection) -> Cid:
        """Issue this block's functional key where rows stay encrypted: its queries follow from the block before."""
        specification, ports = selection.posted_task.specification, self._ports
        if specification.encryption is not Encryption.INNER_PRODUCT:
            return b""
        work = work_id(ports.chain.parameters.chain_id, selection.parent, selection.task.task_id, ports.wallet.address)
        terms = ports.chain.rules.training_terms(selection, work)
        key = await issued_key(ports.vault, ports.encryption, specification.data.training, terms)
        return await ports.blobs.add_bytes(key)

    def _load_own_key(self, selection: Selection, digest: bytes) -> bytes | None:
        if selection.task.publisher != self._ports.wallet.address:
            return None
        key = self._ports.vault.key(digest)
        if key is None:
            logger.error("the key of our own task %s is not in the vault", selection.task.task_id.hex()[:16])
        return key

    def _note(self, selection: Selection, what: str, **facts: int) -> None:
        now = self._ports.clock.now_milliseconds()
        self._ports.decisions.note(now, selection.height, what, selection.task.task_id.hex(), **facts)
