"""Our network against a PyTorch MobileNetV2: converted weights give the same logits, and training the same weights."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from src.classification.targets import smooth_one_hot
from src.mobilenetv2.lr_generator import Rates, get_lr
from src.mobilenetv2.names import from_torchvision
from tests.conftest import ROOT, run_command
from tools import convert_model

torch = pytest.importorskip("torch")
ms = pytest.importorskip("mindspore")
pytestmark = pytest.mark.parity

from src.cpu_kernels import build, rewrite  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.mobilenetv2 import network  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from tests.networks import calm  # noqa: E402

TOOL = str(ROOT / "tools" / "convert_model.py")
# Written out again, so that an error in the network's table is seen.
TABLE = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


@pytest.fixture(scope="module", autouse=True)
def frameworks():
    # Not device.setup: it binds threads to cores, and PyTorch's threads inherit that and wait for each other.
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    torch.set_num_threads(1)  # for the same reason, where another test module has called device.setup before


def channels_of(base: int, width: float) -> int:
    """torchvision's _make_divisible with divisor 8."""
    channels = max(8, int(base * width + 4) // 8 * 8)
    return channels + 8 if channels < 0.9 * base * width else channels


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> torch.nn.Sequential:
    conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU6())


class TorchBlock(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        layers = [conv_bn_relu(inputs, hidden, 1)] if expansion > 1 else []
        layers.append(conv_bn_relu(hidden, hidden, 3, stride, hidden))
        layers += [torch.nn.Conv2d(hidden, outputs, 1, bias=False), torch.nn.BatchNorm2d(outputs)]
        self.conv = torch.nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class TorchMobileNetV2(torch.nn.Module):
    """Structure and names of torchvision.models.mobilenet_v2."""

    def __init__(self, classes: int, width: float, dropout: float = 0.2):
        super().__init__()
        inputs = channels_of(32, width)
        layers = [conv_bn_relu(3, inputs, 3, 2)]
        for expansion, base, repeats, stride in TABLE:
            for repeat in range(repeats):
                layers.append(TorchBlock(inputs, channels_of(base, width), 1 if repeat else stride, expansion))
                inputs = channels_of(base, width)
        last = channels_of(1280, max(1.0, width))
        self.features = torch.nn.Sequential(*layers, conv_bn_relu(inputs, last, 1))
        self.classifier = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(last, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def random_model(classes: int, width: float) -> TorchMobileNetV2:
    """Random weights, and statistics as different from 0 and 1 as those of a trained network."""
    torch.manual_seed(4)
    model = TorchMobileNetV2(classes, width).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), np.float32)


def assert_same_logits(model: TorchMobileNetV2, file: Path, classes: int, width: float):
    """The checkpoint's network and the PyTorch model, both in evaluation mode, on the same two images."""
    image = random_images(2, 96)
    net = network.build(classes, width, seed=0).set_train(False)
    checkpoint.load(net, checkpoint.read(file).arrays, str(file))
    ours = net(ms.Tensor(image)).asnumpy()
    with torch.no_grad():
        theirs = model(torch.from_numpy(image)).numpy()
    # Logits that hardly differ between classes or images would agree for any weights.
    assert theirs.std() > 0.05 and np.abs(theirs[0] - theirs[1]).max() > 0.05
    print(f"logits: largest difference {np.abs(ours - theirs).max():.2e}, standard deviation {theirs.std():.2f}")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


class TestConversion:
    @pytest.fixture
    def pth(self, tmp_path) -> Path:
        return tmp_path / "model.pth"

    @pytest.fixture
    def ckpt(self, tmp_path) -> Path:
        return tmp_path / "out" / "model.ckpt"

    def convert(self, pth: Path, ckpt: Path, *more: str) -> int:
        """In this process, because importing MindSpore takes long."""
        return convert_model.main(["--pt_model_path", str(pth), "--ms_model_path", str(ckpt), *more])

    @pytest.mark.parametrize(("width", "classes"), [(1.0, 1000), (0.35, 7)])
    def test_logits_are_those_of_torch(self, pth, ckpt, width, classes):
        model = random_model(classes, width)
        torch.save(model.state_dict(), pth)
        result = run_command(TOOL, "--pt_model_path=model.pth", "--ms_model_path=out/model.ckpt", cwd=pth.parent)
        assert result.returncode == 0, result.stderr
        assert f"262 arrays, {classes} classes, width_mult {width}" in result.stdout
        assert checkpoint.read(ckpt).meta == {"model": "mobilenetv2", "width_mult": width, "entries": 262}
        assert_same_logits(model, ckpt, classes, width)

    @pytest.mark.parametrize("width", [0.5, 0.75, 1.3, 1.4])
    def test_width_is_found(self, pth, ckpt, capsys, width):
        torch.save(TorchMobileNetV2(3, width).state_dict(), pth)
        assert self.convert(pth, ckpt) == 0
        assert f"width_mult {width};" in capsys.readouterr().out
        assert checkpoint.read(ckpt).meta["width_mult"] == width

    def test_another_width_has_to_be_given(self, pth, ckpt, capsys):
        model = random_model(3, 0.6)
        torch.save(model.state_dict(), pth)
        assert self.convert(pth, ckpt) == 1
        assert "give --width_mult" in capsys.readouterr().err
        assert self.convert(pth, ckpt, "--width_mult", "1.0") == 1
        assert "'backbone.features.0.0.weight' as (24, 3, 3, 3)" in capsys.readouterr().err
        assert not ckpt.exists()
        assert self.convert(pth, ckpt, "--width_mult", "0.6") == 0
        assert_same_logits(model, ckpt, 3, 0.6)

    def test_training_checkpoint_of_data_parallel(self, pth, ckpt):
        model = random_model(7, 0.35)
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, pth)
        assert self.convert(pth, ckpt, "--model", "mobilenetv2") == 0
        assert_same_logits(model, ckpt, 7, 0.35)

    def test_half_precision_becomes_float32(self, pth, ckpt):
        model = random_model(7, 0.35).half()
        torch.save(model.state_dict(), pth)
        assert self.convert(pth, ckpt) == 0
        assert {array.dtype for array in checkpoint.read(ckpt).arrays.values()} == {np.dtype(np.float32)}
        assert_same_logits(model.float(), ckpt, 7, 0.35)

    def test_class_names(self, pth, ckpt, capsys):
        torch.save(random_model(3, 0.35).state_dict(), pth)
        names = pth.with_name("names.txt")
        names.write_text("owl\r\ngreat tit\r\nÄsche\r\n\r\n", encoding="utf-8")
        assert self.convert(pth, ckpt, "--classes", str(names)) == 0
        assert checkpoint.read(ckpt).meta["class_to_index"] == {"owl": 0, "great tit": 1, "Äsche": 2}
        ckpt.unlink()
        for text, reason in [("a\nb\n", "3 classes and --classes names 2"), ("a\n\nb", "line 2 is empty")]:
            names.write_text(text)
            assert self.convert(pth, ckpt, "--classes", str(names)) == 1
            assert reason in capsys.readouterr().err
        names.write_text("a\nb\na\n")
        assert self.convert(pth, ckpt, "--classes", str(names)) == 1
        assert "line 3 repeats 'a'" in capsys.readouterr().err
        assert self.convert(pth, ckpt, "--classes", str(names.with_name("none.txt"))) == 1
        assert not ckpt.exists()

    def test_a_safetensors_file_and_a_folder_that_names_the_classes(self, pth, ckpt, capsys):
        save_file = pytest.importorskip("safetensors.torch").save_file
        state = random_model(3, 0.35).state_dict()
        torch.save(state, pth)
        assert self.convert(pth, ckpt) == 0
        expected = checkpoint.read(ckpt).arrays
        folder = pth.with_name("folder")
        folder.mkdir()
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text('{"id2label": {"0": "owl", "1": "crane", "2": "crane"}}')
        for source, names in ((folder / "model.safetensors", None), (folder, {"owl": 0, "crane": 1, "crane 2": 2})):
            assert self.convert(source, ckpt) == 0
            found = checkpoint.read(ckpt)
            assert found.meta.get("class_to_index") == names and found.arrays.keys() == expected.keys()
            assert all((found.arrays[name] == array).all() for name, array in expected.items())
        (folder / "config.json").write_text('{"id2label": {"0": "owl", "1": "crane"}}')
        assert self.convert(folder, ckpt) == 1
        assert "has 3 classes and id2label of its config.json names 2" in capsys.readouterr().err

    def test_extra_keys_are_named(self, pth, ckpt, capsys):
        model = random_model(7, 0.35)
        torch.save({**model.state_dict(), "aux.weight": torch.zeros(2), "aux.bias": torch.zeros(1)}, pth)
        assert self.convert(pth, ckpt) == 0
        assert "2 keys were not used: aux.weight, aux.bias\n" in capsys.readouterr().err
        assert_same_logits(model, ckpt, 7, 0.35)

    @pytest.mark.parametrize("key", ["features.3.conv.0.1.running_mean", "classifier.1.weight", "features.0.1.bias"])
    def test_a_missing_key_is_an_error(self, pth, ckpt, capsys, key):
        state = random_model(7, 0.35).state_dict()
        del state[key]
        torch.save(state, pth)
        assert self.convert(pth, ckpt) == 1
        assert f"lacks 1 of 262 keys: {key};" in capsys.readouterr().err
        assert not ckpt.exists() and not ckpt.parent.exists()

    def test_another_model_is_an_error(self, pth, ckpt, capsys):
        torch.save({"encoder.weight": torch.zeros(3)}, pth)
        assert self.convert(pth, ckpt) == 1
        assert "holds 1 arrays, encoder.weight first" in capsys.readouterr().err
        assert self.convert(pth, ckpt, "--model", "mobilenetv2") == 1
        error = capsys.readouterr().err
        assert "lacks 262 of 262 keys: features.0.0.weight, " in error and "and 257 more" in error
        assert "has 1 that are not of mobilenetv2: encoder.weight" in error
        assert not ckpt.exists()

    def test_a_whole_number_is_no_weight(self, pth, ckpt, capsys):
        state = random_model(7, 0.35).state_dict()
        torch.save({**state, "classifier.1.bias": torch.zeros(7, dtype=torch.int64)}, pth)
        assert self.convert(pth, ckpt) == 1
        assert "has classifier.1.bias as int64" in capsys.readouterr().err

    def test_a_program_is_refused_without_mindspore(self, pth, ckpt, tmp_path):
        class Program:
            def __reduce__(self):
                return os.system, ("touch owned",)

        torch.save({"features.0.0.weight": Program()}, pth)
        blocker = tmp_path / "block" / "mindspore"
        blocker.mkdir(parents=True)
        (blocker / "__init__.py").write_text("raise SystemExit(99)\n")
        flags = (f"--pt_model_path={pth}", f"--ms_model_path={ckpt}")
        result = run_command(TOOL, *flags, cwd=tmp_path, PYTHONPATH=str(blocker.parent))
        assert result.returncode == 1
        assert result.stderr.startswith("error: ") and "system" in result.stderr and "Traceback" not in result.stderr
        assert not ckpt.exists() and not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("flags", [(), ("--ms_model_path=a.pth",), ("--model", "resnet"), ("--width_mult=9",)])
    def test_wrong_usage(self, pth, ckpt, capsys, flags):
        paths = ["--pt_model_path", str(pth), "--ms_model_path", str(ckpt)] if flags else []
        assert convert_model.main([*paths, *flags]) == 2
        assert capsys.readouterr().err.startswith("error: ")


BATCH, SIZE, CLASSES, STEPS, WIDTH = 8, 96, 5, 20, 0.5
MOMENTUM, SMOOTHING = 0.9, 0.1
LR_MAX = 0.02
RECIPE_DECAY = 4e-5
VISIBLE_DECAY = 0.1  # 4e-5 moves nothing by more than rounding in 20 steps


def training_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of coloured patches with a little noise, and smoothed labels."""
    rng = np.random.default_rng(11)
    colour = rng.standard_normal((CLASSES, 3, 1, 1), np.float32)
    batches = []
    for number in range(STEPS):
        label = rng.integers(0, CLASSES, BATCH)
        patches = random_images(BATCH, 4, number).repeat(SIZE // 4, 2).repeat(SIZE // 4, 3)
        image = colour[label] + patches + 0.1 * random_images(BATCH, SIZE, number + STEPS)
        batches.append((image.astype(np.float32), smooth_one_hot(label, CLASSES, SMOOTHING)))
    return batches


def learning_rates() -> np.ndarray:
    """Warm-up over five steps, then the cosine."""
    return get_lr(Rates(0.0, 0.0, LR_MAX), warmup_epochs=1, total_epochs=STEPS // 5, steps_per_epoch=5)


def numbers_of(model: TorchMobileNetV2) -> dict[str, np.ndarray]:
    """Weights and statistics under our names."""
    named = {from_torchvision(key): value.numpy().copy() for key, value in model.state_dict().items()}
    return {name: value for name, value in named.items() if name}


def train_torch(initial: dict[str, np.ndarray], weight_decay: float) -> tuple[list[float], dict[str, np.ndarray]]:
    """PyTorch's own SGD and cross entropy; returns the losses and what the model holds afterwards."""
    model = TorchMobileNetV2(CLASSES, WIDTH, dropout=0.0).train()
    for key, value in model.state_dict().items():
        if from_torchvision(key):
            value.copy_(torch.from_numpy(initial[from_torchvision(key)]))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM)
    losses = []
    for lr, (image, target) in zip(learning_rates(), training_batches()):
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(image)), torch.from_numpy(target))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, numbers_of(model)


def train_ours(net: network.MobileNetV2, weight_decay: float) -> tuple[list[float], dict[str, np.ndarray]]:
    """The step that train.py uses; returns the same as train_torch."""
    net.set_train(True)
    optimizer = step.momentum_optimizer(net, MOMENTUM, weight_decay)

    def loss(image, target):
        return cross_entropy(net(image), target)

    train_step = step.make_step(loss, optimizer)
    losses = [float(train_step(lr, *batch).asnumpy()) for lr, batch in zip(learning_rates(), training_batches())]
    return losses, checkpoint.arrays_of(net.get_parameters())


@pytest.fixture(scope="module")
def initial() -> dict[str, np.ndarray]:
    return {
        name: array.copy()
        for name, array in checkpoint.arrays_of(calm(network.build(CLASSES, WIDTH, seed=5)).get_parameters()).items()
    }


@pytest.fixture(scope="module")
def torch_result(initial):
    """Trains with each weight decay once."""
    return functools.lru_cache(lambda weight_decay: train_torch(initial, weight_decay))


@pytest.mark.parametrize(
    ("kernels", "weight_decay"), [("off", RECIPE_DECAY), ("on", RECIPE_DECAY), ("off", VISIBLE_DECAY)]
)
def test_training_is_that_of_torch(kernels, weight_decay, initial, torch_result):
    if kernels == "on":
        try:
            build.library_path()
        except build.KernelsUnavailable as reason:
            pytest.skip(f"the CPU kernels cannot be built here: {reason}")
    expected_losses, expected = torch_result(weight_decay)
    net = calm(network.build(CLASSES, WIDTH, seed=5))
    rewrite.accelerate(net, kernels)
    losses, found = train_ours(net, weight_decay)

    assert found.keys() == expected.keys() and len(found) == 262
    difference = {name: np.abs(found[name] - value).max() for name, value in expected.items()}
    scale = {name: np.abs(value).max() for name, value in expected.items()}
    moved = {name: np.abs(value - initial[name]).max() for name, value in expected.items()}
    shares = {name: difference[name] / (moved[name] + 1e-4) for name in expected}
    worst = max(difference, key=lambda name: difference[name] / max(scale[name], 1.0))
    print(f"losses {np.round(expected_losses, 3)}")
    print(f"largest relative difference of a loss {np.abs(np.divide(losses, expected_losses) - 1).max():.1e}")
    print(f"largest difference {difference[worst]:.1e} of at most {scale[worst]:.1e}: {worst}")
    print(f"largest share of the way that a tensor went: {max(shares.values()):.1e}, {max(shares, key=shares.get)}")
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for name in expected:
        assert difference[name] <= 1e-3 * max(scale[name], 1.0), name
        # The change is what training did; in a tensor that hardly moves, the line above would not see it.
        assert difference[name] <= 1e-2 * moved[name] + 1e-5, name
