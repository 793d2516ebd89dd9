"""Inner products of a mapping layer as a file: what decryption opens, so that training needs no plain row (PoLe)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learnchain.learning.safe_tensors import Array, read_header, read_tensor, write_tensors
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import MAXIMUM_DATA_BYTES

LARGEST_SAMPLE = 1 << 15
_DISCRETE = 256.0


@dataclass(frozen=True, slots=True, eq=False)
class MappedRows:
    """Hold the exact inner products of every row with the query vectors of one block, and the labels."""

    products: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.products)


def save_products(path: Path, products: Array, labels: Array) -> None:
    """Write inner products and labels."""
    whole = np.ascontiguousarray(products, dtype=np.int64)
    write_tensors(path, {"products": whole, "labels": np.ascontiguousarray(labels)})


def holds_products(path: Path) -> bool:
    """Return whether a file holds inner products in place of samples."""
    return "products" in read_header(path, MAXIMUM_DATA_BYTES, RejectionReason.MALFORMED)


def load_products(path: Path) -> MappedRows:
    """Return inner products and labels of a file that this machine wrote."""
    entries = read_header(path, MAXIMUM_DATA_BYTES, RejectionReason.MALFORMED)
    if set(entries) != {"products", "labels"} or entries["products"].dtype != "I64":
        raise Rejected(RejectionReason.MALFORMED, f"inner products and labels, not {sorted(entries)}")
    products, labels = entries["products"].shape, entries["labels"].shape
    if len(products) != 2 or not labels or products[0] != labels[0]:
        raise Rejected(RejectionReason.MALFORMED, f"products {products} do not fit labels {labels}")
    return MappedRows(read_tensor(path, entries["products"]), read_tensor(path, entries["labels"]))


def discretised(inputs: Array) -> Array:
    """Return samples as whole numbers in float64: bytes as they are, real numbers in steps of 1/256 (Step 2)."""
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float64)
    rounded = np.rint(inputs.astype(np.float64) * _DISCRETE)
    if not np.isfinite(rounded).all() or float(np.abs(rounded).max()) > LARGEST_SAMPLE:
        raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, "a sample is too large, or no number, to be discretised")
    return rounded
