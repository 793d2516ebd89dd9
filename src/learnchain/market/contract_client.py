"""One task of the market as its contract's events tell it; whoever joins late reads the same story from the start."""

from dataclasses import dataclass
from typing import Any

from learnchain.market.contract import (
    Event,
    ModelState,
    TaskState,
    VoteState,
    committee_calldata,
    decode_addresses,
    decode_event,
    decode_model,
    decode_number,
    decode_task,
    decode_terms,
    decode_vote,
    model_calldata,
    task_calldata,
    vote_calldata,
    withdrawable_calldata,
)
from learnchain.market.terms import Description, Terms, decode_description
from learnchain.market.votes import ModelStatus
from learnchain.node.market.ledger import Ledger
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.content_id import Cid
from learnchain.primitives.hashing import keccak256
from learnchain.primitives.rejection import Rejected, Unavailable

BLOCKS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class AnnouncedModel:
    """Hold what a contributor announced."""

    contributor: Address
    cid: Cid
    key_hash: Hash32


@dataclass(frozen=True, slots=True)
class SealedKey:
    """Hold a model's key as somebody sealed it for somebody; nobody knows yet whether it is the right one."""

    sender: Address
    box: bytes


@dataclass(frozen=True, slots=True)
class RevealedVote:
    """Hold one vote as it was opened on chain."""

    place: int
    verifier: Address
    correct: int
    refusal: int


class TaskView:
    """Follow one task; what events say is kept, what changes is asked of the contract."""

    def __init__(self, ledger: Ledger, contract: Address, task_id: Hash32, first_block: int = 0) -> None:
        self._ledger = ledger
        self._contract = contract
        self._next_block = first_block
        self.task_id = task_id
        self.public_keys: dict[Address, bytes] = {}
        self.models: dict[int, AnnouncedModel] = {}
        self.sealed: dict[tuple[int, Address], list[SealedKey]] = {}
        self.judged: dict[int, tuple[ModelStatus, int, int]] = {}
        self.votes: list[RevealedVote] = []
        self.enrolled: set[Address] = set()
        self._announced: tuple[Terms, bytes] | None = None
        self._description: Description | None = None

    @property
    def terms(self) -> Terms:
        """Return the terms; `Unavailable` until the announcement is in a block."""
        if self._announced is None:
            raise Unavailable(f"the announcement of task {self.task_id.hex()[:16]}")
        return self._announced[0]

    @property
    def description(self) -> Description:
        """Return the initiator's description; one that is malformed is refused."""
        if self._announced is None:
            raise Unavailable(f"the announcement of task {self.task_id.hex()[:16]}")
        if self._description is None:
            self._description = decode_description(self._announced[1])
        return self._description

    def accepted(self) -> tuple[int, ...]:
        """Return the places of the accepted models in the order of their arrival."""
        return tuple(place for place, (status, *_) in sorted(self.judged.items()) if status is ModelStatus.ACCEPTED)

    async def refresh(self) -> None:
        """Read the events of all blocks since the last time."""
        head, _ = await self._ledger.head()
        while self._next_block <= head:
            last = min(head, self._next_block + BLOCKS_AT_ONCE - 1)
            for log in await self._ledger.logs(self._contract, self._next_block, last):
                event = decode_event(log, self._contract)
                if event is not None and event.task_id == self.task_id:
                    self._take(event)
            self._next_block = last + 1

    async def task(self) -> TaskState:
        """Return how far the task is."""
        return decode_task(await self._ledger.call(self._contract, task_calldata(self.task_id)))

    async def model(self, place: int) -> ModelState:
        """Return where the judgement of a model stands."""
        return decode_model(await self._ledger.call(self._contract, model_calldata(self.task_id, place)))

    async def vote(self, place: int, verifier: Address) -> VoteState:
        """Return one verifier's vote."""
        return decode_vote(await self._ledger.call(self._contract, vote_calldata(self.task_id, place, verifier)))

    async def committee(self, place: int) -> tuple[Address, ...]:
        """Return the verifiers drawn last for a model."""
        return decode_addresses(await self._ledger.call(self._contract, committee_calldata(self.task_id, place)))

    async def withdrawable(self, account: Address) -> int:
        """Return what an account can pull."""
        return decode_number(await self._ledger.call(self._contract, withdrawable_calldata(account)))

    def _take(self, event: Event) -> None:
        values: tuple[Any, ...] = event.values
        match event.name:
            case "TaskAnnounced":
                self._announced = (decode_terms(values[0]), values[2])
                self._learn(values[1])
            case "VerifierEnrolled":
                self._learn(values[0])
                self.enrolled.add(_account(event.indexed[0]))
            case "VerifierResigned":
                self.enrolled.discard(_account(event.indexed[0]))
            case "ModelAnnounced":
                self._learn(values[2])
                contributor = _account(event.indexed[1])
                self.models[event.indexed[0][-1]] = AnnouncedModel(contributor, values[0], values[1])
            case "KeySealed":
                self.sealed.setdefault((event.indexed[0][-1], _account(event.indexed[1])), []).append(
                    SealedKey(bytes.fromhex(values[0].removeprefix("0x")), values[1])
                )
            case "VoteRevealed":
                vote = RevealedVote(event.indexed[0][-1], _account(event.indexed[1]), *values)
                self.votes.append(vote)
            case "ModelJudged":
                self.judged[event.indexed[0][-1]] = (ModelStatus(values[0]), values[1], values[2])

    def _learn(self, public_key: bytes) -> None:
        self.public_keys[keccak256(public_key)[-20:]] = public_key


def _account(topic: Hash32) -> Address:
    return topic[-20:]


async def task_exists(ledger: Ledger, contract: Address, task_id: Hash32) -> bool:
    """Return whether a contract knows a task; another contract at the address does not."""
    try:
        return any(decode_task(await ledger.call(contract, task_calldata(task_id))).initiator)
    except Rejected:
        return False
