"""Run encryption jobs beside the event loop: one process a job, which ends with it; in this process for simulations."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from learnchain.encoding.codec import encode
from learnchain.encryption.jobs import JOBS, EncryptionJob
from learnchain.rejection import Rejected, RejectionReason, Unavailable

EncryptionRunner = Callable[[EncryptionJob], Awaitable[dict[str, Any]]]
"""How a node has its encryption jobs carried out."""


class EncryptionFailed(Exception):
    """Say that the encryption process met a fault of our own."""


async def in_own_process(job: EncryptionJob) -> dict[str, Any]:
    """Start a process for the job, and end it when whoever waits is cancelled: a block may come first."""
    name = next(name for name, kind in JOBS.items() if isinstance(job, kind))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "learnchain.encryption", name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(encode(job))
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise EncryptionFailed(f"the encryption process ended with {process.returncode}")
    return _result(json.loads(output))


async def in_this_process(job: EncryptionJob) -> dict[str, Any]:
    """Carry out a job in a thread: for simulations, whose clock knows no processes."""
    from learnchain.encryption.work import carry_out

    return await asyncio.to_thread(carry_out, job)


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        result: dict[str, Any] = answer["result"]
        return result
    reason, detail = answer["error"]["reason"], answer["error"]["detail"]
    if reason in set(RejectionReason):
        raise Rejected(RejectionReason(reason), detail)
    raise Unavailable(detail)
