"""The application initiator (BaaS III): ask and pay, end the task, get the rewarded models and fuse them.

Take part in the market on one's own: a chain behind a JSON-RPC address, a wallet, a folder, a blob store.

Every role here goes on after a stop at any moment: what it needs is on chain, or in its folder before it is sent.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.content_id import Cid
from learnchain.execution.wallet import Wallet
from learnchain.learning.data import save_data
from learnchain.learning.fused_model import FusionEvaluator, VerifierData, load_sample
from learnchain.learning.fusion import FusionStrategy, FusionTerms, Outputs
from learnchain.market.client import MarketClient
from learnchain.market.contract import (
    ContractClient,
    TaskView,
    announce_calldata,
    calldata,
    creation_code,
    decode_event,
    http_rpc,
)
from learnchain.market.market_task_file import MarketDraft
from learnchain.market.package import PackageManifest, derive_public_key
from learnchain.market.terms import Description, Terms, encode_description
from learnchain.protocol.payload import Log
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.origins import open_origin
from learnchain.storage.blobs.peer_blobs import PeerBlobs


async def announce_task(
    ledger: ContractClient, wallet: Wallet, contract: Address, terms: Terms, description: Description
) -> tuple[Hash32, int]:
    """Pay for a task and announce it; return its identifier and the block of its announcement."""
    data = announce_calldata(terms, derive_public_key(wallet.private_key), encode_description(description))
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

    def __init__(self, me: MarketClient) -> None:
        self._me = me

    async def step(self) -> bool:
        """Close the task once everything is judged or its time is over; return whether it is closed."""
        view = self._me.view
        await view.refresh()
        task = await view.task()
        if not task.closed:
            _, now = await self._me.ledger.head()
            if task.judged_count == view.terms.models or now > view.terms.closes_seconds:
                await self._me.try_send(calldata("close", view.task_id))
        return (await view.task()).closed

    async def collect(self) -> tuple[tuple[PackageManifest, Path], ...]:
        """Return the rewarded models with the keys that were sealed for us, in the order of their arrival."""
        await self._me.view.refresh()
        return tuple([await self._me.unpack(place) for place in self._me.view.list_accepted()])

    async def withdraw(self) -> int:
        """Pull what came back."""
        return await self._me.withdraw()


MAXIMUM_SAMPLE_BYTES = 1 << 28
"""Each of the three files of an initiator's sample."""

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_TASK = re.compile(r"0x([0-9a-f]{40})/0x([0-9a-f]{64})@(\d{1,15})")


@dataclass(frozen=True, slots=True)
class TaskReference:
    """Name one task of one contract, and the block before which nothing of it happened."""

    contract: Address
    task_id: Hash32
    block: int

    def __str__(self) -> str:
        return f"0x{self.contract.hex()}/0x{self.task_id.hex()}@{self.block}"


def parse_task_reference(text: str) -> TaskReference:
    """Return the task that a text names; `announce` prints such texts."""
    found = _TASK.fullmatch(text.lower())
    if found is None:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{text!r} is not 0xCONTRACT/0xTASK@BLOCK")
    return TaskReference(bytes.fromhex(found[1]), bytes.fromhex(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class Session:
    """Fix who takes part and with what; `entropy` draws secrets, `pause` waits between two looks at the chain."""

    rpc: str
    wallet: Wallet
    directory: Path
    blob_store: str
    entropy: Callable[[int], bytes]
    pause: Callable[[], Awaitable[None]]

    async def retry(self, what: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `work` returns, tried again at every look at the chain while something is not here yet."""
        while True:
            try:
                return await work()
            except Unavailable as missing:
                logger.info("%s waits for %s", what, missing.what)
            await self.pause()


@asynccontextmanager
async def ledger_at(rpc: str, pause: Callable[[], Awaitable[None]]) -> AsyncIterator[ContractClient]:
    """Yield the chain behind an address."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield ContractClient(http_rpc(session, rpc), pause)


@asynccontextmanager
async def join_task(seat: Session, name: TaskReference) -> AsyncIterator[MarketClient]:
    """Yield a participant of one task, once its announcement is in a block; its files lie apart from other tasks'."""
    directory = seat.directory / name.task_id.hex()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    blobs = PeerBlobs(seat.directory / "blobs", origin=open_origin(seat.blob_store))
    try:
        async with ledger_at(seat.rpc, seat.pause) as ledger:
            view = TaskView(ledger, name.contract, name.task_id, name.block)
            await view.refresh()
            _ = view.terms
            yield MarketClient(seat.wallet, ledger, name.contract, blobs, view, directory, seat.entropy)
    finally:
        await blobs.close()


async def announce(seat: Session, draft: MarketDraft, contract: Address | None) -> TaskReference:
    """Publish the sample, pay, announce; without a contract one is deployed first. Return the task's name."""
    blobs = PeerBlobs(seat.directory / "blobs", origin=open_origin(seat.blob_store))
    try:
        cids = list[Cid]()
        for part in (draft.sample.training, draft.sample.test, draft.sample.verification):
            path = seat.directory / "sample.safetensors"
            await asyncio.to_thread(save_data, path, part)
            cids.append(await blobs.add(path))
            await blobs.pin(cids[-1])
            path.unlink()
        await blobs.handed_over()
        async with ledger_at(seat.rpc, seat.pause) as ledger:
            _, now = await ledger.head()
            terms, description = draft.open_task(now, (cids[0], cids[1], cids[2]))
            at = contract or await ledger.deploy(seat.wallet, creation_code())
            task_id, block = await announce_task(ledger, seat.wallet, at, terms, description)
    finally:
        await blobs.close()
    return TaskReference(at, task_id, block)


async def build_fusion_evaluator(me: MarketClient) -> FusionEvaluator:
    """Fetch the initiator's sample, check it against the task's terms, and return what fuses and measures."""
    view, paths = me.view, list[Path]()
    sample = view.description.sample
    for cid in (sample.training, sample.test, sample.verification):
        paths.append(await me.blobs.fetch(cid, max_bytes=MAXIMUM_SAMPLE_BYTES))
    data = await asyncio.to_thread(load_sample, *paths)
    check_sample(data, view.terms, view.description)
    return FusionEvaluator(view.task_id, data, fusion_terms(view.description))


def fusion_terms(description: Description) -> FusionTerms:
    """Return how the initiator wants models to be fused; a strategy that nobody knows is `MALFORMED`."""
    try:
        strategy, outputs = FusionStrategy(description.strategy), Outputs(description.outputs)
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, f"the description: {error}") from error
    return FusionTerms(len(description.labels), strategy, outputs)


def check_sample(data: VerifierData, terms: Terms, description: Description) -> None:
    """Refuse a sample that is not what the task promises, before anything is staked on it."""
    if len(data.verification) != terms.rows:
        detail = f"{len(data.verification)} rows to verify with, the terms say {terms.rows}"
        raise Rejected(RejectionReason.TASK_SIZE_DECLARED_WRONG, detail)
    for part in (data.training, data.test, data.verification):
        if tuple(part.sample_shape) != tuple(description.sample_shape) or part.labels.ndim != 1:
            raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, f"the sample has rows of {part.sample_shape}")
        if int(part.labels.min()) < 0 or int(part.labels.max()) >= len(description.labels):
            raise Rejected(RejectionReason.MALFORMED, "the sample has labels that the task does not name")
