"""What `learnchain up` posts by itself is what the engine takes."""

from dataclasses import replace

import pytest

from learnchain.engines.registry import ENGINES, decode_engine
from learnchain.node.local_network import LOCAL_PHASES
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import build_sample_parameters
from learnchain.simulation.sample_tasks import build_sample_task


@pytest.mark.parametrize("name", ENGINES)
def test_tasks_are_posted_by_default_only_where_commissions_are_taken(name):
    posted, parameters = build_sample_task("digits"), build_sample_parameters()
    rules = ENGINES[name].build_local(LOCAL_PHASES, 3)
    reason = None
    try:
        rules.admit_task(posted.task, posted.specification, parameters)
    except Rejected as refused:
        reason = refused.reason
    assert (reason is RejectionReason.TASK_NOT_TRAINED) == (not ENGINES[name].accepts_posted_tasks)


def test_the_quantised_variant_differs_from_podl_in_the_bits_of_a_weight_alone():
    plain, small = (ENGINES[name].build_local(LOCAL_PHASES, 3) for name in ("podl", "podl-quantised"))
    assert (plain.model_bits, small.model_bits) == (32, 8)
    assert replace(small, model_bits=32) == plain
    assert decode_engine("podl", small.encode_parameters()) == small
