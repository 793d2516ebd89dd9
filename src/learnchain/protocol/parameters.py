"""The parameters of one network: every node reads them from the same genesis, all are integers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from learnchain.encoding.codec import FORMAT_VERSION, WEI_PER_ETHER, Address, Bound, Hash32
from learnchain.encoding.cryptography import message_hash, tagged_hash
from learnchain.protocol.audit_messages import MAXIMUM_AUDITED_SEGMENTS
from learnchain.protocol.messages import MAXIMUM_COMMITMENTS, MAXIMUM_QUEUED_TASKS, Task
from learnchain.protocol.task_specification import TaskSpecification, Text, specification_hash
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_AUDIT_BLOCKS = 64
"""Heights that evidence may reach back; each costs some 300 bytes in every stored state."""

MAXIMUM_CLASSES = 16


@dataclass(frozen=True, slots=True)
class ChainParameters:
    """Hold what engines and spine need to know about a network, whatever its consensus.

    `steward` plays publisher for the standing tasks. `finality_depth` is D of ROUND-21.
    `high_accuracy_*` says which models count as confirmations (DLBC IV-H). Four `*_milliseconds` bound what the last
    phase must have room for (ROUND-14). A miner that has not deposited its bond may commit all the same if
    `bond_from_reward`: the bond is kept back from its reward for `audit_window_blocks`, as long as evidence counts.
    `audit_reward_gwei` is minted for each audit of `audit_segments` segments, and kept back for as long; 0 turns audits
    off. Whoever is accused shows the steps of a segment within `response_blocks` heights; a proof against them comes
    within `proof_blocks` more, or the accuser pays `challenge_cost_gwei` out of its deposit. `accepted_classes` are
    the reproducibility classes in which winners may train; none named means any.
    """

    chain_id: int
    name: Text
    genesis_milliseconds: int
    escrow: Address
    steward: Address
    standing_specifications: Annotated[tuple[TaskSpecification, ...], Bound(16)]
    block_reward_gwei: int = 2_000_000_000
    minimum_reward_wei: int = WEI_PER_ETHER // 1_000
    minimum_task_bond_wei: int = WEI_PER_ETHER // 10_000
    minimum_commitment_bond_wei: int = 0
    bond_from_reward: bool = True
    audit_window_blocks: int = 32
    audit_reward_gwei: int = 0
    audit_segments: int = 2
    response_blocks: int = 8
    proof_blocks: int = 6
    challenge_cost_gwei: int = 0
    accepted_classes: Annotated[tuple[Hash32, ...], Bound(MAXIMUM_CLASSES)] = ()
    maximum_commitments: int = MAXIMUM_COMMITMENTS
    maximum_tasks: int = MAXIMUM_QUEUED_TASKS
    finality_depth: int = 16
    high_accuracy_numerator: int = 9
    high_accuracy_denominator: int = 10
    claim_window_seconds: int = 60
    empty_window_milliseconds: int = 1_000
    clock_skew_milliseconds: int = 5_000
    payload_milliseconds: int = 5_000
    transfer_milliseconds: int = 10_000
    evaluation_milliseconds: int = 5_000
    maximum_model_parameters: int = 200_000_000

    def check(self) -> None:
        """Refuse parameters that no chain can run with."""
        for name, value, minimum, maximum in (
            ("chain_id", self.chain_id, 1, 2**53),
            ("maximum_commitments", self.maximum_commitments, 1, MAXIMUM_COMMITMENTS),
            ("maximum_tasks", self.maximum_tasks, 1, MAXIMUM_QUEUED_TASKS),
            ("audit_window_blocks", self.audit_window_blocks, 4, MAXIMUM_AUDIT_BLOCKS),
            ("response_blocks", self.response_blocks, 1, MAXIMUM_AUDIT_BLOCKS),
            ("proof_blocks", self.proof_blocks, 1, MAXIMUM_AUDIT_BLOCKS),
            ("challenge_cost_gwei", self.challenge_cost_gwei, 0, 2**63),
            ("audit_segments", self.audit_segments, 1, MAXIMUM_AUDITED_SEGMENTS),
            ("finality_depth", self.finality_depth, 1, 1_024),
            ("minimum_reward_wei", self.minimum_reward_wei, 1, 2**128),
            ("standing tasks", len(self.standing_specifications), 1, 16),
            ("empty_window_milliseconds", self.empty_window_milliseconds, 1, 3_600_000),
            ("high_accuracy_denominator", self.high_accuracy_denominator, 1, 10**6),
        ):
            if not minimum <= value <= maximum:
                detail = f"{name} is {value}; it must lie between {minimum} and {maximum}"
                raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        if self.response_blocks + self.proof_blocks >= self.audit_window_blocks:
            detail = f"{self.audit_window_blocks} blocks leave no time to answer, prove and decide"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def check_last_phase(self, length_milliseconds: int) -> None:
        """Refuse a last phase too short to judge in (ROUND-14)."""
        need = self.payload_milliseconds + self.transfer_milliseconds + self.evaluation_milliseconds
        need = 2 * (need + self.clock_skew_milliseconds)
        if length_milliseconds < need:
            detail = f"the last phase lasts {length_milliseconds} ms; payload, model and skew need {need} ms"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def standing_tasks(self) -> tuple[tuple[Task, TaskSpecification], ...]:
        """Return the tasks that keep the chain alive when nobody commissions anything; they mint nothing."""
        return tuple(
            (_standing_task(self.chain_id, self.steward, index, each), each)
            for index, each in enumerate(self.standing_specifications)
        )

    def genesis_hash(self, execution_genesis_hash: Hash32, engine: bytes) -> Hash32:
        """Return the hash that block 1 names as parent: format, parameters, engine and execution genesis are bound."""
        version = FORMAT_VERSION.to_bytes(4, "big")
        return tagged_hash("genesis", version, message_hash(self), engine, execution_genesis_hash)


@lru_cache(maxsize=256)
def _standing_task(chain_id: int, steward: Address, index: int, specification: TaskSpecification) -> Task:
    """Return a standing task; it is asked for several times a block and never changes."""
    digest = specification_hash(specification)
    task_id: Hash32 = tagged_hash("standing", chain_id.to_bytes(32, "big"), bytes([index]), digest)
    return Task(task_id, steward, digest, 0, 0, 0, 0, True)
