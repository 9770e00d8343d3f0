"""Pairing, strict reading and transforms of images with masks; no MindSpore."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.engine.data import stream
from src.engine.data.stream import ALONE, Shard
from src.engine.errors import UsageError, ZooError
from src.segformer.data import dataset, transforms
from src.segformer.data.polygons import convert
from tests.loaders import mask_batches, mask_samples
from tests.segmentation_data import DataConfig, write_city, write_generic


@pytest.fixture(scope="module")
def generic(tmp_path_factory):
    return write_generic(tmp_path_factory.mktemp("a folder") / "data", {"train": 7, "val": 3})


def fresh(tmp_path, train=3):
    return write_generic(tmp_path / "data", {"train": train})


def listing(root):
    return sorted(str(path) for path in root.rglob("*"))


def bad_files(on_bad_image="error", say=print):
    return stream.BadFiles(on_bad_image, say)


class TestPairs:
    def test_generic(self, generic):
        before = listing(generic)
        pairs = dataset.find_pairs(str(generic), "train")
        assert pairs.images.names == tuple(f"images/train/sub dir/{n:02d}.jpg" for n in range(7))
        assert pairs.masks.names == tuple(f"masks/train/sub dir/{n:02d}.png" for n in range(7))
        assert pairs.classes.names == ("street", "house", "tree")
        image, mask = pairs.read(0)
        assert (image.shape, mask.shape, mask.dtype) == ((40, 80, 3), (40, 80), np.uint8)
        assert listing(generic) == before

    def test_suffixes_in_any_case(self, tmp_path):
        root = fresh(tmp_path)
        folder = root / "images" / "train" / "sub dir"
        (folder / "00.jpg").rename(folder / "00.JPEG")
        masks = root / "masks" / "train" / "sub dir"
        (masks / "01.png").rename(masks / "01.PNG")
        (folder / "notes.txt").write_text("x")
        (folder / ".02.jpg").write_text("x")
        assert len(dataset.find_pairs(str(root), "train")) == 3

    def test_a_missing_mask_is_an_error_or_left_out(self, tmp_path):
        root = fresh(tmp_path)
        (root / "masks" / "train" / "sub dir" / "01.png").unlink()
        with pytest.raises(ZooError, match=r"1 of 3 images have no label: .*sub dir/01.jpg needs .*01.png"):
            dataset.find_pairs(str(root), "train")
        pairs = dataset.find_pairs(str(root), "train", on_missing_label="skip")
        assert (len(pairs), pairs.without_mask) == (2, ("images/train/sub dir/01.jpg",))

    def test_two_images_of_one_stem(self, tmp_path):
        root = fresh(tmp_path)
        cv2.imwrite(str(root / "images" / "train" / "sub dir" / "01.bmp"), np.zeros((40, 80, 3), np.uint8))
        with pytest.raises(ZooError, match="01.bmp and .*01.jpg would share one mask"):
            dataset.find_pairs(str(root), "train")

    def test_city(self, tmp_path):
        root = write_city(tmp_path / "my leftImg8bit city", 3)
        for skip in ("error", "skip"):
            with pytest.raises(ZooError, match=r"3 of 3 images .*not converted yet, run: python tools/convert_dataset"):
                dataset.find_pairs(str(root), "train", on_missing_label=skip)
        for file in root.rglob("*_polygons.json"):
            convert(file)
        pairs = dataset.find_pairs(str(root), "train")
        assert pairs.images.name(0) == "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
        assert pairs.masks.name(0) == "gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png"
        assert len(pairs.classes) == 19
        image = root / pairs.images.name(0)
        image.rename(image.with_suffix(".PNG"))
        assert len(dataset.find_pairs(str(root), "train")) == 3
        with pytest.raises(ZooError, match="holds no .*split 'val'"):
            dataset.find_pairs(str(root), "val")

    def test_a_crop_that_no_image_fills(self, generic):
        pairs = dataset.find_pairs(str(generic), "train")  # 40 x 80
        dataset.require_filled_crops(pairs, DataConfig(crop_size=(64, 128)))
        with pytest.raises(UsageError, match="an image of 40 x 80 becomes 64 x 128 at most"):
            dataset.require_filled_crops(pairs, DataConfig(crop_size=(65, 128)))

    @pytest.mark.parametrize(
        ("base", "crop", "words"),
        [
            ((32, 64), (32, 64), ""),
            ((32, 64), (32, 48), ""),
            (
                (32, 64),
                (33, 64),
                "an image of 40 x 80 fitted to base_size [32, 64] is 32 x 64, so 3.0 % of such",
            ),
            ((32, 64), (64, 128), "so 75.0 % of such a crop is padding; a smaller --crop_size"),
            ((40, 40), (40, 40), "fitted to base_size [40, 40] is 20 x 40, so 50.0 % of such a crop is padding"),
        ],
    )
    def test_a_crop_that_is_part_padding_is_told(self, generic, base, crop, words):
        line = dataset.padding_line(
            dataset.find_pairs(str(generic), "train"), DataConfig(base_size=base, crop_size=crop)
        )
        assert words in line
        assert bool(line) == bool(words)
        assert "\n" not in line

    def test_the_padding_of_the_image_with_most_of_it_is_told(self, tmp_path):
        root = write_generic(tmp_path, {"train": 2})
        (second,) = (root / "images").rglob("01.jpg")
        cv2.imwrite(str(second), np.zeros((40, 40, 3), np.uint8))
        line = dataset.padding_line(dataset.find_pairs(str(root), "train"), DataConfig(crop_size=(32, 64)))
        assert "an image of 40 x 40 fitted to base_size [32, 64] is 32 x 32, so 50.0 % of such" in line
        second.write_bytes(b"no image")
        assert not dataset.padding_line(dataset.find_pairs(str(root), "train"), DataConfig(crop_size=(32, 64)))

    def test_other_folders(self, tmp_path):
        with pytest.raises(UsageError, match="holds neither leftImg8bit/ .* nor images/"):
            dataset.find_pairs(str(tmp_path), "train")
        (tmp_path / "images").mkdir()
        with pytest.raises(UsageError, match="has no classes.csv"):
            dataset.find_pairs(str(tmp_path), "train")


class TestReading:
    def pairs_with(self, tmp_path, save):
        root = fresh(tmp_path)
        save(root / "masks" / "train" / "sub dir" / "00.png")
        return dataset.find_pairs(str(root), "train")

    def test_palette_masks_hold_indices(self, tmp_path):
        indices = np.random.default_rng(0).integers(0, 3, (40, 80), dtype=np.uint8)

        def save(path):
            picture = Image.fromarray(indices, mode="P")
            picture.putpalette([200, 100, 50] * 256)
            picture.save(path)

        _, mask = self.pairs_with(tmp_path, save).read(0)
        assert (mask == indices).all()

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.full((40, 80), 7, np.uint8), r"00.png holds the values 7; .*classes.csv has the classes 0 to 2 and ig"),
            (np.arange(3200, dtype=np.uint8).reshape(40, 80) % 100, r"the values 3, 4, 5, 6, 7 \.\.\.;"),
            (np.zeros((41, 80), np.uint8), "has 80x41 pixels but its image 80x40"),
            (np.zeros((40, 80, 3), np.uint8), "00.png has mode RGB"),
            (np.zeros((40, 80), np.uint16), "00.png has mode I;16"),
        ],
    )
    def test_another_kind_of_mask_is_an_error(self, tmp_path, mask, message):
        pairs = self.pairs_with(tmp_path, lambda path: cv2.imwrite(str(path), mask))
        with pytest.raises(ZooError, match=message):
            pairs.read(0)
        with pytest.raises(ZooError, match=message):
            list(mask_batches(pairs, DataConfig(), bad_files("skip"), 0))

    @pytest.mark.parametrize("keep", [0, 30, 100])
    def test_broken_files_are_named_and_replaced(self, tmp_path, keep):
        pairs = self.pairs_with(tmp_path, lambda path: path.write_bytes(path.read_bytes()[:keep]))
        said = []
        batches = list(mask_batches(pairs, DataConfig(batch_size=3), bad_files("skip", said.append), 0))
        assert len(batches) == 1
        assert (
            len(said) == 1 and "skipped images/train/sub dir/00.jpg: its label " in said[0] and "00.png is" in said[0]
        )
        samples = list(mask_samples(pairs, DataConfig(), bad_files("skip", said.append)))
        assert samples[0] is None
        assert [sample.file[-6:] for sample in samples[1:]] == ["01.jpg", "02.jpg"]
        with pytest.raises(ZooError, match="00.jpg is no usable image: its label"):
            list(mask_samples(pairs, DataConfig(), bad_files("error")))


class TestBatches:
    def collect(self, root, first_step=0, epoch=1, shard=ALONE, **changes):
        pairs, cfg = dataset.find_pairs(str(root), "train"), replace(DataConfig(), **changes)
        return list(mask_batches(pairs, cfg, bad_files(), epoch, first_step, shard))

    def test_shapes_and_values(self, generic):
        batches = self.collect(generic)
        assert len(batches) == 3
        for image, mask in batches:
            assert (image.shape, image.dtype) == ((2, 3, 32, 48), np.float32)
            assert (mask.shape, mask.dtype) == ((2, 32, 48), np.int32)
            assert set(np.unique(mask)) <= {0, 1, 2, 255}

    def test_same_seed_same_batches_for_any_number_of_threads(self, generic):
        first, again = (self.collect(generic, dataset_num_parallel_workers=threads) for threads in (1, 8))
        for (a, la), (b, lb) in zip(first, again):
            assert (a == b).all() and (la == lb).all()
        for other in (self.collect(generic, seed=2), self.collect(generic, epoch=2)):
            assert any((a != b).any() for (a, _), (b, _) in zip(first, other))

    def test_starting_later_gives_the_rest_of_the_epoch(self, generic):
        whole, rest = self.collect(generic), self.collect(generic, first_step=2)
        assert len(rest) == 1
        assert (rest[0][0] == whole[2][0]).all() and (rest[0][1] == whole[2][1]).all()

    def test_ranks_together_see_the_batches_of_one(self, generic):
        alone = self.collect(generic, batch_size=4)
        two = [self.collect(generic, batch_size=4, shard=Shard(rank, 2)) for rank in range(2)]
        assert (np.concatenate([two[0][0][0], two[1][0][0]]) == alone[0][0]).all()

    def test_few_samples_are_held(self, generic, monkeypatch):
        read = []
        real = dataset.Pairs.read
        monkeypatch.setattr(dataset.Pairs, "read", lambda pairs, index: read.append(index) or real(pairs, index))
        pairs = dataset.find_pairs(str(generic), "train")
        cfg = DataConfig(dataset_num_parallel_workers=1, batch_size=1)
        next(mask_samples(pairs, cfg, bad_files()))
        assert len(read) <= 3
        read.clear()
        next(mask_batches(pairs, cfg, bad_files(), 0))
        assert len(read) <= 3

    def test_evaluation_sees_everything_at_its_own_size(self, generic):
        pairs, cfg = dataset.find_pairs(str(generic), "val"), DataConfig()
        samples = list(mask_samples(pairs, cfg, bad_files()))
        assert [sample.file for sample in samples] == list(pairs.images.names)
        for sample in samples:
            assert (sample.image.shape, sample.mask.shape) == ((3, 32, 64), (40, 80))
            assert sample.picture.shape == (40, 80, 3)
        own = next(mask_samples(pairs, cfg, bad_files(), scale=None))
        assert own.image.shape == (3, 40, 80)
        assert next(mask_samples(pairs, cfg, bad_files(), scale=0.5)).image.shape == (3, 16, 32)
        for count in (2, len(pairs) + 1):  # every image once, and as many turns on each rank
            turns = [list(mask_samples(pairs, cfg, bad_files(), shard=Shard(r, count))) for r in range(count)]
            assert len({len(own) for own in turns}) == 1
            files = [sample.file for own in turns for sample in own if sample is not None]
            assert sorted(files) == list(pairs.images.names)


sizes = st.integers(1, 70)
seeds = st.integers(0, 2**32)


def pair_of(seed, height, width):
    """A mask, and an image whose three channels hold the mask's values times ten."""
    mask = np.random.default_rng(seed).choice(np.array([0, 1, 2, 3, 255], np.uint8), (height, width))
    return np.repeat((mask % 25 * 10)[..., None], 3, axis=2), mask


class TestTransforms:
    @given(seeds, sizes, sizes, st.tuples(sizes, sizes))
    def test_masks_are_never_interpolated_and_stay_aligned(self, seed, height, width, crop):
        image, mask = pair_of(seed, height, width)
        rng = np.random.default_rng(seed)
        for step in (transforms.random_crop, transforms.random_flip):
            arguments = (crop, 255) if step is transforms.random_crop else ()
            image, mask = step(image, mask, rng, *arguments)
            assert (image[..., 0] == mask % 25 * 10).all()
        resized = transforms.random_resize(image, mask, rng, (height, width))[1]
        assert set(np.unique(resized)) <= set(np.unique(mask))

    @given(seeds, sizes, sizes, st.tuples(sizes, sizes))
    def test_train_transform_has_the_crop_size(self, seed, height, width, crop):
        cfg = replace(DataConfig(), crop_size=crop, base_size=(40, 40), dataset_ignore_image=255.0)
        image, mask = pair_of(seed, height, width)
        planes, label = dataset.train_transform(image, mask, np.random.default_rng(seed), cfg, 255)
        assert (planes.shape, label.shape) == ((3, *crop), crop)
        assert (planes.dtype, label.dtype) == (np.float32, np.int32)
        assert set(np.unique(label)) <= {0, 1, 2, 3, 255}
        assert (label[(planes == 255).all(0)] == 255).all()
        assert np.abs(planes[:, label != 255]).max(initial=0) < 3

    @given(seeds, sizes, sizes)
    def test_resize_takes_the_nearest_pixel(self, seed, height, width):
        mask = np.random.default_rng(seed).integers(0, 200, (13, 29), dtype=np.uint8)
        expected = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        rows = np.floor((np.arange(height) + 0.5) * 13 / height).astype(int)
        columns = np.floor((np.arange(width) + 0.5) * 29 / width).astype(int)
        resized = transforms.resize_mask(mask, height, width)
        assert (resized == np.asarray(expected)).all() or (resized == mask[rows][:, columns]).all()

    def test_fitted_size_keeps_the_aspect(self):
        assert transforms.fitted_size(1024, 2048, (512, 1024)) == (512, 1024)
        assert transforms.fitted_size(2048, 1024, (512, 1024)) == (1024, 512)
        assert transforms.fitted_size(360, 480, (512, 1024)) == (512, 683)
        assert transforms.fitted_size(1, 5000, (4, 4)) == (1, 4)

    def test_crops_avoid_one_class(self):
        mask = np.zeros((64, 256), np.uint8)
        mask[:, 200:] = np.arange(64)[:, None] % 3
        image = np.repeat(mask[..., None], 3, axis=2)
        shares = []
        for seed in range(60):
            _, crop = transforms.random_crop(image, mask, np.random.default_rng(seed), (64, 64), 255)
            shares.append((crop == 0).mean())
        assert np.mean(np.array(shares) < 0.75) > 0.8  # a single try would give 0.2

    def test_ignored_pixels_do_not_count_as_a_class(self):
        mask = np.full((10, 10), 255, np.uint8)
        assert transforms.one_class_dominates(mask, 255)
        mask[0] = np.arange(10) % 2
        assert not transforms.one_class_dominates(mask, 255)
        mask[0] = 1
        assert transforms.one_class_dominates(mask, 255)

    def test_normalise_matches_the_formula_and_pads_afterwards(self):
        image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        mean, std = DataConfig.img_norm_mean, DataConfig.img_norm_std
        planes = transforms.normalise(image, list(mean), list(std), (8, 9), 255.0)
        expected = ((image - np.array(mean)) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(planes[:, :6, :7], expected, atol=1e-5)
        assert (planes[:, 6:] == 255).all() and (planes[:, :, 7:] == 255).all()

    def scripted(self, floats, integers=0):
        """A generator that gives these numbers: uniform draws are floats too."""
        values = iter(floats)
        return SimpleNamespace(
            random=lambda: next(values), uniform=lambda low, high: next(values), integers=lambda low, high: integers
        )

    def test_photometric_steps(self):
        image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        off = 0.9
        same = transforms.photometric_distortion(image, self.scripted([off, off, off, off, off]))
        assert (same == image).all()
        brighter = transforms.photometric_distortion(image, self.scripted([0.1, 20.7, off, off, off, off]))
        assert (brighter == np.clip(image + 20.7, 0, 255).astype(np.uint8)).all()
        for first in (0.1, off):
            flat = transforms.photometric_distortion(image, self.scripted([off, 0.1, 0.5, first, off, off]))
            assert (flat == (image * np.float32(0.5)).astype(np.uint8)).all()
        both = transforms.photometric_distortion(image, self.scripted([0.1, 30.0, 0.1, 1.5, off, off, off]))
        bright = np.clip(image + 30.0, 0, 255).astype(np.uint8)
        assert (both == np.clip(bright * np.float32(1.5), 0, 255).astype(np.uint8)).all()
        grey = transforms.photometric_distortion(image, self.scripted([off, off, off, 0.1, 0.0, off]))
        assert (grey == image.max(2, keepdims=True)).all()
        red = np.zeros((2, 2, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
        turned = transforms.photometric_distortion(red, self.scripted([off, off, off, off, 0.1], 60))
        assert (turned == [0, 200, 0]).all()

    def test_photometric_draws_are_varied(self):
        image = np.full((4, 4, 3), 120, np.uint8) + np.arange(3, dtype=np.uint8) * 20
        seen = {transforms.photometric_distortion(image, np.random.default_rng(s)).tobytes() for s in range(40)}
        assert len(seen) > 25
