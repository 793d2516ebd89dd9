"""The block header as PoLe 3.3 lists it, read off a block of the spine."""

from dataclasses import dataclass

from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.hashing import noun_hash, tagged_hash
from learnchain.primitives.messages import Block
from learnchain.primitives.task_specification import Cid


@dataclass(frozen=True, slots=True)
class Header:
    """Hold the eight entries of 3.3; `merkle_root` covers the body: tasks, data links, transactions, test set."""

    block_id: Hash32
    winner: Address
    selected_task: Hash32
    previous_hash: Hash32
    trained_model: Cid
    training_correct: int
    training_total: int
    ommer_hash: Hash32
    merkle_root: Hash32


def header_of(block: Block) -> Header:
    """Return the header of 3.3; no ommer is cited where its hash is zeros (POLE-R19)."""
    training = block.reveal.training
    body = (*block.unselected, block.payload_hash, noun_hash(block.key_release), noun_hash(block.release))
    return Header(
        block_id=noun_hash(block),
        winner=block.proposer,
        selected_task=block.release.task_id,
        previous_hash=block.parent,
        trained_model=block.reveal.model_cid,
        training_correct=training.correct,
        training_total=training.total,
        ommer_hash=noun_hash(block.ommers[0]) if block.ommers else b"\0" * 32,
        merkle_root=tagged_hash("pole/body", *body, noun_hash(block.verdict)),
    )
