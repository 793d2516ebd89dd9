"""Step 8, beside the block: evidence is taken in, measured where bytes do not prove it, offered to proposers."""

from dataclasses import replace

from learnchain.consensus.evidence import check_evidence, is_measurement_needed
from learnchain.consensus.round import Round, Transition, filter_valid, has_finding, is_unmeasured
from learnchain.consensus.state import apply_bond_change
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.protocol.actions import Action, MeasureEvidence
from learnchain.protocol.events import BondMoved, EvidenceReported
from learnchain.protocol.measurement import Finding, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import MAXIMUM_EVIDENCE, AnyBlock, Evidence
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_PENDING = 64
"""Evidence that waits for a block; more is refused until some of it is in."""


def on_evidence(state: Round, event: EvidenceReported) -> Transition:
    """Keep admissible evidence for the next proposer; have measured what bytes alone do not prove (BOND-4)."""
    evidence, key = event.evidence, message_hash(event.evidence)
    if key in state.evidence:
        return state, (), ()
    if evidence.height > state.parent.height:
        raise Unavailable(f"a head at height {evidence.height}")
    check_evidence(state.parent.bonds, evidence, state.parameters)
    if any(each.fault_id == evidence.fault_id for each in state.evidence.values()):
        raise Rejected(RejectionReason.EVIDENCE_DOUBLE, f"{evidence.fault.value} is reported already")
    if len(state.evidence) >= MAXIMUM_PENDING:
        raise Rejected(RejectionReason.RATE_LIMITED, "enough evidence waits for a block")
    state = replace(state, evidence={**state.evidence, key: evidence})
    wanted = first_unmeasured(state, state.parent, (evidence,))
    return (state, (), ()) if wanted is None else request_measurement(state, state.parent, wanted)


def on_bond(state: Round, event: BondMoved) -> Transition:
    """Follow what an accepted payload did to bonds in the contract (BOND-2)."""
    tree = state.tree.with_state(apply_bond_change(state.tree.state(event.block), event.change))
    return replace(state, tree=tree), (), ()


def select_for_block(state: Round) -> tuple[Evidence, ...]:
    """Return what the next block on the head should punish: the oldest offences first, none twice."""
    chosen: list[Evidence] = []
    for evidence in sorted(state.evidence.values(), key=lambda each: (each.height, message_hash(each))):
        key = message_hash(evidence)
        if is_measurement_needed(evidence) and not has_finding(state, key, MeasurementKind.EVIDENCE, Finding.ACCEPTED):
            continue
        if is_admissible(state.parent, evidence, state):
            chosen.append(evidence)
    return tuple(chosen[:MAXIMUM_EVIDENCE])


def is_admissible(parent: ChainState, evidence: Evidence, state: Round) -> bool:
    """Return whether a block on this parent may still carry the evidence."""
    try:
        check_evidence(parent.bonds, evidence, state.parameters)
    except Rejected:
        return False
    return True


def first_unmeasured(state: Round, parent: ChainState, listed: tuple[Evidence, ...]) -> Evidence | None:
    """Return the first piece of evidence whose measurement is not here."""
    waiting = (each for each in listed if is_measurement_needed(each))
    return next((each for each in waiting if is_unmeasured(state, message_hash(each), MeasurementKind.EVIDENCE)), None)


def rejection_reason(state: Round, block: AnyBlock) -> str | None:
    """Return why a block's measured evidence does not stand, or None."""
    keys = (message_hash(each) for each in block.evidence)
    failed = any(has_finding(state, key, MeasurementKind.EVIDENCE, Finding.REJECTED) for key in keys)
    return RejectionReason.EVIDENCE_INVALID.value if failed else None


def request_measurement(state: Round, parent: ChainState, evidence: Evidence) -> Transition:
    """Ask the node to measure evidence, once."""
    key = message_hash(evidence)
    if (key, MeasurementKind.EVIDENCE) in state.requested_measurements:
        return state, (), ()
    fact = parent.bonds.height_record(evidence.height, evidence.parent)
    if fact is None:
        raise AssertionError("evidence was not checked before it was measured")
    action: Action = MeasureEvidence(MeasurementRequest(key, MeasurementKind.EVIDENCE), evidence, fact, parent.bonds)
    return (
        replace(state, requested_measurements=state.requested_measurements | {(key, MeasurementKind.EVIDENCE)}),
        (action,),
        (),
    )


def retain_valid(state: Round, parent: ChainState) -> dict[Hash32, Evidence]:
    """Return the evidence that still counts on a new head."""
    return filter_valid(state.evidence, lambda each: check_evidence(parent.bonds, each, state.parameters))
