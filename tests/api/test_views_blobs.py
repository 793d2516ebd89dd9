"""`learn_blob`: what a stranger's call may make a node fetch, and what a web page may not."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings, Origin
from learnchain.api.views import LearnInterface
from learnchain.encoding.codec import Hash32
from learnchain.encoding.content_id import cid_text
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block
from learnchain.rejection import RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.verification.measurer import NamedBlobs, list_named_blobs
from learnchain_conformance.instant_training import InstantTraining
from tests.node.test_node import DIGITS

PAGE, PROGRAM = Origin(from_browser=True), Origin()
Ask = Callable[..., Awaitable[dict[str, Any]]]


def on_a_network(directory: Path, story: Callable[[SimulatedNodes, Ask, Block], Awaitable[None]]) -> None:
    """Tell the story through node 0's interface, after a first trained block whose files all nodes have."""

    async def scenario() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=2), seed=5)
        nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(360)
        await nodes.start()
        await nodes.publish(DIGITS)
        node = nodes.node(0)
        server = JsonRpcServer(node.engine, JsonRpcSettings(port=0))
        LearnInterface(node.ports, node.network, node.genesis, directory).register(server)

        async def ask(origin: Origin, cid: bytes, offset: int = 0) -> dict[str, Any]:
            body = {"jsonrpc": "2.0", "id": 1, "method": "learn_blob", "params": [cid_text(cid), offset]}
            answer: dict[str, Any] = json.loads(await server.answer(json.dumps(body).encode(), origin) or "")
            return answer

        await nodes.wait_for_height(3, 120)
        first = node.ports.archive.branch(node.ports.chain.round.head.block, 0)[0]
        block = node.ports.archive.block(first.block_hash)
        assert isinstance(block, Block)
        await story(nodes, ask, block)
        await server.close()
        await nodes.close()

    run_simulated(scenario())


def test_a_page_makes_no_node_fetch_and_a_program_what_the_chain_names(tmp_path: Path) -> None:
    async def story(nodes: SimulatedNodes, ask: Ask, block: Block) -> None:
        blobs, model = nodes.node(0).ports.blobs, block.reveal.model_cid
        assert (await ask(PAGE, model))["result"] == (await ask(PROGRAM, model))["result"]
        await blobs.discard(model)
        assert "result" not in await ask(PAGE, model)
        assert blobs.path(model) is None
        fetched = (await ask(PROGRAM, model))["result"]
        path = blobs.path(model)
        assert path is not None
        assert bytes.fromhex(fetched["data"]) == path.read_bytes()[: 1 << 19]
        assert fetched["size"] == path.stat().st_size
        assert (await ask(PROGRAM, model, fetched["size"] + 9))["result"]["data"] == ""

    on_a_network(tmp_path, story)


def test_what_no_block_names_is_not_fetched_and_served_only_where_it_lies(tmp_path: Path) -> None:
    async def story(nodes: SimulatedNodes, ask: Ask, _block: Block) -> None:
        stray = await nodes.node(1).ports.blobs.add_bytes(b"somebody's film" * 5_000)
        answer = await ask(PROGRAM, stray)
        assert answer["error"]["data"]["reason"] == RejectionReason.BLOB_NOT_NAMED
        assert nodes.node(0).ports.blobs.path(stray) is None

    on_a_network(tmp_path, story)


def test_a_blob_that_is_larger_than_its_name_allows_is_not_fetched(tmp_path: Path) -> None:
    async def story(nodes: SimulatedNodes, ask: Ask, block: Block) -> None:
        # Somebody whose block names a film as its payload: the block would be refused, its name must not matter more.
        film = await nodes.node(1).ports.blobs.add_bytes(bytes(9 << 20))
        archive = nodes.node(0).ports.archive
        known = archive.block

        def forged(block_hash: Hash32) -> Any:
            found = known(block_hash)
            return found if found != block else _Named(film, block)

        archive.block = forged
        archive.blobs.name((film,), archive.at_height(1)[0])
        answer = await ask(PROGRAM, film)
        assert answer["error"]["data"]["reason"] == RejectionReason.TOO_LARGE
        assert nodes.node(0).ports.blobs.path(film) is None

    on_a_network(tmp_path, story)


class _Named:
    """A block that names another payload."""

    def __init__(self, payload_cid: bytes, block: Block) -> None:
        self.payload_cid, self.reveal = payload_cid, block.reveal


def test_everything_named_fits_the_size_that_the_chain_gives_it(tmp_path: Path) -> None:
    async def story(nodes: SimulatedNodes, _ask: Ask, _block: Block) -> None:
        ports = nodes.node(0).ports
        named = NamedBlobs(ports.archive, ports.chain.rules, ports.chain.parameters)
        states = ports.archive.branch(ports.chain.round.head.block, 0)[:-1]
        found = {
            cid
            for state in states
            for cid in list_named_blobs(ports.chain.rules, ports.archive.block(state.block_hash), state)
        }
        standing = {each.cid for _, each in _standing_parts(nodes)}
        posted = sum(len(state.posted_tasks) for state in states)
        # Payload, model and trace of each block, and two files of each posted task; models may repeat.
        assert posted == 1
        assert len(found - standing) >= 2 * len(states) + 2
        for cid in found | standing:
            size = (await ports.blobs.stat(cid)).size_bytes
            assert size is not None
            assert 0 < size <= named.maximum_bytes(cid)

    on_a_network(tmp_path, story)


def _standing_parts(nodes: SimulatedNodes) -> list[tuple[str, Any]]:
    manifests = [each.data for _, each in nodes.genesis.parameters.standing_tasks()]
    return [(data.name, part) for data in manifests for part in (data.training, *data.test_sets)]
