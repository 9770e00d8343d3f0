"""The 310 application on the stand-in: models, modes, images and what is written."""

from __future__ import annotations

import functools
import re
import subprocess

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from src.classification.config import Data
from src.engine.data import images
from src.mobilenetv2 import dataset
from tests.ascend310 import networks
from tests.ascend310.conftest import picture, write
from tests.conftest import ROOT, run_command

AIPP = {name: ROOT / "src/mobilenetv2" / f"{name}.cfg" for name in ("aipp", "aipp_yuv")}
ONE = "--input_shape=image:1,3,32,32"
YUV = f"--insert_op_conf={AIPP['aipp_yuv']}"
SKIPPED = 3


@functools.lru_cache(maxsize=1)
def session_of(onnx):
    return onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])


def scores_of(onnx, file, size=networks.SIZE, crop_pct=Data.crop_pct):
    """The network's outputs for an image as evaluation prepares it."""
    session = session_of(onnx)
    planes = dataset.normalise(dataset.centred(images.read(file), (size, size), crop_pct))[None]
    return session.run(None, {session.get_inputs()[0].name: planes})


def agree(found, expected):
    return np.abs(found - expected.ravel()).max() <= 1e-3 * max(1, np.abs(expected).max())


def succeeded(done, status=0):
    assert done.returncode == status, done.stdout + done.stderr
    assert "stand-in:" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("run_mode", ["host", "device"])
@pytest.mark.parametrize("batch", [1, 3])
def test_cpu_mode(app, photos, tmp_path, batch, run_mode):
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    om = app.convert(onnx, f"--input_shape=image:{batch},3,32,32")
    labels = tmp_path / "label.txt"
    answers = {file.stem: scores_of(onnx, file)[0].argmax() for file in photos.rglob("*.jpg")}
    labels.write_text("".join(f"{name}:{answer}\n" for name, answer in answers.items()))
    said = succeeded(app.run(om, photos, "cpu", "--label_path", labels, "--batch", batch, STANDIN_RUN_MODE=run_mode))
    assert app.results() == [f"p{i}_0.bin" for i in range(4)]
    for file in photos.rglob("*.jpg"):
        assert agree(app.scores(file.stem), scores_of(onnx, file)[0])
    assert "images: 4 of 4 done, 0 skipped" in said and "top-1: 1.00000 of 4 labelled images" in said
    timing = (tmp_path / "time_Result/test_perform_static.txt").read_text()
    count = -(-4 // batch)
    assert re.match(rf"NN inference cost average time: [\d.]+ ms of infer_count {count}\n", timing)
    assert re.search(r"p50 [\d.]+ ms, p90 [\d.]+ ms, p99 [\d.]+ ms\nthroughput: [\d.]+ images/s", timing)


@pytest.mark.parametrize("run_mode", ["host", "device"])
@pytest.mark.parametrize("soc,batch", [("Ascend310", 1), ("Ascend310P3", 2)])
def test_dvpp_mode(app, photos, tmp_path, soc, batch, run_mode):
    """Close to CPU mode; the difference is in the colour's resolution, even crops and half floats."""
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    om = app.convert(onnx, f"--input_shape=image:{batch},3,32,32", YUV)
    said = succeeded(app.run(om, photos, "dvpp", STANDIN_RUN_MODE=run_mode, STANDIN_SOC=soc))
    assert "0 decoded without DVPP" in said and len(app.results()) == 4
    for file in photos.rglob("*.jpg"):
        expected = scores_of(onnx, file)[0].ravel()
        assert np.corrcoef(app.scores(file.stem), expected)[0, 1] > 0.9, file.name


@pytest.mark.parametrize("mode,preparing", [("CPU", "aclrtMemcpy:2"), ("DVPP", "acldvppJpegDecodeAsync:2")])
def test_preparing_overlaps_with_execution(app, photos, tmp_path, mode, preparing):
    """The stand-in holds the first execution until the second image is prepared, and that until the execution runs."""
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    om = app.convert(onnx, ONE, *([YUV] if mode == "DVPP" else []))
    said = succeeded(app.run(om, photos, mode, STANDIN_MEET=f"{preparing},aclmdlExecute:1"))
    assert "images: 4 of 4 done" in said


def test_rgb_aipp_in_cpu_mode(app, photos, tmp_path):
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    om = app.convert(onnx, ONE, f"--insert_op_conf={ROOT / 'src/aipp.cfg'}")  # where the original has it
    assert "RGB888 pixels (static AIPP)" in succeeded(app.run(om, photos, "CPU"))
    for file in photos.rglob("*.jpg"):
        assert np.abs(app.scores(file.stem) - scores_of(onnx, file)[0].ravel()).max() < 0.05


@pytest.mark.parametrize("options", [["--output_type=FP16"], ["--input_fp16_nodes=image"]])
def test_half_floats(app, photos, tmp_path, options):
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    succeeded(app.run(app.convert(onnx, ONE, *options), photos, "CPU"))
    for file in photos.rglob("*.jpg"):
        assert np.abs(app.scores(file.stem) - scores_of(onnx, file)[0].ravel()).max() < 0.05


def test_several_outputs_and_a_quantised_network(app, photos, tmp_path):
    two = networks.two_outputs(tmp_path / "two.onnx")
    succeeded(app.run(app.convert(two), photos, "CPU"))
    for file in photos.rglob("*.jpg"):
        for index, expected in enumerate(scores_of(two, file)):
            assert agree(app.scores(file.stem, index), expected)
    quantised = networks.random_classifier(tmp_path / "q.onnx", quantised=True)
    succeeded(app.run(app.convert(quantised, ONE), photos, "CPU"))
    for file in photos.rglob("*.jpg"):
        assert agree(app.scores(file.stem), scores_of(quantised, file)[0])


def test_segmentation_writes_label_pictures(app, photos, tmp_path):
    onnx = networks.segmenter(tmp_path / "seg.onnx")
    said = succeeded(app.run(app.convert(onnx), photos, "CPU", "--label_pictures", "pictures"))
    assert "1x5x16x32" in said
    file = photos / "cat" / "p2.jpg"  # 300x200 fits as 96x64
    image = cv2.resize(images.read(file), (96, 64), interpolation=cv2.INTER_AREA)
    planes = np.zeros((1, 3, 64, 128), np.float32)
    planes[0, :, :, :96] = dataset.normalise(image)
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    maps = session.run(None, {"image": planes})[0][0]
    assert np.abs(app.scores("p2").reshape(maps.shape) - maps).max() < 0.2  # a grey level here and there
    whole = [cv2.resize(plane, (128, 64))[:, :96] for plane in app.scores("p2").reshape(maps.shape)]
    expected = np.stack([cv2.resize(np.ascontiguousarray(plane), (300, 200)) for plane in whole]).argmax(0)
    found = np.asarray(Image.open(tmp_path / "pictures" / "p2.png"))
    assert (found == expected).mean() > 0.999


def test_bad_images_are_skipped_and_counted(app, tmp_path):
    data = tmp_path / "data"
    good = write(data / "a" / "good.jpg", picture(64, 64))
    (data / "a" / "notes.txt").write_text("x")
    (data / "a" / "text.jpg").write_text("no image")
    (data / "a" / "empty.png").write_bytes(b"")
    (data / "a" / "dangling.jpg").symlink_to(data / "gone")
    (data / "a" / "cut.jpg").write_bytes(good.read_bytes()[:-100])
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    for mode, options in (("CPU", [ONE]), ("DVPP", [ONE, YUV])):
        said = succeeded(app.run(app.convert(onnx, *options), data, mode), SKIPPED)
        assert "images: 1 of 5 done, 4 skipped" in said and "left out" in said
        assert (
            "text.jpg: neither JPEG nor PNG" in said
            and "empty.png: empty file" in said
            and "cut.jpg: truncated" in said
            and "dangling.jpg: cannot be opened" in said
        )
        assert app.results() == ["good_0.bin"]
    good.unlink()
    done = app.run(app.convert(onnx, ONE), data, "CPU")
    assert done.returncode == 1 and "none of the images could be used" in done.stderr


def test_what_dvpp_cannot_decode_is_decoded_by_the_host(app, tmp_path):
    data = tmp_path / "data"
    write(data / "plain.jpg", picture(64, 64))
    write(data / "picture.png", picture(64, 64))
    write(data / "progressive.jpg", picture(64, 64), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    write(data / "small.jpg", picture(31, 40))
    Image.fromarray(picture(64, 64)).convert("CMYK").save(data / "cmyk.jpg")
    rgb = data / "rgb.jpg"
    Image.fromarray(picture(64, 64)).save(rgb, keep_rgb=True)
    start = rgb.read_bytes().index(b"\xff\xee\x00\x0eAdobe")
    (data / "ids.jpg").write_bytes(rgb.read_bytes()[:start] + rgb.read_bytes()[start + 16 :])  # 'R', 'G', 'B' only
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(64, 48)).save(data / "turned.jpg", exif=exif)
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    assert "8 of 8 done, 0 skipped, 7 decoded without DVPP" in succeeded(
        app.run(app.convert(onnx, ONE, YUV), data, "DVPP")
    )
    for file in data.iterdir():
        assert np.corrcoef(app.scores(file.stem), scores_of(onnx, file)[0].ravel())[0, 1] > 0.9, file.name


def test_equal_names_in_several_folders(app, tmp_path):
    for folder in ("cat", "dog"):
        write(tmp_path / "data" / folder / "deep" / "1.jpg", picture(40, 40))
    write(tmp_path / "data" / "dog" / "2.jpg", picture(40, 40))
    onnx = networks.random_classifier(tmp_path / "net.onnx")
    succeeded(app.run(app.convert(onnx, ONE), tmp_path / "data", "CPU"))
    assert app.results() == ["2_0.bin", "cat/deep/1_0.bin", "dog/deep/1_0.bin"]


def test_labels_are_those_of_the_images_that_evaluation_lists(app, photos, tmp_path):
    """Links, two folders that are one, an image beside the class folders: the label file knows what the results are."""
    data = tmp_path / "data"
    write(data / "cat" / "a.jpg", picture(40, 40))
    write(data / "a.jpg", picture(40, 40))
    (data / "owl").symlink_to(photos / "owl")
    (data / "owls").symlink_to(photos / "owl")
    (data / "cat" / "round").symlink_to(data)
    made = run_command("tools/make_label_file.py", data, tmp_path / "label.txt")
    assert made.returncode == 0, made.stderr
    om = app.convert(networks.random_classifier(tmp_path / "net.onnx"), ONE)
    said = succeeded(app.run(om, data, "CPU", "--label_path", tmp_path / "label.txt"))
    labels = {line.rpartition(":")[0] for line in (tmp_path / "label.txt").read_text().splitlines()}
    assert app.results() == sorted(f"{name}_0.bin" for name in labels)
    assert "no label for" not in said and f"of {len(labels)} labelled images" in said
    assert f"left out (in no class folder): {data}/a.jpg" in said
    done = run_command(
        "postprocess.py", "--result_path", tmp_path / "result_Files", "--label_path", tmp_path / "label.txt"
    )
    assert done.returncode == 0 and f"samples: {len(labels)}" in done.stdout, done.stderr


def test_defaults_are_those_of_training():
    """The numbers in the application's source against the ones of evaluation."""
    text = (ROOT / "ascend310_infer/inc/options.h").read_text()
    for name, expected in (("mean", dataset.MEAN), ("deviation", dataset.STD)):
        found = re.search(rf"{name} = \{{(.*)\}};", text)[1]
        assert np.allclose([float(a) * float(b) for a, b in re.findall(r"([\d.]+) \* (\d+)", found)], expected)
    assert 224 / float(re.search(r"resize_ratio = ([\d.]+) / 224", text)[1]) == Data.crop_pct


def aipp_of(path):
    return {key: value for key, value in re.findall(r"(\w+): (\S+)", path.read_text())}


def test_the_originals_aipp_file_is_the_one_for_rgb():
    """Commands of atc from elsewhere name src/aipp.cfg."""
    assert (ROOT / "src/aipp.cfg").samefile(AIPP["aipp"])


@pytest.mark.parametrize("name", AIPP)
def test_aipp_normalises_as_training_does(name):
    values = aipp_of(AIPP[name])
    grey = np.arange(256)
    for channel in range(3):
        least, factor = (np.float16(values[f"{key}_chn_{channel}"]) for key in ("min", "var_reci"))
        found = (grey - int(values[f"mean_chn_{channel}"]) - np.float32(least)) * np.float32(factor)
        expected = (grey - dataset.MEAN[channel]) / dataset.STD[channel]
        assert np.abs(found - expected).max() < 0.0029  # what half floats leave


def test_aipp_turns_yuv_into_rgb():
    values = aipp_of(AIPP["aipp_yuv"])
    matrix = np.array([[int(values[f"matrix_r{r}c{c}"]) for c in range(3)] for r in range(3)])
    bias = np.array([int(values[f"input_bias_{c}"]) for c in range(3)])
    rgb = np.random.default_rng(0).integers(0, 256, (1, 5000, 3), dtype=np.uint8)
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[0][:, [0, 2, 1]].astype(int)
    found = np.clip((yuv - bias) @ matrix.T >> 8, 0, 255)
    assert np.abs(found - rgb[0]).max() <= 3  # two roundings


def test_core_is_built_without_toolkit(tools, tmp_path):
    """The default build, optimised, with the core's tests."""
    options = ["-S", ROOT / "ascend310_infer", "-B", tmp_path, "-DASCEND_HOME_PATH=", "-DINFER_TESTS=ON"]
    done = subprocess.run(["cmake", *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0 and "only the core is built" in done.stdout
    done = subprocess.run(["cmake", "--build", tmp_path, "--parallel", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "infer310").exists()
    done = subprocess.run(["ctest"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "100% tests passed" in done.stdout, done.stdout
