"""Nodes of a new network warm up, say so, and go on when somebody has dated the genesis."""

import asyncio
import os
from pathlib import Path

import pytest

from learnchain.network.concurrency import SystemClock
from learnchain.node import node
from learnchain.node.local_network import GENESIS_NAME, LAYOUT_NAME, LocalPlan, existing_network, prepare_network
from learnchain.node.node import await_genesis, is_ready
from learnchain.node.settings import load_settings
from learnchain.rejection import Unavailable


class Warming:
    """Stand for a training process that loads until it is let go."""

    def __init__(self):
        self.loaded, self.closed = asyncio.Event(), False

    async def start(self):
        await self.loaded.wait()

    async def close(self):
        self.closed = True


class Hasty(SystemClock):
    """Say that an hour has passed at every look."""

    def __init__(self):
        self._seconds = 0.0

    def monotonic_seconds(self):
        self._seconds += 3_600
        return self._seconds


@pytest.fixture
def outlined(tmp_path):
    return prepare_network(LocalPlan(tmp_path, miners=1, standing=("iris",), rpc_port=0))


def _waiting(outlined, training, stopping, clock=None):
    settings = load_settings(outlined.network.settings[1])
    return await_genesis(settings, (training, None), stopping, clock or SystemClock())


def _warm(outlined):
    return is_ready(outlined.network.settings[1].parent, os.getpid())


async def _until(holds):
    while not holds():
        await asyncio.sleep(0.01)


def test_a_node_is_warm_only_when_its_training_is_and_goes_on_when_the_network_is_founded(outlined):
    async def run():
        training = Warming()
        waiting = asyncio.create_task(_waiting(outlined, training, asyncio.Event()))
        await asyncio.sleep(0.1)
        assert not _warm(outlined)
        training.loaded.set()
        await _until(lambda: _warm(outlined))
        assert not is_ready(outlined.network.settings[1].parent, os.getpid() + 1), "another process said it"
        assert not waiting.done()
        assert existing_network(outlined.plan.directory) is None
        outlined.write_genesis(await outlined.prepare_standing_tasks(), 1_000_123)
        assert await waiting
        assert not training.closed
        assert not _warm(outlined)

    asyncio.run(run())
    assert existing_network(outlined.plan.directory).accounts == outlined.network.accounts


def test_a_node_of_a_founded_network_waits_for_nothing(outlined):
    async def run():
        outlined.write_genesis(await outlined.prepare_standing_tasks(), 1_000_123)
        return await _waiting(outlined, Warming(), asyncio.Event())

    assert asyncio.run(run())


def test_a_node_that_is_stopped_before_leaves_nothing_behind(outlined):
    async def run():
        training, stopping = Warming(), asyncio.Event()
        training.loaded.set()
        stopping.set()
        return await _waiting(outlined, training, stopping), training.closed

    assert asyncio.run(run()) == (False, True)
    assert not _warm(outlined)


def test_a_network_that_nobody_founds_is_given_up(outlined):
    async def run():
        training = Warming()
        training.loaded.set()
        with pytest.raises(Unavailable):
            await _waiting(outlined, training, asyncio.Event(), Hasty())
        return training.closed

    assert asyncio.run(run())
    assert node.AWAIT_GENESIS_SECONDS < 3_600


def test_an_outline_makes_no_network_and_removes_a_genesis_that_none_was_founded_on(tmp_path):
    plan = LocalPlan(tmp_path, miners=1, rpc_port=0)
    (tmp_path / GENESIS_NAME).write_text("left by a start that was cut short")
    made = prepare_network(plan)
    assert not (tmp_path / GENESIS_NAME).exists()
    assert not (tmp_path / LAYOUT_NAME).exists()
    assert all(Path(each).is_file() for each in made.network.settings)
