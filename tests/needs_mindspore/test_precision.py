"""What is float32 and what is not: cells, devices, exported files; the device's functions are replaced by recorders."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor, nn  # noqa: E402
from mindspore.nn.layer import normalization  # noqa: E402

from src.classification import training as classification  # noqa: E402
from src.engine import device, precision  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.export import exporting  # noqa: E402
from src.engine.io import checkpoint, files  # noqa: E402
from src.engine.io.checkpoint import Names  # noqa: E402
from src.engine.io.run import VERSIONS, RunSettings, open_run  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps.loss_scale import DynamicScale  # noqa: E402
from src.segformer import training as segformer  # noqa: E402
from src.segformer.data.labels import CITYSCAPES  # noqa: E402
from src.segformer.network import Attention, Gelu, Head  # noqa: E402

HALF = ms.float16


def synchronous(monkeypatch, channels: int = 4) -> nn.SyncBatchNorm:
    """MindSpore's own class as on the first of two Ascend cards."""
    monkeypatch.setattr(normalization, "get_rank", lambda: 0)
    monkeypatch.setattr(normalization, "get_group_size", lambda: 2)
    with monkeypatch.context() as patch:
        patch.setattr(normalization.context, "get_context", lambda key: "Ascend")
        return nn.SyncBatchNorm(channels)


class Outputs(nn.Cell):
    """What each cell of the table gives for what the one before it gave."""

    def __init__(self, norm: nn.Cell):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3, has_bias=True), norm, nn.ReLU6()
        self.layer_norm, self.dense = nn.LayerNorm((4,)), nn.Dense(4, 2)

    def construct(self, x: Tensor) -> tuple:
        conv = self.conv(x)
        norm = self.norm(conv)
        relu = self.relu(norm)
        tokens = relu.reshape(relu.shape[0], 4, -1).transpose(0, 2, 1)
        layer_norm = self.layer_norm(tokens)
        return conv, norm, relu, layer_norm, self.dense(layer_norm)


class TestCells:
    def dtypes(self, net: nn.Cell) -> list:
        return [out.dtype for out in net.set_train(False)(Tensor(np.ones((2, 3, 4, 4), np.float32)))]

    def test_convolutions_and_products_are_half_and_normalisations_are_not(self):
        net = precision.apply(Outputs(nn.BatchNorm2d(4)), "float16")
        assert self.dtypes(net) == [HALF, ms.float32, HALF, ms.float32, HALF]
        assert {p.dtype for p in net.get_parameters()} == {ms.float32}

    def test_the_real_synchronous_normalisation_is_float32(self, monkeypatch):
        """Built as for two cards; its training operator has no CPU kernel, its evaluation has."""
        norm = synchronous(monkeypatch)
        assert norm.is_global and norm.group_name == "hccl_world_group" and norm.bn_train.name == "SyncBatchNorm"
        net = precision.apply(Outputs(norm), "float16")
        assert self.dtypes(net) == [HALF, ms.float32, HALF, ms.float32, HALF]
        assert norm.fp32 and not norm.fp16

    def test_float32_touches_nothing(self):
        net = precision.apply(Outputs(nn.BatchNorm2d(4)), "float32")
        assert not [cell for _, cell in net.cells_and_names() if cell.get_flags().keys() & {"fp32", "fp16", "bf16"}]

    def test_bfloat16_is_the_same_table(self):
        """A CPU has no bfloat16 kernels, so this looks at the marks that tell MindSpore."""
        net = precision.apply(Outputs(nn.BatchNorm2d(4)), "bfloat16")
        marks = {name: (cell.bf16, cell.fp32, cell.fp16) for name, cell in net.cells_and_names()}
        half, full = (True, False, False), (False, True, False)
        assert marks == {
            "": half, "conv": half, "norm": full, "relu": half, "layer_norm": full, "dense": half
        }  # fmt: skip

    def test_statistics_of_large_activations_are_finite(self):
        """A variance of 300 * 300 is no float16."""
        net = precision.apply(nn.SequentialCell([nn.BatchNorm2d(3), nn.LayerNorm((8,))]), "float16").set_train(True)
        x = 1000 + 300 * np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
        assert np.isfinite(net(Tensor(x)).asnumpy()).all()
        assert (net[0].moving_variance.asnumpy() > 5000).all()

    def test_segformers_own_operators_are_cast_where_they_stand(self):
        x = np.random.default_rng(0).standard_normal((1, 4, 8)).astype(np.float32)
        gelu = precision.apply(Gelu(ms.ops.Erf()), "float16")
        gradient = ms.grad(lambda_of(gelu))(Tensor(x))
        exact = Gelu(ms.ops.Erf())
        found, expected = gelu(Tensor(x)), exact(Tensor(x)).asnumpy()
        assert found.dtype == HALF
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(gradient.asnumpy(), ms.grad(lambda_of(exact))(Tensor(x)).asnumpy(), atol=4e-3)
        attention = precision.apply(Attention(8, 2, 1), "float16")
        assert attention(Tensor(x), 2, 2).dtype == HALF
        maps = tuple(Tensor(np.ones((1, 4, side, side), np.float32)) for side in (8, 4, 2, 1))
        head = precision.apply(Head((4, 4, 4, 4), 8, 3), "float16").set_train(False)
        assert head(maps).dtype == ms.float32


def lambda_of(cell: nn.Cell):
    def total(x):
        return cell(x).astype(ms.float32).sum()

    return total


class TestDevice:
    @pytest.fixture
    def calls(self, monkeypatch) -> list[tuple]:
        """What a set-up asks of the device, which selects nothing here."""
        noted: list[tuple] = []

        def recorder(name: str):
            return lambda *values: noted.append((name, *values))

        monkeypatch.setattr(device.ms, "set_device", recorder("set_device"))
        for name in ("precision_mode", "matmul_allow_hf32", "conv_allow_hf32"):
            monkeypatch.setattr(precision.ascend, name, recorder(name))
        for name in ("matmul_allow_tf32", "conv_allow_tf32"):
            monkeypatch.setattr(precision.gpu, name, recorder(name))
        yield noted
        precision.set_device("CPU", "float32")

    @pytest.mark.parametrize(
        ("dtype", "mode"),
        [
            ("float32", "must_keep_origin_dtype"),
            ("float16", "allow_fp32_to_fp16"),
            ("bfloat16", "allow_fp32_to_bf16"),
        ],
    )
    def test_float32_means_float32_on_ascend(self, calls, dtype, mode):
        device.setup("Ascend", 3, dtype=dtype)
        expected = [("precision_mode", mode), ("matmul_allow_hf32", False), ("conv_allow_hf32", False)]
        assert calls == [("set_device", "Ascend", 3), *expected]
        found = precision.in_force()
        assert found.pop("precision") == dtype
        assert found == {name: str(value) for name, value in expected}

    def test_float32_means_float32_on_gpu(self, calls):
        device.setup("GPU")
        assert calls == [("set_device", "GPU", 0), ("matmul_allow_tf32", False), ("conv_allow_tf32", False)]
        assert precision.in_force() == {
            "precision": "float32", "matmul_allow_tf32": "False", "conv_allow_tf32": "False"
        }  # fmt: skip

    def test_a_run_notes_what_was_set(self, calls, tmp_path):
        device.setup("Ascend", dtype="bfloat16")
        with open_run(settings(tmp_path / "run"), Rank()):
            versions = json.loads((tmp_path / "run" / VERSIONS).read_text())
        assert versions["precision"] == "bfloat16"
        assert versions["precision_mode"] == "allow_fp32_to_bf16"


class TestLossScale:
    """float16 needs one; bfloat16 has the range of float32."""

    @pytest.mark.parametrize(("dtype", "scale"), [("float32", 1.0), ("float16", 1024.0), ("bfloat16", 1.0)])
    def test_of_a_classifier(self, dtype, scale):
        assert classification.loss_scale(SimpleNamespace(dtype=dtype, loss_scale=1024.0)) == scale

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_of_segformer(self, monkeypatch, dtype):
        monkeypatch.setattr(segformer.on_cpu, "loss_of", lambda *_: None)
        monkeypatch.setattr(segformer.step, "make_step", lambda loss, optimizer, options, weights: options)
        cfg = SimpleNamespace(
            dtype=dtype, class_weights=True, loss_weight=1.0, recipe="paper", weight_decay=0.01, clip_norm=0.0,
            focal_gamma=0.0, ohem_threshold=0.0, dice_weight=0.0, ema_decay=0.0, accumulate=1, quant=False,
        )  # fmt: skip
        scale = segformer.train_step(nn.Dense(2, 2), CITYSCAPES, cfg, Rank()).loss_scale
        assert isinstance(scale, DynamicScale) if dtype == "float16" else scale == 1.0


def settings(folder, resume: str = "", **metadata) -> RunSettings:
    return RunSettings(folder, Names("toy"), "best.ckpt", {"model": "toy", **metadata}, "", resume)


@pytest.mark.parametrize(("before", "now"), [("O0", "O1"), ("O1", "O0")])
def test_boost_is_not_switched_within_a_run(tmp_path, before, now):
    position = {"epoch": 1, "step": 0, "loss_sum": 0.0, "best": -1.0}
    path = tmp_path / "toy-1_1.ckpt"
    checkpoint.save(path, {"w": np.zeros(1, np.float32)}, {"model": "toy", "boost_mode": before, "position": position})
    with (
        pytest.raises(ZooError, match=f"was made with another boost_mode .{before}.; give the same"),
        open_run(settings(tmp_path / "run", str(path), boost_mode=now), Rank()),
    ):
        pass


def test_a_key_that_is_younger_than_a_checkpoint_does_not_stop_its_run(tmp_path):
    position = {"epoch": 1, "step": 0, "loss_sum": 0.0, "best": -1.0}
    path = tmp_path / "toy-1_1.ckpt"
    checkpoint.save(path, {"w": np.zeros(1, np.float32)}, {"model": "toy", "position": position})
    with open_run(settings(tmp_path / "run", str(path), boost_mode="O0"), Rank()) as run:
        assert run.resumed.path == path


class TestExport:
    @pytest.mark.parametrize(("device_name", "kept"), [("CPU", False), ("GPU", False), ("Ascend", True)])
    def test_how_far_a_file_may_be_from_its_network_depends_on_the_device(
        self, monkeypatch, tmp_path, device_name, kept
    ):
        net, x = nn.ReLU(), np.ones((1, 3), np.float32)
        monkeypatch.setattr(exporting, "reload", lambda path: lambda inputs: inputs + 5e-4)
        monkeypatch.setattr(exporting.ms, "get_context", lambda key: device_name)
        if kept:
            assert exporting.differences(net, tmp_path / "x.mindir", {"ones": x})["ones"] == pytest.approx(5e-4, 1e-3)
        else:
            with pytest.raises(ZooError, match="differs from the network by 0.0005 on ones input; it is not kept"):
                exporting.differences(net, tmp_path / "x.mindir", {"ones": x})

    def test_an_export_that_fails_is_no_full_disk(self, monkeypatch, tmp_path):
        def fails(*_, **__):
            raise RuntimeError("Only support export file in 'AIR' format with Ascend backend.\n\nmore")

        monkeypatch.setattr(exporting.ms, "export", fails)
        target = exporting.Target(tmp_path / "x", "AIR", {})
        with pytest.raises(ZooError) as caught:
            exporting.export(nn.ReLU(), target, {"ones": np.ones((1, 3), np.float32)})
        assert str(caught.value) == (
            f"MindSpore cannot export {tmp_path}/x.air as AIR: "
            "Only support export file in 'AIR' format with Ascend backend."
        )
        assert not list(tmp_path.iterdir())

    def test_only_writing_asks_for_room(self, monkeypatch, tmp_path):
        def fails(_):
            raise RuntimeError("something else")

        with pytest.raises(RuntimeError, match="something else"):
            files.replace_file(tmp_path / "x", fails)
        monkeypatch.setattr(checkpoint.ms, "save_checkpoint", fails_with_pages)
        with pytest.raises(ZooError, match="cannot write .*/x.ckpt: Failed to save; make room or choose"):
            checkpoint.save(tmp_path / "x.ckpt", {}, {})


def fails_with_pages(*_: object, **__: object) -> SimpleNamespace:
    raise RuntimeError("\nFailed to save\n----\nC++ call stack")
