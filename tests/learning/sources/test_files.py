import gzip
import io
import os
import tarfile
import zipfile

import pytest

from learnchain.learning.sources import files
from learnchain.learning.sources.files import digests, read_files
from learnchain.rejection import Rejected, RejectionReason

CONTENT = {"a/one.bin": b"1" * 100, "a/two.bin": b"2" * 50, "b/three.txt": b"3"}


def is_bin(name):
    return name.endswith(".bin")


def reason_of(path, wanted=is_bin):
    with pytest.raises(Rejected) as caught:
        read_files(path, wanted)
    return caught.value.reason


def folder(directory):
    for name, data in CONTENT.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def tar(path, mode="w", members=CONTENT):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def zipped(path, members=CONTENT):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("kind", ["folder", "tar", "gz", "bz2", "xz", "zip"])
def test_a_folder_and_every_archive_give_the_same_files(tmp_path, kind):
    if kind == "folder":
        path = folder(tmp_path / "folder")
    elif kind == "zip":
        path = zipped(tmp_path / "archive")
    else:
        path = tar(tmp_path / "archive", "w" if kind == "tar" else f"w:{kind}")
    seen = []
    found = read_files(path, is_bin, seen.append)
    assert {each.name: each.data for each in found} == {name: CONTENT[name] for name in ("a/one.bin", "a/two.bin")}
    assert [each.name for each in found] == sorted(each.name for each in found)
    assert seen == [1, 2]


def test_a_compressed_file_is_opened_and_named_without_its_ending(tmp_path):
    (tmp_path / "x.bin.gz").write_bytes(gzip.compress(b"plain"))
    (found,) = read_files(tmp_path, is_bin)
    assert (found.name, found.data, found.stem) == ("x.bin", b"plain", "x.bin")


def test_links_are_never_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    place = folder(tmp_path / "folder")
    (place / "link.bin").symlink_to(tmp_path / "secret")
    (place / "around").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(place / "pipe.bin")
    assert [each.name for each in read_files(place, is_bin)] == ["a/one.bin", "a/two.bin"]
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.bin")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert read_files(tmp_path / "links.tar", is_bin) == []


def test_nothing_is_written_whatever_names_an_archive_holds(tmp_path):
    names = {"../../escape.bin": b"x", "/absolute.bin": b"y"}
    for path in (tar(tmp_path / "a.tar", members=names), zipped(tmp_path / "a.zip", members=names)):
        before = sorted(tmp_path.rglob("*"))
        assert {each.data for each in read_files(path, is_bin)} == {b"x", b"y"}
        assert sorted(tmp_path.rglob("*")) == before


def test_sizes_are_refused_before_bytes_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAXIMUM_FILE_BYTES", 80)
    assert reason_of(folder(tmp_path / "folder")) is RejectionReason.TOO_LARGE
    assert reason_of(zipped(tmp_path / "zip")) is RejectionReason.TOO_LARGE
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb" / "x.bin.gz").write_bytes(gzip.compress(b"\0" * 10_000))
    assert (tmp_path / "bomb" / "x.bin.gz").stat().st_size < 80
    assert reason_of(tmp_path / "bomb") is RejectionReason.TOO_LARGE
    monkeypatch.setattr(files, "MAXIMUM_FILE_BYTES", 60_000)
    assert reason_of(tar(tmp_path / "big.tar", members={"x.bin": b"\0" * 60_001})) is RejectionReason.TOO_LARGE


def test_the_number_of_files_and_their_sum_are_bounded(tmp_path, monkeypatch):
    place = folder(tmp_path / "folder")
    monkeypatch.setattr(files, "MAXIMUM_FILES", 1)
    assert reason_of(place) is RejectionReason.TOO_LARGE
    monkeypatch.setattr(files, "MAXIMUM_FILES", 10)
    monkeypatch.setattr(files, "MAXIMUM_TOTAL_BYTES", 149)
    assert reason_of(place) is RejectionReason.TOO_LARGE
    # What nobody wants is decompressed on the way through an archive, so it counts too.
    archive = tar(tmp_path / "wide.tar", "w:gz", {"skipped.txt": b"\0" * 200, "x.bin": b"1"})
    assert reason_of(archive) is RejectionReason.TOO_LARGE


def test_a_zip_entry_that_lies_about_its_size_is_malformed(tmp_path):
    data = bytearray(zipped(tmp_path / "zip", {"x.bin": b"\0" * 1_000}).read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "zip").write_bytes(bytes(data))
    assert reason_of(tmp_path / "zip") is RejectionReason.MALFORMED


@pytest.mark.parametrize(
    "data", [b"", b"no archive at all", gzip.compress(b"no tar", mtime=0), b"\x1f\x8bbroken", b"BZhbroken"]
)
def test_what_is_no_archive_is_malformed(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert reason_of(tmp_path / "x") is RejectionReason.MALFORMED


def test_two_files_of_one_name_are_malformed(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for data in (b"first", b"second"):
            member = tarfile.TarInfo("x.bin")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert reason_of(tmp_path / "x.tar") is RejectionReason.MALFORMED


def test_a_path_that_is_not_there_is_an_argument(tmp_path):
    assert reason_of(tmp_path / "nothing") is RejectionReason.ARGUMENT_INVALID


def test_digests_name_few_files_and_sum_many_up(tmp_path):
    few = read_files(folder(tmp_path / "few"), is_bin)
    assert list(digests(tmp_path / "few", few)) == ["a/one.bin", "a/two.bin"]
    (tmp_path / "many").mkdir()
    for index in range(20):
        (tmp_path / "many" / f"{index}.bin").write_bytes(bytes([index]))
    many = digests(tmp_path, read_files(tmp_path / "many", is_bin))
    (tmp_path / "many" / "3.bin").write_bytes(b"other")
    changed = digests(tmp_path, read_files(tmp_path / "many", is_bin))
    assert len(many) == len(changed) == 1
    assert many != changed
