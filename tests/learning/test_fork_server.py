"""Workers of the fork server are as fresh as started ones, and nothing depends on the fork server staying alive."""

import asyncio
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from learnchain.learning.data import digits, save_data, split
from learnchain.learning.fork_server import ID_BYTES, VARIABLE, ForkServer
from learnchain.learning.jobs import ReadyJob, TrainingJob, pack_frame
from learnchain.learning.trainer import Trainer
from learnchain.protocol.model_presets import strided_cnn
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.rejection import Unavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server where forking is not safe")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    training, _ = split(digits(), b"split", 360)
    save_data(directory / "training", training)
    return str(directory / "training")


@pytest.fixture
def fork_server(tmp_path):
    opened = ForkServer.open(tmp_path)
    assert opened is not None
    with opened:
        yield opened


def job(rows, directory):
    chosen = HyperParameters(50_000, 900_000, 0, 32, 2)
    return TrainingJob(
        strided_cnn((1, 8, 8), 10), Optimiser.SGD, chosen, FreeTraining(), bytes(range(32)), 40, rows, str(directory)
    )


def parent_of(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_gone(process):
    """A forked worker closes its line a moment before it is gone; it is not our child, so nobody can wait for it."""
    for _ in range(1_000):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.01)
    return False


def test_forked_workers_train_the_bits_of_a_started_one(fork_server, rows, tmp_path):
    async def run():
        trainers = [Trainer(), Trainer(fork_server=fork_server), Trainer(fork_server=fork_server, nice=5)]
        try:
            await asyncio.gather(*(each.start() for each in trainers))
            ids = [each.process_id for each in trainers]
            trained = [await each.run(job(rows, tmp_path / str(index))) for index, each in enumerate(trainers, start=1)]
            threads = len(list(Path(f"/proc/{fork_server.process.pid}/task").iterdir()))
            assert [os.getsid(each) for each in ids[1:]] == ids[1:]
            return ids, [parent_of(each) for each in ids], trained, threads, os.getpriority(os.PRIO_PROCESS, ids[2])
        finally:
            await asyncio.gather(*(each.close() for each in trainers))

    ids, parents, trained, threads, nice = asyncio.run(run())
    assert parents == [os.getpid(), fork_server.process.pid, fork_server.process.pid]
    assert len({each.trace_root for each in trained}) == 1
    assert len({Path(each.weights_path).read_bytes() for each in trained}) == 1
    # A fork copies one thread only: a fork server that had more could leave a lock held for ever.
    assert threads == 1
    assert nice == os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert all(is_gone(each) for each in ids)


async def killed_and_started(trainer):
    """Kill a trainer's process and return the id of the next one; whoever asks in between is told that it ended."""
    first = trainer.process_id
    os.kill(first, signal.SIGKILL)
    while Path(f"/proc/{first}").exists():
        await asyncio.sleep(0.01)
    while trainer.process_id == first:
        with suppress(Unavailable):
            await trainer.start()
    return trainer.process_id


def test_a_killed_worker_is_born_again_and_a_dead_fork_server_is_done_without(fork_server):
    async def run():
        trainer = Trainer(fork_server=fork_server)
        try:
            await trainer.start()
            first = trainer.process_id
            second = await killed_and_started(trainer)
            fork_server.process.kill()
            fork_server.process.wait()
            await trainer.start()
            assert trainer.process_id == second, "a worker lives on without its fork server"
            third = await killed_and_started(trainer)
            return first, second, third, parent_of(third)
        finally:
            await trainer.close()

    first, second, third, parent = asyncio.run(run())
    assert len({first, second, third}) == 3
    assert parent == os.getpid()


def test_a_fork_server_that_still_loads_is_ended_by_whoever_started_it(tmp_path):
    fork_server = ForkServer.open(tmp_path)
    fork_server.close()
    assert fork_server.process.poll() is not None


def test_a_worker_ends_when_its_node_is_killed_with_answers_unread(fork_server):
    line = fork_server.fork(0)
    line.setblocking(True)
    process = int.from_bytes(line.recv(ID_BYTES, socket.MSG_WAITALL), "big")
    line.sendall(pack_frame({"id": 1, **ReadyJob().request()}))
    assert select.select([line], [], [], 60)[0]
    line.close()
    assert is_gone(process)


def test_other_numbers_of_threads_start_on_their_own(fork_server):
    async def run():
        trainer = Trainer(threads=2, fork_server=fork_server)
        try:
            await trainer.start()
            return parent_of(trainer.process_id)
        finally:
            await trainer.close()

    assert asyncio.run(run()) == os.getpid()


def test_a_fork_server_ends_when_the_last_who_could_ask_is_gone(tmp_path):
    fork_server = ForkServer.open(tmp_path)
    assert fork_server is not None
    heir = ForkServer.inherit({VARIABLE: str(os.dup(fork_server.connection.fileno()))})
    assert heir is not None
    fork_server.connection.close()
    heir.fork(0).close()
    time.sleep(0.05)
    assert fork_server.process.poll() is None
    heir.close()
    assert fork_server.process.wait(60) == 0


@pytest.mark.parametrize("value", ["", "x", "-1", "1000000"])
def test_whoever_inherits_no_line_has_no_fork_server(value):
    assert ForkServer.inherit({VARIABLE: value}) is None
    assert ForkServer.inherit({}) is None


def test_a_descriptor_that_is_no_socket_is_no_fork_server(tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert ForkServer.inherit({VARIABLE: str(file.fileno())}) is None
        assert file.fileno() > 0


def test_a_line_that_nobody_reads_says_so_at_once():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, ForkServer(ours) as fork_server:
        lines = []
        with pytest.raises(Unavailable):
            for _ in range(10_000):
                lines.append(fork_server.fork(0))
        for each in lines:
            each.close()
