"""Forced errors: a corrupted start never reproduces, its witness is its own, and the segments after it are checked."""

import pytest

from learnchain.consensus.audits import AuditFinding
from learnchain.learning.replay import SegmentAuditScope, audit_run
from learnchain.learning.train import configure_torch
from tests.learning.disputes.conftest import CLOCK, trained


@pytest.fixture(scope="module")
def honest(tmp_path_factory, digit_sets):
    # The miner is of the class of the auditor: one thread, as the tests of this room run.
    configure_torch()
    return trained(tmp_path_factory.mktemp("honest"), digit_sets[0])


@pytest.mark.parametrize("seed", [bytes([number]) * 32 for number in range(8)])
def test_a_corrupted_start_does_not_reproduce_and_has_a_witness_of_its_own(honest, digit_sets, seed):
    plain = audit_run(honest, digit_sets[0], SegmentAuditScope((1, 2, 3), whole=False), CLOCK).checks
    forced = audit_run(honest, digit_sets[0], SegmentAuditScope((1, 2, 3), False, True, (2,), seed), CLOCK).checks
    assert [each.finding for each in plain] == [AuditFinding.REPRODUCED] * 3
    assert [each.finding for each in forced] == [
        AuditFinding.REPRODUCED,
        AuditFinding.NUMERIC_MISMATCH,
        AuditFinding.REPRODUCED,
    ]
    assert [each.witness for each in forced][::2] == [each.witness for each in plain][::2]
    assert forced[1].witness != plain[1].witness


def test_the_corruption_follows_from_the_seed(honest, digit_sets):
    def witness(seed: bytes) -> bytes:
        scope = SegmentAuditScope((2,), False, True, (2,), seed)
        return audit_run(honest, digit_sets[0], scope, CLOCK).checks[0].witness

    assert witness(b"\1" * 32) == witness(b"\1" * 32)
    assert witness(b"\1" * 32) != witness(b"\2" * 32)
