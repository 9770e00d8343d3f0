"""SegFormer's encoder from a checkpoint that mmsegmentation itself has written: the same weights, the same maps.

It needs mmsegmentation without what it would install: pip install --no-deps mmsegmentation==1.2.2 mmcv-lite==2.1.0
mmengine==0.10.7, and pip install addict ftfy prettytable termcolor yapf.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ms = pytest.importorskip("mindspore")
pytestmark = pytest.mark.parity

from src.engine.io import checkpoint  # noqa: E402
from src.segformer import network  # noqa: E402
from src.segformer.variants import VARIANTS  # noqa: E402
from tools import convert_model  # noqa: E402

CLASSES = 7


class Operators(types.ModuleType):
    """In place of mmcv's compiled operators, which other models of mmsegmentation import and this one does not use."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


@pytest.fixture
def save_checkpoint(monkeypatch):
    """mmengine's function, with mmsegmentation ready to be imported."""
    monkeypatch.setitem(sys.modules, "mmcv.ops", Operators("mmcv.ops"))
    pytest.importorskip("mmseg")
    return pytest.importorskip("mmengine.runner").save_checkpoint


def encoder(backbone: str) -> torch.nn.Module:
    """mmsegmentation's encoder with random weights, large enough that every part matters."""
    from mmseg.models.backbones.mit import MixVisionTransformer

    variant = VARIANTS[backbone]
    heads, width = (1, 2, 5, 8), variant.channels[0]
    model = MixVisionTransformer(embed_dims=width, num_heads=heads, num_layers=variant.depths).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            is_scale = value.ndim == 1 and name.endswith("weight")
            value.copy_(noise * (1.2 / value[0].numel() ** 0.5) if value.ndim > 1 else 0.1 * noise + is_scale)
    return model


@pytest.mark.parametrize("backbone", ["mit_b0", "mit_b2"])
@pytest.mark.parametrize("is_whole", [True, False], ids=["segmentor", "encoder"])
def test_an_encoder_gives_the_maps_of_mmsegmentation(tmp_path, capsys, save_checkpoint, backbone, is_whole):
    theirs = encoder(backbone)
    saved = torch.nn.ModuleDict({"backbone": theirs}) if is_whole else theirs
    save_checkpoint({"meta": {"dataset_meta": {"classes": ("a", "b")}}, "state_dict": saved.state_dict()},
                    str(tmp_path / "iter_1.pth"))  # fmt: skip
    flags = ["--pt_model_path", str(tmp_path / "iter_1.pth"), "--ms_model_path", str(tmp_path / "w.ckpt")]
    assert convert_model.main(flags) == 0
    assert f"segformer {backbone}" in capsys.readouterr().out
    net = network.build(backbone, CLASSES, 0, seed=1)
    arrays = checkpoint.read(tmp_path / "w.ckpt").arrays
    checkpoint.assign(list(net.backbone.get_parameters()), arrays, "mmsegmentation")
    net.set_train(False)
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    with torch.no_grad():
        expected = [found.numpy() for found in theirs(torch.from_numpy(image))]
    found = [each.asnumpy() for each in net.backbone(ms.Tensor(image))]
    assert [each.shape for each in found] == [each.shape for each in expected]
    for ours, other in zip(found, expected):
        np.testing.assert_allclose(ours, other, atol=1e-4)
