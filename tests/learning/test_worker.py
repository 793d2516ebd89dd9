import errno
import io
import os
import subprocess
import sys

import pytest

from learnchain.encoding.codec import encode
from learnchain.learning.jobs import UNAVAILABLE, ReadyJob, pack_frame, read_frame
from learnchain.learning.worker import Worker
from learnchain.rejection import RejectionReason

COMMAND = [sys.executable, "-m", "learnchain.learning.worker"]


@pytest.fixture
def worker():
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.stdin.close()
    assert process.wait(200) == 0
    process.stdout.close()


def asked(process, message):
    process.stdin.write(pack_frame(message))
    process.stdin.flush()
    answer = read_frame(process.stdout)
    assert answer["id"] == message["id"]
    return answer["error"]["reason"]


def test_a_full_disk_is_no_bug_of_ours_and_says_what_to_do():
    def full(_job, _watcher, _arrived):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/trace")

    worker = Worker(io.BytesIO(), io.BytesIO(), lambda: 0.0, full)
    answer = worker.answer(1, "ReadyJob", encode(ReadyJob()), 0.0)
    assert answer["error"]["reason"] == UNAVAILABLE
    assert "free disk space" in answer["error"]["detail"]


def test_wrong_requests_are_answered_and_the_next_one_too(worker):
    assert asked(worker, {"id": 1, "method": "explode", "job": ""}) == RejectionReason.METHOD_UNKNOWN
    assert asked(worker, {"id": 2, "method": "TrainingJob", "job": "c0"}) == RejectionReason.MALFORMED
    assert asked(worker, {"id": 3, "method": "EvaluationJob", "job": "80"}) == RejectionReason.MALFORMED


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", pack_frame({"id": "x"}), b"\0\0\0\1["])
def test_whoever_does_not_speak_in_frames_ends_the_process(data):
    process = subprocess.run(COMMAND, input=data, capture_output=True, timeout=200, check=False)
    assert process.returncode == 0
