"""torch_file returns what torch.load returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.engine.errors import ZooError
from src.engine.io.torch_file import read_state_dict

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def assert_equal_to_torch(path: Path, expected: dict) -> None:
    """Compare names, shapes, element types and bits, bfloat16 as float32."""
    result = read_state_dict(path)
    assert list(result) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        reference = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert result[name].dtype == reference.dtype and result[name].shape == reference.shape
        np.testing.assert_array_equal(result[name], reference)


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8, 5)
    )
    return model


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"],
)
def test_dtypes(file, dtype):
    values = (torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1)) * 50).abs()
    state = {"w": values.to(getattr(torch, dtype)), "scalar": torch.tensor(1).to(getattr(torch, dtype))}
    torch.save(state, file)
    assert_equal_to_torch(file, torch.load(file, weights_only=True))


def test_special_values(file):
    special = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 3.4e38])
    torch.save({str(dtype): special.to(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}, file)
    expected = torch.load(file, weights_only=True)
    assert_equal_to_torch(file, expected)
    assert np.signbit(read_state_dict(file)["torch.bfloat16"][2])


def test_views_and_shared_storage(file):
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "transposed": base.t(),
        "sliced": base[1:3, ::2],
        "expanded": base[0, :1].expand(5, 7),
        "channels_last": torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty": base[:0],
        "parameter": torch.nn.Parameter(base[2]),
        "frozen": torch.nn.Parameter(base.t()[1], requires_grad=False),
    }
    torch.save(state, file)
    assert_equal_to_torch(file, torch.load(file, weights_only=True))


def test_a_module_state_dict(file):
    model = make_model()
    torch.save(model.state_dict(), file)
    assert_equal_to_torch(file, torch.load(file, weights_only=True))


def test_a_data_parallel_state_dict(file):
    model = make_model()
    torch.save(torch.nn.DataParallel(model).state_dict(), file)
    assert_equal_to_torch(file, model.state_dict())


def test_a_training_checkpoint(file):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, file)
    assert_equal_to_torch(file, torch.load(file, weights_only=True)["state_dict"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(file, protocol):
    state = make_model().state_dict()
    torch.save(state, file, pickle_protocol=protocol)
    assert_equal_to_torch(file, state)


def test_what_torch_writes_but_is_not_read(file):
    model = make_model()
    torch.save(model, file)
    with pytest.raises(ZooError, match="asks for torch.nn.modules.container.Sequential"):
        read_state_dict(file)
    torch.save(model.state_dict(), file, _use_new_zipfile_serialization=False)
    with pytest.raises(ZooError, match="torch before 1.6"):
        read_state_dict(file)
    torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, file)
    with pytest.raises(ZooError, match="asks for torch.ComplexFloatStorage"):
        read_state_dict(file)
