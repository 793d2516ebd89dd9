"""Terms that the contract would refuse are refused before; descriptions have one encoding."""

from dataclasses import replace
from typing import Any

import pytest

from learnchain.market.terms import decode_description, encode_description
from learnchain.rejection import Rejected, RejectionReason
from tests.market.samples import DESCRIPTION, ETHER, MODEL, TERMS


def test_value_pays_every_slot():
    assert TERMS.value_wei == 2 * (5 + 3) * ETHER


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"model_wei": 0},
        {"model_wei": 1 << 96},
        {"stake_wei": 0},
        {"models": 17},
        {"committee": 0},
        {"committee": 16},
        {"fitness": 10_001},
        {"tolerance": 10_001},
        {"commit_seconds": 0},
    ],
)
def test_terms_out_of_range_are_refused(change: dict[str, Any]):
    with pytest.raises(Rejected) as caught:
        replace(TERMS, **change).check()
    assert caught.value.reason is RejectionReason.TASK_NUMBER_OUT_OF_RANGE


@pytest.mark.parametrize("recommended", [(), (MODEL,)])
def test_a_description_comes_back(recommended: tuple[Any, ...]):
    description = replace(DESCRIPTION, recommended=recommended)
    assert decode_description(encode_description(description)) == description


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xc0", RejectionReason.MALFORMED),
        (encode_description(DESCRIPTION) + b"\0", RejectionReason.MALFORMED),
        (bytes(16_385), RejectionReason.TOO_LARGE),
    ],
)
def test_hostile_descriptions_are_refused(data: bytes, reason: RejectionReason):
    with pytest.raises(Rejected) as caught:
        decode_description(data)
    assert caught.value.reason is reason
