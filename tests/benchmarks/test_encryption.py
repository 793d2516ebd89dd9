"""Benchmarks of encrypted inner products: their form, what they say of peers that are not here, images from files."""

from pathlib import Path

import numpy as np
import pytest

from learnchain.benchmarks import encryption
from learnchain.benchmarks.encryption import BENCHMARKS_WITH_PEERS, Cifer, pymife_seconds
from learnchain.cli import bench
from learnchain.rejection import Rejected, RejectionReason, Unavailable

FORM = {"what", "value", "unit", "ratio", "against"}


@pytest.mark.slow
def test_without_peers_every_figure_stands_and_says_that_they_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_first_use", list)
    monkeypatch.setattr(encryption, "SAMPLES", 16)
    result = BENCHMARKS_WITH_PEERS["functional_encryption"]({})
    assert result["synthetic"] and all(set(figure) == FORM for figure in result["figures"])
    rivals = [figure for figure in result["figures"] if figure["against"].startswith(("CiFEr", "pymife"))]
    assert len(rivals) == 12
    assert all(figure["ratio"] is None and figure["against"].endswith("not here") for figure in rivals)
    additions = {figure["what"]: figure["value"] for figure in result["figures"] if figure["unit"] == ""}
    assert additions["decrypt, sparse: additions an image"] < additions["decrypt, paper: additions an image"]


def test_images_come_from_a_plain_file_and_are_opened_exactly(tmp_path: Path) -> None:
    pixels = np.arange(20 * 784, dtype=np.uint32).astype(np.uint8)
    file = tmp_path / "images"
    file.write_bytes(b"\0\0\x08\x03" + bytes(12) + pixels.tobytes())
    result = BENCHMARKS_WITH_PEERS["functional_encryption_whole"]({"images": file})
    figures = {figure["what"]: figure for figure in result["figures"]}
    assert not result["synthetic"]
    assert figures["products that differ from the plain projection"]["value"] == 0
    assert figures["ciphertexts"]["value"] == round(2 * 33 * (1 + 16 * 784) / 1e9, 4)


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "images"
    file.write_bytes(b"\0\0\x08\x03" + bytes(12 + 785))
    with pytest.raises(Rejected) as caught:
        BENCHMARKS_WITH_PEERS["functional_encryption_whole"]({"images": file})
    assert caught.value.reason is RejectionReason.MALFORMED


def test_peers_that_are_named_and_not_there_are_unavailable(tmp_path: Path) -> None:
    sample, queries = np.ones(3, dtype=np.int64), np.ones((1, 3), dtype=np.int64)
    with pytest.raises(Unavailable):
        Cifer(tmp_path / "libcifer.so")
    with pytest.raises(Unavailable):
        pymife_seconds(tmp_path / "python", sample, queries)


def test_peers_are_named_with_their_paths() -> None:
    assert bench._read_peers(["cifer=/a/b=c"]) == {"cifer": Path("/a/b=c")}
    with pytest.raises(Rejected) as caught:
        bench._read_peers(["cifer"])
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
