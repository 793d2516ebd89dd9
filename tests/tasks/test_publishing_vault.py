"""A node opens encrypted rows once, and not for ever."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.encryption.jobs import EncryptionJob, OpenRows
from learnchain.encryption.process import in_this_process
from learnchain.protocol.task_specification import Encryption
from learnchain.protocol.training_terms import FreeTraining, SecureMapping
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.sample_tasks import build_sample_specification
from learnchain.simulation.simulated_network import run_simulated
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from learnchain.tasks.publishing import OpenedKeys, TaskData, Vault, issued_key

PROMISED = replace(build_sample_specification("slow"), encryption=Encryption.INNER_PRODUCT, time_limit_seconds=60)
TERMS = SecureMapping((b"\x80\x01" * 4,))


def test_rows_that_take_longer_than_their_task_are_given_up(tmp_path: Path) -> None:
    ended: list[float] = []

    async def endless(job: EncryptionJob) -> dict[str, Any]:
        assert isinstance(job, OpenRows)
        try:
            await asyncio.sleep(1e6)
        finally:
            ended.append(asyncio.get_running_loop().time())
        return {}

    async def main() -> None:
        blobs = PeerBlobs(tmp_path / "blobs", None)
        data = TaskData(tmp_path / "data", blobs, endless)
        keys = OpenedKeys(b"\1" * 32, await blobs.add_bytes(b"key"))
        with pytest.raises(Unavailable):
            await data._decrypt(keys, PROMISED, TERMS, tmp_path / "rows", tmp_path / "products")

    run_simulated(main())
    assert ended == [60.0]


def test_rows_stay_closed_without_a_mapping_layer(tmp_path: Path) -> None:
    async def main() -> None:
        data = TaskData(tmp_path / "data", PeerBlobs(tmp_path / "blobs", None), in_this_process)
        with pytest.raises(Rejected) as caught:
            await data.training(OpenedKeys(b"\1" * 32, b""), PROMISED, FreeTraining())
        assert caught.value.reason is RejectionReason.ENCRYPTION_UNSUITABLE

    run_simulated(main())


def test_no_key_is_issued_for_rows_of_others(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    part = PROMISED.data.training
    with pytest.raises(Rejected) as caught:
        asyncio.run(issued_key(vault, in_this_process, part, TERMS))
    assert caught.value.reason is RejectionReason.ENCRYPTION_UNSUITABLE
    vault.store_seed(part.plaintext_root, b"\3" * 32)
    assert Vault(tmp_path).seed(part.plaintext_root) == b"\3" * 32
    # One product of four numbers is the whole budget.
    asyncio.run(issued_key(vault, in_this_process, part, TERMS))
    with pytest.raises(Rejected) as caught:
        asyncio.run(issued_key(Vault(tmp_path), in_this_process, part, SecureMapping((b"\x80\x01\x80\x00" * 2,))))
    assert caught.value.reason is RejectionReason.LEAK_BUDGET_SPENT
    assert vault.list_released(part.plaintext_root) == (TERMS,)
