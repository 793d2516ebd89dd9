"""Old states are let go and nothing that a kept state rests on ever is, whatever happens in between."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
import rlp

from learnchain.encoding.cryptography import keccak256
from learnchain.encoding.files import MemoryStore
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.pruning import PruningPolicy, references
from learnchain.execution.pyevm.records import Phase, Records
from learnchain.execution.pyevm.transactions import EMPTY_TRIE_ROOT
from learnchain.protocol.payload import ExecutionPayload, PayloadAttributes, PayloadStatusCode
from learnchain.rejection import Unavailable
from tests.execution.pyevm.chain import ADDRESSES, KEYS, NONE, Chain, genesis, signed

KEEPING = PruningPolicy(blocks=2, least_bytes=1, step_nodes=25)
FINAL_DEPTH = 3
ATTRIBUTES = PayloadAttributes(10**6, b"\7" * 32, b"\xaa" * 20, (), b"\x0b" * 32)


class Branching:
    """Grow a chain with forks on an engine; what is `FINAL_DEPTH` below the head is final."""

    def __init__(self, store: MemoryStore, seed: int = 0, keeping: PruningPolicy = KEEPING) -> None:
        self.store = store
        self.keeping = keeping
        self.chance = random.Random(seed)
        self.open()
        self.chain.seconds = {self.chain.head: 1_000}
        self.path = [self.chain.head]
        self.nonces: dict[bytes, tuple[int, ...]] = {self.chain.head: (0,) * len(KEYS)}
        self.payloads: dict[bytes, ExecutionPayload] = {}

    def open(self) -> None:
        seconds = dict(self.chain.seconds) if hasattr(self, "chain") else {}
        self.engine = PyEvmEngine(self.store, genesis(), self.keeping)
        self.chain = Chain(self.engine)
        self.chain.seconds |= seconds

    def final(self) -> bytes:
        return self.path[max(0, len(self.path) - 1 - FINAL_DEPTH)]

    def grow(self) -> None:
        """Add a payload on the head, or on one of the blocks before it that are not final, and choose it."""
        back = self.chance.choice((0, 0, 0, 1, 2)) if len(self.path) > FINAL_DEPTH else 0
        parent = self.path[len(self.path) - 1 - back]
        nonces = list(self.nonces[parent])
        raws: list[bytes] = []
        for _ in range(self.chance.randrange(4)):
            who = self.chance.randrange(len(KEYS))
            raws.append(self._raw(KEYS[who], nonces[who]))
            nonces[who] += 1
        miner = self.chance.randbytes(20)
        payload = self.chain.accept(self.chain.build(tuple(raws), parent=parent, miner=miner))
        assert len(payload.transactions) == len(raws)
        self.payloads[payload.block_hash] = payload
        self.nonces[payload.block_hash] = tuple(nonces)
        # A branch that is shorter than the head's is known and not chosen.
        if back:
            return
        self.path.append(payload.block_hash)
        self.choose()

    def choose(self) -> None:
        status = self.engine.set_head(self.path[-1], self.final(), self.final())
        assert status.status is PayloadStatusCode.VALID
        self.chain.head = self.path[-1]

    def _raw(self, key: bytes, nonce: int) -> bytes:
        if self.chance.random() < 0.4:
            data, value = post_calldata(self.chance.randbytes(8), 1, 0, 10**9), posting_value_wei(1, 0)
            return signed(key, nonce, ESCROW_ADDRESS, data=data, value=value, gas=300_000)
        if self.chance.random() < 0.3:
            return signed(key, nonce, None, data=init_code(self.chance.choice((b"\0", b"\1\2"))), gas=200_000, value=0)
        return signed(key, nonce, self.chance.randbytes(20), value=1)


def init_code(code: bytes) -> bytes:
    """Return code that sets two words of storage and installs `code`."""
    store = bytes.fromhex("6001600055600260015561") + len(code).to_bytes(2, "big") + bytes.fromhex("601a5f3961")
    return store + len(code).to_bytes(2, "big") + bytes.fromhex("5ff3000000000000")[: 26 - len(store) - 2] + code


def missing_below(records: Records, root: bytes) -> list[bytes]:
    """Return what a state names and the store lacks."""
    missing: list[bytes] = []
    seen: set[bytes] = set()
    stack = [root]
    while stack:
        key = stack.pop()
        if key in seen or key == EMPTY_TRIE_ROOT:
            continue
        seen.add(key)
        node = records.node(key)
        if node is None:
            missing.append(key)
            continue
        children, codes = references(node)
        stack += children
        missing += [code for code in codes if records.node(code) is None]
    return missing


def check(world: Branching) -> None:
    records = Records(world.store)
    floor = records.nodes.state.floor
    kept = [each for each in world.payloads.values() if each.number >= floor]
    assert kept
    for payload in kept:
        assert missing_below(records, payload.state_root) == []


def node_entries(engine: Any) -> int:
    return len(list(engine._records._store.scan(b"execution/n")))


@pytest.mark.parametrize("seed", range(2))
def test_kept_states_stay_whole_while_others_go(seed: int):
    world = Branching(MemoryStore(), seed)
    phases: set[int] = set()
    for index in range(90):
        world.grow()
        phases.add(Records(world.store).nodes.state.phase)
        if index % 5 == 0:
            check(world)
    state = Records(world.store).nodes.state
    assert phases == set(Phase)
    assert state.generation >= 2
    assert 0 < state.floor <= world.payloads[world.final()].number - KEEPING.blocks
    with pytest.raises(Unavailable):
        world.engine.balance(world.path[0], ADDRESSES[0])
    with pytest.raises(Unavailable):
        world.engine.rpc("eth_getProof", ["0x" + ADDRESSES[0].hex(), [], "0x0"])
    with pytest.raises(Unavailable):
        world.engine.build(world.path[0], ATTRIBUTES)


def test_an_engine_that_collects_builds_the_same_chain_on_less_disk():
    keeping = PruningPolicy(blocks=2, least_bytes=1, step_nodes=2_000)
    chains = [Chain(PyEvmEngine(MemoryStore(), genesis(), each)) for each in (keeping, PruningPolicy())]
    path = [chains[0].head]
    for nonce in range(100):
        for chain in chains:
            payload = chain.accept(chain.build((signed(KEYS[0], nonce, ADDRESSES[1]),)))
            chain.door.set_head(payload.block_hash, NONE, path[max(0, len(path) - 3)])
            chain.head = payload.block_hash
        path.append(chains[0].head)
    assert chains[0].head == chains[1].head
    sizes = [node_entries(chain.door) for chain in chains]
    assert sizes[0] < sizes[1] // 2
    assert chains[1].door.balance(path[1], ADDRESSES[0]) > 0
    with pytest.raises(Unavailable):
        chains[0].door.balance(path[1], ADDRESSES[0])


class BreakingStore(MemoryStore):
    """Fail the write that is due, before anything of it is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError("killed")
        super().put_many(items)


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_write_leaves_every_kept_state_whole(seed: int):
    chance = random.Random(seed)
    store = BreakingStore()
    world = Branching(store, seed)
    killed = 0
    while len(world.path) < 40:
        store.left = chance.randrange(1, 12)
        try:
            for _ in range(4):
                world.grow()
        except OSError:
            killed += 1
            store.left = -1
            world.open()
            world.choose()
            check(world)
    assert killed > 5
    assert Records(store).nodes.state.generation >= 2


def test_a_full_disk_during_copying_loses_no_part_of_the_walk():
    """The same engine goes on after a refused write: what it had walked in memory must not count as written."""
    store = BreakingStore()
    world = Branching(store, 3, PruningPolicy(blocks=2, least_bytes=1, step_nodes=200))
    failed = 0
    for index in range(90):
        # The third write of a round is the collector's: a payload and a head come before it.
        store.left = 3 if index % 4 == 3 else -1
        try:
            world.grow()
        except OSError:
            failed += 1
            store.left = -1
        if index % 5 == 0:
            check(world)
    assert failed > 10
    assert Records(store).nodes.state.generation >= 2


def test_code_that_is_the_bytes_of_a_node_hides_no_branch():
    """A contract whose code has a live node's hash is copied early: the node's children must come all the same."""
    world = Branching(MemoryStore(), 5)
    records = Records(world.store)
    first = world.chain.accept(world.chain.build((signed(KEYS[0], 0),)))
    world.payloads[first.block_hash] = first
    world.nonces[first.block_hash] = (1, 0, 0, 0, 0)
    world.path.append(first.block_hash)
    world.choose()
    root = records.node(first.state_root)
    assert root is not None
    children = [each for each in references(root)[0] if (records.node(each) or b"")[:1] >= b"\xc0"]
    body = next(node for node in (records.node(each) for each in children) if node and len(rlp.decode(node)) == 17)
    second = world.chain.accept(
        world.chain.build((signed(KEYS[0], 1, None, data=init_code(body), gas=900_000, value=0),))
    )
    assert records.node(keccak256(body)) == body
    world.payloads[second.block_hash] = second
    world.nonces[second.block_hash] = (2, 0, 0, 0, 0)
    world.path.append(second.block_hash)
    world.choose()
    code = world.engine.rpc("eth_getTransactionReceipt", ["0x" + second_hash(second)])["contractAddress"]
    assert world.engine.rpc("eth_getCode", [code]) == "0x" + body.hex()
    for _ in range(40):
        world.grow()
    check(world)
    assert Records(world.store).nodes.state.generation >= 2
    assert world.engine.rpc("eth_getCode", [code]) == "0x" + body.hex()


def second_hash(payload: ExecutionPayload) -> str:
    return keccak256(payload.transactions[0]).hex()


def test_a_store_of_an_earlier_version_keeps_everything_for_a_while():
    store = MemoryStore()
    Branching(store)
    store.put_many(dict.fromkeys(key for key, _ in store.scan(b"execution/listed")))
    store.put_many(dict.fromkeys(key for key, _ in store.scan(b"execution/root/")))
    world = Branching(store, 1)
    for _ in range(40):
        world.grow()
    assert Records(store).nodes.state == Records(store).nodes.state.__class__(
        written_bytes=Records(store).nodes.state.written_bytes
    )
    assert world.engine.balance(world.path[1], ADDRESSES[0]) > 0


def test_a_missing_node_stops_collecting_and_nothing_is_dropped():
    world = Branching(MemoryStore(), 2)
    for _ in range(12):
        world.grow()
    records = Records(world.store)
    lost = references(records.node(world.payloads[world.path[-1]].state_root) or b"")[0][0]
    world.store.put_many({key: None for key, _ in world.store.scan(b"execution/n") if key.endswith(lost)})
    before = Records(world.store).nodes.state
    for _ in range(20):
        world.choose()
    after = Records(world.store).nodes.state
    assert after.generation <= before.generation + 1
    assert after.phase == Phase.COPYING or after == before
