"""SegFormer's network: parameters, shapes, gradients, masks, initial weights, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor, nn  # noqa: E402

from mindspore_hub_conf import create_network  # noqa: E402
from src.engine import loop, precision  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.engine.steps.adamw import AdamW  # noqa: E402
from src.engine.steps.loss_scale import DynamicScale  # noqa: E402
from src.segformer import network  # noqa: E402
from src.segformer.drop_masks import keep_masks  # noqa: E402
from src.segformer.loss import cross_entropy  # noqa: E402
from src.segformer.variants import VARIANTS, Variant, decoder_width, drop_path_rates  # noqa: E402

ENCODER = {  # parameters, https://arxiv.org/abs/2105.15203 rounds them to millions
    "mit_b0": 3_319_392,
    "mit_b1": 13_151_424,
    "mit_b2": 24_196_288,
    "mit_b3": 44_072_128,
    "mit_b4": 60_842_688,
    "mit_b5": 81_443_008,
}
WHOLE = {  # with 19 classes: the original MindSpore decode head, and the paper's
    "mit_b0": (3_719_027, 3_719_027),
    "mit_b1": (14_737_107, 13_682_131),
    "mit_b2": (25_781_971, 27_361_235),
    "mit_b3": (45_657_811, 47_237_075),
    "mit_b4": (62_428_371, 64_007_635),
    "mit_b5": (83_028_691, 84_607_955),
}


@pytest.fixture(scope="module")
def net() -> network.SegFormer:
    return network.build("mit_b0", 5, 0, seed=1)


def count(cell: nn.Cell) -> int:
    return sum(p.size for p in cell.trainable_params())


def random_image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("backbone", VARIANTS)
def test_parameter_counts(backbone):
    encoder = count(network.Backbone(backbone, None))
    assert encoder == ENCODER[backbone]
    widths = (decoder_width(backbone, 0), VARIANTS[backbone].paper_decoder_dim)
    heads = [count(network.Head(VARIANTS[backbone].channels, width, 19)) for width in widths]
    assert tuple(encoder + head for head in heads) == WHOLE[backbone]


@pytest.mark.parametrize("size", [(64, 64), (45, 83)])
def test_any_input_size_gives_logits_of_that_size(net, size):
    net.set_train(False)
    image = Tensor(random_image(2, 3, *size))
    whole, coarse = net(image), network.QuarterLogits(net)(image)
    assert whole.shape == (2, 5, *size)
    assert coarse.shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))
    assert np.isfinite(whole.asnumpy()).all()


def test_bilinear_matrix_is_that_of_half_pixel_centres():
    assert np.allclose(network.bilinear_matrix(2, 4).asnumpy(), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert np.allclose(network.bilinear_matrix(3, 3).asnumpy(), np.eye(3))
    assert np.allclose(network.bilinear_matrix(7, 20).asnumpy().sum(1), 1)
    assert np.allclose(network.bilinear_matrix(4, 2).asnumpy(), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])


def test_the_seed_fixes_the_initial_weights(net):
    again, other = network.build("mit_b0", 5, 0, seed=1), network.build("mit_b0", 5, 0, seed=2)
    for one, two in zip(net.get_parameters(), again.get_parameters()):
        assert (one.asnumpy() == two.asnumpy()).all(), one.name
    assert any((one.asnumpy() != two.asnumpy()).any() for one, two in zip(net.get_parameters(), other.get_parameters()))
    block = net.backbone.stages[2].blocks[0]
    assert block.mlp.fc1.weight.asnumpy().std() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.dwconv.weight.asnumpy().std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert net.backbone.stages[0].patch_embed.proj.weight.asnumpy().std() == pytest.approx(
        (2 / 49 / 32) ** 0.5, rel=0.05
    )
    assert not block.attn.q.bias.asnumpy().any()


def test_hub_entry():
    net = create_network("segformer", num_classes=4, backbone="mit_b1", decoder_dim=64)
    assert net.decode_head.linear_pred.weight.shape == (4, 64, 1, 1)
    assert len(create_network("segformer", include_top=False).stages) == 4
    with pytest.raises(ValueError, match="backbone is 'mit_b9'; it has to be one of mit_b0"):
        create_network("segformer", backbone="mit_b9")


class TestMasks:
    def test_shares_and_values(self):
        paths, head = keep_masks([0.0, 0.5], 4000, 0.25, 3, (1, 2, 3))
        assert paths.shape == (2, 2, 3)
        assert head.shape == (3, 4000)
        assert (paths[0] == 1).all()
        assert set(np.unique(head)) == {0, np.float32(1 / 0.75)}
        assert head.mean() == pytest.approx(1, abs=0.05)

    def test_they_belong_to_seed_epoch_and_step(self):
        rates = drop_path_rates("mit_b0")
        assert rates[0] == 0
        assert rates[-1] == 0.1
        first = keep_masks(rates, 64, 0.1, 2, (1, 2, 3))
        assert all((one == two).all() for one, two in zip(first, keep_masks(rates, 64, 0.1, 2, (1, 2, 3))))
        for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
            assert (keep_masks(rates, 64, 0.1, 2, key)[1] != first[1]).any()

    def test_ones_change_nothing_and_a_dropped_branch_is_left_out(self, net):
        net.set_train(False)
        image = Tensor(random_image(2, 3, 32, 32))
        plain = net(image).asnumpy()
        paths, head = np.ones((8, 2, 2), np.float32), np.ones((2, 256), np.float32)
        np.testing.assert_allclose(net(image, Tensor(paths), Tensor(head)).asnumpy(), plain, atol=1e-6)
        paths[3, :, 1] = 0
        dropped = net(image, Tensor(paths), Tensor(head)).asnumpy()
        np.testing.assert_allclose(dropped[0], plain[0], atol=1e-6)
        assert np.abs(dropped[1] - plain[1]).max() > 1e-3


class TestLoss:
    WEIGHTS = np.array([0.5, 1.0, 2.0], np.float32)

    def loss(self, logits: np.ndarray, label: np.ndarray) -> float:
        return float(cross_entropy(Tensor(logits), Tensor(label), Tensor(self.WEIGHTS), 255).asnumpy())

    def test_weighted_mean_over_the_pixels_that_count(self):
        logits = random_image(2, 3, 4, 5)
        label = np.random.default_rng(1).integers(0, 3, (2, 4, 5)).astype(np.int32)
        label[0, :2] = 255
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        total = weight = 0.0
        for n, y, x in zip(*np.nonzero(label != 255)):
            k = label[n, y, x]
            total -= self.WEIGHTS[k] * np.log(shares[n, k, y, x])
            weight += self.WEIGHTS[k]
        assert self.loss(logits, label) == pytest.approx(total / weight, rel=1e-5)

    def test_nothing_but_ignored_pixels_is_zero_with_zero_gradients(self):
        logits, label = Tensor(random_image(1, 3, 4, 4)), Tensor(np.full((1, 4, 4), 255, np.int32))
        value, gradient = ms.value_and_grad(cross_entropy)(logits, label, Tensor(self.WEIGHTS), 255)
        assert float(value.asnumpy()) == 0
        assert not gradient.asnumpy().any()


def loss_of(net: network.SegFormer):
    weights = Tensor(np.ones(5, np.float32))

    def loss(image, label):
        return cross_entropy(net(image), label, weights, 255)

    return loss


def halves(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Two images of two colours each, and their labels, one pixel of which is ignored.

    Smaller ones would leave a single key to attend to, and so no gradient for the queries.
    """
    label = np.zeros((2, size, size), np.int32)
    label[0, :, size // 2 :], label[1, : size // 2] = 1, 2
    colours = np.array([[1, 0, -1], [-1, 1, 0], [0, -1, 1]], np.float32)
    image = colours[label].transpose(0, 3, 1, 2).copy()
    label[:, 0, 0] = 255
    return image, label


def test_every_parameter_has_a_gradient_and_training_fits_two_images():
    net = network.build("mit_b0", 5, 0, seed=1)
    net.set_train(True)
    optimizer = AdamW(net.trainable_params(), 0.01, True)
    before = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    run = step.make_step(loss_of(net), optimizer)
    image, label = halves()
    losses = [float(run(0.002, image, label).asnumpy()) for _ in range(25)]
    assert losses[-1] < 0.1 < losses[0]
    for parameter in net.get_parameters():
        assert (parameter.asnumpy() != before[parameter.name]).any(), parameter.name


class TestAdamW:
    """A dense layer with a loss whose gradient is known."""

    def make(self, bias_correction: bool):
        net = nn.Dense(3, 1)
        net.weight.set_data(Tensor(np.array([[1.0, -2.0, 0.5]], np.float32)))
        net.bias.set_data(Tensor(np.zeros(1, np.float32)))
        optimizer = AdamW(net.trainable_params(), 0.1, bias_correction, self.multiplier)

        def loss(x):
            return net(x).sum()

        return net, optimizer, loss

    @staticmethod
    def multiplier(name: str) -> float:
        return 10.0 if name == "bias" else 1.0

    @pytest.mark.parametrize("bias_correction", [True, False])
    def test_the_formula(self, bias_correction):
        net, optimizer, loss = self.make(bias_correction)
        run = step.make_step(loss, optimizer)
        weight, bias = np.array([1.0, -2.0, 0.5]), np.zeros(1)
        m_w, v_w, m_b, v_b = np.zeros(3), np.zeros(3), 0.0, 0.0
        for number, rate in enumerate((0.1, 0.05, 0.0, 0.02), start=1):
            x = random_image(1, 3, seed=number)
            run(rate, x)
            c1, c2 = (1 - 0.9**number, 1 - 0.999**number) if bias_correction else (1.0, 1.0)
            m_w, v_w = 0.9 * m_w + 0.1 * x[0], 0.999 * v_w + 0.001 * x[0] ** 2
            m_b, v_b = 0.9 * m_b + 0.1, 0.999 * v_b + 0.001
            weight = weight - rate * (m_w / c1 / (np.sqrt(v_w / c2) + 1e-8) + 0.1 * weight)
            bias = bias - 10 * rate * (m_b / c1 / (np.sqrt(v_b / c2) + 1e-8))  # no decay on a bias
        np.testing.assert_allclose(net.weight.asnumpy()[0], weight, rtol=2e-5)
        np.testing.assert_allclose(net.bias.asnumpy(), bias, rtol=2e-5)

    def test_the_loss_scale_follows_overflows_and_changes_nothing_else(self):
        plain, scaled = self.make(True), self.make(True)
        reference = step.make_step(plain[2], plain[1])
        run = step.make_step(scaled[2], scaled[1], step.StepOptions(DynamicScale(8.0, window=3)))
        x = np.ones((1, 3), np.float32)
        scales = []
        for number in range(7):
            overflows = number == 4
            loss = float(run(0.01, x * np.inf if overflows else x).asnumpy())
            assert np.isfinite(loss)
            assert bool(run.scaling()[0]) == overflows
            scales.append(float(run.scaling()[1]))
            if not overflows:
                assert loss == pytest.approx(float(reference(0.01, x).asnumpy()), rel=1e-6)
        assert scales == [8, 8, 16, 16, 8, 8, 8]
        np.testing.assert_allclose(scaled[0].weight.asnumpy(), plain[0].weight.asnumpy(), rtol=1e-6)


class TestSmall:
    """A network of one block per stage: what does not depend on the depth, in a tenth of the compile time."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setitem(VARIANTS, "mit_b0", Variant((8, 16, 20, 32), (1, 1, 1, 1), 32))

    def train(self, net, forward, make_step, steps=3):
        masks = keep_masks([0.0, 0.1, 0.1, 0.1], 32, 0.1, 2, (1, 0, 0))
        image, label = random_image(2, 3, 64, 64), np.arange(2 * 64 * 64).reshape(2, 64, 64).astype(np.int32) // 64 % 5
        weights = Tensor(np.ones(5, np.float32))
        net.set_train()

        def loss(image, label, keep_path, keep_channel):
            return cross_entropy(forward(image, keep_path, keep_channel), label, weights, 255)

        train = make_step(loss, AdamW(net.trainable_params(), 0.01, True))
        return [float(train(1e-3, image, label, *masks).asnumpy()) for _ in range(steps)]

    @pytest.mark.slow
    def test_mixed_precision_trains_and_predicts(self):
        net = precision.apply(network.build("mit_b0", 5, 0, seed=1), "float16")
        options = step.StepOptions(DynamicScale())
        losses = self.train(net, net, lambda loss, optimizer: step.make_step(loss, optimizer, options))
        assert np.isfinite(losses).all() and losses[-1] < losses[0]
        logits = loop.predictor(network.QuarterLogits(net))(random_image(1, 3, 64, 64))
        assert logits.dtype == np.float32 and np.isfinite(logits).all()
