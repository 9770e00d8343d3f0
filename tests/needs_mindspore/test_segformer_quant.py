"""SegFormer in 8 bits: the float network underneath, its ranges, its integer file, and the commands around them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from src.cpu_kernels import availability  # noqa: E402
from src.engine import device, loop  # noqa: E402
from src.engine.data.source import first_pictures  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.export import exporting  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.quantisation import integer_file, layer_report  # noqa: E402
from src.quantisation.bias_correction import correct  # noqa: E402
from src.quantisation.calibration import observe  # noqa: E402
from src.quantisation.grid import Grid  # noqa: E402
from src.segformer import checkpoints, network  # noqa: E402
from src.segformer.export import onnx_graph  # noqa: E402
from src.segformer.export.onnx_graph import Graph  # noqa: E402
from src.segformer.loss import cross_entropy  # noqa: E402
from src.segformer.predicting import pictures  # noqa: E402
from src.segformer.quantised import network as quantised  # noqa: E402
from src.segformer.quantised.integer_file import TOLERANCE, grids_of  # noqa: E402
from src.segformer.variants import VARIANTS, Variant  # noqa: E402
from tests import tensorrt_rules  # noqa: E402
from tests.conftest import ROOT, run_command, write_images, write_settings  # noqa: E402
from tests.segmentation_data import write_generic  # noqa: E402

CLASSES, IGNORED = 4, 255
SMALL = Variant((8, 16, 20, 32), (1, 1, 1, 1), 32)  # one block per stage: less to compile
FULL = VARIANTS["mit_b0"]  # which the commands use
SIZE = (64, 96)
CONVOLUTIONS, DENSE = 11, 4 * 6 + 4 + 1  # q, k, v, proj, fc1, fc2 of each block; the head's


@pytest.fixture(autouse=True, scope="module")
def small_network():
    device.setup("CPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "mit_b0", SMALL)
        yield


def images(count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, *SIZE)).astype(np.float32)


def float_network() -> network.SegFormer:
    """Weights as large as a trained network's, so that attention and logits vary; statistics other than 0 and 1."""
    net, rng = network.build("mit_b0", CLASSES, 0, seed=1), np.random.default_rng(2)
    for parameter in net.get_parameters():
        values = parameter.asnumpy()
        if parameter.name.endswith(".weight") and values.ndim > 1:
            values = rng.normal(0, 1.2 * np.prod(values.shape[1:]) ** -0.5, values.shape)
        elif parameter.name.endswith(("bias", "beta", "moving_mean")):
            values = rng.normal(0, 0.1, values.shape)
        elif parameter.name.endswith("moving_variance"):
            values = rng.uniform(0.5, 2, values.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))
    return net.set_train(False)


def calibrated(kernels: str = "auto", method: str = "minmax", symmetric: bool = False) -> network.SegFormer:
    library = availability.find_library(kernels)[0]
    net = quantised.quantise(float_network(), 0.9, library, symmetric)
    quantised.set_calibrating(net, True)
    batches = [Tensor(images(2, seed)) for seed in (0, 1)]
    assert observe(net, list(quantised.activation_quantisers(net)), batches, method) == 2
    quantised.set_calibrating(net, False)
    return net


def written(net: network.SegFormer, path: Path, sides: tuple = (2, *SIZE), target: str = "onnxruntime"):
    """The graph, the model and the differences of the file to the network."""
    arrays = {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}
    graph = Graph(arrays, grids_of(net), target)
    model = onnx_graph.model(graph, "mit_b0", {"model": "segformer"}, sides)
    return graph, model, integer_file.write(model, loop.predictor(net), path, {"random": images()}, TOLERANCE)


@pytest.fixture(scope="module")
def net(small_network) -> network.SegFormer:
    return calibrated()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    """Path, graph, model, differences."""
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    return (path, *written(net, path))


class TestNetwork:
    def test_has_the_float_networks_parameters_and_ranges(self, net):
        names = [parameter.name for parameter in net.get_parameters()]
        ranges = {name for name in names if name.endswith(".range")}
        before = [parameter.name for parameter in float_network().get_parameters()]
        assert sorted(set(names) - ranges) == sorted(before)
        assert len(names) == len(set(names))
        assert not any(p.requires_grad for p in net.get_parameters() if p.name in ranges)

    def test_is_the_float_network_where_nothing_is_quantised(self):
        net = calibrated()
        quantised.set_calibrating(net, True)
        expected = float_network()(Tensor(images())).asnumpy()
        np.testing.assert_allclose(net(Tensor(images())).asnumpy(), expected, atol=2e-5 * np.ptp(expected))

    def test_ranges_are_the_means_of_the_batches_extremes(self, net):
        image = next(cell for cell in quantised.activation_quantisers(net) if cell.name == "backbone.image")
        expected = np.mean([[images(2, seed).min(), images(2, seed).max()] for seed in (0, 1)], axis=0)
        np.testing.assert_allclose(image.range.asnumpy(), expected, rtol=1e-5)

    @pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
    def test_other_methods_draw_ranges_in(self, net, method):
        """And leave nothing behind that a checkpoint would hold."""
        other = calibrated(method=method)
        widest = {cell.name: cell.range.asnumpy() for cell in quantised.activation_quantisers(net)}
        narrower = 0
        for cell in quantised.activation_quantisers(other):
            (least, greatest), (lowest, highest) = cell.range.asnumpy(), widest[cell.name]
            slack = 1e-3 * (highest - lowest)
            assert lowest - slack <= least <= 0 <= greatest <= highest + slack
            narrower += (greatest - least) < 0.99 * (highest - lowest)
        assert narrower > 0
        assert not [p.name for p in other.get_parameters() if p.name.endswith(".counts")]
        exact, near = (each(Tensor(images())).asnumpy() for each in (float_network(), other))
        assert np.abs(exact - near).mean() < 0.05 * np.ptp(exact)

    def test_is_near_the_float_network(self, net):
        exact, near = (each(Tensor(images())).asnumpy() for each in (float_network(), net))
        difference = np.abs(exact - near)
        assert 0 < difference.mean() < 0.03 * np.ptp(exact)

    @pytest.mark.slow
    def test_corrected_biases_bring_the_mean_back(self, monkeypatch):
        """With weights of 4 bits: mean logits of the images are nearer to those of the float network."""
        monkeypatch.setattr(quantised, "WEIGHTS", Grid(4, symmetric=True, narrow=True))
        net, batches = calibrated(), [Tensor(images(2, seed)) for seed in (0, 1)]
        expected = np.mean([float_network()(batch).asnumpy().mean((0, 2, 3)) for batch in batches], 0)

        def error() -> float:
            found = np.mean([net(batch).asnumpy().mean((0, 2, 3)) for batch in batches], 0)
            return float(np.abs(found - expected).mean())

        before, layers = error(), list(quantised.layers(net))
        assert correct(net, layers, batches) == len(layers) > DENSE
        assert error() < 0.7 * before

    def test_kernels_and_stock_operators_agree(self, net):
        stock = calibrated(kernels="off")(Tensor(images())).asnumpy()
        assert np.abs(net(Tensor(images())).asnumpy() - stock).mean() < 0.01 * np.ptp(stock)

    def test_training_moves_weights_and_ranges_and_leaves_the_heads_statistics(self, net):
        net = calibrated()
        label, weights = (
            Tensor(np.random.default_rng(0).integers(0, CLASSES, (2, *SIZE)), ms.int32),
            ms.ops.ones(CLASSES),
        )
        before = {parameter.name: parameter.asnumpy().copy() for parameter in net.get_parameters()}
        net.set_train(True)

        def loss(image):
            return cross_entropy(net(image), label, weights, IGNORED)

        parameters = net.trainable_params()
        gradients = ms.value_and_grad(loss, None, ms.ParameterTuple(parameters))(Tensor(3 * images()))[1]
        without = [p.name for p, gradient in zip(parameters, gradients) if not np.abs(gradient.asnumpy()).max() > 0]
        assert not without
        after = {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}
        moved = {name for name in before if (before[name] != after[name]).any()}
        assert "backbone.image.range" in moved
        assert all(name.endswith(".range") for name in moved)


class TestFile:
    def test_every_layer_runs_with_integers(self, file):
        kernels = integer_file.integer_kernels(file[0], onnx_graph.RESIZED)
        products = kernels["QLinearMatMul"] + kernels["MatMulIntegerToFloat"]
        assert (kernels["QLinearConv"], kernels["QGemm"], products) == (CONVOLUTIONS, DENSE, 8)
        assert kernels["layers in float"] == 0

    @pytest.mark.slow
    def test_keeps_the_rules_of_tensorrt_where_it_is_the_target(self, file, tmp_path):
        assert tensorrt_rules.violations(file[2])
        net = calibrated(symmetric=True)
        _, model, _ = written(net, tmp_path / "net.onnx", target="tensorrt")
        assert not tensorrt_rules.violations(model)
        written(net, tmp_path / "same_grids.onnx")
        found = integer_file.integer_kernels(tmp_path / "same_grids.onnx", onnx_graph.RESIZED)
        assert found == integer_file.integer_kernels(file[0], onnx_graph.RESIZED)

    def test_gives_the_networks_answers(self, net, file):
        ours = net(Tensor(images(2, 5))).asnumpy()
        for load in (exporting.reload, *([openvino] if importlib.util.find_spec("openvino") else [])):
            theirs = load(file[0])(images(2, 5))
            assert np.abs(ours - theirs).mean() < 0.01 * np.ptp(ours)
            assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.97

    def test_scales_are_those_of_the_network(self, net, file):
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file[2].graph.initializer}
        for cell in quantised.activation_quantisers(net):
            scale, zero_point = (value.asnumpy() for value in cell.scale_and_zero_point())
            assert stored[f"{cell.name}.scale"] == scale.item()
            is_signed = cell.name.endswith((".k.output", ".v.output"))
            assert stored[f"{cell.name}.zero_point"] == (0 if is_signed else zero_point.item() + 128)
            assert stored[f"{cell.name}.zero_point"].dtype == (np.int8 if is_signed else np.uint8)
        wholes = [name for name in stored if name.endswith(".weight.whole")]
        assert len(wholes) == CONVOLUTIONS + DENSE
        assert all(stored[name].dtype == np.int8 and np.abs(stored[name]).max() == 127 for name in wholes)

    def test_for_any_size(self, net, tmp_path):
        *_, found = written(net, tmp_path / "any.onnx", onnx_graph.FREE)
        assert found["random"] < TOLERANCE * 10
        odd = np.random.default_rng(0).standard_normal((1, 3, 70, 101)).astype(np.float32)
        assert exporting.reload(tmp_path / "any.onnx")(odd).shape == (1, CLASSES, 70, 101)

    def test_a_file_of_another_network_is_refused(self, net, file, tmp_path):
        other = calibrated()
        bias = other.decode_head.linear_pred.bias
        bias.set_data(bias + Tensor(100 * np.arange(CLASSES), ms.float32))
        with pytest.raises(ZooError, match="differs from the network"):
            integer_file.write(file[2], loop.predictor(other), tmp_path / "x.onnx", {"random": images()}, TOLERANCE)
        assert not list(tmp_path.iterdir())

    def test_report_covers_every_tensor(self, net, file):
        rows = layer_report.measure(file[2], file[1], images(2))
        activations = [row for row in rows if row.kind == "activation"]
        assert {row.name for row in activations} == {cell.name for cell in quantised.activation_quantisers(net)}
        assert len(rows) - len(activations) == CONVOLUTIONS + DENSE
        assert all(row.sqnr_db > 15 for row in rows), [row for row in rows if row.sqnr_db <= 15]


def openvino(path: Path):
    from src.engine.export import openvino_model

    return openvino_model.load(path, 1).predict


class TestCommands:
    @pytest.fixture(scope="class")
    def place(self, tmp_path_factory) -> Path:
        """Data, settings and a float checkpoint of a network that nobody trained."""
        folder = tmp_path_factory.mktemp("commands")
        data = write_generic(folder / "data", {"train": 4, "val": 2})
        settings = {
            "__BASE__": str(ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml"),
            "base_size": [32, 64], "crop_size": [32, 64], "class_num": 3, "batch_size": 2, "epoch_size": 1,
            "warmup_steps": 0, "eval_interval": 1, "load_ckpt": True, "data_path": str(data), "backbone": "mit_b0",
        }  # fmt: skip
        write_settings(folder / "tiny.yaml", settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(VARIANTS, "mit_b0", FULL)
            net = network.build("mit_b0", 3, 0, seed=1)
        meta = {"model": "segformer", "backbone": "mit_b0", "decoder_dim": 256}
        checkpoint.save(folder / "float.ckpt", checkpoint.arrays_of(net.get_parameters()), meta)
        return folder

    @pytest.fixture(scope="class")
    def calibrated_file(self, place) -> Path:
        arguments = ("--quant", "True", "--pretrained_ckpt_path", "float.ckpt", "--calibrate_only", 2)
        result = run(place, "train", *arguments, "--checkpoint_path", "cal")
        assert result.returncode == 0, result.stderr
        assert "activation ranges from 2 batches of 2 images" in result.stdout
        return place / "cal" / "segformer_mit_b0_calibrated.ckpt"

    @pytest.fixture(scope="class")
    def exported(self, place, calibrated_file) -> Path:
        flags = ("--export_ckpt_path", calibrated_file, "--export_format", "ONNX", "--export_name", "int8")
        result = run(place, "export", *flags, "--report_images", 2)
        assert result.returncode == 0, result.stderr
        assert "18 QLinearConv, 53 QGemm, 8 QLinearMatMul, 8 MatMulIntegerToFloat, 0 layers in float" in result.stdout
        assert (place / "int8_layers.csv").is_file()
        assert (place / "int8_layers.png").is_file()
        return place / "int8.onnx"

    def test_checkpoint_says_how_it_was_quantised(self, calibrated_file):
        meta = checkpoint.read(str(calibrated_file)).meta
        assert meta["quantisation"] == {"bits": 8, "range_decay": 0.99}

    def test_file_is_scored_and_is_small(self, place, exported, calibrated_file):
        scores = {}
        for backend, file in (("mindspore", calibrated_file), ("onnx", exported)):
            result = run(
                place, "eval", "--eval_ckpt_path", file, "--eval_backend", backend, "--eval_json", f"{backend}.json"
            )
            assert result.returncode == 0, result.stderr
            scores[backend] = json.loads((place / f"{backend}.json").read_text())
        assert abs(scores["onnx"]["pixel_accuracy"] - scores["mindspore"]["pixel_accuracy"]) < 0.05
        assert exported.stat().st_size < 0.30 * (place / "float.ckpt").stat().st_size

    def test_training_goes_on_with_the_calibrated_ranges(self, place, calibrated_file):
        flags = ("--quant", "True", "--pretrained_ckpt_path", calibrated_file, "--checkpoint_path", "qat")
        result = run(place, "train", *flags)
        assert result.returncode == 0, result.stderr
        assert f"activation ranges are those of {calibrated_file}" in result.stdout
        trained = checkpoint.read(str(place / "qat" / "segformer_mit_b0_1.ckpt"))
        before = checkpoint.read(str(calibrated_file))
        assert (trained.arrays["backbone.image.range"] != before.arrays["backbone.image.range"]).any()
        moving = "decode_head.bn.moving_mean"
        np.testing.assert_array_equal(trained.arrays[moving], before.arrays[moving])

    @pytest.mark.slow
    def test_frozen_ranges_stay(self, place, calibrated_file):
        flags = ("--quant", "True", "--pretrained_ckpt_path", calibrated_file, "--checkpoint_path", "frozen")
        result = run(place, "train", *flags, "--quant_freeze_ranges", 0, "--ema_decay", 0.5)
        assert result.returncode == 0, result.stderr
        trained = checkpoint.read(str(place / "frozen" / "segformer_mit_b0_1.ckpt")).arrays
        before = checkpoint.read(str(calibrated_file)).arrays
        ranges = [name for name in before if name.endswith(".range")]
        assert ranges and all((trained[name] == before[name]).all() for name in ranges)
        weight = "decode_head.linear_pred.weight"
        assert (trained[weight] != before[weight]).any() and (trained[f"ema.{weight}"] != trained[weight]).any()

    def test_a_float_training_takes_the_weights_of_a_quantised_checkpoint(self, place, calibrated_file, monkeypatch):
        monkeypatch.setitem(VARIANTS, "mit_b0", FULL)
        cfg = dataclasses.replace(configuration(place), quant=False)
        loaded = checkpoints.load(network.build("mit_b0", 3, 0, seed=5), checkpoints.read(str(calibrated_file)), cfg)
        assert "loaded" in loaded


def configuration(place: Path):
    from src import zoo

    flags = ["--config_path", str(place / "tiny.yaml"), "--pretrained_ckpt_path", str(place / "float.ckpt")]
    return zoo.configure("train", flags)


def run(place: Path, command: str, *flags: object):
    return run_command(ROOT / f"{command}.py", "--config_path", place / "tiny.yaml", *map(str, flags), cwd=place)


def test_pictures_of_an_archive_that_cannot_be_read_are_left_out(tmp_path):
    write_images(tmp_path / "photos", 3, classes=("street",))
    first = min((tmp_path / "photos" / "street").iterdir())
    first.write_bytes(first.read_bytes()[:40])
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        for file in sorted((tmp_path / "photos").rglob("*.jpg")):
            packed.write(file, file.relative_to(tmp_path / "photos"))
    inputs = pictures.list_inputs(str(tmp_path / "photos.zip"), str(tmp_path / "out"))
    assert len(inputs) == 3
    assert [len(first_pictures(inputs[0].source, count)) for count in (1, 2, 3)] == [1, 2, 2]
