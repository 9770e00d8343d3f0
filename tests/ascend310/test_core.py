"""The part of the 310 application that needs no card, against what training does to images."""

from __future__ import annotations

import os
import subprocess

import cv2
import numpy as np
import pytest
from PIL import Image

from src.classification.config import Data
from src.engine.data import images
from src.mobilenetv2 import dataset
from src.segformer.data import transforms
from tests.ascend310.conftest import FOUND, SANITIZED, SANITIZERS, picture, run_program, write

ORIENTATION = 0x0112
MISTAKES = """
#include <climits>
#include <cstdlib>
int main(int argc, char**) {
  switch (argc) {
    case 1: return 1;
    case 2: { char* volatile bytes = new char[8]; const char beyond = bytes[8]; delete[] bytes; return beyond & 1; }
    case 3: { volatile int number = INT_MAX; number = number + argc; return 1; }
    default: { void* volatile lost = std::malloc(8); lost = nullptr; return 1; }
  }
}
"""


def test_what_sanitizers_find_is_no_failure_of_the_program(tools, tmp_path):
    """Status 1 is what many tests want of the application; a finding must not look like it."""
    (tmp_path / "mistakes.cc").write_text(MISTAKES)
    flags = SANITIZED[-1].partition("=")[2].split()
    subprocess.run(["c++", *flags, "mistakes.cc", "-o", "mistakes"], cwd=tmp_path, check=True)
    program = tmp_path / "mistakes"
    assert run_program(program).returncode == 1
    environment = {**os.environ, **SANITIZERS}
    for arguments, part in [
        ("x", "heap-buffer-overflow"),
        ("xx", "signed integer overflow"),
        ("xxx", "detected memory"),
    ]:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)
        assert (done.returncode, part in done.stderr) == (FOUND, True), done.stderr
        with pytest.raises(AssertionError, match=part):
            run_program(program, *arguments)
        with pytest.raises(AssertionError, match=part):  # as a script that has its own status
            run_program("sh", "-c", '"$@" 2>&1 || exit 1', "sh", program, *arguments)


def test_core(program_folder):
    done = run_program("ctest", "--verbose", cwd=program_folder)
    assert done.returncode == 0 and "100% tests passed" in done.stdout, done.stdout


def dump(program_folder, tmp_path, file, width, height, fit):
    out = tmp_path / "dump"
    done = run_program(program_folder / "dump_input", file, width, height, fit, out)
    assert done.returncode == 0, done.stderr
    pixels = np.fromfile(f"{out}.rgb", np.uint8).reshape(height, width, 3)
    return pixels, np.fromfile(f"{out}.bin", np.float32).reshape(3, height, width)


def kinds(folder):
    """Files of every kind that the application decodes, by name."""
    rgb = picture(333, 250)
    for name, factors in {"420": 0x221111, "422": 0x211111, "444": 0x111111, "440": 0x121111}.items():
        yield name, write(folder / f"{name}.jpg", rgb, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors)
    yield "progressive", write(folder / "progressive.jpg", rgb, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for width, height in [(32, 32), (31, 47), (256, 256), (512, 512), (512, 300), (1000, 701), (900, 2000), (16, 400)]:
        name = f"{width}x{height}"
        yield name, write(folder / f"{name}.jpg", picture(width, height, width))
        yield f"{name} png", write(folder / f"{name}.png", picture(width, height, height))
    pillow = Image.fromarray(rgb)
    for name, mode, options in [
        ("grey.jpg", "L", {}),
        ("cmyk.jpg", "CMYK", {}),
        ("rgb.jpg", "RGB", {"keep_rgb": True}),
        ("grey.png", "L", {}),
        ("palette.png", "P", {}),
        ("bits.png", "1", {}),
        ("alpha.png", "RGBA", {}),
    ]:
        pillow.convert(mode).save(folder / name, **options)
        yield name, folder / name
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 200).save(folder / "16bit.png")
    yield "16bit.png", folder / "16bit.png"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        pillow.save(folder / f"turned{orientation}.jpg", exif=exif)
        yield f"turned{orientation}", folder / f"turned{orientation}.jpg"


def test_input_is_that_of_evaluation(program_folder, tmp_path):
    """Within 1 grey level before normalisation, and the normalisation is exact."""
    for name, file in kinds(tmp_path):
        for size in (224, 32) if name in ("420", "1000x701", "31x47") else (224,):
            reference = dataset.centred(images.read(file), (size, size), Data.crop_pct)
            expected = dataset.normalise(reference)
            pixels, planes = dump(program_folder, tmp_path, file, size, size, "crop")
            assert np.array_equal(planes, dataset.normalise(pixels)), name
            difference = np.abs(pixels.astype(int) - reference.astype(int)).max()
            assert difference <= 1, f"{name}: {difference} grey levels"
            assert np.abs(planes - expected).max() <= 1.01 / 57


@pytest.mark.parametrize("width,height", [(300, 150), (400, 300), (100, 300)])
def test_whole_image_is_fitted_as_in_segmentation(program_folder, tmp_path, width, height):
    file = write(tmp_path / "x.png", picture(width, height))
    factor = min(128 / width, 64 / height)
    size = int(height * factor + 0.5), int(width * factor + 0.5)
    expected = transforms.normalise(
        transforms.resize_image(images.read(file), *size), dataset.MEAN, dataset.STD, (64, 128)
    )
    _, planes = dump(program_folder, tmp_path, file, 128, 64, "pad")
    assert np.abs(planes - expected).max() <= 1.01 / 57
    assert not planes[:, size[0] :].any() and not planes[:, :, size[1] :].any()


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0" + bytes(50), b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_image_is_refused(program_folder, tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    done = run_program(program_folder / "dump_input", tmp_path / "x.jpg", 32, 32, "crop", tmp_path / "out")
    assert (done.returncode, bool(done.stderr)) == (1, True)


def test_truncated_files_are_refused(program_folder, tmp_path):
    for name in ("x.jpg", "x.png"):
        content = write(tmp_path / name, picture(80, 60)).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        done = run_program(program_folder / "dump_input", tmp_path / name, 32, 32, "crop", tmp_path / "out")
        assert done.returncode == 1 and "truncated" in done.stderr.lower(), done.stderr
