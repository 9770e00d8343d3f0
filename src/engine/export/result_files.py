"""What the 310 application writes, and the labels for it. No MindSpore here.

An image's name is its stem where no other image has it, else its path below the data folder without suffix, or with it
where two images differ in the suffix only; ascend310_infer/src/files.cc has the same rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from src.engine.config import shown
from src.engine.data.images import IMAGE_SUFFIXES
from src.engine.errors import ZooError

MOST_DIGITS = 9  # of a label
SCORES = "_0.bin"  # the end of the file with the first output of an image


def without_suffix(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def names_of(files: Sequence[str]) -> list[str]:
    """A name per file; `files` are paths below the data folder."""
    stems = Counter(PurePosixPath(file).stem for file in files)
    paths = Counter(without_suffix(file) for file in files)

    def name_of(file: str) -> str:
        stem, path = PurePosixPath(file).stem, without_suffix(file)
        return stem if stems[stem] == 1 else path if paths[path] == 1 else file

    return [name_of(file) for file in files]


def read_labels(path: Path) -> dict[str, int]:
    """Labels by name from lines "name:label"; the name may also be a file name or a path with an image's suffix."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"cannot read the label file {path} ({error}); tools/make_label_file.py makes one") from error
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, colon, label = (part.strip() for part in line.rpartition(":"))
        if not (name and colon and label.isdecimal() and len(label) <= MOST_DIGITS):
            raise ZooError(
                f"{path}:{number}: {shown(line)} is not name:label; tools/make_label_file.py writes such files"
            )
        key = without_suffix(name) if name.lower().endswith(IMAGE_SUFFIXES) else name
        for spelling in (name, key):
            if labels.setdefault(spelling, int(label)) != int(label):
                raise ZooError(f"{path}:{number}: {shown(spelling)} has two labels; names have to be unique")
    if not labels:
        raise ZooError(f"{path} holds no label; tools/make_label_file.py makes one")
    return labels


def find_scores(folder: Path) -> dict[str, Path]:
    """Files with the scores of an image, by its name, in a fixed order."""
    if not folder.is_dir():
        raise ZooError(f"{folder} is not a folder; give the one with the results of scripts/run_infer_310.sh")
    files = sorted(folder.rglob(f"*{SCORES}"))
    if not files:
        raise ZooError(f"{folder} holds no result (*{SCORES}); give the one with the results of run_infer_310.sh")
    return {file.relative_to(folder).as_posix()[: -len(SCORES)]: file for file in files}


def read_scores(file: Path, count: int | None) -> np.ndarray:
    """(K,) float32; `count` is how many there have to be, where that is known."""
    content = file.read_bytes()
    if not content or len(content) % 4:
        raise ZooError(f"{file} holds {len(content)} bytes, which are no 32-bit floats; run the inference again")
    scores = np.frombuffer(content, np.float32)
    if count is not None and len(scores) != count:
        raise ZooError(f"{file} holds {len(scores)} scores, others {count}; the results are of different networks")
    if not np.isfinite(scores).all():
        raise ZooError(f"{file} holds numbers that are not finite; the network or its conversion is broken")
    return scores
