"""Training steps with a loss scale: what overflows changes nothing, on no rank; and boost, at every scale."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor, nn, ops  # noqa: E402

from src.cpu_kernels import cells, rewrite  # noqa: E402
from src.engine import loop, precision  # noqa: E402
from src.engine.steps import boost, collective, step  # noqa: E402
from src.engine.steps.loss_scale import DynamicScale, GuardedStep  # noqa: E402
from src.engine.steps.step import StepOptions, TrainStep  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from src.mobilenetv2.network import ConvBNReLU6, InvertedResidual  # noqa: E402
from src.quantisation.quantiser import ActivationQuantiser, Grid  # noqa: E402

SCALE = 1024.0
TARGET = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]


def scaling_of(step) -> tuple[bool, float]:
    """Whether the last step overflowed, and the scale of the next one."""
    overflow, scale = step.scaling()
    return bool(overflow), float(scale)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 3, 8, 8)).astype(np.float32)


class Small(nn.Cell):
    """A stem, a block with a depthwise convolution, a classifier of zeros; `between` follows the block."""

    def __init__(self, between: nn.Cell | None = None):
        super().__init__()
        ms.set_seed(1)
        self.body = nn.SequentialCell([ConvBNReLU6(3, 8, 3), InvertedResidual(8, 8, 1, 2)])
        self.between = between or nn.Identity()
        self.dense = nn.Dense(8, 3, "zeros", "zeros")

    def construct(self, x: Tensor) -> Tensor:
        return self.dense(self.between(self.body(x)).mean((2, 3))).astype(ms.float32)


def small(kind: str) -> Small:
    """With MindSpore's cells in float32 or float16, with our kernels, or with a quantiser whose range moves."""
    net = Small(ActivationQuantiser("between", Grid(), 0.9) if kind == "quantiser" else None)
    if kind == "float16":
        precision.apply(net, kind)
    if kind == "kernels":
        rewrite.accelerate(net, "on")
        found = {type(cell) for _, cell in net.cells_and_names()}
        assert {cells.FusedBatchNorm, cells.NormDepthwise} <= found
    return net.set_train(True)


def step_of(net: nn.Cell, options: StepOptions) -> TrainStep:
    def loss(image: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(net(image), target)

    return step.make_step(loss, step.momentum_optimizer(net, 0.9, 1e-4), options, net.get_parameters())


def values(one: TrainStep) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().copy() for p in one.state}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name, array in before.items() if array.tobytes() != after[name].tobytes()}


CASES = [
    ("float32", "fixed"),
    ("float16", "dynamic"),
    ("kernels", "fixed"),
    ("quantiser", "dynamic"),
    pytest.param("float16", "fixed", marks=pytest.mark.slow),
    pytest.param("kernels", "dynamic", marks=pytest.mark.slow),
]


class TestOverflow:
    @pytest.mark.parametrize(("kind", "scale"), CASES)
    def test_a_step_that_overflows_changes_nothing_but_the_scale(self, kind, scale):
        net = small(kind)
        one = step_of(net, StepOptions(SCALE if scale == "fixed" else DynamicScale(SCALE), ema_decay=0.9))
        first = values(one)
        loss = float(one(0.1, image(), TARGET).asnumpy())
        before = values(one)
        assert {"dense.weight", "ema.dense.weight", "moments.dense.weight"} <= changed(first, before)
        moving = {p.name for p in net.get_parameters() if not p.requires_grad}
        assert len(moving) == (9 if kind == "quantiser" else 8)
        assert moving <= changed(first, before)
        assert scaling_of(one) == (False, SCALE)

        infinite = image()
        infinite[0, 0, 0, 0] = np.inf
        told = float(one(0.1, infinite, TARGET).asnumpy())
        overflows, following = scaling_of(one)
        assert overflows
        self.check(scale, before, values(one), following, SCALE / 2)
        assert told == loss or scale == "fixed"

        # One large gradient and its opposite: the loss stays small while its gradients, times the scale, overflow.
        far = np.tile(np.float32([3e37, -3e37, 0]), (4, 1))
        for parameter in net.dense.get_parameters():  # zero logits; a compiled graph misses what set_data gives
            ops.assign(parameter, Tensor(first[parameter.name]))
        before = values(one)
        told = float(one(0.1, image(), far).asnumpy())
        assert scaling_of(one)[0]
        assert np.isfinite(told)
        self.check(scale, before, values(one), scaling_of(one)[1], SCALE / 4)

        float(one(0.1, image(), TARGET).asnumpy())
        assert not scaling_of(one)[0]
        assert one.skipped() == 2
        assert {"dense.weight", "ema.dense.weight", *moving} <= changed(before, values(one))

    @staticmethod
    def check(scale: str, before: dict, after: dict, following: float, lower: float) -> None:
        if scale == "fixed":
            assert changed(before, after) == set()
            assert following == SCALE
        else:
            assert changed(before, after) <= {"loss_scale", "loss_scale_good_steps"}
            assert following == lower == float(after["loss_scale"])
            assert float(after["loss_scale_good_steps"]) == 0

    def test_relu6_hides_an_infinite_activation_from_the_loss_but_not_from_the_step(self):
        """Else the marks would prove nothing: without them the loss and all gradients of this step are finite."""
        net = small("float32")
        infinite = image()
        infinite[0, 0, 0, 0] = np.inf
        assert np.isfinite(float(step_of(net, StepOptions())(0.0, infinite, TARGET).asnumpy()))
        assert not np.isfinite(net.body[0][1].moving_mean.asnumpy()).all()

    def test_a_fixed_scale_tells_a_loss_that_is_not_finite(self):
        """So that the run ends, as it does without a scale."""
        one = step_of(small("float32"), StepOptions(SCALE))
        before = values(one)
        assert np.isnan(float(one(0.1, image(), TARGET * np.nan).asnumpy()))
        assert changed(before, values(one)) == set()

    def test_without_a_scale_there_is_neither_copy_nor_check(self):
        one = step_of(small("float32"), StepOptions(1.0))
        assert not isinstance(one.run, GuardedStep)
        assert scaling_of(one) == (False, 1.0)
        assert one.skipped() == 0

    def test_what_cannot_be_put_back_is_refused(self):
        net = small("float32")
        net.count = ms.Parameter(Tensor([0], ms.int32), name="count", requires_grad=False)
        with pytest.raises(ValueError, match="can put back float32 parameters only"):
            step_of(net, StepOptions(SCALE))


class TestRanks:
    """Whether a step is finite is decided on the sum over the ranks, of which the other one is a function here."""

    def two(self, monkeypatch, other) -> TrainStep:
        monkeypatch.setattr(collective.ops, "AllReduce", lambda: other)
        return step_of(small("float32"), StepOptions(SCALE, ranks=2))

    def test_what_overflows_on_another_rank_changes_nothing_here(self, monkeypatch):
        infinite = Tensor(np.float32(np.inf))

        def with_another(vector):
            return vector + infinite

        one = self.two(monkeypatch, with_another)
        before = values(one)
        assert np.isfinite(float(one(0.1, image(), TARGET).asnumpy()))
        assert scaling_of(one) == (True, SCALE)
        assert changed(before, values(one)) == set()

    def test_a_statistic_that_overflows_here_reaches_the_other_ranks(self, monkeypatch):
        size = sum(p.size for p in small("float32").trainable_params())
        sent = ms.Parameter(Tensor(np.zeros(size, np.float32)), name="sent", requires_grad=False)

        def noted(vector):
            return ops.depend(vector, ops.assign(sent, vector))

        one = self.two(monkeypatch, noted)
        infinite = image()
        infinite[0, 0, 0, 0] = np.inf
        one(0.1, infinite, TARGET)
        assert scaling_of(one)[0]
        assert np.isnan(sent.asnumpy()).any()


def test_two_parameters_of_one_name_are_refused():
    """A checkpoint would hold one of them only."""
    twins = [ms.Parameter(Tensor(np.float32(number)), name="twin") for number in range(2)]
    assert step.state_of(twins[:1], twins[:1]) == twins[:1]
    with pytest.raises(ValueError, match="two parameters of the training are called 'twin'"):
        step.state_of(twins)


class Deep(nn.Cell):
    """Ten convolutions with normalisation, one for each group of boost, and a classifier."""

    def __init__(self):
        super().__init__()
        ms.set_seed(2)
        channels = [3, *[16] * 10]
        self.layers = nn.SequentialCell(
            [
                nn.SequentialCell(nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU())
                for before, after in zip(channels, channels[1:])
            ]
        )
        self.dense = nn.Dense(16, 3)

    def construct(self, x: Tensor) -> Tensor:
        return self.dense(self.layers(x).mean((2, 3)))


STEPS = 3
RUN = boost.Boost(total_steps=50, seed=1, momentum=0.9, weight_decay=4e-5)


def boosted(scale: float) -> tuple[Deep, TrainStep]:
    net = Deep().set_train(True)

    def loss(image: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(net(image), target)

    return net, boost.make_step(net, loss, StepOptions(scale), RUN, list(net.get_parameters()))


class TestBoost:
    @pytest.fixture(scope="class")
    def undisturbed(self) -> tuple[Deep, TrainStep, list[dict[str, np.ndarray]]]:
        """The state before the first step, and after each of three at scale 1024."""
        net, one = boosted(SCALE)
        one.begin(0)
        states = [values(one)]
        for number in range(STEPS):
            one(0.05, image(number), TARGET)
            states.append(values(one))
        return net, one, states

    def test_the_groups_are_drawn_from_the_seed(self):
        order = boost.group_of_each_step(RUN)
        assert order[:2] == [0, 4]  # all layers, then all but the first four
        assert set(order) <= set(range(boost.GROUPS))
        np.random.seed(99)
        state = np.random.get_state()[1].copy()
        assert boost.group_of_each_step(RUN) == order
        assert (np.random.get_state()[1] == state).all()

    def test_the_scale_changes_no_step(self, undisturbed):
        """MindSpore's own cell multiplies by the scale and divides nowhere: steps 1,024 times too long."""
        first, after = undisturbed[2][:2]
        _, plain = boosted(1.0)
        assert changed(first, values(plain)) == set()
        plain.begin(0)
        plain(0.05, image(0), TARGET)
        expected = values(plain)
        assert max(float(np.abs(expected[name] - first[name]).max()) for name in names(undisturbed[0])) > 1e-3
        for name, array in expected.items():
            np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-7, err_msg=name)

    def test_frozen_layers_stay_and_every_gradient_is_centralised(self, undisturbed):
        net, _, states = undisturbed
        moved = changed(states[1], states[2])
        frozen = {p.name for number in range(4) for p in net.layers[number].trainable_params()}
        assert len(frozen) == 12
        assert not moved & frozen
        assert {f"layers.{number}.0.weight" for number in range(4, 10)} <= moved
        for number in range(1, 10):  # weights have decayed by what they were, gradients have mean 0
            weight = f"layers.{number}.0.weight"
            speed = states[1][f"boost_0.moments.{weight}"]
            assert np.abs(speed.mean((1, 2, 3))).max() < 1e-3 * np.abs(speed).max()

    def test_the_state_is_complete_and_a_resumed_run_is_the_same(self, undisturbed):
        net, _, states = undisturbed
        assert names(net) <= set(states[0])
        assert all(name in names(net) or name.startswith("boost_") for name in states[0])
        _, again = boosted(SCALE)
        for parameter in again.state:
            parameter.set_data(Tensor(states[1][parameter.name]))
        again.begin(1)
        for number in range(1, STEPS):
            again(0.05, image(number), TARGET)
        assert changed(states[STEPS], values(again)) == set()

    def test_an_evaluation_sees_what_eval_py_sees(self, undisturbed):
        net, one, states = undisturbed
        fresh = Deep()
        for parameter in fresh.get_parameters():
            parameter.set_data(Tensor(states[STEPS][parameter.name]))
        with one.averaged():
            logits = loop.predictor(net)(image())
        net.set_train(True)
        np.testing.assert_array_equal(logits, loop.predictor(fresh)(image()))


def names(net: nn.Cell) -> set[str]:
    return {p.name for p in net.get_parameters()}


@pytest.mark.parametrize("options", [StepOptions(), StepOptions(loss_scale=SCALE)], ids=["plain", "scaled"])
def test_waiting_for_a_step_takes_no_core_from_it(options):
    """A loss that is there before the gradients would be waited for in a loop that never sleeps."""
    net = nn.SequentialCell([nn.Dense(1024, 1024, has_bias=False) for _ in range(4)])

    def loss(x: Tensor) -> Tensor:
        return net(x).mean()

    one = step.make_step(loss, step.momentum_optimizer(net, 0.9, 0.0), options, net.get_parameters())
    x = np.ones((256, 1024), np.float32)
    one(0.0, x).asnumpy()
    wall, busy = time.perf_counter(), time.thread_time()
    for _ in range(10):
        one(0.0, x).asnumpy()
    wall, busy = time.perf_counter() - wall, time.thread_time() - busy
    assert busy < 0.3 * wall, f"the main thread computed for {busy:.3f} of {wall:.3f} s"
