"""What a run over several blocks may go on from: the miner's own state, under the parent block, as it was committed."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.content_id import cid_text
from learnchain.encoding.cryptography import list_root
from learnchain.engines.podl.scenario import start_podl_node
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.messages import Block, TrainedModel, TrainingRecord, commitment_digest, work_id
from learnchain.protocol.state import Assignment
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.chain_builder import HYPER_PARAMETERS, Candidate, alter
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import ScenarioNode
from learnchain.storage.slashing_protection import CommitmentOpening
from learnchain.verification.training_chain import CONTINUES_KEY, FinishedRun, LookaheadRun, find_start_digest, seeds_of

LEAVES = tuple(StateLeaf(step, b"\1" * 32, b"\2" * 32, b"\3" * 32, bytes([step]) * 32) for step in (0, 10))
STATE = cid_text(b"\x01\x55\x1e\x20" + b"\4" * 32)
EARLIER, LATER = b"\x01\x71earlier", b"\x01\x71later"


class Indices:
    """Hold the indices of two traces; everything else is missing."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}

    async def read(self, cid: bytes, _max_bytes: int) -> bytes:
        if cid not in self.found:
            raise Unavailable("a trace")
        return self.found[cid]

    async def fetch(self, cid: bytes, *, max_bytes: int) -> Path:
        raise Unavailable(f"{cid.hex()} within {max_bytes}")


class Story:
    """Play two blocks of one task; miner-1 wins both and opens the first one's commitment in the second one's index."""

    def __init__(self, miner: str = "miner-1") -> None:
        self.node, self.blobs = start_podl_node(), Indices()
        self.chain_id = self.node.builder.parameters.chain_id
        record = TrainingRecord(list_root(tuple(encode(each) for each in LEAVES)), 2, EARLIER, HYPER_PARAMETERS)
        first = rebound(self.node, self.node.builder.build_candidate(self.node.parent, miner, 95), record)
        self.parent = self.played((first, self.node.builder.build_candidate(self.node.parent, "miner-3", 80)))
        self.opening = opening_of(first)
        second = self.node.builder.build_candidate(self.node.parent, "miner-1", 96)
        later = rebound(self.node, second, replace(second.model.training, trace_cid=LATER))
        self.block = self.node.builder.build_block(self.node.parent, (later,))
        self.publish(EARLIER, {})

    def played(self, found: tuple[Candidate, ...]) -> Block:
        block = self.node.builder.build_block(self.node.parent, found, found[0])
        self.node.receive(block)
        return block

    def publish(self, cid: bytes, more: dict[str, object]) -> None:
        index = {"leaves": [encode(each).hex() for each in LEAVES], "states": [STATE, STATE], **more}
        self.blobs.found[cid] = json.dumps(index).encode()

    def origin(self, opening: CommitmentOpening | None = None) -> bytes | None:
        self.publish(LATER, {CONTINUES_KEY: encode(opening or self.opening).hex()})
        return asyncio.run(find_start_digest(self.blobs, self.parent, self.block, self.chain_id))  # type: ignore[arg-type]

    def refusal(self, opening: CommitmentOpening | None = None) -> RejectionReason:
        with pytest.raises(Rejected) as refused:
            self.origin(opening)
        return refused.value.reason


def rebound(node: ScenarioNode, candidate: Candidate, record: TrainingRecord) -> Candidate:
    commitment, model = candidate.commitment, TrainedModel(candidate.model.model_cid, record)
    work = work_id(commitment.chain_id, commitment.parent, commitment.task_id, commitment.miner)
    payload = (candidate.payload_hash, b"\x01\x55" + candidate.payload_hash)
    digest = commitment_digest(work, model, *payload, candidate.salt)
    node.builder.counts[model.model_cid] = candidate.correct
    return replace(candidate, model=model, commitment=alter(commitment, digest=digest))


def opening_of(candidate: Candidate) -> CommitmentOpening:
    payload = (candidate.payload_hash, b"\x01\x55" + candidate.payload_hash)
    return CommitmentOpening(
        candidate.commitment, candidate.model.model_cid, candidate.model.training, *payload, candidate.salt
    )


def test_the_origin_is_the_last_state_that_the_miner_committed_to_in_the_parent_block() -> None:
    assert Story().origin() == LEAVES[-1].digest


def test_without_an_opening_the_run_begins_at_the_derived_initialisation() -> None:
    story = Story()
    story.publish(LATER, {})
    assert asyncio.run(find_start_digest(story.blobs, story.parent, story.block, story.chain_id)) is None  # type: ignore[arg-type]


def test_nobody_goes_on_from_the_run_of_somebody_else() -> None:
    assert Story(miner="miner-2").refusal() is RejectionReason.TRACE_MISMATCH


def test_a_commitment_that_the_parent_block_does_not_hold_is_no_origin() -> None:
    story = Story()
    unknown = replace(story.opening, commitment=alter(story.opening.commitment, bond_wei=1))
    assert story.refusal(unknown) is RejectionReason.TRACE_MISMATCH


@pytest.mark.parametrize("change", ["model_cid", "salt", "payload_hash", "training"])
def test_an_opening_that_is_not_what_was_committed_to_is_refused(change: str) -> None:
    story = Story()
    other = replace(story.opening.training, states=3) if change == "training" else b"\7" * 32
    assert story.refusal(replace(story.opening, **{change: other})) is RejectionReason.REVEAL_MISMATCH


def test_states_other_than_the_committed_ones_are_refused() -> None:
    story = Story()
    story.publish(EARLIER, {"leaves": [encode(LEAVES[0]).hex()] * 2})
    assert story.refusal() is RejectionReason.TRACE_MISMATCH
    story.publish(EARLIER, {"states": [STATE]})
    assert story.refusal() is RejectionReason.TRACE_MISMATCH
    story.publish(EARLIER, {"leaves": [], "states": []})
    assert story.refusal() is RejectionReason.TRACE_MISMATCH


@pytest.mark.parametrize(
    "text", [b"no json", b"[]", b'{"continues": "zz"}', b'{"continues": 5}', b'{"continues": "00"}']
)
def test_an_index_that_makes_no_sense_is_malformed(text: bytes) -> None:
    story = Story()
    story.blobs.found[LATER] = text
    with pytest.raises(Rejected) as refused:
        asyncio.run(find_start_digest(story.blobs, story.parent, story.block, story.chain_id))  # type: ignore[arg-type]
    assert refused.value.reason is RejectionReason.MALFORMED


@pytest.mark.parametrize(
    "more",
    [{"leaves": {encode(each).hex(): 1 for each in LEAVES}}, {"states": 2}],
    ids=["leaves that are no list", "states that are no list"],
)
def test_an_earlier_index_without_lists_of_states_is_malformed(more: dict[str, object]) -> None:
    story = Story()
    story.publish(EARLIER, more)
    assert story.refusal() is RejectionReason.MALFORMED


def test_a_missing_index_is_unavailable_not_wrong() -> None:
    story = Story()
    del story.blobs.found[EARLIER]
    with pytest.raises(Unavailable):
        story.origin()


def test_seeds_of_a_task_of_one_block_are_one_and_of_several_are_two() -> None:
    node = start_podl_node()
    selection, chain_id = node.round.selection, node.builder.parameters.chain_id
    seeds = seeds_of(chain_id, selection, address("miner-1"))
    assert seeds.initial != seeds.order
    plain = replace(selection, assignments=(Assignment(selection.posted_task),))
    same = seeds_of(chain_id, plain, address("miner-1"))
    assert same.initial == same.order == work_id(chain_id, selection.parent, selection.task.task_id, address("miner-1"))


def test_whoever_gives_up_on_a_run_that_began_ahead_ends_it() -> None:
    async def scenario() -> tuple[bool, bool]:
        result: asyncio.Future[FinishedRun | None] = asyncio.get_running_loop().create_future()
        running: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(60))
        node = start_podl_node()
        commitment = node.builder.build_candidate(node.parent, "miner-1", 95).commitment
        ahead = LookaheadRun(b"", node.round.selection.position, commitment, running, result)
        waiting = asyncio.create_task(ahead.take_result())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, running, return_exceptions=True)
        return waiting.cancelled(), running.cancelled()

    assert asyncio.run(scenario()) == (True, True)
