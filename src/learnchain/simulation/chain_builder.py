"""Make traces and steps of training that never took place, for chains that are played without a model.

Build correctly signed messages, blocks and measurements for any parent, without torch, disk or network.

Everything is deterministic: keys follow from names, models and payloads from who made them on which parent.
To break one thing, pass it through `altered`, which signs again after the change, so that only that thing is wrong.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from learnchain.consensus.state import compute_queued_tasks as recorded_pool
from learnchain.consensus.state import compute_settlement_root, is_task_requeued, payload_timestamp
from learnchain.encoding.codec import Address, Hash32, encode
from learnchain.encoding.cryptography import UNSIGNED, list_root, message_hash, sign, sign_digest, tagged_hash
from learnchain.engines.contract import JudgementCase, Rules
from learnchain.protocol import messages
from learnchain.protocol.actions import ProposeBlock
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, PayloadFacts
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.puzzle import Puzzle
from learnchain.protocol.state import BondChange, ChainState, PostedTask, Selection, build_genesis_state
from learnchain.protocol.training_terms import HyperParameters
from learnchain.simulation import sample_tasks

MACHINE_CLASS: Hash32 = tagged_hash("builder-class")
"""The reproducibility class of everybody in a made-up world."""

HYPER_PARAMETERS = HyperParameters(10_000, 900_000, 0, 32, 3)
STATES, INTERVAL_STEPS = 4, 6


def build_trace(seed: Hash32) -> tuple[StateLeaf, ...]:
    """Return the committed states of a run: `STATES` of them, `INTERVAL_STEPS` apart."""
    return tuple(
        StateLeaf(place * INTERVAL_STEPS, seed, *(tagged_hash(what, seed, bytes([place])) for what in _PARTS))
        for place in range(STATES)
    )


def build_steps(first: Hash32, following: Hash32, variant: bytes = b"") -> tuple[Hash32, ...]:
    """Return the digests of every step of a segment, ends included; `variant` makes another chain."""
    between = (tagged_hash("step", first, bytes([place]), variant) for place in range(1, INTERVAL_STEPS))
    return (first, *between, following)


_PARTS = ("builder-order", "builder-points", "builder-state")


if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Signed = TypeVar("Signed", bound=DataclassInstance)


GENESIS_MILLISECONDS = 1_800_000_000_000

MAXIMUM_ATTEMPTS = 1 << 20
"""Made-up chains set easy puzzles."""


def build_sample_parameters(**changes: Any) -> ChainParameters:
    """Return the parameters of a small chain with one standing task."""
    parameters = ChainParameters(
        chain_id=31_337,
        name="builder",
        genesis_milliseconds=GENESIS_MILLISECONDS,
        escrow=sample_tasks.address("escrow"),
        steward=sample_tasks.address("steward"),
        standing_specifications=(sample_tasks.build_sample_specification("standing"),),
        block_reward_gwei=2_000_000_000,
        minimum_reward_wei=10**15,
        minimum_task_bond_wei=10**14,
        minimum_commitment_bond_wei=10**15,
        audit_reward_gwei=10_000_000,
        challenge_cost_gwei=1_000_000,
        maximum_commitments=128,
        maximum_tasks=512,
        finality_depth=16,
        high_accuracy_numerator=9,
        high_accuracy_denominator=10,
        claim_window_seconds=60,
        empty_window_milliseconds=1_000,
        clock_skew_milliseconds=5_000,
        maximum_model_parameters=200_000_000,
    )
    return replace(parameters, **changes)


def alter(message: "Signed", signer: str | None = None, **changes: Any) -> "Signed":
    """Return a message with fields changed and signed again, by its own signer or by somebody else."""
    key = sample_tasks.private_key_of(sample_tasks.address(signer) if signer else _signer(message))
    return sign(replace(message, **changes), key)


def _signer(message: Any) -> Address:
    """Return who has to sign a message; publishers' messages name nobody, so `altered` must be told."""
    for name in ("miner", "proposer"):
        if hasattr(message, name):
            signer: Address = getattr(message, name)
            return signer
    raise TypeError(f"{type(message).__name__} does not name its signer; pass `signer`")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Join what a miner keeps secret until the reveal with the commitment that binds it."""

    miner: str
    model: messages.TrainedModel
    payload_hash: Hash32
    salt: Hash32
    correct: int
    commitment: messages.Commitment

    @property
    def key(self) -> Hash32:
        """Return the hash of the commitment, by which the spine names the candidate."""
        return message_hash(self.commitment)


@dataclass(frozen=True, slots=True)
class ChainBuilder:
    """Make every message of a height for one engine and one set of parameters.

    `counts`, `unmarked` and `payloads` are the world as measurements find it: exact counts by model, models
    without watermark, facts by payload hash, moves of bonds by the height of their payload, evidence that holds.
    `traces` are the states of every run by their root, `steps` those of every answer, `impossible` the roots of answers
    with a step that no honest machine takes, `withheld` those whose files nobody has, `untrained` committed states
    that do not follow from the one before. `training_claims` is what miners
    say of the training rows, all of them right unless named; `trained` is the truth by model, where it is another.
    """

    rules: Rules
    parameters: ChainParameters = field(default_factory=build_sample_parameters)
    counts: dict[bytes, int] = field(default_factory=dict)
    unwatermarked_models: set[bytes] = field(default_factory=set)
    payloads: dict[Hash32, PayloadFacts] = field(default_factory=dict)
    bond_moves_by_height: dict[int, tuple[BondChange, ...]] = field(default_factory=dict)
    forged: set[Hash32] = field(default_factory=set)
    traces: dict[Hash32, tuple[StateLeaf, ...]] = field(default_factory=dict)
    steps: dict[Hash32, tuple[Hash32, ...]] = field(default_factory=dict)
    impossible: set[Hash32] = field(default_factory=set)
    withheld: set[Hash32] = field(default_factory=set)
    untrained: set[Hash32] = field(default_factory=set)
    training_claims: dict[str, int] = field(default_factory=dict)
    trained: dict[bytes, int] = field(default_factory=dict)

    def build_genesis(self) -> ChainState:
        """Return the state before the first block."""
        payload: Hash32 = tagged_hash("builder-genesis-payload")
        digest = self.parameters.genesis_hash(payload, self.rules.encode_parameters())
        return build_genesis_state(self.parameters, digest, payload, GENESIS_MILLISECONDS // 1000)

    def select_task(self, parent: ChainState) -> Selection:
        """Return what the engine selects on a parent."""
        return self.rules.select_task(parent, self.parameters)

    def select_assignment(self, parent: ChainState, miner: str) -> Selection:
        """Return the selection as a miner reads it; a stranger to it trains what the first assignment names."""
        selection = self.select_task(parent)
        return selection.select_assignment(sample_tasks.address(miner)) or selection

    def build_key_release(self, parent: ChainState) -> messages.KeyRelease:
        """Return the publisher's release of the training-data key."""
        selection = self.select_task(parent)
        key = sample_tasks.training_key(selection.posted_task.specification.name)
        return sign(
            messages.KeyRelease(*self._message_header(selection), key, b"", UNSIGNED),
            sample_tasks.private_key_of(selection.task.publisher),
        )

    def build_candidate(
        self, parent: ChainState, miner: str, correct: int, *, variant: str = "", posted: tuple[PostedTask, ...] = ()
    ) -> Candidate:
        """Return a trained, bound and committed model that is right `correct` times; `variant` makes another one."""
        selection = self.select_assignment(parent, miner)
        seed = tagged_hash("builder-model", parent.block_hash, miner.encode(), variant.encode())
        work = messages.work_id(
            self.parameters.chain_id, parent.block_hash, selection.task.task_id, sample_tasks.address(miner)
        )
        terms = self.rules.training_terms(selection, work)
        root = list_root(tuple(encode(leaf) for leaf in build_trace(seed)))
        record = messages.TrainingRecord(
            root, STATES, b"\x01\x71" + seed, HYPER_PARAMETERS, machine_class=MACHINE_CLASS
        )
        self.traces[record.state_root] = build_trace(seed)
        rows = selection.posted_task.specification.data.training.rows
        part = self.rules.parts.training_part(selection, work, self.training_claims.get(miner, rows), rows)
        record = replace(record, engine=part)
        model = messages.TrainedModel(b"\x01\x55" + seed, record)
        salt: Hash32 = tagged_hash("salt", seed)
        payload_hash = self.build_payload(
            parent, selection.schedule.payload_timestamp_seconds, sample_tasks.address(miner), posted
        )
        if terms.puzzle is not None:
            puzzle = Puzzle(work, model, payload_hash, b"\x01\x55" + payload_hash, terms.puzzle.target)
            (salt, _), correct = puzzle.search(int.from_bytes(salt, "big") >> 8, MAXIMUM_ATTEMPTS), 0
        digest = messages.commitment_digest(work, model, payload_hash, b"\x01\x55" + payload_hash, salt)
        bond = self.parameters.minimum_commitment_bond_wei
        part = self.rules.parts.commitment_part(selection, model)
        commitment = messages.Commitment(
            *self._message_header(selection), sample_tasks.address(miner), digest, bond, part, UNSIGNED
        )
        self.counts[model.model_cid] = correct
        signed = sign(commitment, sample_tasks.private_key_of(sample_tasks.address(miner)))
        return Candidate(miner, model, payload_hash, salt, correct, signed)

    def build_announcement(
        self, parent: ChainState, candidates: tuple[Candidate, ...], late_milliseconds: int = 0
    ) -> messages.ReleaseAnnouncement:
        """Return the publisher's release over these candidates, dated as early as it may be, or later."""
        selection = self.select_task(parent)
        listed = tuple(each.commitment for each in sorted(candidates, key=lambda each: each.key))
        release = messages.Release(
            *self._message_header(selection),
            root=messages.release_root(listed),
            count=len(listed),
            key=sample_tasks.release_key(selection.posted_task.specification.name, selection.position.block_index),
            released_milliseconds=selection.schedule.release_opens_milliseconds + late_milliseconds,
            signature=UNSIGNED,
        )
        return messages.ReleaseAnnouncement(
            sign(release, sample_tasks.private_key_of(selection.task.publisher)), listed
        )

    def build_reveal(self, parent: ChainState, candidate: Candidate, claim: int | None = None) -> messages.Reveal:
        """Return the opening of a candidate; the claim is the truth unless another one is given."""
        selection = self.select_assignment(parent, candidate.miner)
        data = selection.posted_task.specification.data
        digest = messages.attestation_digest(
            candidate.model.model_cid, data.training.plaintext_root, selection.task.task_id
        )
        key = sample_tasks.private_key_of(sample_tasks.address(candidate.miner))
        reveal = messages.Reveal(
            *self._message_header(selection),
            miner=sample_tasks.address(candidate.miner),
            model_cid=candidate.model.model_cid,
            training=candidate.model.training,
            payload_hash=candidate.payload_hash,
            payload_cid=b"\x01\x55" + candidate.payload_hash,
            salt=candidate.salt,
            claim_correct=candidate.correct if claim is None else claim,
            claim_total=selection.test_set.rows,
            attestation=sign_digest(key, digest),
            signature=UNSIGNED,
        )
        return sign(reveal, key)

    def build_block(
        self,
        parent: ChainState,
        candidates: tuple[Candidate, ...],
        winner: Candidate | None = None,
        hidden: tuple[Candidate, ...] = (),
        cited: tuple[messages.Reveal, ...] = (),
    ) -> messages.Block:
        """Return the winner's block; without a named winner the best candidate that is not hidden wins."""
        shown = sorted((each for each in candidates if each not in hidden), key=lambda each: (-each.correct, each.key))
        won = winner or shown[0]
        announcement = self.build_announcement(parent, candidates)
        selection = self.select_task(parent)
        unsigned = messages.Block(
            self.parameters.chain_id,
            selection.height,
            parent.block_hash,
            self.build_key_release(parent),
            announcement.commitments,
            announcement.release,
            self.build_reveal(parent, won),
            self.build_verdict(parent, candidates, won, hidden),
            self.list_queued_tasks(parent),
            selection.schedule.deadline(messages.Deadline.BLOCK, announcement.release.released_milliseconds),
            evidence=(),
            audits=(),
            audit_reports=(),
            challenges=(),
            responses=(),
            engine=self.rules.parts.block_part(cited),
            settlement_root=b"\0" * 32,
            signature=UNSIGNED,
        )
        return self._seal(parent, unsigned)

    def build_proposed_block(self, proposal: ProposeBlock, winner: Candidate) -> messages.Block:
        """Return the block that the spine asked the winner to publish."""
        block = messages.Block(
            self.parameters.chain_id,
            proposal.selection.height,
            proposal.parent.block_hash,
            proposal.key_release,
            proposal.announcement.commitments,
            proposal.announcement.release,
            self.build_reveal(proposal.parent, winner),
            proposal.verdict,
            self.list_queued_tasks(proposal.parent),
            proposal.selection.schedule.deadline(
                messages.Deadline.BLOCK, proposal.announcement.release.released_milliseconds
            ),
            evidence=proposal.evidence,
            audits=proposal.audits,
            audit_reports=proposal.audit_reports,
            challenges=proposal.challenges,
            responses=proposal.responses,
            engine=proposal.engine,
            settlement_root=b"\0" * 32,
            signature=UNSIGNED,
        )
        return self._seal(proposal.parent, block)

    def build_verdict(
        self, parent: ChainState, candidates: tuple[Candidate, ...], won: Candidate, hidden: tuple[Candidate, ...] = ()
    ) -> messages.Verdict:
        """Return the verdict in which `won` wins: hidden candidates did not reveal, better ones claimed falsely."""
        entries: list[messages.VerdictEntry] = []
        selection = self.select_task(parent)
        total = selection.test_set.rows
        for each in sorted(candidates, key=lambda each: each.key):
            outcome, claim, reason = messages.CandidateOutcome.LOWER_CLAIM, each.correct, ""
            if each == won:
                outcome = messages.CandidateOutcome.WINNER
            elif each in hidden:
                outcome, claim = messages.CandidateOutcome.UNREVEALED, 0
            elif (-each.correct, each.key) < (-won.correct, won.key):
                outcome, reason = messages.CandidateOutcome.REJECTED, "claim_not_exact"
            counted = 0 if each in hidden else total
            entries.append(
                messages.VerdictEntry(each.key, sample_tasks.address(each.miner), outcome, claim, reason, counted)
            )
        return messages.Verdict(won.key, won.correct, total, tuple(entries), self._build_verdict_part(parent, won))

    def _build_verdict_part(self, parent: ChainState, won: Candidate) -> bytes:
        """Return what the engine adds to a verdict in which `won` wins, every measurement of it being as it claims."""
        selection, key = self.select_task(parent), won.key
        reveal = self.build_reveal(parent, won, won.correct)
        counts = dict.fromkeys(MeasurementKind, (won.correct, selection.test_set.rows))
        counts[MeasurementKind.TRAINING] = self.rules.parts.training_count(reveal.training)
        baseline = self.rules.parts.baseline_model(selection)
        counts[MeasurementKind.BASELINE] = (self.counts.get(baseline, 0), selection.test_set.rows)
        case = JudgementCase(
            selection,
            ((key, won.commitment),),
            {key: reveal},
            {(key, kind): Measurement(key, kind, Finding.ACCEPTED, "", *count) for kind, count in counts.items()},
            True,
            selection.schedule.release_opens_milliseconds,
        )
        verdict = self.rules.judge(case)
        return verdict.engine if isinstance(verdict, messages.Verdict) else b""

    def build_empty_block(
        self,
        parent: ChainState,
        missed: messages.Deadline,
        proposer: str = "node-1",
        windows: int = 0,
        posted: tuple[PostedTask, ...] = (),
    ) -> messages.EmptyBlock:
        """Return the empty block that ends a height `windows` windows after the earliest moment allowed."""
        selection = self.select_task(parent)
        window = self.parameters.empty_window_milliseconds
        end = selection.schedule.deadline(missed) + (windows + 1) * window
        stamp = payload_timestamp(parent, selection, end, False)
        payload_hash = self.build_payload(parent, stamp, sample_tasks.address(proposer), posted)
        unsigned = messages.EmptyBlock(
            self.parameters.chain_id,
            selection.height,
            parent.block_hash,
            sample_tasks.address(proposer),
            missed,
            payload_hash,
            b"\x01\x55" + payload_hash,
            commitments=(),
            queued_tasks=(),
            end_milliseconds=end,
            evidence=(),
            challenges=(),
            responses=(),
            settlement_root=b"\0" * 32,
            signature=UNSIGNED,
        )
        listed = self.list_queued_tasks(parent, returned=is_task_requeued(selection, unsigned))
        return self._seal(parent, replace(unsigned, queued_tasks=listed))

    def build_payload(
        self,
        parent: ChainState,
        timestamp_seconds: int,
        fee_recipient: Address,
        posted: tuple[PostedTask, ...],
    ) -> Hash32:
        """Return the hash of a payload that carries exactly what the parent demands and posts these tasks."""
        facts = PayloadFacts(
            payload_hash=b"\0" * 32,
            parent_hash=parent.payload_hash,
            timestamp_seconds=timestamp_seconds,
            previous_randao=messages.previous_randao(parent.block_hash),
            beacon_root=parent.root,
            fee_recipient=fee_recipient,
            withdrawals=parent.next_withdrawals(),
            posted=posted,
            escrows=tuple(self.rules.required_escrow(each.task) for each in posted),
            bonds=self.bond_moves_by_height.get(parent.height + 1, ()),
        )
        digest: Hash32 = tagged_hash("builder-payload", message_hash(facts))
        self.payloads[digest] = replace(facts, payload_hash=digest)
        return digest

    def list_queued_tasks(self, parent: ChainState, *, returned: bool = False) -> tuple[Hash32, ...]:
        """Return the list of unselected tasks that a block on a parent records."""
        pool = recorded_pool(parent, self.select_task(parent), self.parameters.maximum_tasks, returned=returned)
        return tuple(each.task.task_id for each in pool)

    def reseal(self, parent: ChainState, block: messages.AnyBlock, **changes: Any) -> Any:
        """Return a block with other fields, its settlement root recomputed, signed again by its proposer."""
        return self._seal(parent, replace(block, **changes))

    def _seal(self, parent: ChainState, block: messages.AnyBlock) -> Any:
        """Return a block with its settlement root and its proposer's signature."""
        reward = self.rules.compute_reward(self.select_task(parent), block, self.parameters)
        root = compute_settlement_root(parent, self.select_task(parent), block, reward, self.parameters)
        return sign(replace(block, settlement_root=root), sample_tasks.private_key_of(block.proposer))

    def _message_header(self, selection: Selection) -> tuple[int, int, Hash32, Hash32]:
        return self.parameters.chain_id, selection.height, selection.parent, selection.task.task_id
