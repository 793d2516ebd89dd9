"""Disputes in the node's answers and on the explorer's page: open, answered, decided, and what waits for a block."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from learnchain.api.block_views import carried_view, disputes_view
from learnchain.api.explorer import Explorer
from learnchain.api.inspection import Inspection
from learnchain.engines.dlbc import Dlbc
from learnchain.simulation.chain_builder import ChainBuilder, sample_parameters
from learnchain.simulation.dispute_cases import accusation_of, accused, answer_to, said, staked_accuser
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import Observer, observe, play_height
from learnchain_conformance.evidence_cases import last_fact


def played() -> Observer:
    builder = ChainBuilder(Dlbc(), sample_parameters(audit_reward_gwei=1_000))
    node = observe(builder)
    staked_accuser(node)
    play_height(node)
    return node


def ports(node: Observer) -> Any:
    return SimpleNamespace(chain=SimpleNamespace(round=node.round))


def test_a_dispute_is_shown_from_its_question_to_its_end() -> None:
    node = played()
    fact, parameters = last_fact(node), node.builder.parameters
    accusation = accusation_of(fact)
    said(node, accusation)
    waiting = disputes_view(ports(node))
    assert [each["message"] for each in waiting["waiting"]] == ["accusation"]
    assert waiting["disputes"] == []
    block = play_height(node)
    (carried,) = carried_view(block)["accusations"]
    assert carried["segment"] == accusation.segment
    (asked,) = disputes_view(ports(node))["disputes"]
    assert (asked["outcome"], asked["role"], asked["open"]) == ("asked", "winner", True)
    assert asked["until_height"] == block.height + parameters.answer_blocks
    assert asked["accuser"] == "0x" + accusation.accuser.hex()
    answer = answer_to(node, node.parent.bonds.disputes[-1])
    said(node, answer)
    assert [each["message"] for each in disputes_view(ports(node))["waiting"]] == ["answer"]
    block = play_height(node)
    assert carried_view(block)["answers"][0]["states"] == answer.answer.states
    (answered,) = disputes_view(ports(node), fact.height)["disputes"]
    assert answered["until_height"] == block.height + parameters.proof_blocks
    for _ in range(parameters.proof_blocks + 1):
        play_height(node)
    (ended,) = disputes_view(ports(node))["disputes"]
    assert (ended["outcome"], ended["open"], ended["until_height"]) == ("unproven", False, 0)
    assert ended["decided_height"] == node.parent.height
    assert disputes_view(ports(node), fact.height + 1)["disputes"] == []


def test_the_page_names_who_is_asked_and_until_when() -> None:
    node = played()
    dispute = accused(node, accusation_of(last_fact(node)))
    inspection = Inspection(ports(node))
    explorer = Explorer(None, inspection, None)  # pyrefly: ignore[bad-argument-type]
    handlers = {route.path: route.handler for route in explorer.routes() if isinstance(route, web.RouteDef)}

    async def fetch() -> str:
        answer: Any = await handlers["/explorer/disputes"](make_mocked_request("GET", "/explorer/disputes"))
        return str(answer.body.decode())

    page = asyncio.run(fetch())
    assert "0x" + dispute.accused.hex() in page
    assert "0x" + address("node-3").hex() in page
    assert "asked" in page
