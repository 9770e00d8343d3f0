"""Augmentations are functions of their image and generator, agree with Pillow, and survive images of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from src.engine.data import augment

SHAPES = [(1, 1), (1, 40), (40, 1), (2, 3), (3, 3), (37, 50), (224, 224)]
BINS = 31
IMAGE_FUNCTIONS = {
    "random_resized_crop": lambda image, rng: augment.random_resized_crop(image, rng, image.shape[:2]),
    "random_shift": lambda image, rng: augment.random_shift(image, rng, 4),
    "horizontal_flip": augment.horizontal_flip,
    "color_jitter": augment.color_jitter,
    "trivial_augment": augment.trivial_augment,
    "rand_augment": augment.rand_augment,
}
FACTORS = [0.0, 0.01, 0.3, 0.6, 0.99, 1.0, 1.01, 1.4, 1.99]


def make_image(height: int = 37, width: int = 50, seed: int = 0) -> np.ndarray:
    """Return a smooth image with noise, which reaches black and white when it is large enough."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + c)) * np.cos(y / (7 - c)) * 110 + 120 + 10 * c for c in range(3)]
    return np.clip(np.stack(waves, 2) + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_the_generator_decides_and_the_input_stays(name, shape):
    image = make_image(*shape)
    before = image.copy()
    for seed in range(20):
        first, second = (IMAGE_FUNCTIONS[name](image, np.random.default_rng(seed)) for _ in range(2))
        assert first.dtype == np.uint8 and first.shape == image.shape and first.flags.c_contiguous
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_different_generators_give_different_images(name):
    image = make_image()
    results = {IMAGE_FUNCTIONS[name](image, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(results) >= (2 if name == "horizontal_flip" else 10)


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    low=st.floats(0.0, 1.0),
    ratio=st.tuples(st.floats(0.05, 20.0), st.floats(0.05, 20.0)).map(sorted),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_box_lies_inside_the_image(height, width, low, ratio, seed):
    rng = np.random.default_rng(seed)
    top, left, crop_height, crop_width = augment.crop_box(height, width, rng, (low, 1.0), tuple(ratio))
    assert all(type(value) is int for value in (top, left, crop_height, crop_width))
    assert 0 <= top < top + crop_height <= height
    assert 0 <= left < left + crop_width <= width


def test_boxes_have_the_requested_area_and_ratio():
    rng = np.random.default_rng(0)
    boxes = np.array([augment.crop_box(375, 500, rng, (0.2, 0.5), (0.75, 4 / 3)) for _ in range(2000)])
    areas, ratios = boxes[:, 2] * boxes[:, 3] / (375 * 500), boxes[:, 3] / boxes[:, 2]
    assert 0.195 < areas.min() < 0.21 and 0.49 < areas.max() < 0.505
    assert areas.mean() == pytest.approx(0.35, abs=0.01)
    assert 0.74 < ratios.min() < 0.76 and 1.31 < ratios.max() < 1.35
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.02)
    assert boxes[:, 0].min() == 0 and boxes[:, 1].min() == 0
    assert (boxes[:, 0] + boxes[:, 2]).max() == 375 and (boxes[:, 1] + boxes[:, 3]).max() == 500


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10)), (1, 100, (0, 49, 1, 1)), (100, 1, (49, 0, 1, 1))],
)
def test_the_fallback_is_the_largest_centred_box(height, width, box):
    assert augment.crop_box(height, width, np.random.default_rng(0), (0.9, 1.0)) == box


def test_the_fallback_of_a_fitting_ratio_is_the_whole_image():
    assert augment.crop_box(30, 30, np.random.default_rng(0), (4.0, 5.0)) == (0, 0, 30, 30)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(1, 1), (7, 64), (224, 224)])
def test_crops_have_the_requested_size(shape, size):
    image = make_image(*shape)
    assert augment.random_resized_crop(image, np.random.default_rng(0), size).shape == (*size, 3)
    cropped = augment.center_crop(image, size)
    assert cropped.shape == (*size, 3) and cropped.dtype == np.uint8 and cropped.flags.c_contiguous


def test_a_crop_of_the_same_size_copies_the_pixels():
    image = make_image(64, 64)
    result = augment.random_resized_crop(image, np.random.default_rng(0), (64, 64), (1.0, 1.0), (1.0, 1.0))
    np.testing.assert_array_equal(result, image)


def test_shrinking_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 200
    for result in (
        augment.resize_shorter_side(stripes, 100),
        augment.random_resized_crop(stripes, np.random.default_rng(0), (90, 90), (1.0, 1.0), (1.0, 1.0)),
    ):
        assert distance(result, np.full_like(result, 100)) <= 25


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (224, 224), (100, 333), (50, 50), (1, 7), (7, 1)])
@pytest.mark.parametrize("size", [1, 100, 256])
def test_resize_shorter_side(shape, size):
    image = make_image(*shape)
    result = augment.resize_shorter_side(image, size)
    longer = int(size * max(shape) / min(shape))
    assert result.shape == ((size, longer, 3) if shape[0] <= shape[1] else (longer, size, 3))


def test_resizing_agrees_with_pillow():
    image = make_image(400, 600)
    expected = np.asarray(Image.fromarray(image).resize((150, 100), Image.Resampling.BOX))
    assert distance(augment.resize_shorter_side(image, 100), expected) <= 1
    expected = np.asarray(Image.fromarray(image[:50, :70]).resize((140, 100), Image.Resampling.BILINEAR))
    assert distance(augment.resize_shorter_side(image[:50, :70], 100), expected) <= 2


def test_center_crop():
    image = make_image(5, 8)
    np.testing.assert_array_equal(augment.center_crop(image, (3, 4)), image[1:4, 2:6])
    np.testing.assert_array_equal(augment.center_crop(image, (5, 8)), image)
    padded = augment.center_crop(image, (8, 4))
    np.testing.assert_array_equal(padded[1:6], image[:, 2:6])
    assert not padded[:1].any() and not padded[6:].any()
    # torchvision rounds half-pixel offsets to even.
    np.testing.assert_array_equal(augment.center_crop(image, (2, 5)), image[2:4, 2:7])


def test_flip_probability():
    image = make_image()
    np.testing.assert_array_equal(augment.horizontal_flip(image, np.random.default_rng(0), 1.0), image[:, ::-1])
    np.testing.assert_array_equal(augment.horizontal_flip(image, np.random.default_rng(0), 0.0), image)
    rng = np.random.default_rng(0)
    flips = sum(augment.horizontal_flip(image, rng) is not image for _ in range(1000))
    assert 430 < flips < 570


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("adjust", "enhance"),
    [
        (augment.adjust_brightness, ImageEnhance.Brightness),
        (augment.adjust_contrast, ImageEnhance.Contrast),
        (augment.adjust_saturation, ImageEnhance.Color),
        (augment.adjust_sharpness, ImageEnhance.Sharpness),
    ],
)
def test_adjustments_agree_with_pillow(adjust, enhance, factor, shape):
    image = make_image(*shape)
    expected = np.asarray(enhance(Image.fromarray(image)).enhance(factor))
    result = adjust(image, factor)
    # A smoothed or grey value off by one is amplified by |1 - factor| < 1, so one level is the bound throughout.
    assert distance(result, expected) <= 1
    if factor == 1.0:
        np.testing.assert_array_equal(result, image)


def test_jitter_draws_its_factors_from_the_stated_range(monkeypatch):
    seen = {name: [] for name in ("brightness", "contrast", "saturation")}
    order = set()
    calls = []
    for name in seen:
        monkeypatch.setattr(
            augment,
            f"adjust_{name}",
            lambda image, factor, name=name: (seen[name].append(factor), calls.append(name), image)[2],
        )
    rng = np.random.default_rng(0)
    for _ in range(500):
        augment.color_jitter(make_image(1, 1), rng, 0.4, 2.0, 0.0)
        order.add(tuple(calls[-3:]))
    assert len(order) == 6
    assert 0.6 <= min(seen["brightness"]) < 0.61 and 1.39 < max(seen["brightness"]) <= 1.4
    assert 0 <= min(seen["contrast"]) < 0.05 and 2.95 < max(seen["contrast"]) <= 3.0
    assert set(seen["saturation"]) == {1.0}


def test_no_jitter_is_identity():
    image = make_image()
    np.testing.assert_array_equal(augment.color_jitter(image, np.random.default_rng(0), 0, 0, 0), image)


def levels(name: str, wide: bool, shape: tuple[int, int] = (37, 50)) -> list[float]:
    operation = augment.OPERATIONS[name]
    return [operation.magnitude(index / (BINS - 1), augment.Space(wide, *shape)) for index in range(BINS)]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("shape", SHAPES[:-1])
@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_every_operation_runs_at_every_bin(name, shape, wide):
    operation = augment.OPERATIONS[name]
    image = make_image(*shape)
    before = image.copy()
    for magnitude in levels(name, wide, shape):
        for signed in (magnitude, -magnitude) if operation.signed else (magnitude,):
            result = operation.apply(image, signed)
            assert result.dtype == np.uint8 and result.shape == image.shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("name", sorted(set(augment.OPERATIONS) - {"AutoContrast", "Equalize"}))
def test_level_0_is_identity(name, wide):
    image = np.minimum(make_image(), 254)  # torchvision's first Solarize bin inverts 255
    np.testing.assert_array_equal(augment.OPERATIONS[name].apply(image, levels(name, wide)[0]), image)


@pytest.mark.parametrize("value", [(0, 0, 0), (255, 255, 255), (90, 90, 90), (10, 120, 240)])
def test_constant_images(value):
    image = np.full((20, 30, 3), value, np.uint8)
    kept = ["Identity", "AutoContrast", "Equalize", "Sharpness"]
    grey = len(set(value)) == 1
    for name in kept + (["Color", "Contrast"] if grey else []):
        for magnitude in levels(name, wide=True):
            np.testing.assert_array_equal(augment.OPERATIONS[name].apply(image, magnitude), image)
    crop = augment.random_resized_crop(image, np.random.default_rng(0), (9, 40))
    assert (crop == image[0, 0]).all()
    for name in ("Brightness", "Color", "Contrast", "Posterize", "Solarize"):
        for magnitude in levels(name, wide=True):
            result = augment.OPERATIONS[name].apply(image, magnitude)
            assert (result == result[0, 0]).all()


def test_ranges_are_those_of_torchvision():
    ends = {name: (levels(name, True)[-1], levels(name, False, (331, 662))[-1]) for name in augment.OPERATIONS}
    signed = [name for name, operation in augment.OPERATIONS.items() if operation.signed]
    assert ends["ShearX"] == ends["ShearY"] == (0.99, 0.3)
    assert ends["TranslateX"] == (32, pytest.approx(300)) and ends["TranslateY"] == (32, pytest.approx(150))
    assert ends["Rotate"] == (135, 30)
    assert all(ends[name] == (0.99, 0.9) for name in ("Brightness", "Color", "Contrast", "Sharpness"))
    assert (ends["Posterize"], ends["Solarize"]) == ((2, 4), (0, 0))
    assert levels("Posterize", True)[0] == 8 and levels("Solarize", True)[0] == 255
    assert len(augment.OPERATIONS) == 14 and len(signed) == 9


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_tone_operations_agree_with_pillow_exactly(shape, seed):
    image = make_image(*shape, seed) // (1 + seed) + 20 * seed
    picture = Image.fromarray(image)
    for name, magnitude, expected in (
        ("AutoContrast", 0, ImageOps.autocontrast(picture)),
        ("Equalize", 0, ImageOps.equalize(picture)),
        ("Solarize", 96.9, ImageOps.solarize(picture, 96.9)),
        ("Solarize", 255.0, ImageOps.solarize(picture, 255.0)),
        ("Posterize", 3, ImageOps.posterize(picture, 3)),
        ("Posterize", 8, ImageOps.posterize(picture, 8)),
    ):
        np.testing.assert_array_equal(augment.OPERATIONS[name].apply(image, magnitude), np.asarray(expected), name)


@pytest.mark.parametrize("magnitude", [0.3, -0.7])
def test_geometry_agrees_with_pillow(magnitude):
    image = np.full((60, 80, 3), 20, np.uint8)
    image[20:45, 30:60] = (200, 120, 60)
    picture = Image.fromarray(image)
    bilinear = Image.Resampling.BILINEAR
    affine = Image.Transform.AFFINE
    pixels = 20 * magnitude
    for name, value, expected in (
        ("ShearX", magnitude, picture.transform(picture.size, affine, (1, magnitude, 0, 0, 1, 0), bilinear)),
        ("ShearY", magnitude, picture.transform(picture.size, affine, (1, 0, 0, magnitude, 1, 0), bilinear)),
        ("TranslateX", pixels, picture.transform(picture.size, affine, (1, 0, -int(pixels), 0, 1, 0))),
        ("TranslateY", pixels, picture.transform(picture.size, affine, (1, 0, 0, 0, 1, -int(pixels)))),
        ("Rotate", 100 * magnitude, picture.rotate(100 * magnitude, bilinear)),
    ):
        result = augment.OPERATIONS[name].apply(image, value)
        difference = np.abs(result.astype(int) - np.asarray(expected)).max(axis=2)
        # Pillow leaves pixels whose centre falls outside black and OpenCV fades them, which is a line of pixels.
        assert np.median(difference) == 0 and (difference > 8).mean() < 0.05, name


def test_policies_reach_every_operation(monkeypatch):
    image = make_image()
    seen = []
    for name, operation in list(augment.OPERATIONS.items()):

        def record(image, magnitude, name=name):
            seen.append((name, magnitude))
            return image

        monkeypatch.setitem(augment.OPERATIONS, name, operation._replace(apply=record))
    rng = np.random.default_rng(0)
    for _ in range(4000):
        augment.trivial_augment(image, rng)
    assert {name for name, _ in seen} == set(augment.OPERATIONS)
    rotations = {round(magnitude, 6) for name, magnitude in seen if name == "Rotate"}
    assert rotations == {round(sign * 4.5 * index, 6) for index in range(BINS) for sign in (-1, 1)}
    seen.clear()
    for _ in range(1000):
        augment.rand_augment(image, rng, num_ops=3, magnitude=10)
    assert len(seen) == 3000 and {name for name, _ in seen} == set(augment.OPERATIONS)
    assert {round(magnitude, 6) for name, magnitude in seen if name == "Rotate"} == {-10.0, 10.0}


def test_one_bin_is_the_lowest_level():
    image = np.full((4, 4, 3), 90, np.uint8)
    for seed in range(50):
        np.testing.assert_array_equal(augment.trivial_augment(image, np.random.default_rng(seed), bins=1), image)


def make_batch(count: int, height: int = 12, width: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Return images that are constant at their index, and one-hot labels of that index."""
    images = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, height, width), np.float32)
    return images, np.eye(count, dtype=np.float32)


@given(
    count=st.integers(1, 6),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    alpha=st.sampled_from([0.1, 0.2, 1.0, 5.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_say_what_the_images_hold(count, height, width, alpha, seed):
    images, labels = make_batch(count, height, width)
    originals = images.copy(), labels.copy()
    for mix in (augment.mixup, augment.cutmix):
        mixed, soft = mix(images, labels, np.random.default_rng(seed), alpha)
        assert mixed.dtype == soft.dtype == np.float32 and mixed.shape == images.shape and soft.shape == labels.shape
        assert not np.shares_memory(mixed, images) and not np.shares_memory(soft, labels)
        np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
        # With constant images the mean pixel is the mean index under the labels: the weight is the area.
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft @ np.arange(count), atol=1e-5)
        again, _ = mix(images, labels, np.random.default_rng(seed), alpha)
        np.testing.assert_array_equal(mixed, again)
    np.testing.assert_array_equal(images, originals[0])
    np.testing.assert_array_equal(labels, originals[1])


def test_cutmix_pastes_a_box_at_its_place():
    rng = np.random.default_rng(3)
    images = rng.random((5, 3, 16, 16), np.float32)
    labels = np.eye(5, dtype=np.float32)
    for _ in range(50):
        mixed, soft = augment.cutmix(images, labels, rng, 1.0)
        changed = (mixed != images).any(axis=1)
        assert (changed == changed[0]).all()
        rows, columns = np.flatnonzero(changed[0].any(axis=1)), np.flatnonzero(changed[0].any(axis=0))
        assert changed[0].sum() == len(rows) * len(columns)
        np.testing.assert_allclose(soft.diagonal(), 1 - changed[0].mean(), atol=1e-6)
        for index, partner in enumerate(np.argmax(soft - np.diag(soft.diagonal()), axis=1)):
            if changed[0].any():
                np.testing.assert_array_equal(mixed[index][:, changed[0]], images[partner][:, changed[0]])


def test_mixup_weights_follow_the_beta_distribution():
    rng = np.random.default_rng(0)
    images, labels = make_batch(4, 1, 1)
    weights = np.array([augment.mixup(images, labels, rng, 0.2)[1][0, 0] for _ in range(2000)])
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.var() == pytest.approx(0.25 / 1.4, abs=0.02)


def test_soft_labels_are_mixed_too():
    labels = np.random.default_rng(0).dirichlet(np.ones(7), 3).astype(np.float32)
    _, soft = augment.mixup(make_batch(3)[0], labels, np.random.default_rng(1), 0.4)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)


def test_shift_moves_the_image_in_its_mirrored_border():
    image = make_image(8, 9)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[y : y + 8, x : x + 9].tobytes(): (y, x) for y in range(5) for x in range(5)}
    rng = np.random.default_rng(0)
    seen = {windows[augment.random_shift(image, rng, 2).tobytes()] for _ in range(300)}
    assert len(seen) == 25
