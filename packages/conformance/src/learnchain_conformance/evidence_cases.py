"""Make evidence for tests and vectors: every fault that the spine punishes, proven by what the offender signed."""

from learnchain.consensus.audits import AuditFinding, FraudProof
from learnchain.consensus.evidence import build_evidence, build_trace_evidence
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.protocol.messages import Evidence, Fault
from learnchain.protocol.state import HeightRecord
from learnchain.simulation.chain_builder import alter
from learnchain.simulation.sample_tasks import address, name_of, private_key_of
from learnchain.simulation.scenario import ScenarioNode

REPORTER = "node-4"


def sign_evidence(evidence: Evidence, reporter: str = REPORTER) -> Evidence:
    """Return evidence signed by its reporter."""
    return sign(evidence, private_key_of(address(reporter)))


def last_height_record(node: ScenarioNode) -> HeightRecord:
    """Return what the book remembers of the block that this node's head is."""
    return node.parent.bonds.height_records[-1]


def build_double_commitment(node: ScenarioNode, miner: str = "miner-1", reporter: str = REPORTER) -> Evidence:
    """Return two commitments of one miner on the parent of the head."""
    below = node.round.tree.state(last_height_record(node).parent)
    signed = tuple(node.builder.build_candidate(below, miner, 50, variant=each).commitment for each in ("one", "two"))
    return sign_evidence(build_evidence(Fault.DOUBLE_COMMITMENT, address(miner), address(reporter), signed), reporter)


def build_double_reveal(node: ScenarioNode, miner: str = "miner-1") -> Evidence:
    """Return two openings of the winner's commitment with different claims."""
    below = node.round.tree.state(last_height_record(node).parent)
    found = node.builder.build_candidate(below, miner, 95)
    signed = tuple(node.builder.build_reveal(below, found, claim) for claim in (95, 96))
    return sign_evidence(build_evidence(Fault.DOUBLE_REVEAL, address(miner), address(REPORTER), signed))


def build_double_release(node: ScenarioNode, reporter: str = REPORTER) -> Evidence:
    """Return two releases of the publisher of the head's height: one leaves a miner out."""
    fact = last_height_record(node)
    below = node.round.tree.state(fact.parent)
    found = tuple(node.builder.build_candidate(below, each, 95) for each in ("miner-1", "miner-2"))
    signed = tuple(node.builder.build_announcement(below, some).release for some in (found, found[:1]))
    return sign_evidence(build_evidence(Fault.DOUBLE_RELEASE, fact.publisher, address(reporter), signed), reporter)


def build_changed_data(node: ScenarioNode) -> Evidence:
    """Return the release whose key opens other data than promised, where the builder's world says so."""
    fact = last_height_record(node)
    below = node.round.tree.state(fact.parent)
    found = (node.builder.build_candidate(below, "miner-1", 95),)
    release = node.builder.build_announcement(below, found).release
    return sign_evidence(build_evidence(Fault.DATA_CHANGED, fact.publisher, address(REPORTER), (release,)))


def build_forged_trace(node: ScenarioNode, finding: AuditFinding = AuditFinding.FAULT_END_POINTS) -> Evidence:
    """Return a fraud proof against the winner of the head; whether it holds is measured."""
    fact = last_height_record(node)
    proof = FraudProof(
        node.builder.parameters.chain_id, fact.commitment, finding, (), (), (), address(REPORTER), UNSIGNED
    )
    return sign_evidence(build_trace_evidence(sign_fraud_proof(proof), fact))


def sign_fraud_proof(proof: FraudProof) -> FraudProof:
    """Return a fraud proof signed by its reporter."""
    return sign(proof, private_key_of(proof.reporter))


def sign_again(evidence: Evidence, **changes: object) -> Evidence:
    """Return evidence with fields changed, signed again by its reporter."""
    return alter(evidence, name_of(evidence.reporter), **changes)


def build_repetition(node: ScenarioNode) -> Evidence:
    """Return one commitment twice: no contradiction."""
    below = node.round.tree.state(last_height_record(node).parent)
    signed = node.builder.build_candidate(below, "miner-1", 50).commitment
    evidence = build_evidence(Fault.DOUBLE_COMMITMENT, address("miner-1"), address(REPORTER), (signed, signed))
    return sign_evidence(evidence)
