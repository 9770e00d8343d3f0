"""Data sets in one .tar or .zip file: as the folder they were made of, and refused where they are not whole."""

import functools
import io
import os
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.engine.data import stream
from src.engine.data.archive import IndexFolder, open_archive
from src.engine.data.archive_index import Index
from src.engine.data.image_folder import EVAL_FOLDERS, TRAIN_FOLDERS, find_held_out, find_root, scan
from src.engine.data.images import BadImage
from src.engine.data.tree import Folder, open_tree
from src.engine.errors import UsageError, ZooError
from src.segformer.data import dataset
from tests.conftest import run_command, write_images
from tests.segmentation_data import write_city, write_generic
from tests.waiting import wait_until
from tools import pack_data

KINDS = ("packed", "tar", "stored", "deflated")


def pack(folder: Path, kind: str, out: Path, top: str = "") -> Path:
    """An archive of a folder, as our tool, tar or zip writes it."""
    out = out.with_suffix(".tar" if kind in ("packed", "tar") else ".zip")
    if kind == "packed":
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        pack_data.write(folder, names, out)
    elif kind == "tar":
        with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(folder, arcname=top or ".")
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(out, "w", method) as made:
            for path in folder.rglob("*"):
                made.write(path, f"{top}/{path.relative_to(folder)}" if top else path.relative_to(folder))
    return out


def zip_with(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


@pytest.fixture
def photos(tmp_path):
    """train/ and val/ with a hidden file, another file, a sub-folder and awkward names."""
    root = write_images(tmp_path / "photos" / "train", 3)
    write_images(tmp_path / "photos" / "val", 2, seed=1)
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / ".hidden").mkdir()
    (root / "cat" / ".hidden" / "h.jpg").write_bytes(b"h")
    (root / "dog" / "mehr & mehr").mkdir()
    for name in ("mehr & mehr/ä\n.png", "mehr.png", "UPPER.PNG"):
        (root / "dog" / name).write_bytes(cv2.imencode(".png", np.full((9, 7, 3), 40, np.uint8))[1].tobytes())
    return tmp_path / "photos"


class TestAsTheFolder:
    @pytest.mark.parametrize("top", ["", "anything"])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("splits", [TRAIN_FOLDERS, EVAL_FOLDERS])
    def test_classes_order_bytes_and_left_out(self, photos, tmp_path, kind, top, splits):
        if kind in ("packed", "tar"):  # zipfile refuses to write such a name
            shutil.copy(photos / "val" / "dog" / "001.jpg", photos / "val" / "dog" / os.fsdecode(b"no utf-8 \xff.jpg"))
        folder, packed = scan(str(photos), splits), scan(str(pack(photos, kind, tmp_path / "a", top)), splits)
        assert packed.names == folder.names
        assert packed.class_to_index == folder.class_to_index
        assert packed.labels.tolist() == folder.labels.tolist()
        assert packed.left_out == folder.left_out
        for index in range(len(folder)):
            assert packed.source.read(index) == folder.source.read(index)

    @pytest.mark.parametrize("kind", KINDS)
    def test_pictures_and_masks(self, tmp_path, kind):
        root = write_generic(tmp_path / "city", {"train": 4, "val": 2})
        packed = pack(root, kind, tmp_path / "a")
        for split in ("train", "val"):
            one, other = dataset.find_pairs(str(root), split), dataset.find_pairs(str(packed), split)
            names = [[source.name(i) for i in range(len(source))] for source in (one.images, one.masks)]
            assert names == [[source.name(i) for i in range(len(source))] for source in (other.images, other.masks)]
            assert one.classes.names == other.classes.names
            for index in range(len(one)):
                for a, b in zip(one.read(index), other.read(index)):
                    assert (a == b).all()

    def test_cityscapes_without_masks_names_the_same_remedy(self, tmp_path):
        packed = pack(write_city(tmp_path / "city", 2), "tar", tmp_path / "a")
        with pytest.raises(ZooError, match="2 of 2 images have no label.*convert_dataset"):
            dataset.find_pairs(str(packed), "train")

    @given(
        st.lists(
            st.tuples(
                st.text(st.sampled_from("ab."), min_size=1, max_size=3),
                st.text(st.sampled_from("aB .-_é0"), min_size=1, max_size=4),
                st.booleans(),
            ),
            min_size=1,
            max_size=8,
        ),
        st.sampled_from(KINDS),
    )
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_names_come_in_the_order_of_the_folder(self, tmp_path_factory, names, kind):
        root = tmp_path_factory.mktemp("names")
        for folder, name, deeper in names:
            if folder.strip(".") and name.strip("."):
                path = root / "data" / folder / ("x.y" if deeper else "") / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(name.encode())
        plain = Folder(root / "data")
        if not plain.files():
            return
        (root / "data" / "at the top").write_bytes(b"")  # so that no folder is the only one
        packed = open_tree(str(pack(root / "data", kind, root / "a")))
        assert packed.files() == plain.files()
        full = [name for name in plain.folders() if plain.below(name).files()]  # others are no class of either
        assert packed.folders() == full
        for name in full:
            assert packed.below(name).files() == plain.below(name).files()
            assert packed.has_folder(name) and packed.below(name).where.name == name

    def test_a_source_in_a_source(self, photos, tmp_path):
        folder, packed = (scan(str(path), ("train",)) for path in (photos, pack(photos, "tar", tmp_path / "a")))
        some = packed.select([5, 2, 2])
        assert some.names == folder.select([5, 2, 2]).names
        assert some.source.read(1) == packed.source.read(2)
        order = np.array([[3, 1], [0, 2]])
        assert list(packed.source.rows(order)) == list(folder.source.rows(order))

    def test_held_out_images_lie_beside_those_of_training(self, photos, tmp_path):
        packed = pack(photos, "stored", tmp_path / "a")

        def held_out(path):
            return find_held_out(find_root(open_tree(str(path)), TRAIN_FOLDERS))

        assert held_out(packed).where == packed / "val"
        assert held_out(photos / "train").where == (photos / "val").resolve()
        assert held_out(photos).folders() == ["cat", "dog", "owl"]
        assert held_out(pack(photos / "train", "stored", tmp_path / "b")) is None

    def test_links_to_a_file_in_the_same_archive(self, tmp_path):
        root = write_images(tmp_path / "data", 1)
        os.link(root / "cat" / "000.jpg", root / "dog" / "again.jpg")
        packed = scan(str(pack(root, "tar", tmp_path / "a")), ())
        assert packed.source.read(packed.names.index("dog/again.jpg")) == (root / "cat" / "000.jpg").read_bytes()

    def test_a_second_file_of_one_name_counts_as_when_unpacked(self, tmp_path):
        root = write_images(tmp_path / "data", 2)
        packed = pack(root, "tar", tmp_path / "a")
        (tmp_path / "new").write_bytes(b"new")
        with tarfile.open(packed, "a") as tar:
            tar.add(tmp_path / "new", arcname="./cat/000.jpg")
        found = scan(str(packed), ())
        assert (len(found), found.source.read(0)) == (6, b"new")

    def test_threads_read_at_once(self, photos, tmp_path):
        packed = scan(str(pack(photos, "deflated", tmp_path / "a")), ("train",))
        folder = scan(str(photos), ("train",))
        wanted = [index for index in range(len(packed)) for _ in range(20)]
        found = list(stream.ordered_map(packed.source.read, wanted, threads=8, ahead=32))
        by_name = dict(zip(folder.names, range(len(folder))))
        assert found == [folder.source.read(by_name[packed.names[index]]) for index in wanted]


class TestIndex:
    def test_it_is_made_once_and_kept(self, photos, tmp_path, monkeypatch):
        packed, indexes = pack(photos, "tar", tmp_path / "a"), IndexFolder(tmp_path / "run" / "archives")
        first = scan(str(packed), ("train",), indexes=indexes)
        monkeypatch.setattr("src.engine.data.archive.read_members", None)  # not called again
        names, contents = first.names, [first.source.read(i) for i in range(len(first))]
        assert (
            scan(str(packed), ("train",), indexes=indexes).source.archive is first.source.archive
        )  # while it is in use
        del first
        again = scan(str(packed), ("train",), indexes=indexes)
        assert again.names == names
        assert [again.source.read(i) for i in range(len(again))] == contents

    @pytest.mark.parametrize("damage", ["cut", "changed", "other"])
    def test_a_damaged_one_is_made_again(self, photos, tmp_path, damage):
        packed, indexes = pack(photos, "tar", tmp_path / "a"), IndexFolder(tmp_path / "run")
        names = scan(str(packed), ("train",), indexes=indexes).names
        kept = next((tmp_path / "run").glob("*.npz"))
        data = kept.read_bytes()
        damaged = {"cut": data[: len(data) // 2], "changed": data[:900] + b"x" * 90 + data[990:], "other": b"?"}[damage]
        kept.write_bytes(damaged)
        assert scan(str(packed), ("train",), indexes=indexes).names == names
        assert Index.load(kept) is not None

    def test_a_resumed_run_wants_the_archive_that_it_began_with(self, tmp_path):
        packed = pack(write_images(tmp_path / "data", 2), "tar", tmp_path / "a")
        indexes = IndexFolder(tmp_path / "run")
        scan(str(packed), (), indexes=indexes)
        shutil.copy(packed, tmp_path / "copy")
        (tmp_path / "copy").replace(packed)  # the same members at another time
        resumed = IndexFolder(tmp_path / "run", resumes=True)
        assert len(scan(str(packed), (), indexes=resumed)) == 6
        packed = pack(write_images(tmp_path / "data", 3), "tar", tmp_path / "a")
        with pytest.raises(ZooError, match=r"a\.tar has changed since this run began \(6 files then, 9 now\)"):
            scan(str(packed), (), indexes=resumed)
        assert len(scan(str(packed), (), indexes=indexes)) == 9

    def test_ranks_that_begin_together(self, photos, tmp_path):
        packed, indexes, found = pack(photos, "tar", tmp_path / "a"), IndexFolder(tmp_path / "run"), []
        read = functools.partial(scan, str(packed), ("train",), indexes=indexes)
        threads = [threading.Thread(target=lambda: found.append(read().names)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(found) == 4, "four listings")
        assert all(names == found[0] for names in found)


class TestNotWhole:
    @pytest.mark.parametrize("kind", KINDS)
    def test_truncated_wherever_it_ends(self, tmp_path, kind):
        packed = pack(write_images(tmp_path / "data", 2), kind, tmp_path / "a")
        data = packed.read_bytes()
        whole = {entry.name for entry in [packed]}
        end = len(data.rstrip(b"\0")) if packed.suffix == ".tar" else len(data) - 1
        for length in sorted({0, 1, 511, 512, 1024, end // 3, end // 2 // 512 * 512, end // 512 * 512, end}):
            packed.write_bytes(data[:length])
            with pytest.raises(ZooError, match=r"a\.(tar|zip) (is truncated|holds no files)"):
                open_archive(packed)
        assert whole == {packed.name}

    def test_cut_while_it_is_read(self, photos, tmp_path):
        packed = pack(photos, "tar", tmp_path / "a")
        found = scan(str(packed), ("train",))
        with packed.open("rb+") as handle:
            handle.truncate(packed.stat().st_size // 2)
        with pytest.raises(ZooError, match=r"a\.tar has changed since its index was made"):
            found.source.read(0)

    @pytest.mark.parametrize("kind", ["tar", "stored"])
    def test_changed_behind_the_indexs_back(self, tmp_path, kind):
        """A network file system may answer with an old size and time: what is read still tells."""
        packed = pack(write_images(tmp_path / "data", 4), kind, tmp_path / "a")
        archive = open_archive(packed)
        last = int(np.argmax(archive.index.offset))
        status, data = packed.stat(), packed.read_bytes()
        packed.write_bytes(data[: int(archive.index.offset[last]) + 40])
        archive.index = replace(archive.index, stamp=stamp(packed))
        with pytest.raises(ZooError, match="is truncated: it ends before its members do"):
            archive.read(last)
        if kind == "stored":
            packed.write_bytes(b"\0" * status.st_size)
            archive.index = replace(archive.index, stamp=stamp(packed))
            with pytest.raises(ZooError, match="has changed since its index was made"):
                archive.read(last)

    @pytest.mark.parametrize("kind", ["stored", "deflated"])
    def test_a_damaged_member_is_a_bad_image(self, tmp_path, kind):
        packed = pack(write_images(tmp_path / "data", 1), kind, tmp_path / "a")
        row = 1
        start = int(open_archive(packed).index.offset[row]) + 300
        with packed.open("rb+") as handle:
            handle.seek(start)
            handle.write(b"\0" * 40)
        archive = open_archive(packed)
        with pytest.raises(BadImage, match="checksum|unpacked"):
            archive.read(row)
        assert archive.read(0) and archive.read(2)

    def test_a_bomb_is_not_unpacked(self, tmp_path):
        packed = pack(write_images(tmp_path / "data", 1), "deflated", tmp_path / "a")
        archive = open_archive(packed)
        archive.index.size[0] = 2**40
        with pytest.raises(BadImage, match="more than"):
            archive.read(0)

    @pytest.mark.parametrize("content", [b"", b"PK", b"\x1f\x8b\x08", b"text" * 400])
    @pytest.mark.parametrize("name", ["a.tar", "a.zip"])
    def test_another_file_of_that_name(self, tmp_path, content, name):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ZooError, match=rf"{name} is truncated, damaged or no \.(tar|zip) file"):
            open_tree(str(tmp_path / name))


def stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


class TestRefused:
    def test_an_archive_in_an_archive(self, tmp_path):
        inner = pack(write_images(tmp_path / "data", 1), "tar", tmp_path / "inner")
        packed = zip_with(tmp_path / "outer.zip", **{"in/inner.tar": inner.read_bytes()})
        with pytest.raises(ZooError, match=r"outer\.zip holds an archive \(in/inner\.tar\) and nothing else; unpack"):
            scan(str(packed), ())

    def test_no_files(self, tmp_path):
        (tmp_path / "data").mkdir()
        for kind in ("tar", "stored"):
            with pytest.raises(ZooError, match="holds no files"):
                open_tree(str(pack(tmp_path / "data", kind, tmp_path / "a")))

    def test_a_link(self, tmp_path):
        root = write_images(tmp_path / "data", 1)
        (root / "cat" / "link.jpg").symlink_to(root / "dog" / "000.jpg")
        with pytest.raises(ZooError, match=r"'\./cat/link\.jpg', which is a link.*pack_data"):
            open_tree(str(pack(root, "tar", tmp_path / "a")))
        assert len(scan(str(pack(root, "packed", tmp_path / "b")), ())) == 4

    @pytest.mark.parametrize("name", ["../cat/1.jpg", "/cat/1.jpg", "cat/../../1.jpg"])
    def test_a_name_outside(self, tmp_path, name):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises(ZooError, match="lies outside of it"):
            open_tree(str(tmp_path / "a.tar"))

    def test_file_and_folder_of_one_name(self, tmp_path):
        with pytest.raises(ZooError, match="'cat' as a file and as a folder"):
            open_tree(str(zip_with(tmp_path / "a.zip", **{"cat": b"1", "cat/1.jpg": b"2"})))

    def test_other_compression_and_passwords(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as made:
            made.writestr("cat/1.jpg", b"1")
        with pytest.raises(ZooError, match="in compression 14"):
            open_tree(str(tmp_path / "a.zip"))
        data = bytearray(zip_with(tmp_path / "b.zip", **{"cat/1.jpg": b"1"}).read_bytes())
        for mark in (b"PK\x03\x04", b"PK\x01\x02"):
            data[data.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
        (tmp_path / "b.zip").write_bytes(data)
        with pytest.raises(ZooError, match="with a password"):
            open_tree(str(tmp_path / "b.zip"))

    @pytest.mark.parametrize("name", ["data.tar.gz", "data.rar", "picture.jpg"])
    def test_other_files(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ZooError, match=r"neither a folder nor a \.tar or \.zip file"):
            open_tree(str(tmp_path / name))
        found = run_command("train.py", "--platform", "CPU", "--dataset_path", str(tmp_path / name))
        assert (found.returncode, found.stderr.count("\n")) == (2, 1)
        assert "is not a folder, .tar or .zip file" in found.stderr

    def test_the_cache_server_reads_folders_only(self, tmp_path):
        packed = pack(write_images(tmp_path / "data", 1), "tar", tmp_path / "a")
        flags = [
            "--platform",
            "CPU",
            "--dataset_path",
            str(packed),
            "--enable_cache",
            "True",
            "--cache_session_id",
            "1",
        ]
        found = run_command("train.py", *flags)
        assert (found.returncode, found.stderr.count("\n")) == (2, 1)
        assert "the cache server reads folders only" in found.stderr
        found = run_command("-m", "src.launch.cache_memory", str(packed))
        assert (found.returncode, found.stderr.count("\n")) == (2, 1)

    def test_unsplit(self, photos, tmp_path):
        packed = pack(photos / "val" / "cat", "tar", tmp_path / "a")
        with pytest.raises(UsageError, match="holds no class folders"):
            scan(str(packed), ())
        assert find_root(open_tree(str(packed)), TRAIN_FOLDERS).where == packed


class TestPackData:
    def test_what_it_writes_is_read(self, photos, tmp_path):
        out = tmp_path / "new folder" / "data.tar"
        found = run_command("tools/pack_data.py", str(photos), str(out))
        assert (found.returncode, found.stderr) == (0, "")
        assert f"wrote {out}: 19 files" in found.stdout
        assert scan(str(out), ("train",)).names == scan(str(photos), ("train",)).names
        assert [path.name for path in out.parent.iterdir()] == ["data.tar"]
        before = out.read_bytes()
        assert run_command("tools/pack_data.py", str(photos), str(out)).returncode == 0
        assert out.read_bytes() == before

    @pytest.mark.parametrize(
        ("folder", "out", "message"),
        [
            ("nowhere", "a.tar", "is not a folder"),
            ("photos", "a.zip", "ends in .tar"),
            ("photos", "photos/a.tar", "lies in"),
            ("empty", "a.tar", "holds no files"),
        ],
    )
    def test_bad_input_writes_nothing(self, photos, tmp_path, folder, out, message):
        (tmp_path / "empty").mkdir()
        found = run_command("tools/pack_data.py", str(tmp_path / folder), str(tmp_path / out))
        assert (found.returncode, found.stderr.count("\n"), found.stdout) == (2, 1, "")
        assert message in found.stderr
        assert not (tmp_path / out).exists()

    def test_a_file_that_cannot_be_read(self, photos, tmp_path):
        (photos / "train" / "cat" / "gone.jpg").symlink_to(tmp_path / "nothing")
        found = run_command("tools/pack_data.py", str(photos), str(tmp_path / "a.tar"))
        assert (found.returncode, found.stderr.count("\n")) == (1, 1)
        assert "gone.jpg" in found.stderr
        assert list(tmp_path.glob("*.tar")) == []


def test_what_lies_beside_a_link_is_found(tmp_path, monkeypatch):
    """data/train may lead to another disk; data/val lies beside the link."""
    write_images(tmp_path / "disk" / "pictures", 2, classes=("cat", "dog"))
    write_images(tmp_path / "data" / "val", 1, classes=("cat", "dog"))
    (tmp_path / "data" / "train").symlink_to(tmp_path / "disk" / "pictures")
    train = open_tree(str(tmp_path / "data" / "train"))
    assert find_held_out(train).where == tmp_path / "data" / "val"
    monkeypatch.chdir(tmp_path / "disk")
    assert find_held_out(open_tree("../data/train")).where.resolve() == tmp_path / "data" / "val"
    assert Folder(tmp_path / "data" / "train" / "..").parents[0].where == tmp_path
    (tmp_path / "data" / "val").rename(tmp_path / "disk" / "val")
    assert find_held_out(train).where == tmp_path / "disk" / "val"
