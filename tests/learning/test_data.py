import hashlib
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from learnchain.learning.data import (
    SOURCES,
    DataSet,
    data_root,
    load_data,
    open_part,
    permutation,
    prepare_part,
    prepare_task_data,
    salt_of,
    save_data,
    split,
)
from learnchain.learning.safe_tensors import write_tensors
from learnchain.protocol.task_specification import DataManifest, Metric
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.sample_tasks import build_sample_specification

KEYS = (b"\1" * 32, b"\2" * 32)


def reason_of(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def small(rows=6):
    return DataSet(np.arange(rows * 4, dtype=np.uint8).reshape(rows, 4), np.arange(rows, dtype=np.uint8) % 3)


@pytest.fixture
def prepared(tmp_path):
    training, test = small(8), small(6)
    return training, test, prepare_task_data(training, test, *KEYS, tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "shape", "classes"), [("digits", 1797, (1, 8, 8), 10), ("iris", 150, (4,), 3)]
)
def test_sources_inside_the_install_hold_what_they_are_known_for(name, rows, shape, classes):
    data = SOURCES[name]()
    assert (len(data), data.sample_shape, len(np.unique(data.labels))) == (rows, shape, classes)


def test_a_file_gives_back_its_data(tmp_path):
    data = SOURCES["iris"]()
    save_data(tmp_path / "data", data)
    loaded = load_data(tmp_path / "data")
    assert np.array_equal(loaded.inputs, data.inputs)
    assert np.array_equal(loaded.labels, data.labels)


@pytest.mark.parametrize(
    "arrays",
    [
        {"inputs": np.zeros((2, 3), np.uint8)},
        {"inputs": np.zeros((2, 3), np.uint8), "labels": np.zeros(3, np.uint8)},
        {"inputs": np.zeros((2, 3), np.int64), "labels": np.zeros(2, np.uint8)},
        {"inputs": np.zeros((2, 3), np.uint8), "labels": np.zeros(2, np.float32)},
        {"inputs": np.zeros((0, 3), np.uint8), "labels": np.zeros(0, np.uint8)},
        {"inputs": np.zeros(2, np.uint8), "labels": np.zeros(2, np.uint8)},
        {"inputs": np.full((2, 3), np.nan, np.float32), "labels": np.zeros(2, np.uint8)},
        {"inputs": np.zeros((2, 3), np.uint8), "labels": np.full(2, -1, np.int64)},
        {"inputs": np.zeros((2, 3), np.uint8), "labels": np.zeros(2, np.uint8), "more": np.zeros(1, np.uint8)},
    ],
)
def test_a_file_that_is_no_data_set_is_malformed(tmp_path, arrays):
    write_tensors(tmp_path / "data", arrays)
    assert reason_of(load_data, tmp_path / "data") is RejectionReason.MALFORMED


def test_a_file_above_its_bound_is_too_large(tmp_path):
    save_data(tmp_path / "data", small())
    assert reason_of(load_data, tmp_path / "data", 50) is RejectionReason.TOO_LARGE


def test_the_root_binds_rows_labels_order_types_and_salt():
    data = small()
    changed_label = data.labels.copy()
    changed_label[2] += 1
    others = [
        DataSet(data.inputs[::-1], data.labels[::-1]),
        DataSet(data.inputs, changed_label),
        DataSet(data.inputs, data.labels.astype(np.int64)),
        DataSet(data.inputs.reshape(6, 2, 2), data.labels),
        DataSet(data.inputs[:-1], data.labels[:-1]),
    ]
    roots = {data_root(other, b"salt") for other in others} | {data_root(data, b"salt"), data_root(data, b"pepper")}
    assert len(roots) == 7


def test_sixty_thousand_images_open_fast_and_in_little_memory(tmp_path):
    data = DataSet(np.zeros((60_000, 1, 28, 28), np.uint8), np.zeros(60_000, np.uint8))
    part = prepare_part(data, KEYS[0], tmp_path / "training.enc").part(b"cid")
    started = time.process_time()
    open_part(tmp_path / "training.enc", part, KEYS[0], tmp_path / "plain")
    seconds = time.process_time() - started
    tracemalloc.start()
    try:
        opened = open_part(tmp_path / "training.enc", part, KEYS[0], tmp_path / "plain")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(opened) == 60_000
    started = time.process_time()
    hashlib.sha256(bytes(60_000 * 784)).digest()
    # Decryption, root and checks: about twice one hash with SHA instructions here, and less without them.
    assert seconds < 20 * (time.process_time() - started)
    assert peak_bytes < 60_000 * 784 // 2, "the rows were read into memory"


def test_labels_must_fit_the_metric(tmp_path):
    data = DataSet(np.zeros((6, 1, 2, 2), np.uint8), np.ones((6, 2, 2), np.uint8))
    part = prepare_part(data, KEYS[0], tmp_path / "enc").part(b"cid")

    def opened(metric):
        manifest = DataManifest("small", part, part, (1, 2, 2), 2, False, True)
        promised = replace(build_sample_specification("small"), data=manifest, metric=metric)
        return open_part(tmp_path / "enc", part, KEYS[0], tmp_path / "plain", promised)

    assert len(opened(Metric.DICE)) == 6
    assert reason_of(opened, Metric.ACCURACY) is RejectionReason.PLAINTEXT_MISMATCH


def test_split_is_drawn_by_the_seed_and_loses_no_row():
    data = small(30)
    training, test = split(data, b"seed", 10)
    again, _ = split(data, b"seed", 10)
    other, _ = split(data, b"other", 10)
    assert np.array_equal(training.inputs, again.inputs)
    assert not np.array_equal(training.inputs, other.inputs)
    assert sorted(np.concatenate([training.inputs, test.inputs])[:, 0]) == sorted(data.inputs[:, 0])
    assert reason_of(split, data, b"seed", 30) is RejectionReason.ARGUMENT_INVALID


def test_permutation_is_pinned():
    assert permutation("order", b"seed", 8).tolist() == [4, 7, 1, 3, 2, 6, 5, 0]


def test_a_part_opens_with_its_key_alone(prepared, tmp_path):
    training, test, (first, second) = prepared
    plain = tmp_path / "plain"
    opened = open_part(first.path, first.part(b"cid"), KEYS[0], plain)
    assert np.array_equal(opened.inputs, training.inputs)
    assert second.rows == len(test)
    assert second.ciphertext_bytes == second.path.stat().st_size
    assert second.plaintext_root == data_root(test, salt_of(KEYS[1]))
    assert reason_of(open_part, first.path, first.part(b"cid"), KEYS[1], plain) is RejectionReason.KEY_MISMATCH
    assert not list(tmp_path.glob("*.plain"))


def test_other_rows_than_those_committed_at_posting_are_refused(prepared, tmp_path):
    _, _, (first, second) = prepared
    wrong_root = second.part(b"cid")
    wrong_root = type(wrong_root)(b"cid", first.plaintext_root, second.key_hash, 6, second.ciphertext_bytes)
    plain = tmp_path / "plain"
    assert reason_of(open_part, second.path, wrong_root, KEYS[1], plain) is RejectionReason.PLAINTEXT_MISMATCH
    wrong_rows = type(wrong_root)(b"cid", second.plaintext_root, second.key_hash, 5, second.ciphertext_bytes)
    assert reason_of(open_part, second.path, wrong_rows, KEYS[1], plain) is RejectionReason.PLAINTEXT_MISMATCH
    assert not plain.exists()


def test_samples_and_labels_other_than_promised_are_the_publishers_fault(prepared, tmp_path):
    _, _, (first, second) = prepared
    parts = first.part(b"one"), second.part(b"two")

    def opened(sample_shape, classes, metric=Metric.ACCURACY):
        manifest = DataManifest("small", *parts, sample_shape, classes, False, True)
        promised = replace(build_sample_specification("small"), data=manifest, metric=metric)
        return open_part(second.path, parts[1], KEYS[1], tmp_path / "plain", promised)

    assert len(opened((4,), 3)) == 6
    assert reason_of(opened, (2, 2), 3) is RejectionReason.PLAINTEXT_MISMATCH
    assert reason_of(opened, (4,), 2) is RejectionReason.PLAINTEXT_MISMATCH


def test_one_key_for_both_parts_would_release_the_test_set_early(tmp_path):
    reason = reason_of(prepare_task_data, small(), small(), KEYS[0], KEYS[0], tmp_path)
    assert reason is RejectionReason.ARGUMENT_INVALID


def test_data_and_jobs_load_no_torch():
    rooms = "learnchain.learning.data, learnchain.learning.jobs, learnchain.learning.trainer"
    code = f"import sys, {rooms}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
