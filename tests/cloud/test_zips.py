"""Zip files are unpacked whole or completed later; dangerous and damaged ones are refused before they do harm."""

from __future__ import annotations

import os
import stat
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.cloud import copies, zips
from src.engine.errors import ZooError

FILES = {"train/cat/1.jpg": os.urandom(3000), "train/dog/2.jpg": b"dog" * 400, "empty.txt": b""}


def nothing(*arguments):
    pass


def write_zip(path, files=FILES, top="", **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{top}{name}", content, **options)
    return path


def extract(archive, folder, name="Data", say=nothing):
    return zips.extract(archive, folder, name, say, nothing)


def content_of(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestGood:
    @pytest.mark.parametrize("top", ["", "Data/"])
    def test_a_folder_of_its_name_is_not_repeated(self, tmp_path, top):
        root = extract(write_zip(tmp_path / "Data.zip", top=top), tmp_path)
        assert root == tmp_path / "Data"
        assert content_of(root) == FILES

    def test_what_macos_adds_is_left_out(self, tmp_path):
        archive = write_zip(tmp_path / "Data.zip", top="Data/")
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("__MACOSX/Data/._1.jpg", b"x")
        assert content_of(extract(archive, tmp_path)) == FILES

    def test_the_second_time_nothing_is_written(self, tmp_path):
        archive, said = write_zip(tmp_path / "Data.zip"), []
        extract(archive, tmp_path)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "Data").rglob("*")}
        extract(archive, tmp_path, say=said.append)
        assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "Data").rglob("*")}
        assert "holds all 3 files" in said[-1]

    @pytest.mark.parametrize("harm", ["missing", "shorter", "changed"])
    @pytest.mark.parametrize("sealed", [False, True])
    def test_a_partial_extraction_is_completed(self, tmp_path, harm, sealed):
        archive, said = write_zip(tmp_path / "Data.zip"), []
        root = extract(archive, tmp_path)
        file = root / "train/cat/1.jpg"
        if harm == "missing":
            file.unlink()
        else:
            file.write_bytes(FILES["train/cat/1.jpg"][:-1] + (b"" if harm == "shorter" else b"\0"))
        if not sealed:
            (tmp_path / ".Data.unzipped").unlink()
        extract(archive, tmp_path, say=said.append)
        if not (sealed and harm == "changed"):  # what a finished extraction wrote is only compared by size
            assert content_of(root) == FILES
            assert any("holds 2 of 3 files" in line for line in said)

    def test_another_zip_file_of_the_same_name_replaces_files(self, tmp_path):
        extract(write_zip(tmp_path / "Data.zip"), tmp_path)
        changed = {**FILES, "train/cat/1.jpg": b"other"}
        assert content_of(extract(write_zip(tmp_path / "Data.zip", changed), tmp_path)) == changed

    def test_progress_is_said_and_beats_come(self, tmp_path, monkeypatch):
        monkeypatch.setattr(copies, "REPORT_EVERY", -1.0)
        said, beats = [], []
        zips.extract(write_zip(tmp_path / "Data.zip"), tmp_path, "Data", said.append, lambda: beats.append(1))
        assert said[0].startswith(f"unpacking into {tmp_path}/Data: 0.0 MB of 0.0 MB")
        assert len(beats) >= 3


class TestRefused:
    def refused(self, archive, folder, words):
        with pytest.raises(ZooError, match=words) as caught:
            extract(archive, folder)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
    def test_members_that_leave_the_folder(self, tmp_path, name):
        (tmp_path / "in").mkdir()
        archive = write_zip(tmp_path / "Data.zip", {"fine.txt": b"x", name: b"evil"})
        self.refused(archive, tmp_path / "in", "would leave the folder")
        assert not list((tmp_path / "in").iterdir())

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
    def test_links_and_devices(self, tmp_path, kind):
        link = zipfile.ZipInfo("link")
        link.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "Data.zip", "w") as archive:
            archive.writestr(link, "/etc/passwd")
        self.refused(tmp_path / "Data.zip", tmp_path, "is a link or a device")

    def test_a_link_that_lies_in_the_target_folder(self, tmp_path):
        (tmp_path / "Data").mkdir()
        (tmp_path / "outside").mkdir()
        (tmp_path / "Data" / "train").symlink_to(tmp_path / "outside")
        self.refused(write_zip(tmp_path / "Data.zip"), tmp_path, "is a link, so files would be written elsewhere")
        assert not list((tmp_path / "outside").iterdir())

    def test_a_decompression_bomb(self, tmp_path):
        archive = write_zip(tmp_path / "Data.zip", {"zeros": b"\0" * 20_000_000})
        assert archive.stat().st_size < 30_000
        self.refused(archive, tmp_path, "would unpack to 20.0 MB, which no data set does")
        assert not (tmp_path / "Data").exists()

    def test_members_that_share_their_bytes(self, tmp_path):
        archive = write_zip(tmp_path / "Data.zip", {"a": os.urandom(200_000), "b": b""})
        with zipfile.ZipFile(archive, "a") as opened:
            opened.filelist += [self.renamed(opened.filelist[0], f"copy{number}") for number in range(50)]
            opened._didModify = True
        self.refused(archive, tmp_path, "would unpack to 10.2 MB|damaged")

    @staticmethod
    def renamed(info, name):
        copied = zipfile.ZipInfo(name)
        for key in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "external_attr"):
            setattr(copied, key, getattr(info, key))
        return copied

    def test_what_does_not_fit_on_the_disk(self, tmp_path, monkeypatch):
        monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        self.refused(write_zip(tmp_path / "Data.zip"), tmp_path, "unpacking into .* needs .* left; make room")
        assert not content_of(tmp_path / "Data")

    def test_a_password(self, tmp_path):
        archive = write_zip(tmp_path / "Data.zip", {"a": b"x"})
        data = bytearray(archive.read_bytes())
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(data)
        self.refused(archive, tmp_path, "with a password")

    def test_duplicates_and_a_file_that_is_a_folder_too(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "Data.zip", "w") as archive, pytest.warns(UserWarning):
            archive.writestr("a", b"1")
            archive.writestr("a", b"2")
        self.refused(tmp_path / "Data.zip", tmp_path, "holds 'a' twice")
        self.refused(write_zip(tmp_path / "Other.zip", {"a": b"1", "a/b": b"2"}), tmp_path, "as a file and as a folder")

    def test_an_empty_one(self, tmp_path):
        self.refused(write_zip(tmp_path / "Data.zip", {}), tmp_path, "holds no files")

    def test_files_that_are_not_from_the_zip_file(self, tmp_path):
        (tmp_path / "Data").mkdir()
        (tmp_path / "Data" / "old.jpg").touch()
        self.refused(write_zip(tmp_path / "Data.zip"), tmp_path, "holds old.jpg, which is not in Data.zip")

    def test_truncated_wherever_it_ends(self, tmp_path):
        whole = write_zip(tmp_path / "Data.zip").read_bytes()
        for length in range(0, len(whole), 37):
            (tmp_path / "Data.zip").write_bytes(whole[:length])
            self.refused(tmp_path / "Data.zip", tmp_path, "is damaged or no zip file")

    @given(position=st.integers(0, 3700), bit=st.integers(0, 7))
    def test_a_flipped_bit_is_an_error_or_does_no_harm(self, tmp_path_factory, position, bit):
        folder = tmp_path_factory.mktemp("flipped")
        archive = write_zip(folder / "Data.zip")
        data = bytearray(archive.read_bytes())
        data[position % len(data)] ^= 1 << bit
        archive.write_bytes(data)
        try:
            root = extract(archive, folder)
        except ZooError as error:
            assert "\n" not in str(error)
            return
        found = content_of(root)
        assert sorted(map(bytes, found.values())) == sorted(FILES.values()), "names may differ, contents may not"
