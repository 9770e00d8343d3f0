"""Read image files into RGB arrays, strictly: a file that is broken in any way is a BadImage. No MindSpore here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# What an image is by its name, in a folder to train on as in one to predict; `decode` reads all of these.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff")
MAX_PIXELS = 64_000_000  # larger pictures are refused before they are unpacked (decompression bombs)
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG", b"IEND"
ORIENTATION = 0x0112  # tag of EXIF
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what to do with the pixels, by its value; 1 is upright
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}

cv2.setNumThreads(1)  # the stream runs one thread per worker already


class BadImage(Exception):
    """The file cannot be used as an image; the text says why."""


def jpeg_scan_offset(data: bytes) -> int:
    """Where the pixels of a JPEG file begin; segments before it (a thumbnail, say) may hold end marks of their own.

    Within the pixels an end mark is unambiguous, and what follows it (the film of a phone's motion photo) is ignored.
    """
    position = len(JPEG_START)
    while data[position : position + 2] != JPEG_SCAN:
        if position + 4 > len(data) or data[position] != 0xFF:
            return len(data)
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        # 0xFF may be repeated as filling in front of a marker
        position += 1 if data[position + 1] == 0xFF else 2 + length
    return position


def check_complete(data: bytes) -> None:
    """Decoders fill up what a truncated file lacks with grey; refuse such files instead."""
    if data.startswith(JPEG_START) and data.find(JPEG_END, jpeg_scan_offset(data)) < 0:
        raise BadImage("truncated JPEG")
    if data.startswith(PNG_START) and data.rfind(PNG_END) < 0:
        raise BadImage("truncated PNG")


def upright(image: np.ndarray, header: Image.Image) -> np.ndarray:
    """(H, W, 3) pixels turned and mirrored as the EXIF data of their file say, if those can be read."""
    try:
        turn = UPRIGHT.get(header.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever Pillow meets in damaged EXIF data; the pixels are whole
        return image
    return image if turn is None else np.ascontiguousarray(turn(image))


def decode(data: bytes) -> np.ndarray:
    """Encoded bytes -> (H, W, 3) uint8 RGB, upright (EXIF orientation applied)."""
    if not data:
        raise BadImage("empty file")
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"{width}x{height} pixels, more than the {MAX_PIXELS} that are read")
            if header.format == "TIFF" and header.mode in ("F", "I"):
                raise BadImage("32 bits per value, of unknown range")
            check_complete(data)
            turned = header.format != "WEBP"  # by OpenCV, which does that for JPEG, PNG and TIFF only
            flags = cv2.IMREAD_COLOR_RGB | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            image = np.asarray(header.convert("RGB")) if image is None else image
            return image if turned else upright(image, header)
    except Image.DecompressionBombError as error:
        raise BadImage(str(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, cv2.error) as error:
        raise BadImage(f"not an image ({type(error).__name__})") from error


def read(path: Path) -> np.ndarray:
    """Image file -> (H, W, 3) uint8 RGB. Raises BadImage, also where the file cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(error.strerror or str(error)) from error
    return decode(data)
