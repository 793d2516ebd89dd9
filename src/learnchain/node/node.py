"""Wire one node: store, engine, network, chain and roles; everything it does, a role's method does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from learnchain.node.ports import Ports
from learnchain.node.roles.full_node import FullNode
from learnchain.node.roles.miner import Miner
from learnchain.node.roles.publisher import Publisher
from learnchain.primitives.actions import (
    Action,
    MeasureCandidate,
    MoveHead,
    OpenHeight,
    ProposeBlock,
    ProposeEmptyBlock,
    RefuseBlock,
    RefuseTask,
    ReleaseTestSet,
    RevealModel,
    SendCommitment,
    StoreBlock,
    TrainModel,
)

logger = logging.getLogger(__name__)

Duty = Callable[[Any], Awaitable[None]]
Immediate = Callable[[Any], None]


@dataclass(frozen=True)
class Roles:
    """Hold the roles that a node plays beside that of a full node."""

    full_node: FullNode
    publisher: Publisher | None
    miner: Miner | None


class Dispatcher:
    """Hand each action of the spine to the roles that carry it out, in the order in which the spine gave them."""

    def __init__(self, ports: Ports, roles: Roles) -> None:
        self._ports = ports
        full, publisher, miner = roles.full_node, roles.publisher, roles.miner
        self._immediate: dict[type, Immediate] = {
            StoreBlock: full.store_block,
            RefuseBlock: full.refuse_block,
            RefuseTask: full.refuse_task,
        }
        self._duties: dict[type, list[Duty]] = {
            OpenHeight: [full.open_height],
            MeasureCandidate: [full.measure_candidate],
            MoveHead: [full.move_head],
            ProposeEmptyBlock: [full.propose_empty_block],
            TrainModel: [],
            SendCommitment: [],
            ReleaseTestSet: [],
            RevealModel: [],
            ProposeBlock: [],
        }
        if publisher is not None:
            self._duties[OpenHeight].append(publisher.open_height)
            self._duties[ReleaseTestSet].append(publisher.release_test_set)
        if miner is not None:
            self._duties[TrainModel].append(miner.train_model)
            self._duties[SendCommitment].append(miner.send_commitment)
            self._duties[RevealModel].append(miner.reveal_model)
            self._duties[ProposeBlock].append(miner.propose_block)

    def perform(self, action: Action) -> None:
        """Carry out one action: what must be on disk at once, the rest as supervised tasks."""
        immediate = self._immediate.get(type(action))
        if immediate is not None:
            immediate(action)
            return
        for duty in self._duties[type(action)]:
            self._ports.tasks.start(_carried_out(duty, action), type(action).__name__)


async def _carried_out(duty: Duty, action: Action) -> None:
    await asyncio.sleep(0)
    await duty(action)
