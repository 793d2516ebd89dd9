"""A package is checked against the task before its weights are looked at."""

from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.encoding.codec import encode
from learnchain.market.package import PackageManifest, check_manifest, read_package, write_package
from learnchain.market.terms import Description
from learnchain.protocol.model_presets import mlp
from learnchain.rejection import Rejected, RejectionReason
from tests.market.samples import DESCRIPTION, MODEL

MANIFEST = PackageManifest(MODEL, (0, 2))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"weights" * 100)
    write_package(MANIFEST, tmp_path / "weights", tmp_path / "package")
    return tmp_path / "package"


def test_a_package_comes_back(package: Path, tmp_path: Path):
    assert read_package(package, DESCRIPTION, tmp_path / "out") == MANIFEST
    assert (tmp_path / "out").read_bytes() == b"weights" * 100


@pytest.mark.parametrize(
    ("manifest", "description", "reason"),
    [
        (PackageManifest(mlp((5,), 3), (0,)), DESCRIPTION, RejectionReason.MODEL_SHAPE_MISMATCH),
        (PackageManifest(mlp((4,), 2), (0,)), DESCRIPTION, RejectionReason.MODEL_SHAPE_MISMATCH),
        (MANIFEST, replace(DESCRIPTION, recommended=(mlp((4,), 3),)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (PackageManifest(MODEL, ()), DESCRIPTION, RejectionReason.MALFORMED),
        (PackageManifest(MODEL, (2, 0)), DESCRIPTION, RejectionReason.MALFORMED),
        (PackageManifest(MODEL, (0, 3)), DESCRIPTION, RejectionReason.MALFORMED),
        (PackageManifest(mlp((4,), 3, hidden=(10_000, 1_000)), (0,)), DESCRIPTION, RejectionReason.MODEL_TOO_LARGE),
    ],
)
def test_manifests_that_do_not_fit(manifest: PackageManifest, description: Description, reason: RejectionReason):
    with pytest.raises(Rejected) as caught:
        check_manifest(manifest, description)
    assert caught.value.reason is reason


def test_hostile_packages(package: Path, tmp_path: Path):
    cases = [
        (b"", RejectionReason.MALFORMED),
        (b"\xff\xff\xff\xff", RejectionReason.MALFORMED),
        ((3).to_bytes(4, "big") + b"abc", RejectionReason.MALFORMED),
        (bytes(DESCRIPTION.maximum_model_bytes + 1), RejectionReason.TOO_LARGE),
    ]
    for content, reason in cases:
        package.write_bytes(content)
        with pytest.raises(Rejected) as caught:
            read_package(package, DESCRIPTION, tmp_path / "out")
        assert caught.value.reason is reason


def test_bytes_beyond_the_described_model_are_refused(package: Path, tmp_path: Path):
    head = encode(MANIFEST)
    package.write_bytes(len(head).to_bytes(4, "big") + head + bytes(2 << 20))
    with pytest.raises(Rejected) as caught:
        read_package(package, replace(DESCRIPTION, maximum_model_bytes=4 << 20), tmp_path / "out")
    assert caught.value.reason is RejectionReason.TOO_LARGE
