"""Fees that wallets ask about: what to offer next, and what was paid lately."""

from typing import Any

from learnchain.execution.pyevm.headers import next_base_fee_wei
from learnchain.execution.pyevm.json_values import wrong_argument
from learnchain.execution.pyevm.records import Records
from learnchain.primitives.payload import ExecutionPayload

SUGGESTED_TIP_WEI = 10**9
MAXIMUM_HISTORY = 256
MAXIMUM_PERCENTILES = 32


def fee_history(records: Records, newest: ExecutionPayload, count: int, percentiles: Any) -> dict[str, Any]:
    """Return base fees, fullness and tips of the last blocks up to `newest`, as eth_feeHistory defines them."""
    wanted = _percentiles(percentiles)
    payloads: list[ExecutionPayload] = []
    payload: ExecutionPayload | None = newest
    while payload is not None and len(payloads) < min(count, MAXIMUM_HISTORY):
        payloads.append(payload)
        payload = records.payload(payload.parent_hash) if payload.number else None
    payloads.reverse()
    base_fees_wei = [entry.base_fee_wei for entry in payloads] + [next_base_fee_wei(newest)]
    history: dict[str, Any] = {
        "oldestBlock": hex(payloads[0].number if payloads else newest.number),
        "baseFeePerGas": [hex(fee_wei) for fee_wei in base_fees_wei],
        "gasUsedRatio": [entry.gas_used / entry.gas_limit for entry in payloads],
        "baseFeePerBlobGas": ["0x1"] * len(base_fees_wei),
        "blobGasUsedRatio": [0.0] * len(payloads),
    }
    if wanted is not None:
        history["reward"] = [_tips(records, entry, wanted) for entry in payloads]
    return history


def _percentiles(value: Any) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAXIMUM_PERCENTILES:
        raise wrong_argument(f"percentiles are a list of at most {MAXIMUM_PERCENTILES}")
    if any(isinstance(entry, bool) or not isinstance(entry, int | float) or not 0 <= entry <= 100 for entry in value):
        raise wrong_argument("percentiles lie between 0 and 100")
    return [float(entry) for entry in value]


def _tips(records: Records, payload: ExecutionPayload, percentiles: list[float]) -> list[str]:
    """Return, for each percentile of the block's gas, the tip that was paid there."""
    paid = sorted(
        (receipt.price_wei - payload.base_fee_wei, receipt.gas_used) for receipt in records.receipts(payload.block_hash)
    )
    return [hex(_tip_at(paid, payload.gas_used * percentile / 100)) for percentile in percentiles]


def _tip_at(paid: list[tuple[int, int]], gas: float) -> int:
    reached = 0
    for tip_wei, gas_used in paid:
        reached += gas_used
        if reached >= gas:
            return tip_wei
    return paid[-1][0] if paid else 0
