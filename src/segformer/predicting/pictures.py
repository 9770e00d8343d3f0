"""Pictures of inference: which images to read, and what is written for each of them. No MindSpore here.

For the input sub/x.jpg: sub/x_gray.png (class indices), x_color.png, x_overlap.png, the original x.jpg and, for
submission, labelIds/sub/x_labelIds.png (in a folder of its own, as Cityscapes' evaluation wants it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.engine.data.image_folder import find_images
from src.engine.data.images import BadImage
from src.engine.data.source import Source
from src.engine.data.tree import Tree
from src.engine.errors import ZooError
from src.engine.io.files import replace_file
from src.segformer.data.class_list import ClassList
from src.segformer.data.dataset import CITY_IMAGES, IMAGES, MASKS

VAL = "val"  # the split that is shown of Cityscapes
GRAY, COLOR, OVERLAP, LABEL_IDS = "_gray.png", "_color.png", "_overlap.png", "_labelIds.png"
LABEL_ID_FOLDER = "labelIds"
LEGEND = "class_legend.png"
LINE, SWATCH, MARGIN = 28, 44, 8  # pixels of the legend and the grid
FONT_SIZE = 16
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Input:
    """An image to segment; `name` is its place below the output folder, without suffix."""

    source: Source
    index: int
    name: str

    @property
    def path(self) -> Path:
        """What messages call it; in an archive, its path behind the archive's."""
        return self.source.where / self.source.name(self.index)

    def read(self) -> bytes:
        """The file's bytes. Raises BadImage where they are gone."""
        return self.source.read(self.index)

    def read_again(self) -> bytes:
        """The bytes of a file that could be read before. Raises ZooError."""
        try:
            return self.read()
        except BadImage as error:
            raise ZooError(f"cannot read {self.path} any more ({error}); start again with files that stay") from error

    @property
    def copy(self) -> str:
        """Where the copy of the original goes, below the output folder."""
        return str(Path(self.name).parent / self.path.name)

    @property
    def label_ids(self) -> str:
        return f"{LABEL_ID_FOLDER}/{self.name}{LABEL_IDS}"


@dataclass(frozen=True)
class Wanted:
    """Which pictures are written for an image."""

    original: bool = True
    gray: bool = True
    color: bool = True
    overlap: bool = True
    label_ids: bool = False


def list_inputs(data_path: str, output_path: str) -> list[Input]:
    """The image `data_path`, or all images in that folder or archive and below it, in a fixed order.

    Of a data set for training, only the images are inputs; of Cityscapes' root those of val, and their pictures go into
    one folder, because the names hold the city. The output folder is left out, hidden files are too. Two images whose
    names differ in the suffix only keep it in the names of their pictures (x.jpg_gray.png).
    """
    source = find_images(data_path, output_path, image_folder)
    is_city = source.where.parts[-2:] == (CITY_IMAGES, VAL) and source.where != Path(data_path).expanduser()
    files = [PurePosixPath(source.name(index)) for index in range(len(source))]
    inputs = [Input(source, index, name) for index, name in enumerate(stems(files) if is_city else places(files))]
    require_distinct_pictures(inputs)
    return inputs


def image_folder(root: Tree) -> Tree:
    """The folder of a data set's images, without its labels; `root` itself where it is just a folder."""
    if root.has_folder(CITY_IMAGES):
        city = root.below(CITY_IMAGES)
        return city.below(VAL) if city.has_folder(VAL) else city
    return root.below(IMAGES) if root.has_folder(IMAGES) and root.has_folder(MASKS) else root


def stems(files: list[PurePosixPath]) -> list[str]:
    return [file.stem for file in files]


def places(files: list[PurePosixPath]) -> list[str]:
    """The files' paths without suffix, where that leaves them apart."""
    bare = [file.with_suffix("") for file in files]
    count = Counter(bare)
    return [(path if count[path] == 1 else file).as_posix() for file, path in zip(files, bare)]


def require_distinct_pictures(inputs: list[Input]) -> None:
    """No file may be written twice (x.png beside x_gray.png, x.jpg beside x.jpg.png, the legend)."""
    taken: dict[str, Path | str] = {LEGEND: "the legend"}
    for item in inputs:
        for place in (item.copy, item.label_ids, *(item.name + end for end in (GRAY, COLOR, OVERLAP))):
            if place in taken:
                raise ZooError(f"{item.path} and {taken[place]} would both write {place}; rename one")
            taken[place] = item.path


def save_png(path: Path, picture: np.ndarray) -> Path:
    """Write (H, W) grey or (H, W, 3) RGB uint8 as a whole file."""
    encoded, data = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)
    if not encoded:
        raise ZooError(f"cannot encode {path} as PNG; its shape is {picture.shape}")
    replace_file(path, lambda temporary: temporary.write_bytes(data.tobytes()))
    return path


def colour(mask: np.ndarray, classes: ClassList) -> np.ndarray:
    """Index mask (H, W) -> (H, W, 3) uint8 RGB in the colours of the classes; black for what is no class."""
    return classes.colours()[mask]


def overlap(image: np.ndarray, mask: np.ndarray, classes: ClassList) -> np.ndarray:
    """Half the image and half the colours of the mask."""
    return cv2.addWeighted(image, 0.5, colour(mask, classes), 0.5, 0)


def write(
    item: Input, image: np.ndarray, predicted: np.ndarray, output: Path, classes: ClassList, wanted: Wanted
) -> list[Path]:
    """Write the wanted pictures of one image (H, W, 3) uint8 RGB and its prediction (H, W); returns their paths."""
    if predicted.shape != image.shape[:2]:
        raise ValueError(f"the prediction has shape {predicted.shape}, the image {image.shape}; they have to be equal")
    mask = predicted.astype(np.uint8)
    written = []

    def save(place: str, picture: np.ndarray) -> None:
        written.append(save_png(output / place, picture))

    if wanted.original:
        written.append(output / item.copy)
        replace_file(output / item.copy, lambda temporary: temporary.write_bytes(item.read_again()))
    if wanted.gray:
        save(item.name + GRAY, mask)
    if wanted.color:
        save(item.name + COLOR, colour(mask, classes))
    if wanted.overlap:
        save(item.name + OVERLAP, overlap(image, mask, classes))
    if wanted.label_ids:
        save(item.label_ids, classes.to_ids()[mask])
    return written


def legend(classes: ClassList) -> np.ndarray:
    """(height, width, 3) uint8: each class's colour beside its index and name."""
    font = ImageFont.load_default(FONT_SIZE)
    texts = [f"{index}  {name}" for index, name in enumerate(classes.names)]
    width = SWATCH + 3 * MARGIN + int(max(font.getlength(text) for text in texts)) + 1
    picture = Image.new("RGB", (width, LINE * len(texts) + MARGIN), WHITE)
    drawer = ImageDraw.Draw(picture)
    for index, text in enumerate(texts):
        top = MARGIN + LINE * index
        box = (MARGIN, top, MARGIN + SWATCH, top + LINE - MARGIN)
        drawer.rectangle(box, fill=classes.palette[index], outline=BLACK)
        drawer.text((SWATCH + 2 * MARGIN, top), text, fill=BLACK, font=font)
    return np.asarray(picture)


def titled(width: int, titles: Sequence[str]) -> np.ndarray:
    """(LINE, width, 3) uint8: a white strip with the title of each column."""
    picture = Image.new("RGB", (width, LINE), WHITE)
    drawer, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for index, title in enumerate(titles):
        drawer.text((MARGIN + index * width // len(titles), 4), title, fill=BLACK, font=font)
    return np.asarray(picture)


def grid(rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], classes: ClassList, width: int = 512) -> np.ndarray:
    """Rows of image (H, W, 3), true mask (H, W) and predicted mask (H, W), each shown `width` pixels wide."""
    lines = []
    for image, truth, predicted in rows:
        size = (width, max(1, round(width * image.shape[0] / image.shape[1])))
        colours = [colour(mask.astype(np.uint8), classes) for mask in (truth, predicted)]
        cells = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)]
        cells += [cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST) for picture in colours]
        lines.append(np.concatenate(cells, axis=1))
    return np.concatenate([titled(3 * width, ("image", "truth", "prediction")), *lines])
