"""Keep imported data sets in a directory: our safetensors files and a JSON manifest that says where they came from."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learnchain.learning.data import SOURCES, DataSet, load_data, save_data
from learnchain.learning.sources import pictures
from learnchain.learning.sources.files import ImportedData, ImportOptions
from learnchain.learning.sources.speech import import_speech_commands, import_spoken_digits
from learnchain.learning.sources.synthetic import SYNTHETIC_SOURCES, WRITERS, generator
from learnchain.learning.sources.volumes import import_mmwhs
from learnchain.rejection import Rejected, RejectionReason

Importer = Callable[[Path, ImportOptions], ImportedData]

IMPORTERS: Mapping[str, Importer] = {
    "mnist": pictures.import_mnist,
    "fashion": pictures.import_fashion,
    "idx": pictures.import_idx,
    "cifar10": pictures.import_cifar10,
    "image-classes": pictures.import_image_classes,
    "spoken-digits": import_spoken_digits,
    "speech-commands": import_speech_commands,
    "glas": pictures.import_glas,
    "mmwhs": import_mmwhs,
}
"""Kinds of `learnchain data import`, named after the layout that they read."""

MANIFEST_NAME, TRAINING_NAME, TEST_NAME = "manifest.json", "training.safetensors", "test.safetensors"
MAXIMUM_MANIFEST_BYTES = 1 << 20
MAXIMUM_GENERATED_ROWS = 100_000
DIRECTORY_VARIABLE = "LEARNCHAIN_DATA"
FORMAT = 1

RESERVED = (*SOURCES, *SYNTHETIC_SOURCES)
"""Names of data that need no import."""

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True)
class StoredDataManifest:
    """Say what a stored data set is: layout, sizes, classes, the SHA-256 of its source files, whether it is made up.

    `test_rows` 0 means that the source has no split of its own; a task then draws one.
    """

    name: str
    kind: str
    training_rows: int
    test_rows: int
    sample_shape: tuple[int, ...]
    label_shape: tuple[int, ...]
    classes: tuple[str, ...]
    sources: dict[str, str]
    public: bool
    synthetic: bool
    licence: str


@dataclass(frozen=True, slots=True, eq=False)
class StoredData:
    """Hold a data set that was read back, with its manifest."""

    manifest: StoredDataManifest
    training: DataSet
    test: DataSet | None


def label_counts(stored: StoredData) -> list[int]:
    """Return how many training labels each class has; for segmentation these are places, not samples."""
    counts = np.bincount(stored.training.labels.reshape(-1), minlength=len(stored.manifest.classes))
    return [int(each) for each in counts]


def default_directory() -> Path:
    """Return where data sets lie unless somebody says otherwise: $LEARNCHAIN_DATA or ~/.learnchain/data."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else Path.home() / ".learnchain" / "data"


class DataStore:
    """Import, make up, list and load data sets under one directory; a name is a folder."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or default_directory()

    @property
    def directory(self) -> Path:
        """Name the directory."""
        return self._directory

    def import_data(
        self, kind: str, path: Path, name: str, options: ImportOptions | None = None, public: bool = True
    ) -> StoredDataManifest:
        """Read a source in the layout of a kind and keep it under a name; an existing name is refused."""
        if kind not in IMPORTERS:
            known = ", ".join(IMPORTERS)
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no kind {kind!r} of data; choose one of: {known}")
        self._check_free(name)
        found = IMPORTERS[kind](path, options or ImportOptions())
        return self._keep(_manifest(name, kind, found, public=public, synthetic=False), found)

    def generate(
        self, kind: str, name: str, seed: int, rows: int, options: ImportOptions | None = None
    ) -> StoredDataManifest:
        """Make files up in the layout of a kind, read them like real ones, and mark the result synthetic."""
        if kind not in WRITERS:
            known = ", ".join(WRITERS)
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{kind!r} cannot be made up; choose one of: {known}")
        if not 10 <= rows <= MAXIMUM_GENERATED_ROWS:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{rows} rows: choose 10 to {MAXIMUM_GENERATED_ROWS}")
        self._check_free(name)
        with tempfile.TemporaryDirectory() as place:
            WRITERS[kind](Path(place), rows, generator(kind, seed))
            found = IMPORTERS[kind](Path(place), options or ImportOptions())
        sources = {f"made up by this program from seed {seed}": next(iter(found.sources.values()))}
        made = ImportedData(found.training, found.test, found.class_names, sources)
        return self._keep(_manifest(name, kind, made, public=True, synthetic=True), made)

    def names(self) -> list[str]:
        """Return the names of all data sets."""
        if not self._directory.is_dir():
            return []
        return sorted(each.parent.name for each in self._directory.glob(f"*/{MANIFEST_NAME}"))

    def manifest(self, name: str) -> StoredDataManifest:
        """Return what is known of a data set; the refusal of an unknown one says how to import it."""
        path = self._place(name) / MANIFEST_NAME
        if not path.is_file():
            command = f"learnchain data import {name if name in IMPORTERS else 'KIND'} PATH --name {name}"
            known = ", ".join((*RESERVED, *self.names()))
            detail = f"no data set {name!r} in {self._directory}; known: {known}; import it with: {command}"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        if path.stat().st_size > MAXIMUM_MANIFEST_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"{path} is larger than {MAXIMUM_MANIFEST_BYTES} bytes")
        try:
            return _parse_manifest(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            raise Rejected(RejectionReason.MALFORMED, f"{path} is no manifest: {error}") from error

    def load(self, name: str) -> StoredData:
        """Return a data set; files that contradict the manifest are refused."""
        manifest, place = self.manifest(name), self._place(name)
        training = load_data(place / TRAINING_NAME)
        test = load_data(place / TEST_NAME) if manifest.test_rows else None
        rows = (len(training), len(test) if test is not None else 0)
        if rows != (manifest.training_rows, manifest.test_rows) or training.sample_shape != manifest.sample_shape:
            detail = f"{place} holds {rows} rows of {training.sample_shape}, its manifest names others"
            raise Rejected(RejectionReason.MALFORMED, detail)
        return StoredData(manifest, training, test)

    def _place(self, name: str) -> Path:
        if not _NAME.match(name):
            detail = f"{name!r} is no name: small letters, digits, - and _, at most 64"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        return self._directory / name

    def _check_free(self, name: str) -> None:
        if name in RESERVED:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{name!r} names data inside the install")
        if self._place(name).exists():
            detail = f"there is a data set {name!r} in {self._directory}; choose another --name or delete that folder"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def _keep(self, manifest: StoredDataManifest, imported: ImportedData) -> StoredDataManifest:
        """Write everything beside its place and move it there at once: an import is there whole or not at all."""
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".import-", dir=self._directory))
        try:
            save_data(partial / TRAINING_NAME, imported.training)
            if imported.test is not None:
                save_data(partial / TEST_NAME, imported.test)
            (partial / MANIFEST_NAME).write_text(json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n")
            partial.replace(self._place(manifest.name))
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return manifest


def _manifest(name: str, kind: str, imported: ImportedData, *, public: bool, synthetic: bool) -> StoredDataManifest:
    training, test = imported.training, imported.test
    if test is not None and (test.sample_shape, test.labels.shape[1:]) != (
        training.sample_shape,
        training.labels.shape[1:],
    ):
        detail = f"training samples have shape {training.sample_shape}, test samples {test.sample_shape}"
        raise Rejected(RejectionReason.MALFORMED, detail)
    largest = max(int(each.labels.max()) for each in (training, test) if each is not None)
    if largest >= len(imported.class_names):
        raise Rejected(
            RejectionReason.MALFORMED, f"a label is {largest}, there are {len(imported.class_names)} classes"
        )
    return StoredDataManifest(
        name=name,
        kind=kind,
        training_rows=len(training),
        test_rows=len(test) if test is not None else 0,
        sample_shape=training.sample_shape,
        label_shape=tuple(training.labels.shape[1:]),
        classes=imported.class_names,
        sources=dict(imported.sources),
        public=public,
        synthetic=synthetic,
        licence=imported.licence,
    )


def _parse_manifest(content: dict[str, Any]) -> StoredDataManifest:
    if content.pop("format") != FORMAT:
        raise ValueError(f"this program reads format {FORMAT}")
    for name in ("sample_shape", "label_shape", "classes"):
        content[name] = tuple(content[name])
    manifest = StoredDataManifest(**content)
    if not all(isinstance(each, bool) for each in (manifest.public, manifest.synthetic)):
        raise ValueError("public and synthetic are true or false")
    return manifest
