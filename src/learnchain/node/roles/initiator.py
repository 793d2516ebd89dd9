"""The application initiator (BaaS III): ask and pay, end the task, get the rewarded models and fuse them."""

from pathlib import Path

from learnchain.market.contract import announce_calldata, close_calldata, decode_event
from learnchain.market.package import Manifest
from learnchain.market.sealing import public_key
from learnchain.market.terms import Description, Terms, encode_description
from learnchain.node.market.ledger import Ledger
from learnchain.node.market.participant import Participant
from learnchain.node.wallet import Wallet
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.payload import Log
from learnchain.primitives.rejection import Rejected, RejectionReason


async def announce_task(
    ledger: Ledger, wallet: Wallet, contract: Address, terms: Terms, description: Description
) -> tuple[Hash32, int]:
    """Pay for a task and announce it; return its identifier and the block of its announcement."""
    data = announce_calldata(terms, public_key(wallet.private_key), encode_description(description))
    receipt = await ledger.send(wallet, contract, data, terms.value_wei)
    for entry in receipt["logs"]:
        topics = tuple(bytes.fromhex(topic.removeprefix("0x")) for topic in entry["topics"])
        payload = bytes.fromhex(entry["data"].removeprefix("0x"))
        address = bytes.fromhex(entry["address"].removeprefix("0x"))
        event = decode_event(Log(address, topics, payload, b"\0" * 32, 0), contract)
        if event is not None and event.name == "TaskAnnounced":
            return event.task_id, int(receipt["blockNumber"], 16)
    raise Rejected(RejectionReason.TASK_UNKNOWN, "the announcement's receipt holds no TaskAnnounced: wrong contract?")


class Initiator:
    """Follow one task of one's own to its end."""

    def __init__(self, me: Participant) -> None:
        self._me = me

    async def step(self) -> bool:
        """Close the task once everything is judged or its time is over; return whether it is closed."""
        view = self._me.view
        await view.refresh()
        task = await view.task()
        if not task.closed:
            _, now = await self._me.ledger.head()
            if task.judged == view.terms.models or now > view.terms.closes_seconds:
                await self._me.try_send(close_calldata(view.task_id))
        return (await view.task()).closed

    async def collect(self) -> tuple[tuple[Manifest, Path], ...]:
        """Return the rewarded models with the keys that were sealed for us, in the order of their arrival."""
        await self._me.view.refresh()
        return tuple([await self._me.unpack(place) for place in self._me.view.accepted()])

    async def withdraw(self) -> int:
        """Pull what came back."""
        return await self._me.withdraw()
