"""What a reveal may say of its training run is decided before its trace is read, alike under every engine."""

from dataclasses import replace

import pytest

from learnchain.consensus.validity import check_opening
from learnchain.encoding.cryptography import sign
from learnchain.engines.contract import Rules
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.podl import Podl
from learnchain.engines.pole import Pole
from learnchain.engines.proof_of_work.scenario import PROOF_OF_WORK
from learnchain.protocol.messages import MAXIMUM_STATES, commitment_digest, work_id
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.sample_tasks import address, private_key_of


def open_run_of(states: int, rules: Rules) -> None:
    """Commit to a run of so many states and check the reveal that opens it."""
    builder = ChainBuilder(rules)
    parent = builder.build_genesis()
    selection = builder.select_assignment(parent, "miner-1")
    candidate = builder.build_candidate(parent, "miner-1", 95)
    model = replace(candidate.model, training=replace(candidate.model.training, states=states))
    work = work_id(builder.parameters.chain_id, parent.block_hash, selection.task.task_id, address("miner-1"))
    payload_cid = b"\x01\x55" + candidate.payload_hash
    digest = commitment_digest(work, model, candidate.payload_hash, payload_cid, candidate.salt)
    commitment = sign(replace(candidate.commitment, digest=digest), private_key_of(address("miner-1")))
    reveal = builder.build_reveal(parent, replace(candidate, model=model, commitment=commitment))
    check_opening(commitment, reveal, selection, builder.parameters)


@pytest.mark.parametrize("rules", [Dlbc(), Podl(), Pole(), PROOF_OF_WORK], ids=lambda rules: rules.name)
def test_a_run_of_as_many_states_as_the_limit_is_opened_and_one_more_is_refused_by_name(rules: Rules) -> None:
    open_run_of(MAXIMUM_STATES, rules)
    with pytest.raises(Rejected) as caught:
        open_run_of(MAXIMUM_STATES + 1, rules)
    assert caught.value.reason is RejectionReason.TRACE_TOO_LONG
