"""Which images inference reads and which pictures it writes."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.engine.data import images
from src.engine.data.source import Files
from src.engine.errors import UsageError, ZooError
from src.segformer.data.labels import CITYSCAPES
from src.segformer.predicting import pictures
from tests.segmentation_data import write_generic

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
MASK = np.random.default_rng(1).integers(0, 19, (12, 20), dtype=np.uint8)

TREES = {
    "plain": ("a/x.jpg", "a/x.png", "y.png"),
    "city": ("leftImg8bit/val/bonn/b_0.png", "leftImg8bit/train/ulm/u_0.png", "gtFine/val/bonn/b_0.png"),
}


def save(path: Path, picture: np.ndarray = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)
    return path


def names(data, output="/nowhere"):
    return [item.name for item in pictures.list_inputs(str(data), str(output))]


class TestInputs:
    def test_folders_stay_apart_and_cases_do_not_matter(self, tmp_path):
        for name in ("a/x.jpg", "b/x.JPG", "b/my photo.JPEG", "top.png", "c/d/e.bmp", "c/f.TIF", ".hidden/x.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "notes.txt").touch()
        assert names(tmp_path) == ["a/x", "b/my photo", "b/x", "c/d/e", "c/f", "top"]

    @pytest.mark.parametrize("suffix", images.IMAGE_SUFFIXES)
    def test_what_can_be_trained_on_can_be_predicted(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        Image.fromarray(PICTURE).save(path)
        assert names(tmp_path) == names(path) == ["x"]
        assert images.read(path).shape == PICTURE.shape

    def test_one_file(self, tmp_path):
        assert names(save(tmp_path / "x.y.png")) == ["x.y"]
        (tmp_path / "z.txt").touch()
        with pytest.raises(UsageError, match="an image has to end in"):
            names(tmp_path / "z.txt")

    def test_the_output_folder_is_not_an_input(self, tmp_path):
        save(tmp_path / "x.png")
        output = tmp_path / "infer_result"
        for _ in range(2):
            inputs = pictures.list_inputs(str(tmp_path), str(output))
            assert [item.name for item in inputs] == ["x"]
            pictures.write(inputs[0], PICTURE, MASK, output, CITYSCAPES, pictures.Wanted())
        with pytest.raises(UsageError, match="infer_output_path is the folder of the images"):
            names(tmp_path, tmp_path)

    def test_names_that_differ_in_the_suffix_only(self, tmp_path):
        for name in ("x.jpg", "x.png", "y.png"):
            save(tmp_path / name)
        assert names(tmp_path) == ["x.jpg", "x.png", "y"]

    @pytest.mark.parametrize("files", [("x.jpg", "x.png", "x.jpg.png"), ("class_legend.png", "y.png")])
    def test_no_picture_is_written_twice(self, tmp_path, files):
        for name in files:
            save(tmp_path / name)
        with pytest.raises(ZooError, match="would both write"):
            names(tmp_path)

    def test_linked_folders_are_read_once(self, tmp_path):
        save(tmp_path / "elsewhere" / "x.png")
        (tmp_path / "in" / "sub").mkdir(parents=True)
        (tmp_path / "in" / "city").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in" / "sub" / "up").symlink_to(tmp_path / "in")
        assert names(tmp_path / "in") == ["city/x"]

    def test_pictures_of_an_earlier_run_are_refused(self, tmp_path):
        save(tmp_path / "x.png")
        save(tmp_path / "x_gray.png")
        with pytest.raises(ZooError, match="would both write x_gray.png"):
            names(tmp_path)

    def test_of_a_cityscapes_tree_only_the_images(self, tmp_path):
        save(tmp_path / "leftImg8bit" / "val" / "ulm" / "x_leftImg8bit.png")
        save(tmp_path / "gtFine" / "val" / "ulm" / "x_gtFine_labelTrainIds.png")
        assert names(tmp_path) == ["x_leftImg8bit"]

    def test_of_cityscapes_the_pictures_of_val_in_one_folder(self, tmp_path):
        for split, city in (("train", "ulm"), ("val", "bonn"), ("val", "lindau"), ("test", "mainz")):
            save(tmp_path / "leftImg8bit" / split / city / f"{city}_0_leftImg8bit.png")
        assert names(tmp_path) == ["bonn_0_leftImg8bit", "lindau_0_leftImg8bit"]
        assert names(tmp_path / "leftImg8bit" / "test") == ["mainz/mainz_0_leftImg8bit"]
        assert len(names(tmp_path / "leftImg8bit")) == 4
        save(tmp_path / "leftImg8bit" / "val" / "lindau" / "bonn_0_leftImg8bit.png")
        with pytest.raises(ZooError, match="would both write bonn_0_leftImg8bit"):
            names(tmp_path)

    def test_of_cityscapes_without_val_all_splits(self, tmp_path):
        save(tmp_path / "leftImg8bit" / "test" / "ulm" / "x_leftImg8bit.png")
        assert names(tmp_path) == ["test/ulm/x_leftImg8bit"]

    def test_of_images_and_masks_only_the_images(self, tmp_path):
        write_generic(tmp_path, {"train": 1, "val": 2})
        assert names(tmp_path) == ["train/sub dir/00", "val/sub dir/00", "val/sub dir/01"]
        with pytest.raises(UsageError, match="infer_output_path is the folder of the images"):
            names(tmp_path, tmp_path / "images")

    def test_a_folder_called_images_is_one_of_several(self, tmp_path):
        save(tmp_path / "images" / "x.png")
        save(tmp_path / "more" / "y.png")
        assert names(tmp_path) == ["images/x", "more/y"]

    @pytest.mark.parametrize("tree", ["plain", "generic", "city"])
    @pytest.mark.parametrize("kind", ["tar", "zip"])
    def test_an_archive_is_read_as_its_folder(self, tmp_path, tree, kind):
        folder = tmp_path / "in"
        if tree == "generic":
            write_generic(folder, {"train": 1, "val": 2})
        for name in TREES.get(tree, ()):
            save(folder / name)
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, folder))
        expected = pictures.list_inputs(str(folder), "/nowhere")
        found = pictures.list_inputs(str(archive), "/nowhere")
        assert [(item.name, item.copy, item.read()) for item in found] == [
            (item.name, item.copy, item.read()) for item in expected
        ]
        only = pictures.Wanted(gray=False, color=False, overlap=False)
        written = pictures.write(found[0], PICTURE, MASK, tmp_path / "out", CITYSCAPES, only)
        assert written[0].read_bytes() == expected[0].read()

    def test_archives_that_cannot_be_used(self, tmp_path):
        (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
        with pytest.raises(ZooError, match=r"cut.zip is truncated, damaged or no .zip file"):
            names(tmp_path / "cut.zip")
        save(tmp_path / "in" / "x.png")
        shutil.make_archive(str(tmp_path / "outer" / "inner"), "zip", tmp_path / "in")
        shutil.make_archive(str(tmp_path / "nested"), "zip", tmp_path / "outer")
        with pytest.raises(ZooError, match=r"nested.zip holds an archive \(inner.zip\) and nothing else"):
            names(tmp_path / "nested.zip")
        (tmp_path / "outer" / "notes.txt").touch()
        shutil.make_archive(str(tmp_path / "texts"), "tar", tmp_path / "outer")
        with pytest.raises(ZooError, match=r"texts.tar holds no images"):
            names(tmp_path / "texts.tar")

    def test_an_image_that_is_gone_when_it_is_copied(self, tmp_path):
        path = save(tmp_path / "in" / "x.png")
        item = pictures.list_inputs(str(path), "/nowhere")[0]
        path.unlink()
        with pytest.raises(ZooError, match=r"cannot read .*x.png any more"):
            pictures.write(item, PICTURE, MASK, tmp_path / "out", CITYSCAPES, pictures.Wanted())
        assert not list((tmp_path / "out").iterdir())

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ZooError, match="holds no images"):
            names(tmp_path)
        with pytest.raises(UsageError, match="does not exist"):
            names(tmp_path / "none")


class TestReading:
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_sixteen_bits(self, tmp_path, suffix, channels):
        picture = PICTURE if channels == 3 else PICTURE[..., 0]
        path = save(tmp_path / f"x.{suffix}", picture.astype(np.uint16) * 257)
        expected = picture if channels == 3 else np.repeat(picture[..., None], 3, axis=2)
        assert (images.read(path) == expected).all()

    def test_alpha_palette_and_grey(self, tmp_path):
        path = tmp_path / "x.png"
        alpha = np.random.default_rng(2).integers(0, 256, (12, 20, 1), dtype=np.uint8)
        Image.fromarray(np.concatenate([PICTURE, alpha], axis=2)).save(path)
        assert (images.read(path) == PICTURE).all()
        palette = Image.fromarray(PICTURE).quantize(16)
        palette.save(path)
        assert (images.read(path) == np.asarray(palette.convert("RGB"))).all()
        Image.fromarray(PICTURE[..., 0]).save(path)
        assert (images.read(path) == PICTURE[..., :1]).all()

    def test_values_of_unknown_range_are_refused(self, tmp_path):
        path = tmp_path / "x.tif"
        Image.fromarray(PICTURE[..., 0].astype(np.float32)).save(path)
        with pytest.raises(images.BadImage, match="32 bits per value"):
            images.read(path)


class TestWriting:
    def test_all_pictures(self, tmp_path):
        source = save(tmp_path / "in" / "sub" / "x.png")
        item = pictures.list_inputs(str(tmp_path / "in"), str(tmp_path / "out"))[0]
        wanted = pictures.Wanted(label_ids=True)
        written = pictures.write(item, PICTURE, MASK.astype(np.int32), tmp_path / "out", CITYSCAPES, wanted)
        places = [f"sub/x{end}" for end in (".png", "_gray.png", "_color.png", "_overlap.png")]
        places.append("labelIds/sub/x_labelIds.png")
        assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == places
        assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == len(places)
        assert written[0].read_bytes() == source.read_bytes()
        gray, color, overlap, ids = (np.asarray(Image.open(path)) for path in written[1:])
        assert (gray == MASK).all()
        assert (color == np.array(CITYSCAPES.palette)[MASK]).all()
        assert np.abs(overlap.astype(int) - (PICTURE.astype(int) + color) / 2).max() <= 0.5
        assert (ids == np.array(CITYSCAPES.ids)[MASK]).all()

    def test_only_what_is_wanted(self, tmp_path):
        save(tmp_path / "x.jpg")
        item = pictures.Input(Files(tmp_path, ("x.jpg",)), 0, "x")
        wanted = pictures.Wanted(original=False, gray=False, color=False)
        written = pictures.write(item, PICTURE, MASK, tmp_path / "out", CITYSCAPES, wanted)
        assert [path.name for path in written] == ["x_overlap.png"]

    def test_a_prediction_of_another_size(self, tmp_path):
        item = pictures.Input(Files(tmp_path, ("x.jpg",)), 0, "x")
        with pytest.raises(ValueError, match="have to be equal"):
            pictures.write(item, PICTURE, MASK[:5], tmp_path, CITYSCAPES, pictures.Wanted())

    def test_legend_shows_every_colour(self):
        legend = pictures.legend(CITYSCAPES)
        colours = {tuple(colour) for colour in legend.reshape(-1, 3).tolist()}
        assert set(CITYSCAPES.palette) <= colours

    def test_grid(self):
        grid = pictures.grid([(PICTURE, MASK, MASK)] * 2, CITYSCAPES, width=40)
        assert grid.shape == (pictures.LINE + 2 * 24, 120, 3)
        assert (grid[-1, 40:80] == grid[-1, 80:]).all()
