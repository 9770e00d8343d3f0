"""Listing, decoding, ordering and batching of images; no MindSpore."""

import contextlib
import io
import itertools
import os
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from src.classification import targets
from src.engine.config import build, read_yaml
from src.engine.data import images as reading
from src.engine.data import stream
from src.engine.data.image_folder import EVAL_FOLDERS, TRAIN_FOLDERS, require_classes, scan
from src.engine.errors import UsageError, ZooError
from src.mobilenetv2 import dataset
from src.mobilenetv2.config import Config
from tests.conftest import ROOT, write_images
from tests.loaders import class_batches, class_loader
from tests.waiting import wait_until


def config(**changes) -> Config:
    values = {f: v for f, v in build(Config, read_yaml(ROOT / "default_config_cpu.yaml")).__dict__.items()}
    return Config(**{**values, "image_height": 32, "image_width": 32, "batch_size": 8, "num_workers": 2, **changes})


def encoded(image: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


PICTURE = np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8)


class TestFolder:
    def test_both_layouts_give_the_same_files(self, images):
        direct = scan(str(images / "train"), TRAIN_FOLDERS)
        above = scan(str(images), TRAIN_FOLDERS)
        assert direct.names == above.names
        assert len(direct) == 24
        assert direct.class_to_index == {"cat": 0, "dog": 1, "owl": 2}
        assert scan(str(images), EVAL_FOLDERS).where.name == "val"

    def test_a_class_called_train_is_a_class(self, tmp_path):
        write_images(tmp_path, 2, classes=("bus", "train"))
        assert scan(str(tmp_path), TRAIN_FOLDERS).class_to_index == {"bus": 0, "train": 1}

    def test_labels_follow_the_given_map_not_the_order_of_folders(self, tmp_path):
        write_images(tmp_path, 1, classes=("dog", "owl"))
        folder = scan(str(tmp_path), (), {"cat": 0, "dog": 1, "owl": 2})
        assert folder.labels.tolist() == [1, 2]

    def test_unknown_class_is_an_error(self, images):
        with pytest.raises(ZooError, match="'cat', which the checkpoint does not know"):
            scan(str(images / "train"), (), {"dog": 0, "owl": 1})

    @pytest.mark.parametrize("empty", ["", "only", "two"])
    def test_empty_folders(self, tmp_path, empty):
        if empty:
            (tmp_path / "cat").mkdir()
        if empty == "two":
            write_images(tmp_path, 1, classes=("dog",))
        with pytest.raises(ZooError, match="holds no"):
            scan(str(tmp_path), ())

    def test_number_of_classes(self, tmp_path, images):
        folder = scan(str(images / "train"), ())
        assert require_classes(folder, 0) == require_classes(folder, 3) == 3
        with pytest.raises(UsageError, match="num_classes is 5 but .* holds 3 class folders"):
            require_classes(folder, 5)
        write_images(tmp_path, 1, classes=("cat",))
        with pytest.raises(UsageError, match="one class folder only"):
            require_classes(scan(str(tmp_path), ()), 0)

    def test_other_files_are_listed_and_hidden_ones_ignored(self, tmp_path):
        write_images(tmp_path, 1)
        (tmp_path / "cat" / "notes.txt").write_text("x")
        (tmp_path / "cat" / ".DS_Store").write_text("x")
        (tmp_path / "cat" / "more").mkdir()
        cv2.imwrite(str(tmp_path / "cat" / "more" / "UPPER.JPG"), PICTURE)
        folder = scan(str(tmp_path), ())
        assert folder.left_out == ("cat/notes.txt",)
        assert "cat/more/UPPER.JPG" in folder.names


class TestDecode:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
    def test_lossless_formats_are_exact(self, kind):
        options = {"lossless": True} if kind == "WEBP" else {}
        assert (reading.decode(encoded(PICTURE, kind, **options)) == PICTURE).all()

    def test_grey_alpha_palette_and_gif_become_rgb(self):
        grey = PICTURE[..., 0]
        assert (reading.decode(encoded(grey, "PNG")) == grey[..., None]).all()
        rgba = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
        assert (reading.decode(encoded(rgba, "PNG")) == PICTURE).all()
        assert reading.decode(encoded(grey, "GIF")).shape == PICTURE.shape

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    def test_exif_orientation_is_applied(self, kind, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(PICTURE, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        found = reading.decode(data)
        assert found.shape == ((30, 24, 3) if orientation > 4 else (24, 30, 3))
        assert np.abs(found.astype(int) - upright).max() <= (4 if kind == "JPEG" else 0)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    @pytest.mark.parametrize("broken", [b"MM\0*" + b"\xff" * 20, b"not EXIF at all", b""])
    def test_an_unreadable_orientation_does_not_cost_the_picture(self, broken):
        exif = b"Exif\0\0" + broken
        assert (reading.decode(encoded(PICTURE, "WEBP", exif=exif, lossless=True)) == PICTURE).all()

    def test_cmyk_jpeg_is_read(self):
        out = io.BytesIO()
        Image.new("CMYK", (20, 10), (0, 255, 255, 0)).save(out, "JPEG")
        red = reading.decode(out.getvalue())
        assert red.shape == (10, 20, 3)
        assert red[..., 0].mean() > 180 > 90 > red[..., 1].mean()

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_truncated_files_are_refused_wherever_they_end(self, kind):
        data = encoded(PICTURE, kind)
        for length in range(0, len(data) - 12, 7):
            with pytest.raises(reading.BadImage):
                reading.decode(data[:length])

    def test_a_truncated_webp_is_refused(self):
        with pytest.raises(reading.BadImage, match="not an image"):
            reading.decode(encoded(PICTURE, "WEBP")[:60])

    def test_truncated_jpeg_with_a_whole_thumbnail_is_refused(self):
        thumbnail = encoded(PICTURE, "JPEG")
        exif_segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
        data = encoded(PICTURE, "JPEG")
        whole = data[:2] + exif_segment + data[2:]
        assert reading.decode(whole).shape == PICTURE.shape
        with pytest.raises(reading.BadImage, match="truncated"):
            reading.decode(whole[:-200])

    def test_what_follows_a_whole_jpeg_does_not_matter(self):
        rng = np.random.default_rng(0)
        for seed in range(5):  # the film of a motion photo holds marks of all kinds
            film = rng.bytes(60_000) + b"\xff\xda" + bytes([seed])
            assert reading.decode(encoded(PICTURE, "JPEG") + film).shape == PICTURE.shape

    def test_decompression_bomb_is_refused_before_it_is_unpacked(self):
        def chunk(kind: bytes, body: bytes) -> bytes:
            return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

        header = (60000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
        with pytest.raises(reading.BadImage, match="pixels"):
            reading.decode(bomb)

    @given(st.binary(max_size=300))
    def test_noise_is_a_bad_image(self, data):
        with pytest.raises(reading.BadImage):
            reading.decode(data)

    @given(st.integers(0, 600), st.integers(0, 255))
    def test_a_flipped_byte_gives_an_image_or_a_bad_image(self, position, value):
        data = bytearray(encoded(PICTURE, "JPEG"))
        data[position % len(data)] = value
        with contextlib.suppress(reading.BadImage):
            assert reading.decode(bytes(data)).ndim == 3


class TestOrder:
    @given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
    def test_ranks_share_an_epoch_without_overlap(self, count, batch, ranks, epoch):
        parts = [
            stream.training_order(stream.shuffled(count, 7, epoch), batch, stream.Shard(rank, ranks))
            for rank in range(ranks)
        ]
        together = np.concatenate([part.ravel() for part in parts])
        assert len(np.unique(together)) == len(together) == count // (batch * ranks) * batch * ranks

    def test_ranks_together_see_the_batches_of_one(self):
        order = stream.shuffled(100, 7, 0)
        alone = stream.training_order(order, 12)
        two = [stream.training_order(order, 6, stream.Shard(rank, 2)) for rank in range(2)]
        assert (np.concatenate(two, axis=1) == alone).all()

    def test_epochs_and_seeds_differ(self):
        orders = [stream.shuffled(50, seed, epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
        assert len({tuple(order) for order in orders}) == 4

    @given(st.integers(1, 100), st.integers(1, 20))
    def test_evaluation_sees_everything_once(self, count, batch):
        assert np.concatenate(stream.evaluation_order(count, batch)).tolist() == list(range(count))

    @given(count=st.integers(1, 300), batch=st.integers(1, 20), ranks=st.integers(1, 9))
    def test_evaluation_on_any_number_of_ranks_sees_every_sample_once(self, count, batch, ranks):
        turns = [stream.evaluation_order(count, batch, stream.Shard(rank, ranks)) for rank in range(ranks)]
        assert len({len(own) for own in turns}) == 1  # so that ranks can wait for each other after each batch
        seen = np.concatenate([row for own in turns for row in own])
        assert sorted(seen[seen != stream.NO_SAMPLE]) == list(range(count))

    def test_threads_are_clamped_to_the_cores(self):
        assert 1 <= stream.usable_threads(10_000) <= 4096
        assert stream.usable_threads(1) == 1


class TestBatches:
    def collect(self, images, **changes):
        cfg = config(**changes)
        folder = scan(str(images / "train"), ())
        bad = stream.BadFiles(cfg.on_bad_image, print)
        return list(class_batches(folder, cfg, bad, epoch=1, first_step=0))

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"auto_augment": "randaugment"},
            {"auto_augment": "trivialaugment"},
            {"mixup_alpha": 0.2},
            {"cutmix_alpha": 1.0},
        ],
    )
    def test_same_seed_same_batches_for_any_number_of_threads(self, images, changes):
        first = self.collect(images, num_workers=1, **changes)
        again = self.collect(images, num_workers=8, **changes)
        other = self.collect(images, seed=2, **changes)
        assert len(first) == 3
        for (a, ta), (b, tb) in zip(first, again):
            assert (a == b).all() and (ta == tb).all()
        assert any((a != b).any() for (a, _), (b, _) in zip(first, other))

    def test_starting_later_gives_the_rest_of_the_epoch(self, images):
        cfg, folder = config(mixup_alpha=0.2), scan(str(images / "train"), ())
        bad = stream.BadFiles("error", print)
        whole = list(class_batches(folder, cfg, bad, 0, 0))
        rest = list(class_batches(folder, cfg, bad, 0, 2))
        assert len(rest) == 1
        assert (rest[0][0] == whole[2][0]).all() and (rest[0][1] == whole[2][1]).all()

    def test_a_bad_file_has_one_line_of_text_whatever_its_name_is(self, tmp_path):
        """Training, evaluation and prediction all tell of bad files in this way."""
        write_images(tmp_path, 2)
        (tmp_path / "cat" / os.fsdecode(b"line\nend\xff.jpg")).write_bytes(b"no image")
        folder, said = scan(str(tmp_path), ()), []
        list(class_batches(folder, config(batch_size=2), stream.BadFiles("skip", said.append), 0, 0))
        assert said == [r"skipped cat/line\nend\udcff.jpg: not an image (UnidentifiedImageError)"]
        assert said[0].encode("utf-8")
        with pytest.raises(ZooError, match=r"line\\nend\\udcff.jpg is no usable image"):
            list(class_batches(folder, config(batch_size=2), stream.BadFiles("error", print), 0, 0))

    def test_a_strip_is_skipped_where_the_middle_of_images_is_moved(self, tmp_path):
        write_images(tmp_path, per_class=3)
        strip = next(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
        Image.fromarray(np.zeros((20, 5000, 3), np.uint8)).save(strip)
        said, folder = [], scan(str(tmp_path), ())
        cfg = config(batch_size=2, crop_padding=4)
        assert list(class_batches(folder, cfg, stream.BadFiles("skip", said.append), 0, 0))
        assert any("one side over 100 times the other" in line for line in said)

    def test_bad_files_are_named_counted_and_replaced(self, tmp_path):
        write_images(tmp_path, 8)
        (tmp_path / "cat" / "000.jpg").write_bytes(b"no image")
        (tmp_path / "dog" / "003.jpg").write_bytes(b"")
        folder, said = scan(str(tmp_path), ()), []
        bad = stream.BadFiles("skip", said.append)
        batches = list(class_batches(folder, config(), bad, 0, 0))
        assert [len(image) for image, _ in batches] == [8, 8, 8]
        assert sorted(bad.reasons) == ["cat/000.jpg", "dog/003.jpg"]
        assert bad.summary() == "2 bad files skipped"
        assert len(said) == 2
        labels = np.concatenate([label for _, label in class_loader(folder, config(), bad).eval_batches(8)])
        assert (labels >= 0).sum() == 22
        with pytest.raises(ZooError, match="jpg is no usable image"):
            list(class_batches(folder, config(), stream.BadFiles("error", print), 0, 0))

    def test_all_bad_is_an_error_not_a_loop(self, tmp_path):
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir()
            for number in range(8):
                (tmp_path / name / f"{number}.png").write_bytes(b"")
        bad = stream.BadFiles("skip", lambda text: None)
        with pytest.raises(ZooError, match="none of the 16 files"):
            list(class_batches(scan(str(tmp_path), ()), config(), bad, 0, 0))

    def test_evaluation_pads_the_last_batch(self, images):
        folder = scan(str(images / "val"), ())
        batches = list(class_loader(folder, config(), stream.BadFiles("error", print)).eval_batches(4))
        assert [label.tolist() for _, label in batches][-1][1:] == [-1, -1, -1]
        assert all(image.shape == (4, 3, 32, 32) for image, _ in batches)


class TestStream:
    """What the threads promise, whatever the samples are."""

    @staticmethod
    def sample(item: int) -> tuple[np.ndarray, np.int32]:
        return np.full((2, 3), item, np.float32), np.int32(item)

    @given(st.lists(st.integers(1, 7), max_size=9), st.integers(1, 8))
    def test_batches_of_any_sizes_are_stacked_samples_in_order(self, sizes, threads):
        bounds = np.cumsum([0, *sizes])
        orders = [range(first, end) for first, end in zip(bounds, bounds[1:])]
        found = list(stream.batches(self.sample, orders, threads))
        assert len(found) == len(sizes)
        for (values, numbers), order in zip(found, orders):
            assert (values == np.stack([self.sample(item)[0] for item in order])).all()
            assert numbers.tolist() == list(order) and (values.dtype, numbers.dtype) == (np.float32, np.int32)

    def test_every_batch_has_arrays_of_its_own(self):
        found = list(stream.batches(self.sample, [range(4)] * 5, 2))
        assert not any(np.shares_memory(a, b) for (a, _), (b, _) in itertools.combinations(found, 2))

    @pytest.mark.parametrize("odd", [np.zeros((1, 3), np.float32), np.zeros((2, 3)), np.zeros(3, np.float32)])
    def test_samples_that_do_not_fit_each_other_are_an_error(self, odd):
        def sample(item):
            return (odd if item == 2 else np.zeros((2, 3), np.float32),)

        with pytest.raises(ValueError, match="in a batch of"):
            list(stream.batches(sample, [range(4)], 1))

    def test_the_first_sample_that_fails_is_told_after_the_batches_before_it(self):
        later = threading.Event()

        def sample(item):
            if item == 6:  # fails last, and is the first in order
                assert later.wait(20)
                raise ZooError("sample 6")
            if item == 7:
                later.set()
                raise ZooError("sample 7")
            return self.sample(item)

        arriving = stream.batches(sample, [range(4), range(4, 8), range(8, 12)], 2)
        if stream.usable_threads(2) == 1:
            later.set()
        assert next(arriving)[1].tolist() == [0, 1, 2, 3]
        with pytest.raises(ZooError, match="sample 6"):
            next(arriving)
        assert not data_threads()

    @pytest.mark.parametrize(("size", "most"), [(8, 24), (1, 3)])
    def test_two_batches_are_made_while_one_is_used(self, size, most, monkeypatch):
        """No more, or a slow step would fill the memory; no fewer, or threads would have nothing to do."""
        monkeypatch.setattr(stream, "usable_threads", lambda wanted: 2)
        seen = []

        def sample(item):
            seen.append(item)
            return self.sample(item)

        arriving = stream.batches(sample, np.arange(20 * size).reshape(20, size), 2)
        next(arriving)
        wait_until(lambda: len(seen) >= most, "two batches")
        time.sleep(0.05)
        assert len(seen) == most
        arriving.close()
        assert not data_threads()

    def test_small_batches_give_every_thread_something_to_do(self, monkeypatch):
        monkeypatch.setattr(stream, "usable_threads", lambda wanted: 6)
        together = threading.Barrier(6)

        def sample(item):
            if 1 <= item <= 6:
                together.wait(20)
            return self.sample(item)

        arriving = stream.batches(sample, [[item] for item in range(12)], 6)
        assert [numbers[0] for _, numbers in arriving] == list(range(12))

    def test_prefetched_items_are_the_same_and_made_one_ahead(self):
        made = [threading.Event() for _ in range(6)]

        def items():
            for number, event in enumerate(made):
                event.set()
                yield number

        arriving = stream.prefetched(items())
        for number in range(5):
            assert next(arriving) == number
            assert made[number + 1].wait(20)
            assert number == 4 or not made[number + 2].wait(0.02)
        assert list(arriving) == [5]
        assert not data_threads()

    def test_what_making_an_item_raises_is_raised_in_its_turn(self):
        def items():
            yield 1
            raise ZooError("a bad file")

        arriving = stream.prefetched(items())
        assert next(arriving) == 1
        with pytest.raises(ZooError, match="a bad file"):
            next(arriving)
        assert not data_threads()

    def test_closing_ends_what_the_items_come_from(self):
        arriving = stream.prefetched(batch for batch in stream.batches(self.sample, [range(4)] * 100, 2))
        next(arriving)
        assert data_threads()
        arriving.close()
        assert not data_threads()


def data_threads() -> list[threading.Thread]:
    """The threads of the stream that live."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("data")]


class TestTransforms:
    def test_normalise_matches_the_formula(self):
        expected = (PICTURE.astype(np.float64) - dataset.MEAN) / dataset.STD
        np.testing.assert_allclose(dataset.normalise(PICTURE), expected.transpose(2, 0, 1), atol=1e-5)

    def test_evaluation_keeps_the_aspect_ratio(self):
        picture = np.zeros((100, 200, 3), np.uint8)
        picture[:, 75:125] = 255  # the middle quarter of the width is half of the centre square
        out = dataset.normalise(dataset.centred(picture, (224, 224), 0.875))
        bright = (out[0, 112] > 0).mean()
        assert bright == pytest.approx(50 / 100 * 256 / 224, abs=0.02)

    def test_extreme_shapes_are_bad_images_not_gigabytes(self):
        with pytest.raises(reading.BadImage, match="one side over 100 times the other"):
            dataset.centred(np.zeros((2, 5000, 3), np.uint8), (224, 224), 0.875)
        assert dataset.centred(np.zeros((1, 1, 3), np.uint8), (224, 224), 0.875).shape == (224, 224, 3)

    def test_small_pictures_are_shifted_in_training_and_whole_in_evaluation(self):
        picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        cfg = config(image_height=32, image_width=32, crop_pct=1.0, crop_padding=2, color_jitter=0, flip_probability=0)
        whole = dataset.normalise(picture)
        assert np.array_equal(dataset.eval_transform(picture, cfg), whole)
        shifted = dataset.train_transform(picture, np.random.default_rng(1), cfg)
        parts = [whole[:, y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
        assert any(np.array_equal(shifted[:, 2:-2, 2:-2], part) for part in parts)

    def test_smoothed_targets(self):
        target = targets.smooth_one_hot(np.array([2, 0]), 5, 0.1)
        np.testing.assert_allclose(target[0], [0.025, 0.025, 0.9, 0.025, 0.025], atol=1e-7)
        np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)

    def test_dropout_mask_keeps_the_mean_and_its_seed(self):
        mask = targets.dropout_mask((64, 1280), 0.2, 1, 0, 3)
        assert set(np.unique(mask)) == {np.float32(0), np.float32(1.25)}
        assert mask.mean() == pytest.approx(1, abs=0.01)
        assert (mask == targets.dropout_mask((64, 1280), 0.2, 1, 0, 3)).all()
        assert (mask != targets.dropout_mask((64, 1280), 0.2, 1, 0, 4)).any()
