"""SegFormer against transformers: weights carried over give the same logits, and training steps the same losses."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ms = pytest.importorskip("mindspore")
pytestmark = pytest.mark.parity

from mindspore import Tensor, ops  # noqa: E402

from src.cpu_kernels import build  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.engine.steps.adamw import AdamW  # noqa: E402
from src.segformer import names, network, on_cpu  # noqa: E402
from src.segformer.loss import cross_entropy  # noqa: E402
from src.segformer.lr_generator import get_lr  # noqa: E402
from src.segformer.variants import VARIANTS  # noqa: E402
from tools import convert_model  # noqa: E402

CLASSES, IGNORE = 7, 255


def torch_model(backbone: str, decoder_dim: int, **options) -> torch.nn.Module:
    """transformers' model with random weights and statistics, large enough that every part matters."""
    variant = VARIANTS[backbone]
    config = transformers.SegformerConfig(
        num_labels=CLASSES,
        hidden_sizes=variant.channels,
        depths=variant.depths,
        decoder_hidden_size=decoder_dim,
        semantic_loss_ignore_index=IGNORE,
        **options,
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                value.copy_(noise * (1.2 / value[0].numel() ** 0.5))
            else:
                value.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")))
        norm = model.decode_head.batch_norm
        norm.running_mean.copy_(0.3 * torch.randn(decoder_dim, generator=generator))
        norm.running_var.copy_(0.5 + torch.rand(decoder_dim, generator=generator))
    return model


def arrays_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


def our_network(model: torch.nn.Module, backbone: str, decoder_dim: int) -> network.SegFormer:
    arrays, unused = names.translate(arrays_of(model))
    assert not unused
    assert names.variant_of(arrays) == backbone
    net = network.build(backbone, CLASSES, decoder_dim, seed=1)
    parameters = list(net.get_parameters())
    assert {p.name for p in parameters} == set(arrays) == {*names.encoder_names(backbone), *names.head_names()}
    checkpoint.assign(parameters, arrays, "transformers")
    return net


# The third is what trains on a CPU; it needs a compiler.
NETWORKS = [("mit_b0", 256, "off"), ("mit_b2", 768, "off"), ("mit_b0", 256, "on")]


def put_kernels(net: network.SegFormer, kernels: str) -> None:
    """Put the CPU kernels into a network, or skip the test where this machine cannot build them."""
    if kernels == "off":
        return
    try:
        build.library_path()
    except build.KernelsUnavailable as reason:
        pytest.skip(f"the CPU kernels cannot be built here: {reason}")
    assert on_cpu.accelerate(net, kernels).startswith("CPU kernels: 8 transformer blocks")


@pytest.mark.parametrize(("backbone", "decoder_dim", "kernels"), NETWORKS)
def test_same_weights_same_logits(backbone, decoder_dim, kernels):
    model = torch_model(backbone, decoder_dim)
    net = our_network(model, backbone, decoder_dim)
    put_kernels(net, kernels)
    net.set_train(False)
    coarse = network.QuarterLogits(net)
    rng = np.random.default_rng(0)
    sizes = [(64, 96), (70, 98)] if backbone == "mit_b0" else [(64, 96)]
    for size in sizes:
        image = rng.standard_normal((2, 3, *size)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(image)).logits
            enlarged = torch.nn.functional.interpolate(expected, size, mode="bilinear", align_corners=False)
        found = coarse(Tensor(image)).asnumpy()
        print(f"{backbone} {size}: logits up to {expected.abs().max():.1f}", np.abs(found - expected.numpy()).max())
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
        np.testing.assert_allclose(net(Tensor(image)).asnumpy(), enlarged.numpy(), atol=1e-4)


STEPS, BATCH, SIZE, LR, DECAY, WARMUP, RATIO, HEAD = 10, 2, 64, 1e-4, 0.05, 3, 0.1, 10.0
CLASS_WEIGHTS = np.linspace(0.6, 1.4, CLASSES).astype(np.float32)


def training_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures whose colour follows the label, some of it ignored."""
    rng = np.random.default_rng(5)
    colours = rng.standard_normal((CLASSES, 3)).astype(np.float32)
    batches = []
    for _ in range(STEPS):
        label = rng.integers(0, CLASSES, (BATCH, SIZE // 8, SIZE // 8)).repeat(8, 1).repeat(8, 2).astype(np.int32)
        image = colours[label].transpose(0, 3, 1, 2) + 0.3 * rng.standard_normal((BATCH, 3, SIZE, SIZE))
        label[:, :9] = IGNORE
        batches.append((image.astype(np.float32), label))
    return batches


def train_torch(model: torch.nn.Module) -> list[float]:
    model.train()
    groups = {}
    for name, value in model.named_parameters():
        key = (HEAD if name.startswith("decode_head.") else 1.0, DECAY if value.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(value)
    optimizer = torch.optim.AdamW(
        [{"params": values, "weight_decay": decay, "times": times} for (times, decay), values in groups.items()], lr=0.0
    )
    losses = []
    for index, (image, label) in enumerate(training_batches()):
        rate = LR * (1 - index / STEPS)
        if index < WARMUP:
            rate *= 1 - (1 - index / WARMUP) * (1 - RATIO)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["times"]
        optimizer.zero_grad()
        logits = model(torch.from_numpy(image)).logits
        logits = torch.nn.functional.interpolate(logits, (SIZE, SIZE), mode="bilinear", align_corners=False)
        weights = torch.from_numpy(CLASS_WEIGHTS)
        target = torch.from_numpy(label).long()
        loss = torch.nn.functional.cross_entropy(logits, target, weights, ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_ours(net: network.SegFormer) -> list[float]:
    net.set_train(True)
    optimizer = AdamW(net.trainable_params(), DECAY, True, head_multiplier)
    weights = Tensor(CLASS_WEIGHTS)

    fused = on_cpu.loss_of(net, weights, IGNORE)
    blocks = sum(len(stage.blocks) for stage in net.backbone.stages)
    nothing_dropped = (ops.ones((blocks, 2, BATCH)), ops.ones((BATCH, net.decode_head.width)))

    def loss(image, label):
        if fused is not None:
            return fused(image, label, *nothing_dropped)
        return cross_entropy(net(image), label, weights, IGNORE)

    train_step = step.make_step(loss, optimizer)
    rates = get_lr("linear", LR, WARMUP, RATIO, STEPS)
    return [float(train_step(rate, *batch).asnumpy()) for rate, batch in zip(rates, training_batches())]


def head_multiplier(name: str) -> float:
    return HEAD if name.startswith("decode_head.") else 1.0


@pytest.mark.parametrize(("backbone", "decoder_dim", "kernels"), NETWORKS)
def test_training_is_that_of_torch(backbone, decoder_dim, kernels):
    """AdamW with groups, warm-up and linear decay, weighted loss with ignored pixels, batch normalisation."""
    model = torch_model(backbone, decoder_dim, drop_path_rate=0.0, classifier_dropout_prob=0.0)
    net = our_network(model, backbone, decoder_dim)
    put_kernels(net, kernels)
    expected, found = train_torch(model), train_ours(net)
    print(f"{backbone}, kernels {kernels}: losses {np.round(expected, 4)}")
    print(f"largest relative difference {np.abs(np.divide(found, expected) - 1).max():.1e}")
    np.testing.assert_allclose(found, expected, rtol=1e-4)


class TestConverter:
    @pytest.fixture
    def model(self):
        return torch_model("mit_b0", 256)

    @pytest.fixture
    def state(self, model) -> dict[str, torch.Tensor]:
        return model.state_dict()

    @pytest.fixture
    def expected(self, model) -> dict[str, np.ndarray]:
        return names.translate(arrays_of(model))[0]

    def convert(self, tmp_path, content, *flags) -> tuple[int, dict[str, np.ndarray]]:
        torch.save(content, tmp_path / "w.pth")
        paths = [f"--pt_model_path={tmp_path / 'w.pth'}", f"--ms_model_path={tmp_path / 'out' / 'w.ckpt'}"]
        status = convert_model.main([*paths, *flags])
        written = tmp_path / "out" / "w.ckpt"
        return status, checkpoint.read(written).arrays if status == 0 else {}

    def authors_state(self, arrays, prefix="backbone.") -> dict[str, torch.Tensor]:
        """The same weights under the names and in the shapes of the authors' files."""
        theirs = {ours: owner for owner, ours in names.owners(names.AUTHORS).items()}
        leaves = {ours: leaf for leaf, ours in names.NORM_LEAVES.items()}
        state = {}
        for name, array in arrays.items():
            owner, _, leaf = name.rpartition(".")
            key = f"{theirs[owner]}.{leaves.get(leaf, leaf)}"
            if name.endswith(("fc1.weight", "fc2.weight")):
                array = array[:, :, 0, 0]
            if name.endswith("linear_fuse.weight"):
                array = array[:, :, None, None]
            state[key if key.startswith("decode_head.") else prefix + key] = torch.from_numpy(array.copy())
        return state

    def assert_equal(self, found, expected):
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, name)

    def test_names_of_transformers_in_memory_and_in_files(self, tmp_path, model, state, expected, capsys):
        from safetensors.torch import load_file

        status, found = self.convert(tmp_path, state)
        assert status == 0
        self.assert_equal(found, expected)
        assert "segformer mit_b0, 191 arrays, decode head 256 wide, 7 classes" in capsys.readouterr().out
        model.save_pretrained(tmp_path / "saved")
        status, found = self.convert(tmp_path, load_file(tmp_path / "saved" / "model.safetensors"))
        assert status == 0
        self.assert_equal(found, expected)

    @pytest.mark.parametrize("size", ["5GB", "5MB"])
    def test_a_folder_with_its_class_names(self, tmp_path, expected, size, capsys):
        """Whole and in shards; two classes of one name get different ones."""
        labels = {index: name for index, name in enumerate(["road", "crane", "crane", "sky", "tree", "house", "car"])}
        torch_model("mit_b0", 256, id2label=labels, label2id={}).save_pretrained(tmp_path / "hf", max_shard_size=size)
        flags = [f"--pt_model_path={tmp_path / 'hf'}", f"--ms_model_path={tmp_path / 'w.ckpt'}"]
        assert convert_model.main(flags) == 0
        found = checkpoint.read(tmp_path / "w.ckpt")
        self.assert_equal(found.arrays, expected)
        wanted = ["road", "crane", "crane 2", "sky", "tree", "house", "car"]
        assert found.meta["classes"]["names"] == wanted and len(found.meta["classes"]["palette"]) == CLASSES
        config = tmp_path / "hf" / "config.json"
        config.write_text(config.read_text().replace('"6": "car"', '"6": "car", "7": "bus"'))
        assert convert_model.main(flags) == 1
        assert "names 8 classes and its decode head has 7; correct its id2label" in capsys.readouterr().err

    def test_a_published_checkpoint(self, tmp_path, expected, capsys):
        state = self.authors_state(expected)
        state["decode_head.conv_seg.weight"] = torch.zeros(7, 128, 1, 1)
        state["decode_head.linear_fuse.bn.num_batches_tracked"] = torch.tensor(3)
        content = {"meta": {"CLASSES": ("road", "sky"), "iter": 7}, "state_dict": state, "optimizer": {}}
        status, found = self.convert(tmp_path, content)
        assert status == 0
        self.assert_equal(found, expected)
        output = capsys.readouterr()
        assert "1 keys were not used: decode_head.conv_seg.weight\n" in output.err
        assert output.out.endswith(
            "7 classes; 1 step counters (num_batches_tracked) have no use here and were left out\n"
        )

    def test_an_imagenet_encoder(self, tmp_path, expected, capsys):
        encoder = {name: array for name, array in expected.items() if name.startswith("backbone.")}
        state = self.authors_state(encoder, prefix="")
        state.update({"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)})
        status, found = self.convert(tmp_path, state)
        assert status == 0
        self.assert_equal(found, encoder)
        output = capsys.readouterr()
        assert output.out.endswith("encoder alone\n")
        assert "2 keys were not used: head.weight, head.bias\n" in output.err

    def test_two_keys_for_one_array_are_refused(self, tmp_path, expected, capsys):
        state = self.authors_state(expected)
        key = "patch_embed1.proj.weight"
        state[key] = state[f"backbone.{key}"] + 1
        assert self.convert(tmp_path, state)[0] == 1
        error = capsys.readouterr().err
        assert f"the keys backbone.{key} and {key} are both {names.FIRST} here; remove one of them" in error
        assert not (tmp_path / "out").exists()

    def test_an_incomplete_encoder_is_an_error(self, tmp_path, expected, capsys):
        state = self.authors_state(expected)
        del state["backbone.block2.1.attn.kv.weight"]
        assert self.convert(tmp_path, state)[0] == 1
        assert "lacks 1 of 176 arrays of mit_b0: backbone.stages.1.blocks.1.attn.kv.weight" in capsys.readouterr().err
        cut = {
            key: value for key, value in self.authors_state(expected).items() if not key.startswith("backbone.block4.1")
        }
        assert self.convert(tmp_path, cut)[0] == 1
        assert "holds no encoder of the sizes mit_b0" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_an_incomplete_head_is_left_out(self, tmp_path, expected, capsys):
        state = self.authors_state(expected)
        del state["decode_head.linear_fuse.bn.running_var"]
        status, found = self.convert(tmp_path, state)
        assert status == 0
        assert all(name.startswith("backbone.") for name in found)
        assert "14 keys were not used: decode_head.linear_c.0.weight" in capsys.readouterr().err

    def test_flags_of_the_other_model_are_refused(self, tmp_path, state, capsys):
        assert self.convert(tmp_path, state, "--width_mult", "1.0")[0] == 2
        assert "belong to mobilenetv2" in capsys.readouterr().err
