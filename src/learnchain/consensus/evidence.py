"""Step 8: what makes evidence admissible: a remembered height, a signed contradiction, one punishment a fault (BOND-3).

Two statements of one signer that contradict each other prove themselves. Changed data and forged training are checked
here as far as bytes go; each node measures the rest before it admits a block with such evidence.
"""

from learnchain.consensus.audits import STEP_FAULTS, FraudProof, decode_fraud_proof, find_audit_entry
from learnchain.encoding.codec import Address, Hash32, decode, encode
from learnchain.encoding.cryptography import UNSIGNED, check_signature
from learnchain.protocol import messages
from learnchain.protocol.audit_messages import AuditReport, report_digest
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import BondRegistry, HeightRecord
from learnchain.rejection import Rejected, RejectionReason

Statement = messages.Commitment | messages.Reveal | messages.Release | messages.KeyRelease

_KINDS: dict[messages.Fault, tuple[type[messages.Commitment] | type[messages.Reveal] | type[messages.Release], int]] = {
    messages.Fault.DOUBLE_COMMITMENT: (messages.Commitment, 2),
    messages.Fault.DOUBLE_REVEAL: (messages.Reveal, 2),
    messages.Fault.DOUBLE_RELEASE: (messages.Release, 2),
    messages.Fault.DATA_CHANGED: (messages.Release, 1),
}


def build_evidence(
    fault: messages.Fault, offender: Address, reporter: Address, signed: tuple[Statement, ...]
) -> messages.Evidence:
    """Return unsigned evidence from what the offender signed; the reporter signs it."""
    first = signed[0]
    proofs = tuple(sorted(encode(each) for each in signed))
    return messages.Evidence(first.chain_id, fault, first.height, first.parent, offender, reporter, proofs, UNSIGNED)


def build_trace_evidence(proof: FraudProof, fact: HeightRecord) -> messages.Evidence:
    """Return unsigned evidence that a winner's training does not follow from its trace."""
    place = (fact.height, fact.parent, fact.winner, proof.reporter)
    return messages.Evidence(proof.chain_id, messages.Fault.TRACE_FORGED, *place, (encode(proof),), UNSIGNED)


def build_audit_evidence(report: AuditReport, proof: FraudProof) -> messages.Evidence:
    """Return unsigned evidence that an auditor cannot have replayed what it reports, by its own answer."""
    place = (report.height, report.parent, report.auditor, proof.reporter)
    return messages.Evidence(
        report.chain_id, messages.Fault.AUDIT_FALSE, *place, (encode(report), encode(proof)), UNSIGNED
    )


def check_listed_evidence(book: BondRegistry, block: messages.AnyBlock, parameters: ChainParameters) -> None:
    """Refuse a block whose evidence proves nothing, comes too late, or punishes a fault twice."""
    seen = {each.fault_id for each in book.penalties}
    for evidence in block.evidence:
        if evidence.fault_id in seen:
            raise Rejected(RejectionReason.EVIDENCE_DOUBLE, f"{evidence.fault.value} is punished twice")
        seen.add(evidence.fault_id)
        check_evidence(book, evidence, parameters)


def check_evidence(book: BondRegistry, evidence: messages.Evidence, parameters: ChainParameters) -> HeightRecord:
    """Return the height that evidence is about; refuse evidence that is not admissible on top of this book."""
    if evidence.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {evidence.chain_id} is not {parameters.chain_id}")
    check_signature(evidence, evidence.reporter)
    fact = book.height_record(evidence.height, evidence.parent)
    if fact is None:
        raise Rejected(RejectionReason.EVIDENCE_STALE, f"height {evidence.height} is not remembered on this branch")
    if any(each.fault_id == evidence.fault_id for each in book.penalties):
        raise Rejected(RejectionReason.EVIDENCE_DOUBLE, f"{evidence.fault.value} was punished before")
    if evidence.reporter == evidence.offender:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "nobody earns by reporting itself")
    if evidence.fault in messages.PUBLISHER_FAULTS and evidence.offender != fact.publisher:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the offender did not publish the task of that height")
    if evidence.fault is messages.Fault.TRACE_FORGED:
        read_fraud_proof(evidence, fact)
    elif evidence.fault is messages.Fault.AUDIT_FALSE:
        read_audit_proof(evidence, fact, book)
    else:
        _check_statements(evidence, fact)
    return fact


def is_measurement_needed(evidence: messages.Evidence) -> bool:
    """Return whether bytes alone do not prove the fault."""
    return evidence.fault in messages.MEASURED_FAULTS


def read_fraud_proof(evidence: messages.Evidence, fact: HeightRecord) -> FraudProof:
    """Return the proof behind evidence of forged training; refuse one that does not fit the winner of the height."""
    if len(evidence.statements) != 1 or not fact.training_records or evidence.offender != fact.winner:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "forged training is proven by one proof, of a winner's trace")
    return _read_proof(evidence, evidence.statements[0], fact, fact.commitment)


def read_audit_proof(
    evidence: messages.Evidence, fact: HeightRecord, book: BondRegistry
) -> tuple[AuditReport, FraudProof]:
    """Return a report and the proof against it; refuse what is not an answer of its auditor about a line of it."""
    report = find_false_report(evidence, book)
    proof = _read_proof(evidence, evidence.statements[1], fact, report_digest(report))
    if proof.finding not in STEP_FAULTS:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, f"{proof.finding.value} is no fault of an auditor")
    if proof.segments[0].index not in {each.segment for each in report.segments}:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the report says nothing of that segment")
    return report, proof


def _read_proof(evidence: messages.Evidence, data: bytes, fact: HeightRecord, commitment: Hash32) -> FraudProof:
    """Return a proof by the reporter of answers that the offender signed about what it is bound by."""
    proof = decode_fraud_proof(data)
    same = (proof.chain_id, proof.commitment, proof.reporter)
    if same != (evidence.chain_id, commitment, evidence.reporter):
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the proof is another reporter's, or of another commitment")
    if not fact.training_records or not fact.is_declared:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the training of that height is not checked")
    check_signature(proof, proof.reporter)
    for answer in proof.disclosures:
        check_signature(answer, evidence.offender)
    proof.check_form(fact.training_records[0])
    return proof


def find_false_report(evidence: messages.Evidence, book: BondRegistry) -> AuditReport:
    """Return the report that evidence calls false; refuse one that its auditor never opened."""
    if len(evidence.statements) != 2:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "a false report is proven by the report and an answer's fault")
    report = decode(AuditReport, evidence.statements[0])
    entry = find_audit_entry(book, report)
    place = (report.height, report.parent, report.auditor)
    if entry is None or entry.digest != report_digest(report):
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the report opens no commitment of this branch")
    if place != (evidence.height, evidence.parent, evidence.offender):
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the report is another auditor's, or about another height")
    check_signature(report, report.auditor)
    return report


def decode_statements(evidence: messages.Evidence) -> tuple[Statement, ...]:
    """Return what the offender signed; of changed data either the key release or the release tells the key."""
    kind, count = _KINDS[evidence.fault]
    if len(evidence.statements) != count:
        raise Rejected(RejectionReason.EVIDENCE_INVALID, f"{evidence.fault.value} needs {count} statements")
    if evidence.fault is messages.Fault.DATA_CHANGED:
        return (_decode_key_statement(evidence.statements[0]),)
    return tuple(decode(kind, each) for each in evidence.statements)


def _decode_key_statement(data: bytes) -> messages.KeyRelease | messages.Release:
    try:
        return decode(messages.KeyRelease, data)
    except Rejected:
        return decode(messages.Release, data)


def _check_statements(evidence: messages.Evidence, fact: HeightRecord) -> None:
    """Refuse statements that the offender did not sign on this height, or that do not contradict each other."""
    found = decode_statements(evidence)
    for each in found:
        place = (each.chain_id, each.height, each.parent)
        if place != (evidence.chain_id, fact.height, fact.parent) or each.task_id not in fact.task_ids:
            raise Rejected(RejectionReason.EVIDENCE_INVALID, "a statement is about another height, branch or task")
        if isinstance(each, messages.Commitment | messages.Reveal) and each.miner != evidence.offender:
            raise Rejected(RejectionReason.EVIDENCE_INVALID, "a statement names another miner")
        check_signature(each, evidence.offender)
    if len(found) == 2 and _extract_signed_content(found[0]) == _extract_signed_content(found[1]):
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the statements say the same under two signatures")
    if evidence.statements != tuple(sorted(evidence.statements)):
        raise Rejected(RejectionReason.EVIDENCE_INVALID, "the statements are not in order")


def _extract_signed_content(statement: Statement) -> tuple[Address | bytes | int, ...]:
    """Return what a statement binds its signer to; the same twice is a repetition, not a contradiction."""
    if isinstance(statement, messages.Commitment):
        return (statement.digest, statement.bond_wei)
    if isinstance(statement, messages.Reveal):
        return (statement.claim_correct, statement.claim_total)
    if isinstance(statement, messages.Release):
        return (statement.root, statement.count, statement.key, statement.released_milliseconds)
    return (statement.key,)
