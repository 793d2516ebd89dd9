"""Make evidence for tests and vectors: every fault that the spine punishes, proven by what the offender signed."""

from learnchain.consensus.audits import AuditFinding, FraudProof
from learnchain.consensus.evidence import accusation, forged_trace
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.protocol.messages import Evidence, Fault
from learnchain.protocol.state import RoundFact
from learnchain.simulation.chain_builder import altered
from learnchain.simulation.sample_tasks import address, name_of, private_key_of
from learnchain.simulation.scenario import Observer

REPORTER = "node-4"


def reported(evidence: Evidence, reporter: str = REPORTER) -> Evidence:
    """Return evidence signed by its reporter."""
    return sign(evidence, private_key_of(address(reporter)))


def last_fact(node: Observer) -> RoundFact:
    """Return what the book remembers of the block that this node's head is."""
    return node.parent.bonds.facts[-1]


def double_commitment(node: Observer, miner: str = "miner-1", reporter: str = REPORTER) -> Evidence:
    """Return two commitments of one miner on the parent of the head."""
    below = node.round.tree.state(last_fact(node).parent)
    signed = tuple(node.builder.candidate(below, miner, 50, variant=each).commitment for each in ("one", "two"))
    return reported(accusation(Fault.DOUBLE_COMMITMENT, address(miner), address(reporter), signed), reporter)


def double_reveal(node: Observer, miner: str = "miner-1") -> Evidence:
    """Return two openings of the winner's commitment with different claims."""
    below = node.round.tree.state(last_fact(node).parent)
    found = node.builder.candidate(below, miner, 95)
    signed = tuple(node.builder.reveal(below, found, claim) for claim in (95, 96))
    return reported(accusation(Fault.DOUBLE_REVEAL, address(miner), address(REPORTER), signed))


def double_release(node: Observer, reporter: str = REPORTER) -> Evidence:
    """Return two releases of the publisher of the head's height: one leaves a miner out."""
    fact = last_fact(node)
    below = node.round.tree.state(fact.parent)
    found = tuple(node.builder.candidate(below, each, 95) for each in ("miner-1", "miner-2"))
    signed = tuple(node.builder.announcement(below, some).release for some in (found, found[:1]))
    return reported(accusation(Fault.DOUBLE_RELEASE, fact.publisher, address(reporter), signed), reporter)


def data_changed(node: Observer) -> Evidence:
    """Return the release whose key opens other data than promised, where the builder's world says so."""
    fact = last_fact(node)
    below = node.round.tree.state(fact.parent)
    found = (node.builder.candidate(below, "miner-1", 95),)
    release = node.builder.announcement(below, found).release
    return reported(accusation(Fault.DATA_CHANGED, fact.publisher, address(REPORTER), (release,)))


def trace_forged(node: Observer, finding: AuditFinding = AuditFinding.FAULT_END_POINTS) -> Evidence:
    """Return a fraud proof against the winner of the head; whether it holds is measured."""
    fact = last_fact(node)
    proof = FraudProof(
        node.builder.parameters.chain_id, fact.commitment, finding, (), (), (), address(REPORTER), UNSIGNED
    )
    return reported(forged_trace(reported_proof(proof), fact))


def reported_proof(proof: FraudProof) -> FraudProof:
    """Return a fraud proof signed by its reporter."""
    return sign(proof, private_key_of(proof.reporter))


def resigned(evidence: Evidence, **changes: object) -> Evidence:
    """Return evidence with fields changed, signed again by its reporter."""
    return altered(evidence, name_of(evidence.reporter), **changes)


def same_twice(node: Observer) -> Evidence:
    """Return one commitment twice: no contradiction."""
    below = node.round.tree.state(last_fact(node).parent)
    signed = node.builder.candidate(below, "miner-1", 50).commitment
    evidence = accusation(Fault.DOUBLE_COMMITMENT, address("miner-1"), address(REPORTER), (signed, signed))
    return reported(evidence)
