"""Jobs of the encryption process: what is opened is the plain projection, and nothing else is accepted."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learnchain.encryption.functional import encode_key
from learnchain.encryption.functional.keys import decode_key
from learnchain.encryption.jobs import CheckRows, EncryptRows, IssueKey, OpenRows, PromisedRows
from learnchain.encryption.process import in_own_process
from learnchain.encryption.work import carry_out, read_rows
from learnchain.learning.data import DataSet, save_data
from learnchain.learning.job_data import fit_mapping, holds_products, load_products
from learnchain.learning.safe_tensors import read_header, read_tensor, write_tensors
from learnchain.protocol.task_specification import Metric
from learnchain.protocol.training_terms import SecureMapping
from learnchain.rejection import Rejected, RejectionReason

SEED, KEY = b"\1" * 32, b"\2" * 32
SHAPE = (1, 4, 5)
RANDOM = np.random.default_rng(3)
DATA = DataSet(RANDOM.integers(0, 256, (37, *SHAPE), dtype=np.uint8), (np.arange(37) % 4).astype(np.uint8))


def layer(weights: np.ndarray, kernel: int = 0) -> SecureMapping:
    return SecureMapping(tuple((row + (1 << 15)).astype(">u2").tobytes() for row in weights), kernel)


WEIGHTS = RANDOM.choice([-1, 1], (5, 20))
MAPPING = layer(WEIGHTS)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> OpenRows:
    place = tmp_path_factory.mktemp("rows")
    save_data(place / "plain", DATA)
    made = carry_out(EncryptRows(SEED, KEY, str(place / "plain"), str(place / "encrypted")))
    carry_out(IssueKey(SEED, MAPPING, (), str(place / "key")))
    paths = (str(place / "encrypted"), str(place / "key"), str(place / "products"))
    promised = PromisedRows(KEY, 37, bytes.fromhex(made["root"]), SHAPE, 4, Metric.ACCURACY)
    return OpenRows(*paths, MAPPING, promised)


def reason_of(act: Callable[[], object]) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value.reason


def changed_file(asked: OpenRows, tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> OpenRows:
    """Return the job for a file of which one tensor was changed, under the root that the changed file has."""
    source = Path(asked.encrypted_path)
    entries = read_header(source, 1 << 24, RejectionReason.MALFORMED)
    arrays = {each: read_tensor(source, entry) for each, entry in entries.items()}
    arrays[name] = change(arrays[name].copy())
    target = tmp_path / "changed"
    write_tensors(target, {each: np.ascontiguousarray(array) for each, array in arrays.items()})
    try:
        rows = read_rows(target)
        root = rows.root(rows.leaves(), KEY)
    except Rejected:
        root = asked.promised.root
    return replace(asked, encrypted_path=str(target), promised=replace(asked.promised, root=root))


def test_opened_rows_are_the_plain_projection(asked: OpenRows) -> None:
    carry_out(asked)
    found = load_products(Path(asked.target_path))
    assert holds_products(Path(asked.target_path)) and not holds_products(Path(asked.encrypted_path))
    assert np.array_equal(found.products, DATA.inputs.reshape(37, -1).astype(np.int64) @ WEIGHTS.T)
    assert np.array_equal(found.labels, DATA.labels)
    plain, opened = fit_mapping(MAPPING, DATA), fit_mapping(MAPPING, found)
    assert np.array_equal(plain.of(DATA).inputs, opened.of(found).inputs)
    assert plain.shift == opened.shift and np.array_equal(plain.centre, opened.centre)


def test_a_process_of_its_own_gives_the_same(asked: OpenRows, tmp_path: Path) -> None:
    carry_out(asked)
    other = replace(asked, target_path=str(tmp_path / "products"))
    assert asyncio.run(in_own_process(other)) == {"rows": 37, "products": 5}
    assert Path(other.target_path).read_bytes() == Path(asked.target_path).read_bytes()
    with pytest.raises(Rejected) as caught:
        asyncio.run(in_own_process(replace(other, promised=replace(other.promised, rows=36))))
    assert caught.value.reason is RejectionReason.PLAINTEXT_MISMATCH


def test_neither_rows_nor_labels_other_than_promised_are_opened(asked: OpenRows) -> None:
    wrong = RejectionReason.PLAINTEXT_MISMATCH
    for change in (
        {"root": bytes(32)},
        {"key": bytes(32)},
        {"rows": 38},
        {"sample_shape": (1, 4, 4)},
        {"classes": 3},
        {"metric": Metric.DICE},
    ):
        promised = replace(asked.promised, **change)
        assert reason_of(lambda p=promised: carry_out(replace(asked, promised=p))) is wrong, change
        assert reason_of(lambda p=promised: carry_out(CheckRows(asked.encrypted_path, p))) is wrong, change
    assert carry_out(CheckRows(asked.encrypted_path, asked.promised)) == {"rows": 37}


def swapped(batches: np.ndarray) -> np.ndarray:
    return batches[::-1]


def off_the_curve(batches: np.ndarray) -> np.ndarray:
    batches[1, 33:66] = np.frombuffer(b"\2" + (5).to_bytes(32, "big"), dtype=np.uint8)
    return batches


def test_changed_batches_are_refused_by_their_root(asked: OpenRows, tmp_path: Path) -> None:
    changed = changed_file(asked, tmp_path, "batches", swapped)
    assert reason_of(lambda: carry_out(replace(changed, promised=asked.promised))) is RejectionReason.PLAINTEXT_MISMATCH


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("batches", off_the_curve, RejectionReason.CIPHERTEXT_INVALID),
        ("batches", lambda batches: batches[:-1], RejectionReason.MALFORMED),
        ("batches", lambda batches: batches[:, :-33], RejectionReason.MALFORMED),
        ("master", lambda master: master[:-33], RejectionReason.MALFORMED),
        ("master", lambda master: np.roll(master, 33), RejectionReason.WRONG_HASH),
        ("labels", lambda labels: labels[:-1], RejectionReason.MALFORMED),
        ("labels", lambda labels: labels.astype(np.float32), RejectionReason.MALFORMED),
        ("header", lambda header: header[:-1], RejectionReason.MALFORMED),
    ],
)
def test_a_publishers_broken_file_is_refused(
    asked: OpenRows, tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], reason: RejectionReason
) -> None:
    # The publisher committed to the broken file itself, so that its root cannot tell.
    broken = changed_file(asked, tmp_path, name, change)
    assert reason_of(lambda: carry_out(broken)) is reason


def test_wrong_functional_keys_are_refused(asked: OpenRows, tmp_path: Path) -> None:
    data = Path(asked.functional_key_path).read_bytes()
    key = decode_key(data, 16 * 5)
    off_by_one = encode_key(replace(key, etas=(key.etas[0] + 1, *key.etas[1:])))
    carry_out(IssueKey(SEED, layer(-WEIGHTS), (), str(tmp_path / "of another block")))
    carry_out(IssueKey(b"\7" * 32, MAPPING, (), str(tmp_path / "of another data set")))
    others = [(tmp_path / name).read_bytes() for name in ("of another block", "of another data set")]
    for wrong in (data[:-1], data + b"\0", b"", off_by_one, *others):
        path = tmp_path / "wrong"
        path.write_bytes(wrong)
        job = replace(asked, functional_key_path=str(path))
        assert reason_of(lambda job=job: carry_out(job)) is RejectionReason.FUNCTIONAL_KEY_WRONG


def test_no_key_is_issued_beyond_the_budget(tmp_path: Path) -> None:
    target = str(tmp_path / "key")
    assert carry_out(IssueKey(SEED, MAPPING, (MAPPING,), target)) == {"left": 0}
    more = layer(np.eye(20, dtype=np.int64)[:1])
    assert reason_of(lambda: carry_out(IssueKey(SEED, more, (MAPPING,), target))) is RejectionReason.LEAK_BUDGET_SPENT


def test_a_convolutional_mapping_is_refused(asked: OpenRows) -> None:
    filters = layer(np.ones((2, 9), dtype=np.int64), 3)
    job = replace(asked, mapping=filters)
    assert reason_of(lambda: carry_out(job)) is RejectionReason.ENCRYPTION_UNSUITABLE


def test_real_samples_are_encrypted_in_steps(tmp_path: Path) -> None:
    samples = RANDOM.random((5, 8)).astype(np.float32)
    save_data(tmp_path / "plain", DataSet(samples, np.zeros(5, dtype=np.uint8)))
    made = carry_out(EncryptRows(SEED, KEY, str(tmp_path / "plain"), str(tmp_path / "encrypted")))
    weights = layer(RANDOM.choice([-1, 1], (2, 8)))
    carry_out(IssueKey(SEED, weights, (), str(tmp_path / "key")))
    paths = [str(tmp_path / name) for name in ("encrypted", "key", "products")]
    promised = PromisedRows(KEY, 5, bytes.fromhex(made["root"]), (8,), 2, Metric.ACCURACY)
    carry_out(OpenRows(*paths, weights, promised))
    plain = DataSet(samples, np.zeros(5, dtype=np.uint8))
    opened = load_products(tmp_path / "products")
    assert np.array_equal(fit_mapping(weights, plain).of(plain).inputs, fit_mapping(weights, opened).of(opened).inputs)
    save_data(tmp_path / "plain", DataSet(-samples, np.zeros(5, dtype=np.uint8)))
    job = EncryptRows(SEED, KEY, str(tmp_path / "plain"), str(tmp_path / "encrypted"))
    assert reason_of(lambda: carry_out(job)) is RejectionReason.ARGUMENT_INVALID
