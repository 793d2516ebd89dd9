"""Disputes in the node's answers and on the explorer's page: open, answered, decided, and what waits for a block."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from learnchain.api.block_views import build_carried_view, disputes_view
from learnchain.api.explorer import Explorer
from learnchain.api.inspection import Inspection
from learnchain.engines.dlbc import Dlbc
from learnchain.simulation.chain_builder import ChainBuilder, build_sample_parameters
from learnchain.simulation.dispute_cases import (
    build_challenge,
    build_response,
    carry_challenge,
    send_message,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import ScenarioNode, run_height, start_from_genesis
from learnchain_conformance.evidence_cases import last_height_record


def played() -> ScenarioNode:
    builder = ChainBuilder(Dlbc(), build_sample_parameters(audit_reward_gwei=1_000))
    node = start_from_genesis(builder)
    stake_challenger(node)
    run_height(node)
    return node


def ports(node: ScenarioNode) -> Any:
    return SimpleNamespace(chain=SimpleNamespace(round=node.round))


def test_a_dispute_is_shown_from_its_question_to_its_end() -> None:
    node = played()
    fact, parameters = last_height_record(node), node.builder.parameters
    accusation = build_challenge(fact)
    send_message(node, accusation)
    waiting = disputes_view(ports(node))
    assert [each["message"] for each in waiting["pending"]] == ["challenge"]
    assert waiting["disputes"] == []
    block = run_height(node)
    (carried,) = build_carried_view(block)["challenges"]
    assert carried["segment"] == accusation.segment
    (asked,) = disputes_view(ports(node))["disputes"]
    assert (asked["outcome"], asked["role"], asked["open"]) == ("challenged", "winner", True)
    assert asked["until_height"] == block.height + parameters.response_blocks
    assert asked["challenger"] == "0x" + accusation.challenger.hex()
    answer = build_response(node, node.parent.bonds.disputes[-1])
    send_message(node, answer)
    assert [each["message"] for each in disputes_view(ports(node))["pending"]] == ["response"]
    block = run_height(node)
    assert build_carried_view(block)["responses"][0]["states"] == answer.disclosure.states
    (answered,) = disputes_view(ports(node), fact.height)["disputes"]
    assert answered["until_height"] == block.height + parameters.proof_blocks
    for _ in range(parameters.proof_blocks + 1):
        run_height(node)
    (ended,) = disputes_view(ports(node))["disputes"]
    assert (ended["outcome"], ended["open"], ended["until_height"]) == ("defended", False, 0)
    assert ended["decided_height"] == node.parent.height
    assert disputes_view(ports(node), fact.height + 1)["disputes"] == []


def test_the_page_names_who_is_asked_and_until_when() -> None:
    node = played()
    dispute = carry_challenge(node, build_challenge(last_height_record(node)))
    inspection = Inspection(ports(node))
    explorer = Explorer(None, inspection, None)  # pyrefly: ignore[bad-argument-type]
    handlers = {route.path: route.handler for route in explorer.routes() if isinstance(route, web.RouteDef)}

    async def fetch() -> str:
        answer: Any = await handlers["/explorer/disputes"](make_mocked_request("GET", "/explorer/disputes"))
        return str(answer.body.decode())

    page = asyncio.run(fetch())
    assert "0x" + dispute.respondent.hex() in page
    assert "0x" + address("node-3").hex() in page
    assert "challenged" in page
