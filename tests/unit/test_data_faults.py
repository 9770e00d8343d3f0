"""Data that may not be written, that disappear while they are read, and images of every awkward kind."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.engine.data import images as reading
from src.engine.data import stream
from src.engine.data.image_folder import scan
from src.engine.errors import ZooError
from src.segformer.data import dataset as segmentation
from tests.conftest import CLASSES, write_images
from tests.loaders import class_batches, class_loader, mask_batches
from tests.segmentation_data import DataConfig, write_generic
from tests.unit.test_data import config


@pytest.fixture
def read_only(tmp_path):
    """A function that makes a folder read-only, for root too, until the test ends."""
    mounted = []

    def protect(folder):
        folder.chmod(0o555)
        if os.geteuid() == 0:
            done = subprocess.run(["mount", "--bind", "-r", folder, folder], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"root may write everywhere and mounting is not allowed here: {done.stderr.strip()}")
            mounted.append(folder)
        with pytest.raises(OSError):
            (folder / "probe").touch()
        return folder

    yield protect
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
    for folder in tmp_path.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)


class TestReadOnlyData:
    def test_images_in_class_folders(self, tmp_path, read_only):
        folder = scan(str(read_only(write_images(tmp_path / "data", 8))), ())
        bad = stream.BadFiles("error", print)
        assert len(list(class_batches(folder, config(), bad, 0))) == 3
        assert sum((label >= 0).sum() for _, label in class_loader(folder, config(), bad).eval_batches(8)) == 24

    def test_images_with_masks(self, tmp_path, read_only):
        root = read_only(write_generic(tmp_path / "data", {"train": 4}))
        pairs = segmentation.find_pairs(str(root), "train")
        assert len(list(mask_batches(pairs, DataConfig(), stream.BadFiles("error", print), 0))) == 2


class TestDataThatDisappear:
    def test_a_class_folder(self, tmp_path):
        """Its files are named, others take their place, and every batch is full."""
        folder, said = scan(str(write_images(tmp_path, 8)), ()), []
        bad = stream.BadFiles("skip", said.append)
        batches = class_batches(folder, config(num_workers=1), bad, 0)
        shutil.rmtree(tmp_path / "dog")
        assert [len(image) for image, _ in batches] == [8, 8, 8]
        assert sorted(bad.reasons) == [f"dog/{number:03d}.jpg" for number in range(8)]
        assert said[0].endswith("No such file or directory")
        with pytest.raises(ZooError, match="dog/00.*No such file or directory; remove it or use --on_bad_image skip"):
            list(class_batches(folder, config(), stream.BadFiles("error", print), 0))

    @pytest.mark.parametrize(("files", "words"), [(8, "none of the 24 files"), (80, "none of 200 files in a row")])
    def test_everything(self, tmp_path, files, words):
        """A large data set that is gone is said after 200 files, not after a million lines."""
        folder, said = scan(str(write_images(tmp_path / "data", files)), ()), []
        batches = class_batches(folder, config(), stream.BadFiles("skip", said.append), 0)
        shutil.rmtree(tmp_path / "data")
        with pytest.raises(ZooError, match=f"{words} is a usable image .*No such file or directory.*check the data"):
            list(batches)
        assert len(said) <= 3 * stream.MOST_IN_A_ROW

    def test_images_with_masks(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 4})
        pairs = segmentation.find_pairs(str(root), "train")
        shutil.rmtree(root / "masks")
        with pytest.raises(ZooError, match="none of the 4 files is a usable image .*no readable PNG"):
            list(mask_batches(pairs, DataConfig(), stream.BadFiles("skip", lambda text: None), 0))


def encoded(image: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG with a huge header and hardly any content."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


PICTURE = np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8)


class TestAwkwardImages:
    """A right answer or a BadImage that says why."""

    def test_16_bits_keep_their_brightness(self):
        grey = np.linspace(0, 65535, 24 * 30).reshape(24, 30).astype(np.uint16)
        encoded_well, data = cv2.imencode(".png", grey)
        assert encoded_well
        found = reading.decode(data.tobytes())
        assert found.shape == (24, 30, 3)
        np.testing.assert_allclose(found[..., 0], grey / 257, atol=1)

    def test_one_grey_value(self):
        found = reading.decode(encoded(PICTURE[..., 0], "PNG"))
        assert (found == PICTURE[..., :1]).all()

    def test_the_content_counts_and_not_the_suffix(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(encoded(PICTURE, "GIF"))
        (tmp_path / "b.gif").write_bytes(encoded(PICTURE, "PNG"))
        assert reading.read(tmp_path / "a.jpg").shape == PICTURE.shape
        assert (reading.read(tmp_path / "b.gif") == PICTURE).all()

    @pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 0)])
    def test_huge_dimensions_are_refused_before_memory_is_taken(self, size):
        with pytest.raises(reading.BadImage):
            reading.decode(png_that_claims(*size))

    def test_a_png_bomb_is_refused_before_it_is_unpacked(self):
        bomb = encoded(np.zeros((9000, 9000), np.uint8), "PNG")
        assert len(bomb) < 200_000
        with pytest.raises(reading.BadImage, match="9000x9000 pixels, more than the 64000000"):
            reading.decode(bomb)

    @given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]), st.data())
    def test_damage_of_any_kind(self, kind, data):
        whole = encoded(PICTURE, kind)
        position = data.draw(st.integers(0, len(whole) - 1))
        damaged = (
            whole[:position] + data.draw(st.binary(max_size=20)) + whole[position + data.draw(st.integers(0, 9)) :]
        )
        try:
            found = reading.decode(damaged)
        except reading.BadImage as error:
            assert "\n" not in str(error)
            return
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3

    def test_all_of_them_in_one_data_set(self, tmp_path):
        """A training goes past them, names each once, and fills its batches."""
        write_images(tmp_path, 8)
        awkward = {
            "empty": b"",
            "cut": encoded(PICTURE, "JPEG")[:300],
            "bomb": png_that_claims(60_000, 60_000),
            "text": b"<html>404</html>",
        }
        for name, content in awkward.items():
            (tmp_path / CLASSES[0] / f"{name}.jpg").write_bytes(content)
        folder = scan(str(tmp_path), ())
        bad = stream.BadFiles("skip", lambda text: None)
        for epoch in range(3):
            for image, _ in class_batches(folder, config(), bad, epoch):
                assert image.shape == (8, 3, 32, 32) and np.isfinite(image).all()
        assert {name.split("/")[1][:-4] for name in bad.reasons} == set(awkward)
