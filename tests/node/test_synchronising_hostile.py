"""Peers that answer a synchronising node with wrong blocks, with lies about their head, or with nothing useful."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import message_hash
from learnchain.network.network import Network
from learnchain.node.local_network import LocalPlan
from learnchain.node.node import Node
from learnchain.node.synchronising import BLOCKS, BLOCKS_PER_REQUEST, STATUS, Blocks, Status
from learnchain.protocol.messages import AnyBlock, block_bytes
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain_conformance.instant_training import InstantTraining
from tests.network.worlds import identity

ATTACKER = identity("attacker")
HEAVY = 10**30

Answer = Callable[[list[AnyBlock]], bytes]


def forged(blocks: list[AnyBlock]) -> AnyBlock:
    """Return the first block with one bit of its signature changed."""
    first = blocks[0]
    return replace(first, signature=bytes([first.signature[0] ^ 1]) + first.signature[1:])


def garbage(_blocks: list[AnyBlock]) -> bytes:
    return b"\xff" * 1_000


def no_blocks_inside(_blocks: list[AnyBlock]) -> bytes:
    return encode(Blocks((b"\x01garbage",)))


def long_item(body: bytes, offset: int) -> bytes:
    """Return RLP of a string (offset 0xB7) or a list (0xF7) above 55 bytes."""
    size = len(body).to_bytes(4, "big").lstrip(b"\0")
    return bytes([offset + len(size)]) + size + body


def too_many(blocks: list[AnyBlock]) -> bytes:
    item = long_item(block_bytes(blocks[0]), 0xB7)
    assert long_item(long_item(item, 0xF7), 0xF7) == encode(Blocks((block_bytes(blocks[0]),)))
    return long_item(long_item(item * (BLOCKS_PER_REQUEST + 1), 0xF7), 0xF7)


def wrong_signature(blocks: list[AnyBlock]) -> bytes:
    return encode(Blocks((block_bytes(forged(blocks)),)))


def endless(_blocks: list[AnyBlock]) -> bytes:
    return bytes(BLOCKS_PER_REQUEST * (1 << 18) + 1)


def played(directory: Path, answer: Answer, check: Callable[[SimulatedNodes, Network], None]) -> None:
    async def scenario() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=1), seed=6)
        nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(360)
        await nodes.start()
        await nodes.wait_for_height(3, 120)
        archive = nodes.node(0).ports.archive
        blocks = [archive.block(state.block_hash) for state in archive.branch(archive.head().block, 0)]
        transport = nodes.network.transport(ATTACKER)
        attacker = Network(transport, nodes.genesis.hash, nodes.clock, random.Random(5))

        async def status(_peer: bytes, _body: bytes) -> AsyncIterator[bytes]:
            yield encode(Status(message_hash(forged(blocks)), 1_000, HEAVY))

        async def ranges(_peer: bytes, _body: bytes) -> AsyncIterator[bytes]:
            data = answer(blocks)
            for start in range(0, len(data), 1 << 15):
                yield data[start : start + (1 << 15)]

        attacker.on_request(STATUS, status)
        attacker.on_request(BLOCKS, ranges)
        await attacker.start([nodes.node(0).network.address()])
        height = nodes.node(0).ports.chain.round.head.height
        await nodes.wait_for_height(height + 6, 240)
        check(nodes, attacker)
        await attacker.close()
        await nodes.close()

    run_simulated(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (garbage, RejectionReason.MALFORMED),
        (no_blocks_inside, RejectionReason.MALFORMED),
        (too_many, RejectionReason.TOO_LARGE),
        (wrong_signature, RejectionReason.WRONG_SIGNATURE),
        (endless, RejectionReason.TOO_LARGE),
    ],
)
def test_whoever_sends_wrong_blocks_is_dropped_for_it_and_the_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: RejectionReason
) -> None:
    reported: list[RejectionReason] = []
    report = Network.report

    def noted(self: Network, peer_id: bytes, rejected: Rejected) -> None:
        if peer_id == ATTACKER:
            reported.append(rejected.reason)
        report(self, peer_id, rejected)

    monkeypatch.setattr(Network, "report", noted)

    def check(nodes: SimulatedNodes, _attacker: Network) -> None:
        victim = nodes.node(0)
        assert set(reported) == {reason}
        now = nodes.clock.monotonic_seconds()
        assert victim.network._book.standing(ATTACKER, now).banned_until_seconds > now
        assert ATTACKER not in {peer.peer_id for peer in victim.network.peers()}
        assert_bounded(victim)

    played(tmp_path, answer, check)


def assert_bounded(victim: Node) -> None:
    assert len(victim.ports.chain.round.pending_blocks) <= 4
    assert len(victim.ports.chain._early) <= 4


def test_a_peer_that_repeats_old_blocks_for_a_head_that_is_not_there_gains_nothing(tmp_path: Path) -> None:
    def check(nodes: SimulatedNodes, _attacker: Network) -> None:
        assert_bounded(nodes.node(0))

    played(tmp_path, lambda blocks: encode(Blocks(tuple(block_bytes(each) for each in blocks))), check)
