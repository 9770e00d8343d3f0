"""SegFormer on the CPU kernels against the same network on stock operators."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mindspore")

import mindspore as ms
from mindspore import Tensor

from src.cpu_kernels import availability, build, rewrite
from src.engine.errors import ZooError
from src.engine.steps import step
from src.segformer import network, on_cpu
from src.segformer.loss import cross_entropy
from src.segformer.variants import VARIANTS, Variant

CLASSES, IGNORED = 5, 255
SMALL = Variant((8, 16, 20, 32), (1, 1, 1, 1), 32)  # one block per stage: less to compile
SIZE = (64, 96)  # the last stage is 2 x 3


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(VARIANTS, "mit_b0", SMALL)


@pytest.fixture(scope="module", autouse=True)
def needs_kernels():
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    try:
        build.library_path()
    except build.KernelsUnavailable as reason:
        pytest.skip(f"the CPU kernels cannot be built here: {reason}")


def batch() -> tuple[np.ndarray, ...]:
    """Two images, their labels, and masks of which some drop a branch or a channel."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, CLASSES, (2, *SIZE)).astype(np.int32)
    label[:, :9] = IGNORED
    keep_path = (rng.random((4, 2, 2)) < 0.8).astype(np.float32) / 0.8
    keep_channel = (rng.random((2, 32)) < 0.9).astype(np.float32) / 0.9
    return rng.standard_normal((2, 3, *SIZE)).astype(np.float32), label, keep_path, keep_channel


def make(mode: str) -> network.SegFormer:
    net = network.build("mit_b0", CLASSES, 0, seed=1)
    on_cpu.accelerate(net, mode)
    return net


def train(mode: str, steps: int = 20) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses of `steps` steps of the training that work.train_step compiles, and the parameters after them."""
    net = make(mode)
    net.set_train(True)
    weights = Tensor(np.linspace(0.5, 1.5, CLASSES).astype(np.float32))
    fused = on_cpu.loss_of(net, weights, IGNORED)
    assert (fused is None) == (mode == "off")

    def loss(image, label, keep_path, keep_channel):
        if fused is not None:
            return fused(image, label, keep_path, keep_channel)
        return cross_entropy(net(image, keep_path, keep_channel), label, weights, IGNORED)

    # Not AdamW: it moves a bias without any gradient by the learning rate, in the direction of the rounding.
    run = step.make_step(loss, step.momentum_optimizer(net, 0.9, 1e-4))
    losses = [float(run(0.01, *batch()).asnumpy()) for _ in range(steps)]
    return losses, {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}


def test_twenty_steps_agree_with_stock_operators():
    stock_losses, stock = train("off")
    losses, fast = train("on")
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-4)
    assert losses[-1] < losses[0]
    assert list(fast) == list(stock)
    for name, expected in stock.items():
        np.testing.assert_allclose(fast[name], expected, atol=1e-5 + 1e-4 * np.abs(expected).max(), err_msg=name)


def test_logits_of_an_odd_size_agree_with_stock_operators():
    stock, fast = make("off").set_train(False), make("on").set_train(False)
    image = Tensor(np.random.default_rng(0).standard_normal((1, 3, 70, 45)).astype(np.float32))
    expected, found = stock(image).asnumpy(), fast(image).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_parameters_keep_names_and_order():
    stock, fast = make("off"), network.build("mit_b0", CLASSES, 0, seed=1)
    sentence = on_cpu.accelerate(fast)
    assert sentence == "CPU kernels: 4 transformer blocks, 4 patch embeddings and the decode head replaced"
    assert [p.name for p in fast.get_parameters()] == [p.name for p in stock.get_parameters()]
    assert [p.name for p in fast.trainable_params()] == [p.name for p in stock.trainable_params()]


def test_no_compiler_leaves_the_network_alone(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.setattr(availability, "stock_convolutions_are_slow", lambda: True)
    net = network.build("mit_b0", CLASSES, 0, seed=1)
    assert on_cpu.accelerate(net, "auto") == rewrite.accelerate(net, "auto")
    assert "/nowhere/c++" in on_cpu.accelerate(net, "auto")
    assert isinstance(net.decode_head, network.Head)
    with pytest.raises(ZooError, match="/nowhere/c"):
        on_cpu.accelerate(net, "on")
