"""Write chains for `replay.py`: the vectors, chains of random transactions, and one of a simulated network."""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from learnchain.encoding.files import MemoryStore
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS, genesis_block_hash
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.records import Records
from learnchain.execution.pyevm.transactions import block_rlp
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.payload import ExecutionPayload, decode_payload
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from tests.execution.pyevm.chain import ADDRESSES, ETHER, KEYS, Chain, genesis, reward, signed

VECTOR = Path(__file__).parents[2] / "src/learnchain/execution/vectors/prague.json"
BLOCKS = 24
HEIGHTS = 6


def write(path: Path, content: dict[str, Any], payloads: list[ExecutionPayload]) -> None:
    chain = {
        "genesis": content,
        "genesis_hash": genesis_block_hash(content).hex(),
        "blocks": [{"rlp": block_rlp(each).hex(), "block_hash": each.block_hash.hex()} for each in payloads],
        "state_root": payloads[-1].state_root.hex(),
    }
    path.write_text(json.dumps(chain), encoding="utf-8")


def vector() -> tuple[dict[str, Any], list[ExecutionPayload]]:
    content = json.loads(VECTOR.read_text(encoding="utf-8"))
    return content["genesis"], [decode_payload(bytes.fromhex(each["payload"])) for each in content["payloads"]]


def random_chain(seed: int) -> tuple[dict[str, Any], list[ExecutionPayload]]:
    """Transfers, deployments of random code, random calls and task posts; what cannot run is left out."""
    chance = random.Random(seed)
    chain = Chain(PyEvmEngine(MemoryStore(), genesis()))
    nonces = [0] * len(KEYS)
    made: list[bytes] = [ESCROW_ADDRESS]
    payloads: list[ExecutionPayload] = []
    for height in range(BLOCKS):
        raws: list[bytes] = []
        for _ in range(chance.randrange(6)):
            who = chance.randrange(len(KEYS))
            raws.append(_random_transaction(chance, KEYS[who], nonces[who], made))
            nonces[who] += 1
        rewards = (reward(chance.choice(ADDRESSES), chance.randrange(10**6), height),)
        payload = chain.extend(*raws, withdrawals=rewards, beacon_root=chance.randbytes(32))
        payloads.append(payload)
        nonces = [int(chain.door.rpc("eth_getTransactionCount", ["0x" + each.hex()]), 16) for each in ADDRESSES]
        receipts = chain.door.rpc("eth_getBlockReceipts", ["latest"])
        made += [bytes.fromhex(each["contractAddress"][2:]) for each in receipts if each["contractAddress"]]
    return genesis(), payloads


def _random_transaction(chance: random.Random, key: bytes, nonce: int, made: list[bytes]) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return signed(key, nonce, to=chance.randbytes(20), value=chance.randrange(ETHER))
    if kind == 1:
        return signed(key, nonce, to=None, data=chance.randbytes(chance.randrange(1, 80)), gas=200_000, value=0)
    if kind == 2:
        data = chance.randbytes(chance.randrange(100))
        return signed(key, nonce, to=chance.choice(made), data=data, gas=150_000, value=chance.randrange(2))
    data = post_calldata(chance.randbytes(40), ETHER, 5, 10**10)
    return signed(key, nonce, to=ESCROW_ADDRESS, data=data, gas=400_000, value=posting_value_wei(ETHER, 5))


def simulated_network() -> tuple[dict[str, Any], list[ExecutionPayload]]:
    """Let four nodes train and mine, and take the chain that the first of them executed."""

    async def main(directory: Path) -> tuple[dict[str, Any], list[ExecutionPayload]]:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=3), seed=3)
        await nodes.start()
        await nodes.wait_for_height(HEIGHTS, 300)
        records = Records(nodes.places[0].execution)
        head = records.head()
        assert head is not None
        last = records.load_payload(head.head).number
        payloads = [records.load_payload(records.canonical(number) or b"") for number in range(1, last + 1)]
        content = nodes.genesis.execution
        await nodes.close()
        return content, payloads

    with tempfile.TemporaryDirectory() as place:
        return run_simulated(main(Path(place)))


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "vector.json", *vector())
    for seed in range(3):
        write(directory / f"random-{seed}.json", *random_chain(seed))
    write(directory / "network.json", *simulated_network())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
