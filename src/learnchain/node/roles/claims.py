"""Claim what blocks settled: the next producer sends the proof, is refunded a tip, and it is retried until seen."""

import logging
from enum import StrEnum

from learnchain.encoding.hashing import history_branch
from learnchain.execution.escrow import (
    STATUS_OPEN,
    Claim,
    bond_calldata,
    collected_calldata,
    decode_stake,
    decode_task,
    settle_calldata,
    task_calldata,
)
from learnchain.node.ports import Ports
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected

logger = logging.getLogger(__name__)
MAXIMUM_CLAIMS_PER_PAYLOAD = 4
SETTLE_GAS = 400_000


class SettlementStage(StrEnum):
    """Say where a settlement stands in the contract."""

    OPEN = "open"
    WAITING = "waiting"
    DONE = "done"


async def settling_transactions(ports: Ports, parent: ChainState, timestamp_seconds: int) -> tuple[bytes, ...]:
    """Return signed claims for settlements on the branch of `parent` that the contract still holds open.

    The root they are proven against is that of `parent`, which the payload stamped `timestamp_seconds` carries.
    """
    history = ports.archive.settlements(parent.block_hash)
    if not history:
        return ()
    leaves = tuple(each.leaf(ports.chain.parameters.chain_id, ports.chain.parameters.escrow) for each in history)
    claims: list[Claim] = []
    for index in range(len(history) - 1, -1, -1):
        if len(claims) == MAXIMUM_CLAIMS_PER_PAYLOAD:
            break
        found = await _place(ports, history[index], index)
        if found is SettlementStage.OPEN:
            branch = history_branch(leaves, index)
            claims.append(Claim(history[index], index, branch, parent.block_hash, timestamp_seconds))
        elif found is SettlementStage.DONE and index < len(history) - MAXIMUM_CLAIMS_PER_PAYLOAD:
            # Claims are retried in every payload, so a settled one this far back means that those before it are too.
            break
    if not claims:
        return ()
    return await _sign_claims(ports, claims)


async def _place(ports: Ports, settlement: Settlement, index: int) -> SettlementStage:
    """Ask the contract where a settlement stands; shares of a pot wait until the pot is filled."""
    if settlement.outcome is not SettlementOutcome.SLASHED:
        status = decode_task(await _call_contract(ports, task_calldata(settlement.task_id))).status
        return SettlementStage.OPEN if status == STATUS_OPEN else SettlementStage.DONE
    if any(await _call_contract(ports, collected_calldata(index))):
        return SettlementStage.DONE
    pot = decode_stake(await _call_contract(ports, bond_calldata(settlement.task_id)))
    return (
        SettlementStage.OPEN if pot.active_wei + pot.leaving_wei >= settlement.amount_wei else SettlementStage.WAITING
    )


async def _call_contract(ports: Ports, data: bytes) -> bytes:
    call = {"to": _hex(ports.chain.parameters.escrow), "data": _hex(data)}
    answer: str = await ports.engine.rpc("eth_call", [call, "latest"])
    return bytes.fromhex(answer[2:])


async def _sign_claims(ports: Ports, claims: list[Claim]) -> tuple[bytes, ...]:
    """Sign the claims; an account without coins claims nothing, another producer will."""
    address = _hex(ports.wallet.address)
    nonce = int(await ports.engine.rpc("eth_getTransactionCount", [address, "latest"]), 16)
    balance_wei = int(await ports.engine.rpc("eth_getBalance", [address, "latest"]), 16)
    fee_wei = 2 * int(await ports.engine.rpc("eth_gasPrice", []), 16)
    raw: list[bytes] = []
    for offset, claim in enumerate(claims):
        if balance_wei < (offset + 1) * SETTLE_GAS * fee_wei:
            logger.info("no coins to claim settlements with; the next producer will")
            break
        transaction = {
            "chainId": ports.chain.parameters.chain_id,
            "nonce": nonce + offset,
            "to": _hex(ports.chain.parameters.escrow),
            "value": 0,
            "gas": SETTLE_GAS,
            "maxFeePerGas": fee_wei,
            "maxPriorityFeePerGas": 0,
            "data": _hex(settle_calldata(claim)),
        }
        try:
            raw.append(ports.wallet.sign_transaction(transaction))
        except Rejected as error:
            logger.warning("a claim could not be signed: %s", error)
    return tuple(raw)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
