"""Data sets as plain arrays: their file format, their root, and the encrypted files a publisher commits to.

No torch here: publishers and full nodes check data without loading it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import decrypt_file, encrypt_file, key_hash, list_root, shake256, tagged_hash
from learnchain.learning.safe_tensors import Array, read_header, read_tensor, write_tensors
from learnchain.protocol.task_specification import MAXIMUM_DATA_BYTES, MAXIMUM_ROWS, DataPart, Metric, TaskSpecification
from learnchain.rejection import Rejected, RejectionReason

_INPUT_TYPES = ("U8", "F32")
_LABEL_TYPES = ("U8", "I64")


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Hold samples (uint8, read as value / 256, or finite float32; channels first) and their labels."""

    inputs: Array
    labels: Array

    def __post_init__(self) -> None:
        if self.inputs.dtype not in (np.uint8, np.float32) or self.labels.dtype not in (np.uint8, np.int64):
            raise Rejected(RejectionReason.MALFORMED, "inputs are uint8 or float32, labels uint8 or int64")
        if not 1 <= len(self.inputs) <= MAXIMUM_ROWS or len(self.inputs) != len(self.labels) or self.inputs.ndim < 2:
            raise Rejected(RejectionReason.MALFORMED, f"{len(self.inputs)} samples, {len(self.labels)} labels")
        if self.labels.min() < 0:
            raise Rejected(RejectionReason.MALFORMED, "a label is negative")
        if self.inputs.dtype == np.float32 and not np.isfinite(self.inputs).all():
            raise Rejected(RejectionReason.MALFORMED, "a sample is not finite")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return tuple(self.inputs.shape[1:])


@dataclass(frozen=True, slots=True)
class PreparedPart:
    """Hold what a publisher commits to for one encrypted file, all but its CID."""

    path: Path
    plaintext_root: Hash32
    key_hash: Hash32
    rows: int
    ciphertext_bytes: int

    def part(self, cid: bytes) -> DataPart:
        """Return the part of a manifest once the encrypted file has its CID."""
        return DataPart(cid, self.plaintext_root, self.key_hash, self.rows, self.ciphertext_bytes)


def save_data(path: Path, data: DataSet) -> None:
    """Write a data set as safetensors: `inputs` and `labels`."""
    write_tensors(path, {"inputs": np.ascontiguousarray(data.inputs), "labels": np.ascontiguousarray(data.labels)})


def load_data(path: Path, maximum_bytes: int = MAXIMUM_DATA_BYTES, mapped: bool = False) -> DataSet:
    """Return the data set of a file; anything but two well-formed tensors is `MALFORMED`.

    Mapped rows stay in the file until they are looked at: whoever only checks them needs no memory for all.
    """
    entries = read_header(path, maximum_bytes, RejectionReason.MALFORMED)
    if set(entries) != {"inputs", "labels"}:
        raise Rejected(RejectionReason.MALFORMED, f"a data file holds inputs and labels, not {sorted(entries)}")
    inputs, labels = entries["inputs"], entries["labels"]
    if inputs.dtype not in _INPUT_TYPES or labels.dtype not in _LABEL_TYPES:
        raise Rejected(RejectionReason.MALFORMED, f"inputs are {inputs.dtype}, labels {labels.dtype}")
    if not 2 <= len(inputs.shape) <= 5 or not 1 <= len(labels.shape) <= 4 or inputs.shape[0] != labels.shape[0]:
        raise Rejected(RejectionReason.MALFORMED, f"inputs {inputs.shape} do not fit labels {labels.shape}")
    return DataSet(read_tensor(path, inputs, mapped), read_tensor(path, labels, mapped))


def data_root(data: DataSet, salt: bytes) -> Hash32:
    """Return the Merkle root over salted rows: with the secret salt nobody can guess rows from their hashes."""
    shape = repr((data.sample_shape, data.inputs.dtype.name, data.labels.shape[1:], data.labels.dtype.name)).encode()
    inputs = np.ascontiguousarray(data.inputs).reshape(len(data), -1)
    labels = np.ascontiguousarray(data.labels).reshape(len(data), -1)
    return list_root(
        tuple(
            tagged_hash(
                "data-row", salt, shape, index.to_bytes(8, "big"), inputs[index].tobytes(), labels[index].tobytes()
            )
            for index in range(len(data))
        )
    )


def salt_of(key: bytes) -> bytes:
    """Return the salt of the rows: it follows from the data key, so releasing the key releases both."""
    return tagged_hash("data-salt", key)


def permutation(tag: str, seed: bytes, count: int) -> Array:
    """Return the order of `count` items that the SHAKE-256 stream of a seed draws: 64-bit keys, sorted stably."""
    keys = np.frombuffer(shake256(tag, seed, 8 * count), dtype="<u8")
    return np.argsort(keys, kind="stable")


def select_rows(data: DataSet, rows: Array) -> DataSet:
    """Return the rows in the given order."""
    return DataSet(data.inputs[rows], data.labels[rows])


def split(data: DataSet, seed: bytes, test_rows: int) -> tuple[DataSet, DataSet]:
    """Return training and test set, drawn by a seed."""
    if not 1 <= test_rows < len(data):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{test_rows} test rows of {len(data)}")
    order = permutation("split", seed, len(data))
    return select_rows(data, order[test_rows:]), select_rows(data, order[:test_rows])


def prepare_part(data: DataSet, key: bytes, path: Path) -> PreparedPart:
    """Write one encrypted file and return what the task commits to; the plaintext beside it is removed."""
    plain = path.with_name(f"{path.name}.plain")
    try:
        save_data(plain, data)
        size = encrypt_file(plain, path, key)
    finally:
        plain.unlink(missing_ok=True)
    return PreparedPart(path, data_root(data, salt_of(key)), key_hash(key), len(data), size)


def prepare_task_data(
    training: DataSet, test: DataSet, training_key: bytes, test_key: bytes, directory: Path
) -> tuple[PreparedPart, PreparedPart]:
    """Write the encrypted training and test set of a task; two keys, since they are released at different times."""
    if training_key == test_key:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "training and test set need keys of their own")
    directory.mkdir(parents=True, exist_ok=True)
    return (
        prepare_part(training, training_key, directory / "training.enc"),
        prepare_part(test, test_key, directory / "test.enc"),
    )


def open_part(
    encrypted: Path, part: DataPart, key: bytes, plain: Path, promised: TaskSpecification | None = None
) -> DataSet:
    """Decrypt a part to `plain` and return it; refuse a key, rows or a root other than those committed at posting.

    With the task's specification, samples or labels other than those it promises are refused too: that is the
    publisher's fault and must not look like a fault of the models. The rows are mapped, not read into memory.
    """
    if key_hash(key) != part.key_hash:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the key does not hash to the commitment of the task")
    decrypt_file(encrypted, plain, key, part.ciphertext_bytes)
    try:
        data = load_data(plain, part.ciphertext_bytes, mapped=True)
        if len(data) != part.rows or data_root(data, salt_of(key)) != part.plaintext_root:
            raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, "the rows do not hash to the root of the task")
        if promised is not None:
            check_data(data, promised)
    except Rejected:
        plain.unlink(missing_ok=True)
        raise
    return data


def check_data(data: DataSet, promised: TaskSpecification) -> None:
    """Refuse samples of another shape, and labels beyond the promised classes or of a shape the metric cannot count.

    An accuracy needs one label a row, Dice one label a place.
    """
    manifest = promised.data
    shape = tuple(manifest.sample_shape)
    places = shape[1:] if promised.metric is Metric.DICE else ()
    largest = int(data.labels.max())
    if data.sample_shape != shape or largest >= manifest.classes or data.labels.shape[1:] != places:
        detail = f"samples of {data.sample_shape}, labels of {data.labels.shape[1:]} up to {largest}"
        detail += f", promised {shape}, {places} and {manifest.classes} classes"
        raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, detail)


# --- sources of real data inside the install ------------------------------------------------------------------


def digits() -> DataSet:
    """Return the 1,797 handwritten digits of scikit-learn, 8 x 8 grey levels scaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    grey = np.minimum(np.asarray(pixels) * 16, 255).astype(np.uint8)
    return DataSet(grey.reshape(-1, 1, 8, 8), np.asarray(labels).astype(np.uint8))


def iris() -> DataSet:
    """Return Fisher's 150 irises from scikit-learn, four lengths in centimetres divided by eight."""
    from sklearn.datasets import load_iris

    lengths, labels = load_iris(return_X_y=True)
    return DataSet((np.asarray(lengths) / 8).astype(np.float32), np.asarray(labels).astype(np.uint8))


SOURCES: Mapping[str, Callable[[], DataSet]] = {"digits": digits, "iris": iris}
"""Data sets that any node can produce by itself."""
