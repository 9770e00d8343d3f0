"""torch_file reads what torch.save writes and refuses everything else; the files are assembled here byte by byte."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.engine.errors import ZooError
from src.engine.io.torch_file import read_state_dict


class Global(NamedTuple):
    """A name the pickle imports."""

    module: str
    name: str


class Call(NamedTuple):
    """A call the pickle makes; `state` goes to the result's __setstate__, `items` into the resulting dict."""

    function: object
    arguments: tuple
    items: dict | None = None
    state: object = None


class Persistent(NamedTuple):
    """A persistent id."""

    pid: tuple


ORDERED_DICT = Global("collections", "OrderedDict")
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Global("torch._utils", "_rebuild_parameter")
DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


def emit(value: object) -> bytes:
    """Return the protocol-2 opcodes that build a value, as torch.save's pickler arranges them."""
    if isinstance(value, Global):
        return b"c" + f"{value.module}\n{value.name}\n".encode()
    if isinstance(value, Persistent):
        return emit(value.pid) + b"Q"
    if isinstance(value, Call):
        code = emit(value.function) + emit(value.arguments) + b"R"
        code += emit_items(value.items) if value.items else b""
        return code + (emit(value.state) + b"b" if value.state is not None else b"")
    if isinstance(value, dict):
        return b"}" + emit_items(value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(emit, value)) + b"t"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    return pickle.dumps(value, 2)[2:-1]


def emit_items(items: dict) -> bytes:
    return b"(" + b"".join(emit(key) + emit(value) for key, value in items.items()) + b"u"


def tensor(key: str, storage: str, numel: int, size: tuple, stride: tuple, offset: object = 0, *more: object) -> Call:
    pid = Persistent(("storage", Global("torch", storage), key, "cpu", numel))
    return Call(REBUILD, (pid, offset, size, stride, False, Call(ORDERED_DICT, ()), *more))


def plain(array: np.ndarray, storage: str, key: str = "0") -> Call:
    """Describe a whole C-ordered array."""
    stride = tuple(int(np.prod(array.shape[axis + 1 :], dtype=int)) for axis in range(array.ndim))
    return tensor(key, storage, array.size, array.shape, stride)


def save(path: Path, top: object, storages: dict[str, bytes], compression: int = 0, **members: bytes) -> Path:
    program = top if isinstance(top, bytes) else b"\x80\x02" + emit(top) + b"."
    contents = {"data.pkl": program, **{f"data/{key}": data for key, data in storages.items()}, **members}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(f"weights/{name}", data)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


SIX = np.arange(6, dtype="<f4")
SIX_BYTES = {"0": SIX.tobytes()}


def six(size: tuple = (2, 3), stride: tuple = (3, 1), offset: object = 0) -> Call:
    return tensor("0", "FloatStorage", 6, size, stride, offset)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    storage=st.sampled_from(sorted(DTYPES)),
    shape=st.lists(st.integers(0, 4), max_size=5).map(tuple),
    big_endian=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_dtype_and_shape(tmp_path, storage, shape, big_endian, seed):
    dtype = np.dtype(DTYPES[storage]).newbyteorder(">" if big_endian else "<")
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    order = b"big" if big_endian else b"little"
    save(tmp_path / "w.pth", {"w": plain(array, storage)}, {"0": array.tobytes()}, byteorder=order)
    result = read_state_dict(tmp_path / "w.pth")["w"]
    assert result.dtype == dtype.newbyteorder("=") and result.dtype.isnative
    assert result.flags.writeable and result.flags.owndata and result.flags.c_contiguous
    np.testing.assert_array_equal(result, array)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numel=st.integers(0, 12),
    offset=st.integers(0, 13),
    axes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=3),
)
def test_a_view_is_read_exactly_when_it_lies_inside_the_storage(tmp_path, numel, offset, axes):
    size, stride = tuple(length for length, _ in axes), tuple(step for _, step in axes)
    values = np.arange(numel, dtype="<i8")
    top = {"w": tensor("0", "LongStorage", numel, size, stride, offset)}
    save(tmp_path / "w.pth", top, {"0": values.tobytes()})
    positions = offset + sum((np.indices(size)[axis] * stride[axis] for axis in range(len(size))), np.zeros(size, int))
    if offset <= numel and (positions < numel).all():
        np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["w"], values[positions])
    else:
        with pytest.raises(ZooError, match="'w' reaches beyond its storage"):
            read_state_dict(tmp_path / "w.pth")


def test_bfloat16_is_widened(file):
    expected = np.array([[1.0, -2.5, np.inf], [0.0, 3.0e38, -1.5e-30]], np.float32)
    bits = (expected.view(np.uint32) >> 16).astype("<u2")
    save(file, {"w": plain(bits, "BFloat16Storage"), "s": tensor("0", "BFloat16Storage", 6, (), (), 1)}, {"0": bits})
    result = read_state_dict(file)
    assert result["w"].dtype == result["s"].dtype == np.float32 and result["s"].shape == ()
    np.testing.assert_array_equal(result["w"].view(np.uint32), expected.view(np.uint32) & 0xFFFF0000)
    assert result["s"] == -2.5


def test_scalars_parameters_and_metadata(file):
    step = tensor("1", "LongStorage", 1, (), ())
    flag = tensor("2", "BoolStorage", 1, (), ())
    weight = Call(PARAMETER, (six(), True, Call(ORDERED_DICT, ())))
    metadata = {"_metadata": Call(ORDERED_DICT, (), {"": {"version": 2}}), "items": 3}
    top = Call(ORDERED_DICT, (), {"weight": weight, "step": step, "flag": flag}, metadata)
    save(file, top, {**SIX_BYTES, "1": struct.pack("<q", 7), "2": b"\x02"})
    result = read_state_dict(file)
    assert list(result) == ["weight", "step", "flag"]
    np.testing.assert_array_equal(result["weight"], SIX.reshape(2, 3))
    assert (result["step"].shape, result["step"].dtype, result["step"]) == ((), np.int64, 7)
    assert (result["flag"].shape, result["flag"].dtype, result["flag"]) == ((), np.bool_, True)


def test_views_of_a_shared_storage_become_separate_arrays(file):
    size = Call(Global("torch", "Size"), ((2, 2),))
    save(file, {"a": six(), "t": six((3, 2), (1, 3)), "tail": six(size, (1, 0), 4)}, SIX_BYTES)
    result = read_state_dict(file)
    np.testing.assert_array_equal(result["t"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(result["tail"], [[4, 4], [5, 5]])
    result["a"][:] = -1
    assert result["t"].min() == 0


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_ema", "state_dict_ema"])
def test_training_checkpoints_are_unwrapped(file, wrapper):
    inner = Call(ORDERED_DICT, (), {"w": six()})
    save(file, {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: inner, "best": None, "loose": six()}, SIX_BYTES)
    assert list(read_state_dict(file)) == ["w"]


def test_a_layer_named_model_is_not_a_wrapper(file):
    save(file, {"model": six(), "state_dict": six()}, SIX_BYTES)
    assert list(read_state_dict(file)) == ["model", "state_dict"]


def test_module_prefix_is_stripped_only_when_common(file):
    save(file, {"state_dict": {"module.a": six(), "module.module.b": six()}}, SIX_BYTES)
    assert list(read_state_dict(file)) == ["a", "module.b"]
    save(file, {"module.a": six(), "b": six()}, SIX_BYTES)
    assert list(read_state_dict(file)) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("argparse", "Namespace"),
        ("torch", "load"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy.core.multiarray", "_reconstruct"),
    ],
)
def test_other_globals_are_refused_and_not_run(file, tmp_path, module, name):
    trace = tmp_path / "trace"
    save(file, {"epoch": Call(Global(module, name), (f"touch {trace}",)), "state_dict": {"w": six()}}, SIX_BYTES)
    with pytest.raises(ZooError, match=f"weights.pth asks for {module}.{name}, but only tensors"):
        read_state_dict(file)
    assert not trace.exists()


def test_a_pickle_made_by_python_cannot_run_code_either(file, tmp_path):
    class Attack:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'trace')!r}, 'w')",))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        save(file, pickle.dumps({"w": Attack()}, protocol), {})
        with pytest.raises(ZooError, match="exec"):
            read_state_dict(file)
    assert not (tmp_path / "trace").exists()


def test_a_storage_class_cannot_be_called(file):
    save(file, {"w": Call(Global("torch", "FloatStorage"), (10**12,))}, {})
    with pytest.raises(ZooError, match="holds a pickle that cannot be read"):
        read_state_dict(file)


def test_an_enormous_memo_is_refused_before_it_is_allocated(file):
    save(file, b"\x80\x02}r\xff\xff\xff\x7f.", {})
    with pytest.raises(ZooError, match="memo index 2147483647"):
        read_state_dict(file)


def test_not_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(ZooError, match="is not a file"):
            read_state_dict(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}.", b"\x93NUMPY"])
def test_not_a_zip(file, content):
    file.write_bytes(content)
    with pytest.raises(ZooError, match="is not a zip archive"):
        read_state_dict(file)


def test_the_format_before_torch_1_6_asks_for_a_new_save(file):
    file.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + b"rest")
    with pytest.raises(ZooError, match="torch before 1.6.*save it again"):
        read_state_dict(file)


def test_other_zips(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ZooError, match="without data.pkl"):
        read_state_dict(file)
    save(file, {"w": six()}, SIX_BYTES, **{"constants.pkl": b"."})
    with pytest.raises(ZooError, match="TorchScript"):
        read_state_dict(file)


@pytest.mark.parametrize(
    ("top", "message"),
    [
        (6, "a value of type int at the top level"),
        (six(), "a value of type Tensor at the top level"),
        ((six(),), "a value of type tuple at the top level"),
        ({}, "an empty dict"),
        ({"w": six(), "epoch": 3}, "type int under the key 'epoch'"),
        ({"state_dict": {"w": six(), "names": ("a",)}}, "type tuple under the key 'names'"),
        ({"w": six(), "nested": Call(ORDERED_DICT, ())}, "type OrderedDict under the key 'nested'"),
        ({3: six()}, "type Tensor under the key 3"),
        ({"state_dict": {"epoch": 3}}, "type dict under the key 'state_dict'"),
    ],
)
def test_other_contents_are_named(file, top, message):
    save(file, top, SIX_BYTES)
    with pytest.raises(ZooError, match=message):
        read_state_dict(file)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (six((2, 4), (3, 1)), "beyond its storage of 6 elements"),
        (six((2, 3), (4, 1)), "beyond its storage"),
        (six((2, 3), (3, 1), 1), "beyond its storage"),
        (six((0, 3), (3, 1), 7), "beyond its storage"),
        (six((2, 3), (2**62, 1)), "beyond its storage"),
        (six((2, 3), (-3, 1)), "not a tuple of counts"),
        (six((2, -3)), "not a tuple of counts"),
        (six(offset=-1), "not a tuple of counts"),
        (six(offset=True), "not a tuple of counts"),
        (six(offset=1.0), "not a tuple of counts"),
        (six((2, 2**64), (0, 0)), "not a tuple of counts"),
        (six((2, 3), (1,)), "not a tuple of counts"),
        (six((1,) * 33, (1,) * 33), "not a tuple of counts"),
        (six("23", (3, 1)), "not a tuple of counts"),
        (six((2**20, 2**10), (0, 0)), "over 1100 times the size of the file"),
        (six((0, 2**62, 2**62), (0, 0, 0)), "over 1100 times the size of the file"),
        (tensor("0", "DoubleStorage", 6, (6,), (1,)), "needs 6 elements.* only 24 bytes"),
        (tensor("0", "FloatStorage", 2**62, (6,), (1,)), "needs 4611686018427387904 elements"),
        (tensor("9", "FloatStorage", 6, (6,), (1,)), "needs the missing member 'weights/data/9'"),
        (tensor("../data.pkl", "FloatStorage", 6, (6,), (1,)), "needs the missing member"),
        (Call(REBUILD, ("storage", 0, (1,), (1,), False, None)), "has no storage"),
    ],
)
def test_impossible_geometry_is_refused(file, broken, message):
    save(file, {"good": six(), "w": broken}, SIX_BYTES)
    with pytest.raises(ZooError, match=f"the tensor 'w' .*{message}"):
        read_state_dict(file)


@pytest.mark.parametrize(
    "value",
    [
        tensor("0", "FloatStorage", 6, (6,), (1,), 0, {"neg": True}),
        tensor("0", "FloatStorage", -6, (6,), (1,)),
        Persistent(("storage", "FloatStorage", "0", "cpu", 6)),
        Persistent(("module", Global("torch", "FloatStorage"), "0", "cpu", 6)),
        Persistent(("storage",)),
        Call(REBUILD, ()),
    ],
)
def test_malformed_pickles_are_refused(file, value):
    save(file, {"w": value}, SIX_BYTES)
    with pytest.raises(ZooError, match="holds a pickle that cannot be read"):
        read_state_dict(file)


def test_a_stride_along_an_axis_of_length_1_is_free(file):
    save(file, {"w": six((1, 6), (2**62, 1))}, SIX_BYTES)
    np.testing.assert_array_equal(read_state_dict(file)["w"], [SIX])


def test_compressed_members_are_refused(file):
    save(file, {"w": plain(np.zeros(10**6, "<f4"), "FloatStorage")}, {"0": bytes(4 * 10**6)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ZooError, match="compressed or with an impossible size"):
        read_state_dict(file)


def test_every_truncation_is_reported(file):
    content = save(file, {"w": six()}, SIX_BYTES).read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(ZooError, match="truncated or damaged" if length >= 4 else "is not a zip archive"):
            read_state_dict(file)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_raises_anything_but_zoo_error(tmp_path, data):
    path = save(tmp_path / "w.pth", {"state_dict": {"module.w": six()}, "epoch": 3}, SIX_BYTES)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        result = read_state_dict(path)
    except ZooError:
        return
    assert all(isinstance(array, np.ndarray) for array in result.values())
