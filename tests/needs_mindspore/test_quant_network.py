"""The quantised network: names and folding of the float one, calibration, phases, and its integer file."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from src.classification import checkpoints as float_checkpoints  # noqa: E402
from src.cpu_kernels import availability, rewrite  # noqa: E402
from src.engine import config, device, loop  # noqa: E402
from src.engine.errors import UsageError, ZooError  # noqa: E402
from src.engine.export import exporting  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.mobilenetv2 import network as float_network  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from src.mobilenetv2_quant import calibration, checkpoints, equalisation, folding, network, recipe  # noqa: E402
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT  # noqa: E402
from src.mobilenetv2_quant.config import Config  # noqa: E402
from src.mobilenetv2_quant.integer_file import TOLERANCE  # noqa: E402
from src.mobilenetv2_quant.integer_graph import Writer  # noqa: E402
from src.quantisation import integer_file, layer_report  # noqa: E402
from src.quantisation.quantiser import Grid, LearnedActivationQuantiser  # noqa: E402
from src.quantisation.weights import FoldedOnGrid  # noqa: E402
from tests import tensorrt_rules  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.networks import calm  # noqa: E402

CLASSES, SIZE = 5, 32


def configuration(**values) -> Config:
    shipped = config.build(Config, config.read_yaml(ROOT / "configs/mobilenetv2_quant/cpu.yaml"))
    return dataclasses.replace(
        shipped, width_mult=0.25, image_height=SIZE, image_width=SIZE, batch_size=4, activation="None", **values
    )


CFG = configuration()


@pytest.fixture(scope="module", autouse=True)
def cpu():
    device.setup("CPU")


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def trained_weights() -> dict[str, np.ndarray]:
    """Float weights with moving statistics as different from 0 and 1 as those of a trained network."""
    net = calm(float_network.build(CLASSES, CFG.width_mult, seed=2))
    net.set_train(True)
    for seed in range(3):
        net(Tensor(images(8, seed)))
    arrays = checkpoint.arrays_of(net.get_parameters())
    rng = np.random.default_rng(5)
    arrays["head.dense.weight"] = rng.normal(0, 0.5, arrays["head.dense.weight"].shape).astype(np.float32)
    return {name: array.copy() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return trained_weights()


def plain(arrays: dict[str, np.ndarray]):
    """A float network with these weights, in evaluation mode."""
    net = float_network.build(CLASSES, CFG.width_mult, seed=0)
    checkpoint.assign(net.get_parameters(), arrays, "test")
    rewrite.accelerate(net)
    return net.set_train(False)


def quantised(arrays: dict[str, np.ndarray], cfg: Config = CFG, kernels: str = "off"):
    """A network with those of the arrays that it has: weights, and ranges if it was calibrated before."""
    net = network.build(CLASSES, cfg, kernels)
    checkpoint.assign([p for p in net.get_parameters() if p.name in arrays], arrays, "test")
    return net


@pytest.fixture(scope="module")
def simulated(weights):
    """Calibrated, in evaluation mode, with the kernels that training uses."""
    net = quantised(weights, kernels="auto")
    calibration.calibrate(net, [images(4, seed) for seed in range(2)])
    return net.set_train(False)


@pytest.fixture(scope="module")
def arrays(simulated) -> dict[str, np.ndarray]:
    """Weights and calibrated ranges."""
    return {name: array.copy() for name, array in checkpoint.arrays_of(simulated.get_parameters()).items()}


@pytest.fixture(scope="module")
def net(arrays):
    """The same network of stock operators, which is the one to export."""
    return quantised(arrays).set_train(False)


@pytest.fixture(scope="module")
def float_scores(weights) -> np.ndarray:
    return plain(weights)(Tensor(images(4))).asnumpy()


def test_float_parameters_keep_names_and_shapes(net, weights):
    shapes = {p.name: tuple(p.shape) for p in net.get_parameters()}
    assert all(shapes[name] == array.shape for name, array in weights.items())
    assert all(name.endswith(".range") for name in shapes.keys() - weights.keys())
    assert len(list(network.layers(net))) == 53


def test_quantised_scores_are_near_the_float_ones(simulated, float_scores):
    scores = simulated(Tensor(images(4))).asnumpy()
    difference = np.abs(scores - float_scores).max()
    assert 1e-4 < difference < 0.1 * np.ptp(float_scores)


def test_folded_layers_give_the_float_network(weights, float_scores):
    """Every BN becomes the addition of a bias; the scores stay."""
    net = quantised(weights)
    arrays = {name: array.copy() for name, array in weights.items()}
    for layer in network.layers(net):
        folded = folding.fold(layer)
        if not isinstance(layer, network.QuantConv):
            continue
        owner = layer.gamma.name.rpartition(".")[0]
        arrays[layer.weight.name] = folded.weight
        arrays[f"{owner}.gamma"] = np.ones_like(folded.bias)
        arrays[f"{owner}.beta"] = folded.bias
        arrays[f"{owner}.moving_mean"] = np.zeros_like(folded.bias)
        arrays[f"{owner}.moving_variance"] = np.full_like(folded.bias, 1 - float_network.BN_EPS)
    scores = plain(arrays)(Tensor(images(4))).asnumpy()
    np.testing.assert_allclose(scores, float_scores, atol=1e-5 * np.ptp(float_scores))


def test_calibration_is_the_mean_of_the_extremes(net):
    expected = np.mean([[images(4, seed).min(), images(4, seed).max()] for seed in range(2)], axis=0)
    np.testing.assert_allclose(net.backbone.image.range.asnumpy(), expected, rtol=1e-6)
    for quantiser in network.activation_quantisers(net):
        low, high = quantiser.range.asnumpy()
        assert low < high, quantiser.name


def uneven(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same, whose channels before a ReLU6 are far from it and of very different sizes."""
    rng, changed = np.random.default_rng(8), dict(arrays)
    for name, array in arrays.items():
        if name.endswith("gamma") and array[0] == 1.0:  # of a ReLU6 in the middle, see calm()
            size = 10 ** rng.uniform(-1.5, -0.3, array.shape).astype(np.float32)
            changed[name] = array * size
            changed[name.replace("gamma", "beta")] = arrays[name.replace("gamma", "beta")] * size
    return changed


@pytest.mark.slow
def test_equalised_channels_are_the_same_network_with_like_ranges(weights):
    net = quantised(uneven(weights))
    network.set_calibrating(net, True)  # nothing is quantised
    block = net.backbone.features[3].block.conv
    first, second = block[0][0], block[1][0]

    def sizes() -> np.ndarray:
        sides = ((first, 0), (second, 0))
        return np.stack([equalisation.greatest(layer.folded_weight().asnumpy(), axis) for layer, axis in sides])

    def scores() -> np.ndarray:
        return net.set_train(False)(Tensor(images(4))).asnumpy()

    before, sizes_before = scores(), sizes()
    assert equalisation.equalise_pair(first, second) > 10
    found = sizes()
    np.testing.assert_allclose(found.prod(0), sizes_before.prod(0), rtol=1e-4)
    assert np.abs(np.log(found[0] / found[1])).mean() < 0.5 * np.abs(np.log(sizes_before[0] / sizes_before[1])).mean()
    assert equalisation.equalise(net) > 100
    np.testing.assert_allclose(scores(), before, atol=1e-4 * np.ptp(before))


@pytest.mark.slow
def test_corrected_biases_bring_the_mean_back(weights):
    """With weights of 3 bits: the mean logits of the images are nearer to those of the float network."""
    cfg, batches = configuration(weight_bits=3), [images(8, seed) for seed in range(2)]

    def mean_scores(net) -> np.ndarray:
        return np.concatenate([net(Tensor(batch)).asnumpy() for batch in batches]).mean(0)

    expected, errors = mean_scores(plain(weights)), []
    for corrects in (False, True):
        net = quantised(weights, cfg, "auto")
        calibration.calibrate(net, batches, bias_correction=corrects)
        errors.append(np.abs(mean_scores(net.set_train(False)) - expected).mean())
        assert not [p.name for p in net.get_parameters() if "shift" in p.name]
    assert errors[1] < 0.5 * errors[0], errors
    again = dataclasses.replace(cfg, calibrate_only=2, bias_correction=True)
    made = checkpoint.Checkpoint(
        Path("x.ckpt"), checkpoint.arrays_of(net.get_parameters()), {"model": checkpoints.MODEL}
    )
    with pytest.raises(ZooError, match="its biases fit its rounded weights already; give the float checkpoint"):
        checkpoints.load(network.build(CLASSES, cfg), made, {str(i): i for i in range(CLASSES)}, again)


def test_float_layers_stay_float(weights):
    cfg = configuration(float_layers="first, last, backbone.features.2.conv.1")
    net = quantised(weights, cfg)
    is_float = [layer.name for layer in network.layers(net) if layer.quantiser is None]
    assert is_float == ["backbone.features.0", "backbone.features.2.conv.1", "head.dense"]
    assert net.backbone.image is None and net.backbone.pooled is None
    with pytest.raises(UsageError, match="names 'conv9', which the network lacks"):
        network.build(CLASSES, configuration(float_layers="conv9"))


def one_step(net, lr: float) -> float:
    """The loss of one training step."""
    net.set_train(True)

    def loss(image, target):
        return cross_entropy(net(image), target)

    train = step.make_step(loss, step.momentum_optimizer(net, 0.0, 0.0))
    return float(train(lr, images(4, 7), np.eye(CLASSES, dtype=np.float32)[[0, 1, 2, 3]]).asnumpy())


def is_full_relu6(name: str, values: np.ndarray) -> bool:
    """Whether this is a range that ReLU6 keeps where it is."""
    return name.endswith(".range") and np.allclose(values, [0, 6], atol=1e-3)


def test_a_step_moves_every_weight_and_range(arrays):
    net = quantised(arrays, kernels="auto")
    before = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    assert np.isfinite(one_step(net, 0.01))
    after = checkpoint.arrays_of(net.get_parameters())
    same = [name for name in before if (before[name] == after[name]).all()]
    # The next BN takes a constant out again, so beta's gradient can be less than its last digit.
    stuck = [name for name in same if not name.endswith(".beta") and not is_full_relu6(name, before[name])]
    assert not stuck


def gradients_of_block(arrays, kernels: str, cfg: Config = CFG) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Output of an inverted residual in training, and the gradient of every trainable parameter."""
    net = quantised(arrays, cfg, kernels)
    calibration.start_learning(net)
    block = net.backbone.features[3].set_train(True)
    parameters = block.trainable_params()
    rng = np.random.default_rng(0)
    channels = parameters[0].shape[1]
    x, dy = (Tensor(rng.uniform(-1, 3, (4, channels, 8, 8)).astype(np.float32)) for _ in range(2))

    def objective(x, dy):
        y = block(x)
        return (y * dy).sum(), y

    (_, y), gradients = ms.jit(ms.value_and_grad(objective, None, parameters, has_aux=True))(x, dy)
    return y.asnumpy(), {p.name: gradient.asnumpy() for p, gradient in zip(parameters, gradients)}


def test_kernels_and_operators_compute_the_same(arrays):
    (y, gradients), (other_y, others) = (gradients_of_block(arrays, kernels) for kernels in ("off", "on"))
    # Convolutions add up in another order, which moves a few values over the middle between two numbers of a grid.
    assert np.isclose(y, other_y, rtol=1e-5, atol=1e-5).mean() > 0.99
    for name, gradient in gradients.items():
        np.testing.assert_allclose(others[name], gradient, atol=0.02 * np.abs(gradient).max(), err_msg=name)


def test_delay_observes_without_quantising_and_frozen_bn_keeps_its_statistics(weights, arrays):
    expected = plain(weights).set_train(True)(Tensor(images(4, 7))).asnumpy()

    net = quantised(arrays, kernels="auto").set_train(True)
    network.set_phase(net, quantising=False, frozen=False)
    scores = net(Tensor(images(4, 7))).asnumpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.ptp(expected))
    for quantiser in network.activation_quantisers(net):
        name, before = quantiser.range.name, arrays[quantiser.range.name]
        assert (quantiser.range.asnumpy() != before).any() or is_full_relu6(name, before), name

    net = quantised(arrays, kernels="auto").set_train(True)
    network.set_phase(net, quantising=True, frozen=True)
    assert np.abs(net(Tensor(images(4, 7))).asnumpy() - expected).max() > 1e-3 * np.ptp(expected)
    for parameter in net.get_parameters():
        if "moving_" in parameter.name:
            assert (parameter.asnumpy() == arrays[parameter.name]).all(), parameter.name


def test_frozen_ranges_stay_and_others_move(arrays):
    for ranges_frozen in (True, False):
        net = quantised(arrays, kernels="auto").set_train(True)
        network.set_phase(net, quantising=True, frozen=False, ranges_frozen=ranges_frozen)
        net(Tensor(3 * images(4, 7)))
        image = next(cell for cell in network.activation_quantisers(net) if cell.name == "backbone.image")
        is_same = (image.range.asnumpy() == arrays["backbone.image.range"]).all()
        assert is_same == ranges_frozen


def is_exact_here() -> bool:
    """Whether we have kernels, and onnxruntime those whose arithmetic they repeat: on x86 without clipping of sums."""
    has_kernels = availability.find_library("auto")[0] is not None
    return has_kernels and platform.machine() == "x86_64" and "vnni" in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize(
    "values",
    [
        {"float_layers": "first, last, backbone.features.2.conv.1"},
        {"quant_method": "lsq"},
        {"weight_per_channel": False, "weight_symmetric": False, "weight_bits": 6},
        {"weight_symmetric": False, "weight_bits": 4},
        {"activation_symmetric": True, "weight_narrow_range": False},
        {"output_stride": 8},
    ],
)
def test_whole_numbers_give_the_scores_of_integer_kernels(arrays, values):
    net, stock = (quantised(arrays, configuration(**values), kernels) for kernels in ("auto", "off"))
    for either in (net, stock):
        calibration.start_learning(either)
    writer, x = Writer(weight_bits=values.get("weight_bits", 8)), images(4)
    writer.network(stock)
    model = writer.model(x.shape, CLASSES, len(x), {})
    types = {constant.data_type for constant in model.graph.initializer}
    assert (TensorProto.INT4 in types) == writer.graph.stores_int4
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"image": x})[0]
    is_exact = is_exact_here() and not {"float_layers", "activation_symmetric"} & values.keys()
    difference = np.abs(net.set_train(False)(Tensor(x)).asnumpy() - theirs).max()
    assert difference < (1e-6 if is_exact else 0.05) * np.ptp(theirs)


def test_nan_is_not_hidden_in_evaluation(arrays):
    name = "backbone.features.3.conv.1.0.weight"
    broken = arrays[name].copy()
    broken[0] = np.nan
    scores = quantised({**arrays, name: broken}, kernels="auto").set_train(False)(Tensor(images(4))).asnumpy()
    assert np.isnan(scores).all()


class TestIntegerFile:
    @pytest.fixture(scope="class")
    def written(self, net, simulated, tmp_path_factory):
        """The writer, the model, the path and the differences to the network."""
        writer = Writer()
        writer.network(net)
        model = writer.model((1, 3, SIZE, SIZE), CLASSES, "batch", {"activation": "None"})
        path = tmp_path_factory.mktemp("onnx") / "net.onnx"
        return (
            writer,
            model,
            path,
            integer_file.write(model, loop.predictor(simulated), path, {"random": images(4)}, TOLERANCE),
        )

    def test_scales_and_zero_points_are_the_trained_ones(self, net, written):
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in written[1].graph.initializer}
        for quantiser in network.activation_quantisers(net):
            scale, zero_point = (value.asnumpy() for value in quantiser.scale_and_zero_point())
            assert stored[f"{quantiser.name}.scale"] == scale.item()
            assert stored[f"{quantiser.name}.zero_point"] == zero_point.item() + 128  # stored as uint8
        for layer in network.layers(net):
            scale, _ = layer.quantiser.scale_and_zero_point(layer.folded_weight())
            assert (stored[f"{layer.name}.weight.scale"] == scale.asnumpy()).all()
            assert stored[f"{layer.name}.weight.whole"].dtype == np.int8

    def test_every_layer_runs_with_integers(self, written):
        kernels = integer_file.integer_kernels(written[2])
        assert (kernels["QLinearConv"], kernels["QGemm"], kernels["layers in float"]) == (52, 1, 0)

    def test_scores_are_the_networks(self, simulated, written):
        predict = exporting.reload(written[2])
        for seed in range(3):
            ours, theirs = simulated(Tensor(images(4, seed))).asnumpy(), predict(images(4, seed))
            assert np.abs(ours - theirs).max() < (1e-6 if is_exact_here() else 0.05) * np.ptp(ours)

    def test_report_covers_every_tensor(self, net, written):
        rows = layer_report.measure(written[1], written[0], images(2))
        activations = [row for row in rows if row.kind == "activation"]
        assert [row.name for row in activations] == [q.name for q in sorted_by_graph(net, activations)]
        assert len(rows) - len(activations) == 53
        assert all(row.sqnr_db > 15 for row in rows), [row for row in rows if row.sqnr_db <= 15]
        for row, quantiser in zip(activations, sorted_by_graph(net, activations)):
            scale, zero_point = (value.asnumpy().item() for value in quantiser.scale_and_zero_point())
            assert (row.scale_min, row.scale_max, row.zero_point) == (scale, scale, zero_point)
            low, high = quantiser.range.asnumpy()
            np.testing.assert_allclose([row.least, row.greatest], [min(low, 0), max(high, 0)], atol=scale)

    @pytest.mark.slow
    def test_keeps_the_rules_of_tensorrt_where_it_is_the_target(self, written, weights, tmp_path):
        assert len(tensorrt_rules.violations(written[1])) > 100  # unsigned grids and biases of integers
        cfg, files = configuration(activation_symmetric=True), {}
        net = quantised(weights, cfg, kernels="auto")
        calibration.calibrate(net, [images(4, seed) for seed in range(2)])
        arrays = checkpoint.arrays_of(net.get_parameters())
        net.set_train(False)
        for target in ("onnxruntime", "tensorrt"):
            writer, path = Writer(target), tmp_path / f"{target}.onnx"
            writer.network(quantised(arrays, cfg).set_train(False))
            files[target] = model = writer.model((1, 3, SIZE, SIZE), CLASSES, "batch", {"activation": "None"})
            integer_file.write(model, loop.predictor(net), path, {"random": images(4)}, TOLERANCE)
        assert not tensorrt_rules.violations(files["tensorrt"])
        follows = [node.op_type for node in files["tensorrt"].graph.node]
        assert follows.count("Relu") == 35 and "Clip" not in follows

    def test_a_file_that_differs_is_refused(self, written, arrays, tmp_path):
        bias = arrays["head.dense.bias"] + 100.0 * np.arange(CLASSES, dtype=np.float32)
        other = quantised({**arrays, "head.dense.bias": bias}, kernels="auto")
        with pytest.raises(ZooError, match="differs from the network"):
            integer_file.write(written[1], loop.predictor(other), tmp_path / "x.onnx", {"random": images(4)}, TOLERANCE)
        assert not list(tmp_path.iterdir())


def sorted_by_graph(net, rows):
    """The network's quantisers in the order of the rows; each has to be there once."""
    by_name = {quantiser.name: quantiser for quantiser in network.activation_quantisers(net)}
    assert len(by_name) == len(rows)
    return [by_name[row.name] for row in rows]


def test_bias_that_does_not_fit_makes_weights_coarser():
    folded = FoldedOnGrid(
        "x", np.full((2, 1), 1e-20, np.float32), np.float32([3.0, 3.0]), np.float32([1e-7, 0.1]), np.zeros(2),
        np.zeros((2, 1), np.int8), network.Grid(8, True, True),
    )  # fmt: skip
    roomy, changed = folded.with_room_for_bias(np.float32(0.01))
    assert changed == 1
    assert (np.abs(roomy.bias / (0.01 * roomy.scale)) < 2**31).all()
    assert roomy.scale[1] == np.float32(0.1)


def test_learned_steps_are_trained(arrays):
    cfg = configuration(quant_method="lsq")
    net = network.build(CLASSES, cfg)
    steps = [p for p in net.trainable_params() if p.name.endswith(".scale")]
    assert len(steps) == 53 + len(list(network.activation_quantisers(net)))
    for kernels in ("off", "on"):
        _, gradients = gradients_of_block(arrays, kernels, cfg)
        scales = {name: gradient for name, gradient in gradients.items() if name.endswith(".scale")}
        assert len(scales) == 3 + 4  # three filters; what each of them gives, and the sum
        assert all(gradient.any() for gradient in scales.values())


def test_learned_steps_beyond_relu6_end_there_and_stay_integers(arrays):
    """Training may widen a step; a grid that reaches beyond 6 would take the integer kernel away."""
    nets = [
        quantised(arrays, configuration(quant_method="lsq"), kernels).set_train(False) for kernels in ("off", "auto")
    ]
    for net in nets:
        calibration.start_learning(net)
        for quantiser in network.activation_quantisers(net):
            quantiser.scale.set_data(quantiser.scale * 1.3)
    writer, x = Writer(), images(4)
    writer.network(nets[0])
    assert writer.clipped == 0
    session = onnxruntime.InferenceSession(writer.model(x.shape, CLASSES, 4, {}).SerializeToString())
    theirs, ours = session.run(None, {"image": x})[0], nets[1](Tensor(x)).asnumpy()
    assert np.abs(ours - theirs).max() < (1e-6 if is_exact_here() else 0.05) * np.ptp(ours)


def test_a_learned_step_of_negative_values_is_finite():
    """Their zero point is the greatest number of the grid."""
    quantiser = LearnedActivationQuantiser("x", Grid(2), decay=0.9, after_relu6=False)
    quantiser.range.set_data(Tensor([-3.0, 0.0], ms.float32))
    quantiser.start()
    found = quantiser(Tensor(np.linspace(-3, 0, 4, dtype=np.float32))).asnumpy()
    np.testing.assert_allclose(found, [-3, -2, -1, 0], atol=1e-5)


def test_the_gradient_of_a_step_passes_its_limit(arrays):
    cfg = configuration(quant_method="lsq")
    quantiser = next(q for q in network.activation_quantisers(network.build(CLASSES, cfg)) if "output" in q.name)
    set_step(quantiser, scale=1.0, zero_point=-128.0)
    x = Tensor(np.linspace(0, 6, 64, dtype=np.float32))
    quantiser.set_train(True)

    def objective(x):
        return quantiser(x).sum()

    value, gradient = ms.value_and_grad(objective, None, [quantiser.scale])(x)
    assert abs(float(value.asnumpy()) - 192) < 1  # a step of 1 would round to 6 and 12
    assert gradient[0].asnumpy().any()


def set_step(quantiser, scale: float, zero_point: float) -> None:
    quantiser.scale.set_data(Tensor([scale], ms.float32))
    quantiser.zero_point.set_data(Tensor([zero_point], ms.float32))


def test_symmetric_activations_say_that_they_run_in_float(arrays):
    net = quantised(arrays, configuration(activation_symmetric=True)).set_train(False)
    writer = Writer()
    writer.network(net)
    assert writer.clipped == 35


def test_learned_steps_observe_while_they_wait(weights):
    net = quantised(weights, configuration(quant_method="lsq"), "auto")
    calibration.calibrate(net, [images(4, 0)])
    before = {q.name: q.range.asnumpy().copy() for q in network.activation_quantisers(net)}
    network.set_phase(net, quantising=False, frozen=False)
    net.set_train(True)(Tensor(3 * images(4, 7)))
    image = net.backbone.image
    expected = before[image.name] * CFG.range_decay + 3 * np.float32(
        [images(4, 7).min(), images(4, 7).max()]
    ) * np.float32(1 - CFG.range_decay)
    np.testing.assert_allclose(image.range.asnumpy(), expected, rtol=1e-5)
    calibration.start_learning(net)
    scale = np.ptp(np.float32([min(expected[0], 0), max(expected[1], 0)])) / 255
    np.testing.assert_allclose(image.scale.asnumpy(), [scale], rtol=1e-5)


def test_checkpoints_load_by_name_and_wrong_ones_are_refused(weights, tmp_path, capsys):
    about = {"model": "mobilenetv2", "width_mult": CFG.width_mult, "class_to_index": dict(zip("abcde", range(5)))}
    checkpoint.save(tmp_path / "float.ckpt", {**weights, "learning_rate": np.zeros(1, np.float32)}, about)
    net, classes = network.build(CLASSES, CFG), about["class_to_index"]
    line = checkpoints.load(net, checkpoints.read_any(tmp_path / "float.ckpt"), classes, CFG)
    assert "262 arrays matched by name and shape, 0 missing, " in line and "of the quantisers new" in line
    assert "not used: 1 (learning_rate" in line
    found = checkpoint.arrays_of(net.get_parameters())
    assert all((found[name] == array).all() for name, array in weights.items())

    renamed = {name.replace("features.3.", "features.4."): array for name, array in weights.items()}
    checkpoint.save(tmp_path / "renamed.ckpt", renamed, about)
    with pytest.raises(ZooError, match=r"lacks \d+ of 262 arrays"):
        checkpoints.load(net, checkpoints.read_any(tmp_path / "renamed.ckpt"), classes, CFG)
    with pytest.raises(ZooError, match="is no mobilenetv2_quant checkpoint"):
        checkpoints.read(tmp_path / "float.ckpt")
    checkpoint.save(tmp_path / "quant.ckpt", found, float_checkpoints.metadata(MOBILENETV2_QUANT, CFG, classes))
    quant = checkpoints.read(tmp_path / "quant.ckpt")
    assert checkpoints.has_ranges(quant, CFG)
    others = [{"weight_bits": 4}, {"activation_bits": 4}, {"filter_head": True}, {"calibrate_only": 2}]
    assert not any(checkpoints.has_ranges(quant, configuration(**values)) for values in others)
    assert not checkpoints.has_ranges(checkpoints.read_any(tmp_path / "float.ckpt"), CFG)
    assert not checkpoints.has_ranges(None, CFG)
    shallow = configuration(output_stride=8)
    with pytest.raises(ZooError, match="has output_stride 32 and output_stride is 8; give --output_stride 32"):
        checkpoints.network_of(checkpoints.read(tmp_path / "quant.ckpt"), shallow)
    checkpoints.load(network.build(CLASSES, shallow), checkpoints.read_any(tmp_path / "quant.ckpt"), classes, shallow)
    assert "note: it was trained with output_stride 32 and goes on with 8" in capsys.readouterr().out
    with pytest.raises(ZooError, match="was made with weight_bits 8; give --weight_bits 8"):
        checkpoints.network_of(checkpoints.read(tmp_path / "quant.ckpt"), configuration(weight_bits=4))


@pytest.mark.parametrize(("key", "value"), [("quant_delay", 2), ("freeze_bn", 3), ("quant_freeze_ranges", 1)])
def test_what_stays_from_a_step_on_is_alike_on_all_ranks(monkeypatch, key, value):
    shared, done = [], []
    monkeypatch.setattr(recipe.training, "optimizer_of", lambda net, cfg: None)
    monkeypatch.setattr(recipe.training, "step_options", lambda *given: None)
    monkeypatch.setattr(recipe.training, "watched", lambda one_step, cfg, run: one_step)
    monkeypatch.setattr(recipe.network, "set_phase", lambda net, *phase: None)
    monkeypatch.setattr(recipe.calibration, "start_learning", lambda net: None)
    made = step.TrainStep(lambda lr: done.append(lr), [])
    monkeypatch.setattr(recipe.step, "make_step", lambda *given: made)
    rank = SimpleNamespace(share_statistics=lambda net: shared.append(len(done)))
    run = SimpleNamespace(rank=rank, journal=SimpleNamespace(line=lambda text: None))
    trained = SimpleNamespace(cell=SimpleNamespace(set_train=lambda mode: None), loss=None, weights=[])
    one_step = recipe.train_step(trained, configuration(**{key: value}), run)
    one_step.begin(0)
    for _ in range(5):
        one_step.run(0.1)
    assert shared == [value] and len(done) == 5
