"""The compiled CPU kernels against float64 formulas and against the stock MindSpore operators."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore

ms = pytest.importorskip("mindspore")

from mindspore import Tensor, nn, ops  # noqa: E402

from src.cpu_kernels import availability, blocks, build, cells, optimizer, rewrite  # noqa: E402
from src.cpu_kernels.checking import Refused  # noqa: E402
from src.cpu_kernels.custom import custom_operator, settings  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.mobilenetv2 import network  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from src.mobilenetv2.network import Backbone  # noqa: E402
from tests.networks import calm  # noqa: E402

# Odd sizes, one image, one pixel, planes smaller than the filter, channels that fill no vector.
SHAPES = [(2, 5, 9, 7), (1, 1, 1, 1), (3, 17, 2, 2), (1, 3, 1, 6), (2, 19, 33, 14), (9, 32, 4, 4)]
EPS = 1e-5
MOMENTUM = 0.9
LIMITS = {"Linear": (-np.inf, np.inf), "ReLU": (0, np.inf), "ReLU6": (0, 6)}


@pytest.fixture(scope="module")
def library():
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    try:
        return build.library_path()
    except build.KernelsUnavailable as reason:
        pytest.skip(f"the CPU kernels cannot be built here: {reason}")


def random(shape, seed=0, scale=1.0, offset=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale + offset).astype(np.float32)


def run(cell, x, dy):
    """Output, gradient of the input and gradients of the parameters for sum(cell(x) * dy)."""

    def objective(x, dy):
        y = cell(x)
        return (y * dy).sum(), y

    weights = cell.trainable_params()
    gradient = ms.value_and_grad(objective, 0, weights, has_aux=True)

    @ms.jit
    def step(x, dy):
        return gradient(x, dy)

    (_, y), (dx, dweights) = step(Tensor(x), Tensor(dy))
    return y.asnumpy(), dx.asnumpy(), [gradient.asnumpy() for gradient in dweights]


def make_depthwise(channels, stride, seed=0):
    conv = nn.Conv2d(channels, channels, 3, stride, pad_mode="pad", padding=1, group=channels, has_bias=False)
    conv.weight.set_data(Tensor(random((channels, 1, 3, 3), seed)))
    return conv


def depthwise_reference(x, weight, dy, stride):
    """y, dx, dweight in float64; dy may be None for y alone."""
    n, c, h, w = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (h - 1) // stride + 1, (w - 1) // stride + 1
    y, dx, dweight = np.zeros((n, c, rows, columns)), np.zeros_like(padded), np.zeros(weight.shape)
    for i in range(3):
        for j in range(3):
            window = (..., slice(i, i + stride * rows, stride), slice(j, j + stride * columns, stride))
            factor = weight[:, 0, i, j].astype(np.float64)[:, None, None]
            y += factor * padded[window][..., :rows, :columns]
            if dy is not None:
                dx[window] += factor * dy
                dweight[:, 0, i, j] = (padded[window] * dy).sum((0, 2, 3))
    return y, dx[:, :, 1:-1, 1:-1], dweight


def norm_reference(x, gamma, beta, dy, activation, moving=None):
    """y, dx, dgamma, dbeta in float64; `moving` holds mean and variance where those of the batch are not used."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes, shape = (0, 2, 3), (1, -1, 1, 1)
    mean, variance = moving or (x.mean(axes), x.var(axes))
    scale = 1 / np.sqrt(variance + EPS)
    normalized = (x - mean.reshape(shape)) * scale.reshape(shape)
    y = normalized * gamma.reshape(shape) + beta.reshape(shape)
    least, most = LIMITS[activation]
    dy, y = dy * ((y > least) & (y <= most)), np.clip(y, least, most)
    dbeta, dgamma = dy.sum(axes), (dy * normalized).sum(axes)
    through_statistics = 0
    if moving is None:
        through_statistics = (dbeta.reshape(shape) + normalized * dgamma.reshape(shape)) / (x.size / x.shape[1])
    return y, (dy - through_statistics) * (gamma * scale).reshape(shape), dgamma, dbeta


def make_norm(channels, seed=0):
    norm = nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)
    norm.gamma.set_data(Tensor(random(channels, seed, 0.5, 1.5)))
    norm.beta.set_data(Tensor(random(channels, seed + 1, 1.0, 0.5)))
    norm.moving_mean.set_data(Tensor(random(channels, seed + 2)))
    norm.moving_variance.set_data(Tensor(np.abs(random(channels, seed + 3)) + 0.5))
    return norm


def assert_close(actual, expected, tolerance=2e-5):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_depthwise_matches_float64(library, shape, stride):
    conv = make_depthwise(shape[1], stride)
    x, weight = random(shape, 1), conv.weight.asnumpy()
    dy = random(depthwise_reference(x, weight, None, stride)[0].shape, 2)
    y, dx, (dweight,) = run(cells.DepthwiseConv3x3(conv, library), x, dy)
    for actual, expected in zip((y, dx, dweight), depthwise_reference(x, weight, dy, stride)):
        assert_close(actual, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_matches_stock(library, stride):
    conv = make_depthwise(6, stride)
    x, dy = random((2, 6, 11, 10), 1), random((2, 6, (11 - 1) // stride + 1, (10 - 1) // stride + 1), 2)
    stock, fast = run(conv, x, dy), run(cells.DepthwiseConv3x3(conv, library), x, dy)
    for expected, actual in zip((*stock[:2], *stock[2]), (*fast[:2], *fast[2])):
        assert_close(actual, expected)


@pytest.mark.parametrize("out_channels", [1, 8, 50])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 60, 7, 7), (3, 9, 25, 23), (33, 40, 1, 1)])
def test_pointwise_matches_float64(library, shape, out_channels):
    conv = nn.Conv2d(shape[1], out_channels, 1, pad_mode="pad", padding=0, has_bias=False)
    conv.weight.set_data(Tensor(random(conv.weight.shape, 3)))
    x, weight = random(shape, 1), conv.weight.asnumpy().astype(np.float64)[:, :, 0, 0]
    dy = random((shape[0], out_channels, *shape[2:]), 2)
    y, dx, (dweight,) = run(cells.PointwiseConv(conv, library), x, dy)
    assert_close(y, np.einsum("oc,nchw->nohw", weight, x))
    assert_close(dx, np.einsum("oc,nohw->nchw", weight, dy))
    assert_close(dweight[:, :, 0, 0], np.einsum("nohw,nchw->oc", dy.astype(np.float64), x))


def test_pointwise_matches_stock(library):
    conv = nn.Conv2d(12, 20, 1, pad_mode="pad", padding=0, has_bias=False)
    x, dy = random((2, 12, 9, 11), 1), random((2, 20, 9, 11), 2)
    stock, fast = run(conv, x, dy), run(cells.PointwiseConv(conv, library), x, dy)
    for expected, actual in zip((*stock[:2], *stock[2]), (*fast[:2], *fast[2])):
        assert_close(actual, expected)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("kind", ["DepthwiseConv3x3", "PointwiseConv", "Conv"])
def test_a_convolution_with_and_without_bias_matches_stock(library, kind, has_bias):
    """Output and the gradients of input, weight and bias."""
    settings = {
        "DepthwiseConv3x3": {"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1, "group": 6},
        "PointwiseConv": {"out_channels": 9, "kernel_size": 1},
        "Conv": {"out_channels": 5, "kernel_size": 7, "stride": 4, "padding": 3},
    }[kind]
    conv = nn.Conv2d(6, pad_mode="pad", has_bias=has_bias, **settings)
    for seed, parameter in enumerate(conv.get_parameters()):
        parameter.set_data(Tensor(random(parameter.shape, seed)))
    fast = getattr(cells, kind)(conv, library)
    assert [p.name for p in fast.trainable_params()] == [p.name for p in conv.trainable_params()]
    x = random((2, 6, 11, 10), 5)
    dy = random(conv(Tensor(x)).shape, 6)
    expected, found = run(conv, x, dy), run(fast, x, dy)
    assert len(found[2]) == 1 + has_bias
    for wanted, got in zip((*expected[:2], *expected[2]), (*found[:2], *found[2])):
        assert_close(got, wanted)


@pytest.mark.parametrize("activation", ["Linear", "ReLU", "ReLU6"])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 2, 70, 71)])
def test_training_norm_matches_float64(library, shape, activation):
    norm = make_norm(shape[1])
    before = norm.moving_mean.asnumpy().copy(), norm.moving_variance.asnumpy().copy()
    x, dy = random(shape, 4, 3.0, 40.0), random(shape, 5)
    y, dx, (dgamma, dbeta) = run(cells.FusedBatchNorm(norm, library, activation).set_train(), x, dy)
    expected = norm_reference(x, norm.gamma.asnumpy(), norm.beta.asnumpy(), dy, activation)
    for actual, wanted in zip((y, dx, dgamma, dbeta), expected):
        assert_close(actual, wanted, 1e-4)
    count = x.size // shape[1]
    exact = x.astype(np.float64)
    unbiased = exact.var((0, 2, 3)) * (count / max(count - 1, 1))
    assert_close(norm.moving_mean.asnumpy(), MOMENTUM * before[0] + (1 - MOMENTUM) * exact.mean((0, 2, 3)), 1e-6)
    assert_close(norm.moving_variance.asnumpy(), MOMENTUM * before[1] + (1 - MOMENTUM) * unbiased, 1e-6)


@pytest.mark.parametrize("activation", ["Linear", "ReLU", "ReLU6"])
@pytest.mark.parametrize("training", [True, False])
def test_norm_matches_stock(library, training, activation):
    stock_norm, norm = make_norm(5), make_norm(5)
    after = {"Linear": [], "ReLU": [nn.ReLU()], "ReLU6": [nn.ReLU6()]}[activation]
    stock = nn.SequentialCell([stock_norm, *after]).set_train(training)
    fast = cells.FusedBatchNorm(norm, library, activation).set_train(training)
    for seed in (1, 2):
        x, dy = random((3, 5, 8, 9), seed, 3.0, 1.0), random((3, 5, 8, 9), seed + 10)
        expected, actual = run(stock, x, dy), run(fast, x, dy)
        for wanted, got in zip((*expected[:2], *expected[2]), (*actual[:2], *actual[2])):
            assert_close(got, wanted)
        assert_close(norm.moving_mean.asnumpy(), stock_norm.moving_mean.asnumpy(), 1e-6)
        assert_close(norm.moving_variance.asnumpy(), stock_norm.moving_variance.asnumpy(), 1e-6)


def test_eval_norm_uses_and_keeps_the_moving_statistics(library):
    norm = make_norm(3)
    before = norm.moving_mean.asnumpy().copy(), norm.moving_variance.asnumpy().copy()
    x, dy = random((2, 3, 5, 5), 1), random((2, 3, 5, 5), 2)
    y, dx, (dgamma, dbeta) = run(cells.FusedBatchNorm(norm, library, "ReLU6").set_train(False), x, dy)
    expected = norm_reference(x, norm.gamma.asnumpy(), norm.beta.asnumpy(), dy, "ReLU6", before)
    for actual, wanted in zip((y, dx, dgamma, dbeta), expected):
        assert_close(actual, wanted)
    np.testing.assert_array_equal(norm.moving_mean.asnumpy(), before[0])
    np.testing.assert_array_equal(norm.moving_variance.asnumpy(), before[1])


def test_gradients_match_finite_differences(library):
    norm = make_norm(2)
    net = nn.SequentialCell(
        [cells.DepthwiseConv3x3(make_depthwise(2, 2), library), cells.FusedBatchNorm(norm, library)]
    )
    net.set_train()
    x, dy = random((2, 2, 5, 4), 1), random((2, 2, 3, 2), 2)
    _, dx, _ = run(net, x, dy)
    step = 1e-2
    for index in np.ndindex(1, 2, 5, 4):
        high, low = x.copy(), x.copy()
        high[index] += step
        low[index] -= step
        slope = (net(Tensor(high)).asnumpy() - net(Tensor(low)).asnumpy()) * dy / (2 * step)
        assert slope.sum() == pytest.approx(dx[index], abs=2e-2)


@pytest.mark.parametrize("size", [(31, 29), (7, 7)])
def test_results_are_the_same_bit_for_bit(library, size):
    net = nn.SequentialCell(
        [
            cells.DepthwiseConv3x3(make_depthwise(7, 1), library),
            cells.FusedBatchNorm(make_norm(7), library, "ReLU6"),
            cells.PointwiseConv(nn.Conv2d(7, 60, 1), library),
        ]
    ).set_train()
    x, dy = random((3, 7, *size), 1), random((3, 60, *size), 2)
    first, second = run(net, x, dy), run(net, x, dy)
    for a, b in zip((*first[:2], *first[2]), (*second[:2], *second[2])):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("activation", ["Linear", "ReLU", "ReLU6"])
def test_nan_is_not_hidden(library, activation):
    x = random((2, 3, 6, 6), 1)
    x[1, 2, 3, 3] = np.nan
    convolved = cells.DepthwiseConv3x3(make_depthwise(3, 1), library)(Tensor(x)).asnumpy()
    assert np.isnan(convolved[1, 2]).sum() == 9
    mixed = cells.PointwiseConv(nn.Conv2d(3, 5, 1), library)(Tensor(x)).asnumpy()
    assert np.isnan(mixed[1, :, 3, 3]).all() and np.isnan(mixed).sum() == 5
    norm = cells.FusedBatchNorm(make_norm(3), library, activation)
    assert np.isnan(norm.set_train(False)(Tensor(x)).asnumpy()).sum() == 1
    assert np.isnan(norm.set_train()(Tensor(x)).asnumpy()[:, 2]).all()


WRONG = "CPU kernel DepthwiseS1: weight must have the shape (c=4, 1, 3, 3), not (3, 1, 3, 3)"


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_wrong_input_is_refused_while_compiling(library, mode):
    net = cells.DepthwiseConv3x3(make_depthwise(3, 1), library)
    ms.set_context(mode=mode)
    try:
        with pytest.raises(Refused) as shape:
            net(Tensor(random((1, 4, 5, 5)))).asnumpy()
        with pytest.raises(Refused) as dtype:
            net(Tensor(random((1, 3, 5, 5)), ms.float16)).asnumpy()
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    assert WRONG in str(shape.value)
    assert "CPU kernel DepthwiseS1: x must be of type float32, not float16" in str(dtype.value)


def test_wrong_input_is_refused_while_running(library):
    """Where Python did not look: the kernel's own sentence is in what MindSpore raises."""
    unchecked = ops.Custom(f"{library}:DepthwiseS1", lambda x, weight: x, lambda x, weight: ms.float32, "aot")
    with pytest.raises(RuntimeError) as raised:
        unchecked(Tensor(random((1, 4, 5, 5))), Tensor(random((3, 1, 3, 3)))).asnumpy()
    assert WRONG in str(raised.value)


def test_values_that_no_shape_tells_are_refused_while_running(library):
    loss = custom_operator(library, "PixelLoss")
    label = Tensor(np.full((1, 4, 4), 3, np.int32))
    ignored = settings("PixelLoss", "ignore", ignore=255)
    inputs = Tensor(random((1, 3, 2, 2))), label, Tensor(np.ones(3, np.float32)), ignored
    with pytest.raises(RuntimeError, match="CPU kernel PixelLoss: label must hold classes from 0 to 2 or 255, not 3"):
        loss(*inputs)[0].asnumpy()


def test_numbers_and_settings_are_those_of_the_table(library):
    with pytest.raises(ValueError, match="AttentionBackward has to be told heads, not nothing"):
        custom_operator(library, "Attention")
    with pytest.raises(ValueError, match="settings of Conv takes stride, padding, not stride"):
        settings("Conv", stride=1)
    assert settings("Conv", padding=3, stride=2).asnumpy().tolist() == [2, 3]


def test_operators_that_differ_in_a_number_only_keep_their_own_gradients(library):
    """MindSpore looks a gradient up by the attributes of its operator."""
    one, two = (custom_operator(library, "Attention", heads=heads) for heads in (1, 2))
    of_one, of_two = (settings("Attention", "heads", heads=heads) for heads in (1, 2))

    def first(q, kv):
        return one(q, kv, of_one)[0].sum()

    def second(q, kv):
        return two(q, kv, of_two)[0].sum()

    def both(q, kv):
        return first(q, kv) + second(q, kv)

    tensors = Tensor(random((2, 4, 3, 5))), Tensor(random((2, 8, 2, 2), 1))
    parts = [ms.grad(function, (0, 1))(*tensors) for function in (first, second)]
    for found, a, b in zip(ms.grad(both, (0, 1))(*tensors), *parts):
        assert_close(found.asnumpy(), a.asnumpy() + b.asnumpy())


@pytest.mark.parametrize("training", [False, True])
def test_a_replaced_child_keeps_training_mode_and_order(training):
    net = nn.SequentialCell([make_norm(2), nn.ReLU()]).set_train(training)
    names = [p.name for p in net.get_parameters()]
    rewrite.replace_child(net, "1", nn.SequentialCell([nn.Sigmoid()]))
    assert [type(cell) for cell in net.cell_list] == [nn.BatchNorm2d, nn.SequentialCell]
    assert list(net.name_cells()) == ["0", "1"] and net.cell_list[1] is net.name_cells()["1"]
    assert net[1].training == net[1][0].training == training
    rewrite.replace_parts(net, [net[0], nn.Tanh(), nn.ReLU()])
    assert [type(cell) for cell in net.cell_list] == [nn.BatchNorm2d, nn.Tanh, nn.ReLU]
    assert [p.name for p in net.get_parameters()] == names


@pytest.mark.parametrize("slow", [False, True])
def test_names_of_parameters_stay(library, monkeypatch, slow):
    monkeypatch.setattr(availability, "stock_convolutions_are_slow", lambda: slow)
    stock, fast = Backbone(0.25), Backbone(0.25)
    sentence = rewrite.accelerate(fast)
    pointwise = "34 pointwise and 1 larger" if slow else "34 pointwise"
    counts = f"17 depthwise and {pointwise} convolutions and 52 batch normalisations replaced, 16 of them joined"
    assert sentence == f"CPU kernels: {counts}, 16 blocks computed whole"
    assert [p.name for p in fast.get_parameters()] == [p.name for p in stock.get_parameters()]
    assert [p.name for p in fast.trainable_params()] == [p.name for p in stock.trainable_params()]
    # What is left of the stock cells that have a kernel here: the dense 3x3 convolution at the start, up to 2.8.
    left = sum(type(cell) is nn.Conv2d for _, cell in fast.cells_and_names())
    assert left == (0 if slow else 1)
    kinds = {type(cell) for _, cell in fast.cells_and_names()}
    assert not kinds & {nn.BatchNorm2d, nn.ReLU6}


def test_relu_after_a_normalisation_becomes_part_of_it(library):
    def make():
        return nn.SequentialCell([make_norm(6), nn.ReLU(), make_depthwise(6, 1), make_norm(6, 4), nn.Sigmoid()])

    stock, fast = make().set_train(), make()
    assert "2 batch normalisations" in rewrite.accelerate(fast)
    kinds = [type(cell) for cell in fast.cell_list]
    assert kinds == [cells.FusedBatchNorm, nn.Identity, cells.DepthwiseConv3x3, cells.FusedBatchNorm, nn.Sigmoid]
    x = Tensor(random((2, 6, 7, 5), 1))
    assert_close(fast.set_train()(x).asnumpy(), stock(x).asnumpy())


def norm_and_depthwise() -> nn.SequentialCell:
    """A convolution, BN and ReLU6 in one sequence, a depthwise convolution in the next."""
    first = nn.SequentialCell([nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU6()])
    return nn.SequentialCell([first, nn.SequentialCell([make_depthwise(6, 2), nn.BatchNorm2d(6)])])


@pytest.mark.parametrize("mode", ["training", "frozen", "evaluation", "nan"])
def test_a_joined_cell_is_its_two_parts(library, mode):
    """Outputs and moving statistics, with the batch's statistics and with the moving ones."""
    x, found = random((4, 3, 9, 7), 1), []
    if mode == "nan":
        x[1, 2, 3, 3] = np.nan
    for weights_vary in (False, True):
        net = norm_and_depthwise()
        for index, parameter in enumerate(net.get_parameters()):
            parameter.set_data(Tensor(np.abs(random(parameter.shape, index)) + 0.1))
        assert ("joined" in rewrite.accelerate(net, weights_vary=weights_vary)) != weights_vary
        for _, cell in net.cells_and_names():
            if mode == "frozen" and isinstance(cell, cells.FusedBatchNorm):
                cell.use_batch_statistics = False
        y = net.set_train(mode != "evaluation")(Tensor(x)).asnumpy()
        found.append({"y": y, **{p.name: p.asnumpy() for p in net.get_parameters()}})
    joined, parts = found
    assert list(joined) == list(parts) and np.isnan(joined["y"]).any() == (mode == "nan")
    for name, expected in parts.items():
        np.testing.assert_allclose(joined[name], expected, rtol=1e-5, atol=1e-5)


def three_blocks():
    """Inverted residual blocks between two other cells; positive numbers in all of their parameters."""
    parts = [network.InvertedResidual(*sides, 6) for sides in ((8, 16, 2), (16, 16, 1), (16, 8, 1))]
    net = nn.SequentialCell([nn.Conv2d(3, 8, 1), *parts, nn.Sigmoid()])
    for index, parameter in enumerate(net.get_parameters()):
        parameter.set_data(Tensor(np.abs(random(parameter.shape, index)) + 0.1))
    return net


@pytest.mark.parametrize("mode", ["training", "frozen", "half frozen", "evaluation", "nan"])
def test_a_whole_block_is_its_parts(library, monkeypatch, mode):
    """Outputs and moving statistics, of all blocks, of none, and of those with many pixels alone."""
    x, found = random((4, 3, 9, 7), 1), []
    if mode == "nan":
        x[1, 2, 3, 3] = np.nan
    for least in (1, 10**6, 100):  # after the first block 80 pixels are left
        monkeypatch.setattr(blocks, "LEAST_PIXELS", least)
        net = three_blocks()
        assert rewrite.accelerate(net).endswith(", 3 of them joined, 3 blocks computed whole")
        norms = [cell for _, cell in net.cells_and_names() if isinstance(cell, cells.FusedBatchNorm)]
        for norm in norms[: {"frozen": len(norms), "half frozen": 4}.get(mode, 0)]:
            norm.use_batch_statistics = False
        y = net.set_train(mode != "evaluation")(Tensor(x)).asnumpy()
        found.append({"y": y, **{p.name: p.asnumpy() for p in net.get_parameters()}})
    stock = three_blocks()
    for state in found:
        assert list(state) == ["y", *(p.name for p in stock.get_parameters())]
        assert np.isnan(state["y"]).any() == (mode == "nan")
        for name, expected in found[1].items():
            np.testing.assert_allclose(state[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("fast", [True, False])
def test_blocks_train_in_bfloat16_where_the_processor_can(library, monkeypatch, fast):
    monkeypatch.setattr(availability, "has_bfloat16", lambda library: fast)
    monkeypatch.setattr(blocks, "LEAST_PIXELS", 1)
    x, found = random((4, 3, 9, 7), 1), {}
    for dtype in ("float32", "bfloat16"):
        net = three_blocks()
        sentence = rewrite.accelerate(net, dtype=dtype)
        found[dtype] = net.set_train()(Tensor(x)).asnumpy()
    assert sentence.endswith(
        "in bfloat16" if fast else "; in float32, because this processor has no instructions for bfloat16"
    )
    assert (found["bfloat16"] != found["float32"]).any() == fast
    np.testing.assert_allclose(found["bfloat16"], found["float32"], atol=0.02)


def test_blocks_that_an_operator_cannot_compute_are_left_alone(library):
    """Hidden channels that fill no vector, and a ReLU in the place of a ReLU6."""
    odd, other = network.InvertedResidual(3, 8, 1, 6), network.InvertedResidual(8, 8, 1, 6)
    other.conv[1][2] = nn.ReLU()
    assert rewrite.accelerate(nn.SequentialCell([odd, other])).endswith(", 2 of them joined")


def test_a_sequence_used_twice_is_not_joined(library):
    first, second = norm_and_depthwise().cell_list
    net = nn.SequentialCell([first, second, first, nn.SequentialCell([])])
    assert "joined" not in rewrite.accelerate(net)


@pytest.mark.parametrize("shared", [0, 1])
def test_a_sequence_used_by_two_others_is_not_joined(library, shared):
    """Where the second one has no partner, the joined cell would leave a part out or do it twice."""
    one, other = norm_and_depthwise(), nn.SequentialCell([nn.SequentialCell([nn.Sigmoid()])])
    stock = nn.SequentialCell([one.cell_list[0], one.cell_list[1]])
    pair = nn.SequentialCell([one.cell_list[shared], other])
    x = Tensor(random((2, 6 if shared else 3, 9, 7), 1))
    expected = pair.set_train(False)(x).asnumpy()
    assert "joined" not in rewrite.accelerate(nn.CellList([stock, pair]))
    assert_close(pair.set_train(False)(x).asnumpy(), expected)


def test_larger_filters_get_a_kernel_where_the_stock_ones_are_slow(library, monkeypatch):
    monkeypatch.setattr(availability, "stock_convolutions_are_slow", lambda: True)
    stock = nn.SequentialCell([nn.Conv2d(3, 6, 3, 2, pad_mode="pad", padding=1), nn.Conv2d(6, 4, 2, pad_mode="valid")])
    fast = nn.SequentialCell([*stock.cell_list])
    assert "2 larger" in rewrite.accelerate(fast)
    assert not any(type(cell) is nn.Conv2d for _, cell in fast.cells_and_names())
    x = Tensor(random((2, 3, 9, 12), 3))
    assert_close(fast(x).asnumpy(), stock(x).asnumpy(), 1e-5)


def test_other_convolutions_are_left_alone(library):
    net = nn.SequentialCell(
        [
            nn.Conv2d(4, 4, 3, pad_mode="same", group=4),
            nn.Conv2d(4, 4, 3, pad_mode="pad", padding=2, dilation=2, group=4),
            nn.Conv2d(4, 8, 3, pad_mode="pad", padding=1, group=4),
            nn.Conv2d(8, 8, 5, pad_mode="pad", padding=2, group=8),
            nn.Conv2d(8, 8, 1, stride=2),
            nn.Conv2d(8, 8, 1, pad_mode="pad", padding=1),
            nn.Conv2d(8, 8, 1, group=2),
            nn.Conv2d(8, 8, 3, pad_mode="same"),
        ]
    )
    expected = "CPU kernels: 0 depthwise and 0 pointwise convolutions and 0 batch normalisations replaced"
    assert rewrite.accelerate(net) == expected


def batch(number, classes=5):
    """Eight images of coloured patches with a little noise, and one-hot labels."""
    rng = np.random.default_rng((7, number))
    label = rng.integers(0, classes, 8)
    patches = rng.standard_normal((8, 3, 4, 4)).repeat(16, 2).repeat(16, 3)
    colour = np.random.default_rng(11).standard_normal((classes, 3, 1, 1))
    image = colour[label] + patches + 0.1 * rng.standard_normal((8, 3, 64, 64))
    return image.astype(np.float32), np.eye(classes, dtype=np.float32)[label]


def train(mode, steps=20):
    """Losses of the whole MobileNetV2 over `steps` steps as train.py takes them, and what it holds before and after."""
    net = calm(network.build(5, 0.35, seed=5))
    before = {parameter.name: parameter.asnumpy().copy() for parameter in net.get_parameters()}
    assert rewrite.accelerate(net, mode).startswith("CPU kernels off" if mode == "off" else "CPU kernels: ")
    net.set_train()

    def loss(image, target):
        return cross_entropy(net(image), target)

    run = step.make_step(loss, step.momentum_optimizer(net, 0.9, 4e-5))
    losses = [float(run(0.01, *batch(number % 2)).asnumpy()) for number in range(steps)]
    return losses, before, {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}


def test_twenty_training_steps_agree_with_stock(library):
    stock_losses, before, stock = train("off")
    losses, _, fast = train("on")
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-5)
    assert losses[-1] < losses[0]
    assert list(fast) == list(stock)
    for name, expected in stock.items():
        moved = np.abs(expected - before[name]).max()
        assert np.abs(fast[name] - expected).max() <= 2e-3 * moved + 1e-5, name


def updated(kind, steps=5):
    """Losses and the state of a small network after some steps with momentum, decay and a moving average."""
    net = nn.SequentialCell([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()])
    net.append(nn.Dense(8 * 36, 4))
    rng = np.random.default_rng(3)
    for parameter in net.get_parameters():
        parameter.set_data(Tensor((rng.standard_normal(parameter.shape) * 0.01 + 0.1).astype(np.float32)))
    net.set_train()

    def loss(image):
        return (net(image) ** 2).mean() * 0.1

    options = step.StepOptions(ema_decay=0.9)
    run = step.make_step(loss, step.momentum_optimizer(net, 0.9, 0.01, kind=kind), options, net.get_parameters())
    losses = [float(run(0.01 * (n + 1), random((4, 3, 6, 6), seed=n)).asnumpy()) for n in range(steps)]
    return losses, {parameter.name: parameter.asnumpy() for parameter in run.state}


def test_one_kernel_updates_as_the_stock_optimizer_does(library):
    """The state has the same names in the same order, so checkpoints of both go on with the other."""
    assert optimizer.momentum_kind("off") is nn.Momentum
    stock_losses, stock = updated(nn.Momentum)
    losses, fused = updated(optimizer.momentum_kind("on"))
    again, repeated = updated(optimizer.momentum_kind("on"))
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-5)
    assert losses == again and list(fused) == list(stock)
    assert any(name.startswith("moments.") for name in fused) and any(name.startswith("ema.") for name in fused)
    for name, expected in stock.items():
        np.testing.assert_allclose(fused[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(fused[name], repeated[name], err_msg=name)


@pytest.mark.parametrize("slow", [False, True])
def test_falls_back_when_there_is_no_compiler(monkeypatch, slow):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.setattr(availability, "stock_convolutions_are_slow", lambda: slow)
    net = nn.SequentialCell([nn.BatchNorm2d(2), nn.ReLU6()])
    sentence = rewrite.accelerate(net, "auto")
    assert sentence.startswith("CPU kernels off: ") and "/nowhere/c++" in sentence
    price = f", and MindSpore {ms.__version__}'s own convolutions are many times slower than those of 2.8"
    assert sentence.endswith("stock operators are used" + (price if slow else ""))
    assert type(net[0]) is nn.BatchNorm2d and type(net[1]) is nn.ReLU6
    with pytest.raises(ZooError, match="/nowhere/c"):
        rewrite.accelerate(net, "on")
    assert rewrite.accelerate(net, "off").startswith("CPU kernels off")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "errors/a.cc: In function 'f':\na.cc:1:9: warning: y\n"
            "a.cc:3:5: error: no such thing\n    3 |  x\n      |  ^\na.cc:4:1: error: another one\n",
            "a.cc:3:5: error: no such thing",
        ),
        (
            "cc1plus: fatal error: a.cc: No such file\ncompilation terminated.\n",
            "cc1plus: fatal error: a.cc: No such file",
        ),
        ("first\nKilled  \n\n", "Killed"),
        ("", "{compiler} ended with status 1"),
    ],
)
def test_failed_compilation_names_the_first_error(monkeypatch, tmp_path, said, reason):
    compiler, text = tmp_path / "c++", tmp_path / "said"
    text.write_text(said)
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\ncat {text} >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(build.KernelsUnavailable) as raised:
        build.library_path()
    assert str(raised.value) == f"compiling the CPU kernels failed: {reason.format(compiler=compiler)}"


def test_unwritable_repository_uses_the_user_cache(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(build, "REPOSITORY", blocked)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert build._cache_folder().is_relative_to(tmp_path / "cache")


def test_processes_that_start_together_compile_once(monkeypatch, tmp_path):
    """Threads stand for them: their locks are as apart as those of processes."""
    real = build._compiler()[0]
    compiler, calls = tmp_path / "c++", tmp_path / "calls"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho x >> {calls}\nsleep 0.3\n'
        f'for last; do :; done\necho "int x;" | exec {real} -shared -fPIC -xc++ - -o "$last"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(build, "REPOSITORY", tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = {path.name for path in pool.map(lambda _: build.library_path(), range(4))}
    assert (len(found), calls.read_text()) == (1, "x\n" * (len(build.SOURCES) + 1))
