import json
import subprocess
import sys

import numpy as np
import pytest

from learnchain.learning.data import SOURCES
from learnchain.learning.sources import store as store_module
from learnchain.learning.sources.files import ImportOptions
from learnchain.learning.sources.store import IMPORTERS, MANIFEST_NAME, TRAINING_NAME, DataStore, label_counts
from learnchain.learning.sources.synthetic import SYNTHETIC_SOURCES, WRITERS, generator, glas_synthetic, mmwhs_synthetic
from learnchain.rejection import Rejected, RejectionReason

PICTURES = ("image-classes", "glas")


@pytest.fixture
def store(tmp_path):
    return DataStore(tmp_path / "data")


def reason_of(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


@pytest.mark.parametrize("kind", WRITERS)
def test_made_up_data_go_through_the_importer_and_are_marked(store, kind):
    if kind in PICTURES:
        pytest.importorskip("PIL")
    made = store.generate(kind, "made", seed=3, rows=40)
    assert made.synthetic
    assert store.manifest("made") == made
    stored = store.load("made")
    assert len(stored.training) == made.training_rows > 0
    assert sum(label_counts(stored)) == stored.training.labels.size
    assert len(label_counts(stored)) == len(made.classes)


def test_a_seed_makes_the_same_data_and_another_one_others(store):
    first, again = store.generate("idx", "a", 1, 20), store.generate("idx", "b", 1, 20)
    other = store.generate("idx", "c", 2, 20)
    assert list(first.sources.values()) == list(again.sources.values()) != list(other.sources.values())
    assert np.array_equal(store.load("a").training.inputs, store.load("b").training.inputs)


def test_an_import_keeps_where_it_came_from(store, tmp_path):
    (tmp_path / "files").mkdir()
    WRITERS["idx"](tmp_path / "files", 30, generator("idx", 1))
    manifest = store.import_data("idx", tmp_path / "files", "mine", ImportOptions(), False)
    assert (manifest.synthetic, manifest.public) == (False, False)
    assert sorted(manifest.sources) == sorted(each.name for each in (tmp_path / "files").iterdir())
    assert store.names() == ["mine"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "Big", "x" * 65, ".hidden", "digits", "mmwhs-synthetic"]
)
def test_a_name_is_one_plain_folder_and_not_taken(store, name):
    assert reason_of(store.generate, "idx", name, 1, 20) is RejectionReason.ARGUMENT_INVALID
    assert store.names() == []


def test_an_existing_name_is_not_overwritten(store):
    store.generate("idx", "mine", 1, 20)
    before = (store.directory / "mine" / TRAINING_NAME).read_bytes()
    assert reason_of(store.generate, "idx", "mine", 2, 20) is RejectionReason.ARGUMENT_INVALID
    assert (store.directory / "mine" / TRAINING_NAME).read_bytes() == before


def test_unknown_kinds_rows_and_sets_are_arguments(store, tmp_path):
    assert reason_of(store.generate, "mnist", "x", 1, 20) is RejectionReason.ARGUMENT_INVALID
    assert reason_of(store.generate, "idx", "x", 1, 9) is RejectionReason.ARGUMENT_INVALID
    assert reason_of(store.generate, "idx", "x", 1, 1_000_000) is RejectionReason.ARGUMENT_INVALID
    assert reason_of(store.import_data, "pickle", tmp_path, "x") is RejectionReason.ARGUMENT_INVALID
    assert reason_of(store.load, "absent") is RejectionReason.ARGUMENT_INVALID


def test_an_unknown_set_says_how_to_import_it(store):
    with pytest.raises(Rejected) as caught:
        store.load("mnist")
    assert "learnchain data import mnist PATH --name mnist" in caught.value.detail


def test_a_failed_import_leaves_nothing(store, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert reason_of(store.import_data, "idx", tmp_path / "empty", "x") is RejectionReason.MALFORMED

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "save_data", full)
    with pytest.raises(OSError, match="No space"):
        store.generate("idx", "x", 1, 20)
    assert not list(store.directory.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("synthetic"),
        lambda content: content.update(format=2),
        lambda content: content.update(synthetic="no"),
        lambda content: content.update(extra=1),
        lambda content: content.update(training_rows=19),
        lambda content: content.update(sample_shape=[1, 2, 2]),
    ],
)
def test_a_manifest_that_does_not_fit_is_malformed(store, change):
    store.generate("idx", "mine", 1, 20)
    path = store.directory / "mine" / MANIFEST_NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert reason_of(store.load, "mine") is RejectionReason.MALFORMED


def test_every_layout_but_those_with_fixed_digests_can_be_made_up():
    assert set(IMPORTERS) - set(WRITERS) == {"mnist", "fashion"}
    assert not set(SOURCES) & set(SYNTHETIC_SOURCES)


def test_made_up_pictures_and_volumes_need_no_file():
    pictures, volumes = glas_synthetic(4, 16, 24), mmwhs_synthetic(3, (8, 8, 8))
    assert (pictures.sample_shape, pictures.labels.shape) == ((3, 16, 24), (4, 16, 24))
    assert (volumes.sample_shape, volumes.labels.shape) == ((1, 8, 8, 8), (3, 8, 8, 8))
    assert set(np.unique(pictures.labels)) == {0, 1}
    assert set(np.unique(volumes.labels)) <= set(range(8))


def test_importers_load_no_torch():
    code = "import sys, learnchain.learning.sources.store; assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
