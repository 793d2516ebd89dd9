"""The explorer's pages over a network that runs: complete, harmless, and right after a reorganisation."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from learnchain.api.block_views import block_view, find_solved_puzzle
from learnchain.api.explorer import HEADERS, Explorer
from learnchain.api.inspection import Inspection
from learnchain.api.views import LearnInterface
from learnchain.engines.proof_of_work.scenario import PROOF_OF_WORK, start_proof_of_work_node
from learnchain.node.local_network import LocalPlan
from learnchain.simulation.scenario import run_height
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from tests.api.test_explorer_html import HOSTILE

Fetch = Callable[..., Awaitable[web.Response]]


class Poisoned:
    """Stand before an interface and put a stranger's text into every word of its answers that is not a number."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        async def answer(*params: Any) -> Any:
            return poisoned(await method(*params))

        return answer


def poisoned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: poisoned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    if isinstance(value, str) and not value.startswith("0x") and len(value) != 64:
        return HOSTILE
    return value


def fetcher(explorer: Explorer) -> Fetch:
    handlers = {route.path: route.handler for route in explorer.routes() if isinstance(route, web.RouteDef)}

    async def fetch(path: str, which: str = "") -> web.Response:
        route = next(each for each in handlers if each == path.split("?", maxsplit=1)[0] or each == path + "/{which}")
        request = make_mocked_request("GET", path, match_info={"which": which})
        answer: web.Response = await handlers[route](request)
        return answer

    return fetch


def text_of(response: web.Response) -> str:
    assert isinstance(response.body, bytes)
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    return response.body.decode()


@pytest.mark.slow
def test_pages_show_the_chain_escape_everything_and_follow_a_reorganisation(tmp_path: Path):
    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=2), seed=6)
        await nodes.start()
        await nodes.wait_for_height(2, 300)
        node = nodes.node(0)
        learn = LearnInterface(node.ports, node.network, node.genesis, tmp_path)
        inspection = Inspection(node.ports)
        await look_around(fetcher(Explorer(learn, inspection, node.engine)), await learn.blocks())
        poison = Explorer(Poisoned(learn), Poisoned(inspection), node.engine)  # pyrefly: ignore[bad-argument-type]
        await look_for_strangers(fetcher(poison), await learn.blocks())
        await reorganise(nodes, tmp_path)
        await nodes.close()

    run_simulated(scenario())


async def look_around(fetch: Fetch, blocks: list[dict[str, Any]]) -> None:
    trained = next(each for each in blocks if each["trained"])
    overview = text_of(await fetch("/explorer"))
    assert all(each["hash"] in overview for each in blocks)
    page = text_of(await fetch("/explorer/block", str(trained["height"])))
    assert trained["winner"] in page
    assert "does not hold" not in page
    assert page.count(">holds<") == 6
    assert trained["model"] in page
    assert trained["task"]["id"] in text_of(await fetch("/explorer/tasks"))
    assert trained["task"]["name"] in text_of(await fetch("/explorer/task", trained["task"]["id"]))
    assert "phase" in text_of(await fetch("/explorer/round"))
    assert "none" in text_of(await fetch("/explorer/disputes"))
    assert "balance" in text_of(await fetch("/explorer/account", trained["winner"]))
    for path, which in (
        ("block", "99"),
        ("block", "é"),
        ("task", "zz"),
        ("account", "0x1"),
        ("transaction", "0x" + "1" * 64),
    ):
        refused = await fetch(f"/explorer/{path}", which)
        assert refused.status == 404
        assert "é" not in text_of(refused)


async def look_for_strangers(fetch: Fetch, blocks: list[dict[str, Any]]) -> None:
    trained = next(each for each in blocks if each["trained"])
    pages = [
        ("", ""),
        ("/block", str(trained["height"])),
        ("/tasks", ""),
        ("/task", trained["task"]["id"]),
        ("/round", ""),
    ]
    for path, which in pages:
        response = await fetch(f"/explorer{path}", which)
        page = text_of(response)
        assert response.status == 200
        assert "&lt;script&gt;" in page
        assert "<script" not in page
        assert "<img" not in page


async def reorganise(nodes: SimulatedNodes, directory: Path) -> None:
    """Part the network and join it: on the node that gave way, the page of its old block says so."""
    identities = [place.transport.peer_id for place in nodes.places]
    fork = nodes.node(0).ports.chain.round.head.height
    nodes.network.partition({identities[0], identities[1]}, {identities[2]})
    await nodes.wait_until(lambda: min(nodes.node(each).ports.chain.round.head.height for each in (0, 2)) > fork, 300)
    own = {
        each: nodes.node(each).ports.archive.on_branch(nodes.node(each).ports.chain.round.head, fork + 1).block_hash
        for each in (0, 2)
    }
    nodes.network.heal()
    await nodes.wait_for_height(fork + 3, 300)
    final = nodes.node(0).ports.archive.on_branch(nodes.node(0).ports.chain.round.head, fork + 1).block_hash
    (gave_way,) = [each for each, block in own.items() if block != final]
    node = nodes.node(gave_way)
    learn = LearnInterface(node.ports, node.network, node.genesis, directory)
    fetch = fetcher(Explorer(learn, Inspection(node.ports), node.engine))
    assert "left by the head" not in text_of(await fetch("/explorer/block", final.hex()))
    assert "left by the head" in text_of(await fetch("/explorer/block", own[gave_way].hex()))
    overview = text_of(await fetch("/explorer"))
    assert final.hex() in overview
    assert own[gave_way].hex() not in overview


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("12", "block/12"),
        ("0x" + "ab" * 20, "account/0x" + "ab" * 20),
        ("0x" + "ab" * 32, "transaction/0x" + "ab" * 32),
        ("ab" * 32, "block/" + "ab" * 32),
        ("//evil.example/x", "block/0"),
        ("a\r\nSet-Cookie: x", "block/0"),
    ],
)
def test_the_search_leads_to_our_own_pages_only(typed: str, place: str):
    from urllib.parse import quote

    async def search() -> None:
        fetch = fetcher(Explorer(None, None, None))  # pyrefly: ignore[bad-argument-type]
        with pytest.raises(web.HTTPSeeOther) as caught:
            await fetch(f"/explorer/find?q={quote(typed)}")
        assert str(caught.value.location) == f"/explorer/{place}"

    run_simulated(search())


class Hashed:
    """Answer as a node does whose one block was won by hashing; everything else is empty."""

    def __init__(self) -> None:
        node = start_proof_of_work_node()
        parent, selection = node.parent, node.round.selection
        block = run_height(node)
        puzzle = find_solved_puzzle(PROOF_OF_WORK, selection, block)
        self.view = block_view(block, parent, node.parent, selection, PROOF_OF_WORK.parts, puzzle)

    async def status(self) -> dict[str, Any]:
        return {"head": {"hash": self.view["hash"], "height": 1, "weight": 1}}

    async def network(self) -> dict[str, Any]:
        return {"consensus": "proof_of_work", "chain_id": 1}

    async def block(self, _wanted: Any) -> dict[str, Any]:
        return self.view

    async def blocks(self, *_heights: int) -> list[dict[str, Any]]:
        return [self.view]

    async def decisions(self, _height: int) -> list[dict[str, Any]]:
        return []

    async def trace(self, _wanted: Any) -> dict[str, Any]:
        return {"messages": []}

    async def candidates(self, _wanted: Any) -> list[dict[str, Any]]:
        return []


def test_a_hashed_block_shows_its_puzzle_and_no_model():
    known = Hashed()
    explorer = Explorer(known, known, known)  # type: ignore[arg-type]  # pyrefly: ignore[bad-argument-type]

    async def scenario() -> None:
        overview, page = [
            text_of(await fetcher(explorer)(*each)) for each in (("/explorer",), ("/explorer/block", "1"))
        ]
        for text in (overview, page):
            assert "nothing trained; 16 hashes expected" in text
            assert "accuracy" not in text
        assert "hash puzzle" in overview
        assert known.view["puzzle"]["target"] in page
        assert "so that blocks go on" in page

    run_simulated(scenario())
