"""Replay chains through EELS, Ethereum's executable specification, in an environment of its own; roots must be equal.

`python replay.py CHAIN.json ...`: each file holds `{genesis, payloads}` as `learnchain_chains.py` or the vectors write
them. Nothing of learnchain is imported here, so that no line of ours can agree with itself.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ethereum.crypto.hash import keccak256
from ethereum.forks.prague import fork, state
from ethereum.forks.prague.blocks import Block, Header
from ethereum_rlp import rlp
from ethereum_types.bytes import Bytes, Bytes8, Bytes32, Bytes256
from ethereum_types.numeric import U64, U256, Uint

EMPTY_ROOT = Bytes32(bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"))
EMPTY_REQUESTS = Bytes32(bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))


def data(text: str) -> bytes:
    """Return the bytes of a 0x-string."""
    return bytes.fromhex(text.removeprefix("0x"))


def genesis_state(genesis: dict[str, Any]) -> state.State:
    """Return the state that a geth-format genesis allocates."""
    made = state.State()
    for name, account in genesis["alloc"].items():
        address = fork.Address(data(name))
        state.set_account_balance(made, address, U256(int(account["balance"], 16)))
        for _ in range(int(account.get("nonce", "0x0"), 16)):
            state.increment_nonce(made, address)
        if account.get("code"):
            state.set_code(made, address, Bytes(data(account["code"])))
        if account.get("storage"):
            raise ValueError("storage in a genesis is not replayed here")
    return made


def genesis_block(genesis: dict[str, Any], made: state.State) -> Block:
    """Return the genesis block over a state."""
    header = Header(
        parent_hash=Bytes32(bytes(32)),
        ommers_hash=keccak256(rlp.encode([])),
        coinbase=fork.Address(data(genesis["coinbase"])),
        state_root=state.state_root(made),
        transactions_root=EMPTY_ROOT,
        receipt_root=EMPTY_ROOT,
        bloom=Bytes256(bytes(256)),
        difficulty=Uint(0),
        number=Uint(0),
        gas_limit=Uint(int(genesis["gasLimit"], 16)),
        gas_used=Uint(0),
        timestamp=U256(int(genesis["timestamp"], 16)),
        extra_data=Bytes(data(genesis["extraData"])),
        prev_randao=Bytes32(data(genesis["mixHash"])),
        nonce=Bytes8(bytes(8)),
        base_fee_per_gas=Uint(int(genesis["baseFeePerGas"], 16)),
        withdrawals_root=EMPTY_ROOT,
        blob_gas_used=U64(0),
        excess_blob_gas=U64(0),
        parent_beacon_block_root=Bytes32(bytes(32)),
        requests_hash=EMPTY_REQUESTS,
    )
    return Block(header=header, transactions=(), ommers=(), withdrawals=())


def replay(chain: dict[str, Any]) -> tuple[int, str]:
    """Run every block through the specification, which refuses any that differs; return their count and the root."""
    made = genesis_state(chain["genesis"])
    first = genesis_block(chain["genesis"], made)
    if keccak256(rlp.encode(first.header)).hex() != chain["genesis_hash"]:
        raise SystemExit("the genesis hash differs")
    history = fork.BlockChain(blocks=[first], state=made, chain_id=U64(chain["genesis"]["config"]["chainId"]))
    for entry in chain["blocks"]:
        block = rlp.decode_to(Block, bytes.fromhex(entry["rlp"]))
        if keccak256(rlp.encode(block.header)).hex() != entry["block_hash"]:
            raise SystemExit(f"block {int(block.header.number)} has another hash")
        fork.state_transition(history, block)
    root = state.state_root(made).hex()
    if root != chain["state_root"]:
        raise SystemExit(f"the state root is {root}, not {chain['state_root']}")
    return len(chain["blocks"]), root


if __name__ == "__main__":
    for name in sys.argv[1:]:
        count, root = replay(json.loads(Path(name).read_text(encoding="utf-8")))
        sys.stdout.write(f"{name}: {count} blocks, state root {root}\n")
