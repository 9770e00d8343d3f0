"""The network: parameter counts, shapes, gradients, names, and one compiled training step."""

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src.cpu_kernels import rewrite  # noqa: E402
from src.engine import device  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.engine.steps.average import averaged, moving_average_of  # noqa: E402
from src.mobilenetv2 import network  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from tests.networks import calm  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cpu():
    device.setup("CPU")


def count(net) -> int:
    return sum(p.size for p in net.trainable_params())


def test_parameter_counts():
    net = network.MobileNetV2(1000)
    assert count(net) == 3_504_872
    assert count(net.backbone) == 2_223_872
    assert count(net.head) == 1_281_000
    assert count(network.MobileNetV2(26)) == 2_257_178
    assert sum(p.size for p in net.get_parameters()) - count(net) == 34_112  # moving statistics


@pytest.mark.parametrize(("width", "stem", "last"), [(0.35, 16, 1280), (0.75, 24, 1280), (1.4, 48, 1792)])
def test_width_multiplier(width, stem, last):
    backbone = network.Backbone(width)
    assert backbone.features[0][0].out_channels == stem
    assert backbone.out_channels == last


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride(stride):
    backbone = network.Backbone(0.35, stride).set_train(False)
    assert backbone(ms.Tensor(np.zeros((1, 3, 64, 96), np.float32))).shape == (1, 1280, 64 // stride, 96 // stride)
    paper = {p.name: p.shape for p in network.Backbone(0.35).get_parameters()}
    assert {p.name: p.shape for p in backbone.get_parameters()} == paper  # so weights of one stride start another


def test_channels_are_rounded_like_the_paper():
    assert [network.scaled_channels(c, 0.35) for c in (16, 24, 32, 64, 96, 160, 320)] == [8, 8, 16, 24, 32, 56, 112]
    assert [network.scaled_channels(c, 0.75) for c in (16, 24, 32)] == [16, 24, 24]


def test_initial_weights_follow_the_recipe_and_the_seed():
    net = network.build(10, 1.0, seed=3)
    depthwise = net.backbone.features[2].conv[1][0].weight.asnumpy()  # (96, 1, 3, 3)
    assert depthwise.std() == pytest.approx(np.sqrt(2 / (9 * 96)), rel=0.1)
    assert net.head.dense.weight.asnumpy().std() == pytest.approx(0.01, rel=0.05)
    assert not net.head.dense.bias.asnumpy().any()
    again, other = network.build(10, 1.0, seed=3), network.build(10, 1.0, seed=4)
    for one, same, different in zip(net.get_parameters(), again.get_parameters(), other.get_parameters()):
        assert (one.asnumpy() == same.asnumpy()).all()
        if one.ndim > 1:
            assert (one.asnumpy() != different.asnumpy()).any()


def test_every_gradient_is_present_and_an_odd_input_size_works():
    net = network.build(4, 0.35, seed=1)
    net.set_train(True)
    rewrite.accelerate(net, "auto")
    image = ms.Tensor(np.random.default_rng(0).standard_normal((2, 3, 45, 51)).astype(np.float32))
    target = ms.Tensor(np.eye(4, dtype=np.float32)[:2])

    def loss(image, target):
        return cross_entropy(net(image), target)

    gradients = ms.value_and_grad(loss, None, net.trainable_params())(image, target)[1]
    assert len(gradients) == len(net.trainable_params())
    for parameter, gradient in zip(net.trainable_params(), gradients):
        assert np.abs(gradient.asnumpy()).max() > 0, parameter.name


class TestStep:
    """A linear model, so that every number can be computed by hand."""

    def make(self, **options):
        net = ms.nn.Dense(3, 2)
        net.weight.set_data(ms.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3) / 10))
        net.bias.set_data(ms.Tensor(np.zeros(2, np.float32)))
        optimizer = step.momentum_optimizer(net, momentum=0.9, weight_decay=0.01)
        average = moving_average_of(optimizer.parameters) if options.get("ema_decay") else None

        def loss(x):
            return net(x).sum()

        run = step.make_step(loss, optimizer, step.StepOptions(**options), average=average)
        return net, optimizer, average, run

    def test_momentum_decay_and_learning_rate(self):
        net, _, _, run = self.make()
        x = np.array([[1.0, 2.0, 3.0]], np.float32)
        weight, bias = net.weight.asnumpy().copy(), net.bias.asnumpy().copy()
        v_weight, v_bias = np.zeros_like(weight), np.zeros_like(bias)
        for rate in (0.1, 0.2, 0.0, 0.05):
            run(rate, x)
            v_weight = 0.9 * v_weight + x + 0.01 * weight
            v_bias = 0.9 * v_bias + 1  # no decay on a bias
            weight, bias = weight - rate * v_weight, bias - rate * v_bias
        np.testing.assert_allclose(net.weight.asnumpy(), weight, rtol=1e-5)
        np.testing.assert_allclose(net.bias.asnumpy(), bias, rtol=1e-5)

    def test_loss_scale_changes_nothing_in_float32(self):
        plain, scaled = self.make(), self.make(loss_scale=1024.0)
        x = np.array([[1.0, 2.0, 3.0]], np.float32)
        assert float(plain[3](0.1, x).asnumpy()) == float(scaled[3](0.1, x).asnumpy())
        np.testing.assert_allclose(plain[0].weight.asnumpy(), scaled[0].weight.asnumpy(), rtol=1e-6)

    def test_clipping_limits_the_global_norm(self):
        net, _, _, run = self.make(clip_norm=0.5)
        before = np.concatenate([p.asnumpy().ravel() for p in net.get_parameters()])
        run(1.0, np.array([[100.0, 0.0, 0.0]], np.float32))
        after = np.concatenate([p.asnumpy().ravel() for p in net.get_parameters()])
        assert np.linalg.norm(after - before) == pytest.approx(0.5, rel=0.05)  # weight decay adds a little

    def test_moving_average_and_its_use(self):
        net, optimizer, average, run = self.make(ema_decay=0.75)
        first = net.weight.asnumpy().copy()
        run(0.1, np.ones((1, 3), np.float32))
        second = net.weight.asnumpy().copy()
        mean = average[0].asnumpy()
        np.testing.assert_allclose(mean, 0.75 * first + 0.25 * second, rtol=1e-6)
        with averaged(optimizer.parameters, average):
            np.testing.assert_allclose(net.weight.asnumpy(), mean)
        np.testing.assert_allclose(net.weight.asnumpy(), second)

    def test_training_after_the_average_was_in_place_goes_on_from_the_weights(self):
        plain, looked = self.make(ema_decay=0.75), self.make(ema_decay=0.75)
        x = np.array([[1.0, 2.0, 3.0]], np.float32)
        for _ in range(3):
            for net, optimizer, average, run in (plain, looked):
                run(0.1, x)
                if net is looked[0]:
                    with averaged(optimizer.parameters, average):
                        pass
        assert (plain[0].weight.asnumpy() == looked[0].weight.asnumpy()).all()
        assert (plain[2][0].asnumpy() == looked[2][0].asnumpy()).all()


@pytest.mark.slow
def test_boosted_step_learns_and_keeps_the_names():
    from src.engine.steps import boost

    def loss(image, target):
        return cross_entropy(net(image), target)

    net = calm(network.build(3, 0.25, seed=1))
    net.set_train(True)
    names = [p.name for p in net.get_parameters()]
    plan = boost.Boost(total_steps=50, seed=1, momentum=0.9, weight_decay=0.00004)
    run = boost.make_step(net, loss, step.StepOptions(1024.0), plan, list(net.get_parameters()))
    rng = np.random.default_rng(0)
    image = rng.standard_normal((6, 3, 32, 32)).astype(np.float32)
    target = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 6)]
    losses = [float(run(0.01, image, target).asnumpy()) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.1
    assert [p.name for p in net.get_parameters()] == names
