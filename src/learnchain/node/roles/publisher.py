"""The publisher, and the claims of what blocks settle.

Publisher: task publisher of DLBC, data node of PoLe, model requester of PoDL; also steward of standing tasks. Claims:
the next producer sends the proof, is refunded a tip, and tries again until the contract has settled (ROUND-13).
"""

import logging
from enum import StrEnum

from learnchain.encoding.cryptography import UNSIGNED, history_branch, sign
from learnchain.execution import escrow
from learnchain.node.chain import Ports
from learnchain.protocol.actions import OpenHeight, ReleaseTestSet
from learnchain.protocol.messages import KeyRelease, Release, ReleaseAnnouncement, release_root, work_id
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.state import ChainState, Selection
from learnchain.protocol.task_specification import Cid, Encryption
from learnchain.rejection import Rejected
from learnchain.tasks.publishing import issued_key

logger = logging.getLogger(__name__)
MAXIMUM_CLAIMS_PER_PAYLOAD = 4
SETTLE_GAS = 400_000


class SettlementStage(StrEnum):
    """Say where a settlement stands in the contract."""

    OPEN = "open"
    WAITING = "waiting"
    DONE = "done"


async def settling_transactions(ports: Ports, parent: ChainState, timestamp_seconds: int) -> tuple[bytes, ...]:
    """Return signed claims for settlements on the branch of `parent` that the contract still holds open.

    The root they are proven against is that of `parent`, which the payload stamped `timestamp_seconds` carries.
    """
    history = ports.archive.settlements(parent.block_hash)
    if not history:
        return ()
    leaves = tuple(each.leaf(ports.chain.parameters.chain_id, ports.chain.parameters.escrow) for each in history)
    claims: list[escrow.Claim] = []
    for index in range(len(history) - 1, -1, -1):
        if len(claims) == MAXIMUM_CLAIMS_PER_PAYLOAD:
            break
        found = await _place(ports, history[index], index)
        if found is SettlementStage.OPEN:
            branch = history_branch(leaves, index)
            claims.append(escrow.Claim(history[index], index, branch, parent.block_hash, timestamp_seconds))
        elif found is SettlementStage.DONE and index < len(history) - MAXIMUM_CLAIMS_PER_PAYLOAD:
            # Claims are retried in every payload, so a settled one this far back means that those before it are too.
            break
    if not claims:
        return ()
    return await _sign_claims(ports, claims)


async def _place(ports: Ports, settlement: Settlement, index: int) -> SettlementStage:
    """Ask the contract where a settlement stands; shares of a pot wait until the pot is filled."""
    if settlement.outcome is not SettlementOutcome.SLASHED:
        status = escrow.decode_task(await _call_contract(ports, escrow.task_calldata(settlement.task_id))).status
        return SettlementStage.OPEN if status == escrow.STATUS_OPEN else SettlementStage.DONE
    if any(await _call_contract(ports, escrow.collected_calldata(index))):
        return SettlementStage.DONE
    pot = escrow.decode_stake(await _call_contract(ports, escrow.bond_calldata(settlement.task_id)))
    return (
        SettlementStage.OPEN if pot.active_wei + pot.leaving_wei >= settlement.amount_wei else SettlementStage.WAITING
    )


async def _call_contract(ports: Ports, data: bytes) -> bytes:
    call = {"to": _hex(ports.chain.parameters.escrow), "data": _hex(data)}
    answer: str = await ports.engine.rpc("eth_call", [call, "latest"])
    return bytes.fromhex(answer[2:])


async def _sign_claims(ports: Ports, claims: list[escrow.Claim]) -> tuple[bytes, ...]:
    """Sign the claims; an account without coins claims nothing, another producer will."""
    address = _hex(ports.wallet.address)
    nonce = int(await ports.engine.rpc("eth_getTransactionCount", [address, "latest"]), 16)
    balance_wei = int(await ports.engine.rpc("eth_getBalance", [address, "latest"]), 16)
    fee_wei = 2 * int(await ports.engine.rpc("eth_gasPrice", []), 16)
    raw: list[bytes] = []
    for offset, claim in enumerate(claims):
        if balance_wei < (offset + 1) * SETTLE_GAS * fee_wei:
            logger.info("no coins to claim settlements with; the next producer will")
            break
        transaction = {
            "chainId": ports.chain.parameters.chain_id,
            "nonce": nonce + offset,
            "to": _hex(ports.chain.parameters.escrow),
            "value": 0,
            "gas": SETTLE_GAS,
            "maxFeePerGas": fee_wei,
            "maxPriorityFeePerGas": 0,
            "data": _hex(escrow.settle_calldata(claim)),
        }
        try:
            raw.append(ports.wallet.sign_transaction(transaction))
        except Rejected as error:
            logger.warning("a claim could not be signed: %s", error)
    return tuple(raw)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


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
