"""Read the weights in a PyTorch .pth file with numpy alone.

`torch.save` (1.6 and later) writes a zip archive: `<archive>/data.pkl` pickles the objects, and every tensor's storage
is a member `<archive>/data/<key>` that the pickle names by a persistent id. A pickle is a program, and weight files
come from the internet, so this reader lets a pickle name only the few callables that describe tensors, answers them
with inert descriptions, and builds the arrays afterwards from numbers it has checked.

Format: https://pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.engine.errors import ZooError

# Element type of each storage class as it lies in the file; bfloat16 has no numpy type and is widened after reading.
_STORAGES = {
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "DoubleStorage": "f8",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "bool",
    "BFloat16Storage": "bfloat16",
}
_BITS = {"bool": "u1", "bfloat16": "u2"}

# Where training scripts keep the weights inside a checkpoint, tried in this order.
_WRAPPERS = ("state_dict", "model", "model_ema", "state_dict_ema")

# Files written before torch 1.6 are bare pickles that open with this number (torch.serialization.MAGIC_NUMBER).
_LEGACY_START = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")

# An expanded tensor (stride 0) may be larger than its storage, so a tiny file could ask for any amount of memory.
_MAX_GROWTH = 1100
_MAX_DIMENSIONS = 32


class _StorageType(NamedTuple):
    """What a pickle gets when it names a storage class; a tuple, so it can be neither called nor altered."""

    kind: str


class _Storage(NamedTuple):
    """A persistent id: `numel` elements of `kind` in the member `data/<key>`."""

    kind: str
    key: str
    numel: int


class _Tensor(NamedTuple):
    """The arguments of `torch._utils._rebuild_tensor_v2`, not yet checked; offset, size and stride in elements."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Dict(dict):
    """Stands in for OrderedDict and drops attributes (`_metadata`), which could otherwise shadow its methods."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict saved by `torch.save`, in the order of the file.

    Accepts a bare state dict or a training checkpoint that keeps one under `state_dict`, `model`, `model_ema` or
    `state_dict_ema`, and strips the `module.` that DataParallel puts before every name. The arrays own their memory;
    bfloat16 is widened to float32.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"{path} is not a file, but weights are read from a file that torch.save wrote: check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            top = _unpickle(path, archive)
            tensors = _strip_prefix(_select(path, top))
            return _Builder(path, archive).build_all(tensors)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, OverflowError) as error:
        # zipfile reports damage in all of these ways.
        raise ZooError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: Exception) -> str:
    """Name the reason a file is not a readable zip archive, from its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_START))
    except OSError as denied:
        return f"{path} cannot be opened ({denied.strerror}), but weights are read from it: check its permissions"
    if start == _LEGACY_START:
        return (
            f"{path} has the format of torch before 1.6, but only the newer zip format is read: "
            "load it with a current torch and torch.save it again"
        )
    if start.startswith(b"PK\x03\x04"):
        return f"{path} is truncated or damaged ({error}), so it cannot be read: download or save it again"
    return f"{path} is not a zip archive, but torch.save writes one: pass a .pth file saved by torch 1.6 or later"


def _unpickle(path: Path, archive: zipfile.ZipFile) -> Any:
    """Run the restricted unpickler over data.pkl."""
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise ZooError(
            f"{path} is a TorchScript program, but only state dicts are read: "
            "save the state_dict() of torch.jit.load(...) and pass that file"
        )
    if not any(_is_pickle(name) for name in names):
        raise ZooError(
            f"{path} is a zip archive without data.pkl, but torch.save always writes one: "
            "pass a .pth file saved by torch 1.6 or later"
        )
    program = _read_member(path, archive, next(name for name in names if _is_pickle(name)))
    try:
        _check_memo(program)
        return _Unpickler(path, program).load()
    except ZooError:
        raise
    except Exception as error:  # a damaged pickle can make the unpickler raise almost anything
        reason = f"{type(error).__name__}: {error}"
        raise ZooError(f"{path} holds a pickle that cannot be read ({reason}): download or save it again") from error


def _is_pickle(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _check_memo(program: bytes) -> None:
    """Refuse memo indices that no honest pickle reaches: the C unpickler allocates a table up to the largest one."""
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "LONG_BINPUT" and argument is not None and argument > len(program):
            raise ValueError(f"memo index {argument} in a pickle of {len(program)} bytes")


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """Read one member into memory after checking that it cannot be larger than the file itself."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
        raise ZooError(
            f"{path} holds {name!r} compressed or with an impossible size, but torch.save stores its members as they "
            "are: save it again with torch.save"
        )
    return archive.read(info)


class _Unpickler(pickle.Unpickler):
    """Unpickles descriptions of tensors and plain Python values; every other global is refused, not imported."""

    def __init__(self, path: Path, program: bytes) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self._path = path

        # Local functions: a pickle may set attributes on any object it holds, and these die with the unpickler.
        def rebuild_tensor(  # noqa: PLR0913 (torch says what a pickle passes)
            storage, offset, size, stride, requires_grad, hooks, metadata=None
        ):
            if metadata:
                raise ValueError("a tensor with metadata (a conjugate or negative view)")
            return _Tensor(storage, offset, size, stride)

        def rebuild_parameter(data, requires_grad, hooks):
            return data

        self._allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Dict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
            ("torch", "Size"): tuple,
            **{("torch", name): _StorageType(kind) for name, kind in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of an allowed global."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise ZooError(
                f"{self._path} asks for {module}.{name}, but only tensors in plain dicts are read, because other "
                "globals can run code: save only the model's state_dict()"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        """Check the tuple ('storage', storage class, key, location, number of elements)."""
        _, kind, key, _, numel = pid
        known = pid[0] == "storage" and isinstance(kind, _StorageType) and isinstance(key, str)
        if not known or not _is_count(numel):
            raise ValueError("a persistent id that does not describe a storage")
        return _Storage(kind.kind, key, numel)


def _select(path: Path, top: Any) -> dict[str, _Tensor]:
    """Find the state dict in the unpickled value and check that it maps names to tensors."""
    if not isinstance(top, dict):
        raise ZooError(
            f"{path} holds {_describe(top)} at the top level, but a state dict is a dict of tensors: "
            "save the model's state_dict()"
        )
    for wrapper in _WRAPPERS:
        inner = top.get(wrapper)
        if isinstance(inner, dict) and any(isinstance(value, _Tensor) for value in inner.values()):
            top = inner
            break
    for key, value in top.items():
        if not isinstance(key, str) or not isinstance(value, _Tensor):
            name = repr(key) if isinstance(key, (str, int)) else _describe(key)
            raise ZooError(
                f"{path} holds {_describe(value)} under the key {name:.200}, but a state dict maps names to tensors: "
                "save the model's state_dict()"
            )
    if not top:
        raise ZooError(f"{path} holds an empty dict, but a state dict holds tensors: save the model's state_dict()")
    return top


def _describe(value: Any) -> str:
    """Name a value's type as the user who saved the file knows it."""
    names = {_Tensor: "Tensor", _Dict: "OrderedDict", _Storage: "Storage", _StorageType: "type"}
    return "a value of type " + names.get(type(value), type(value).__name__)


def _strip_prefix(tensors: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Remove DataParallel's `module.`, but only where every name has it: some models own a child of that name."""
    prefix = "module."
    if all(name.startswith(prefix) for name in tensors):
        return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return dict(tensors)


class _Builder:
    """Turns tensor descriptions into arrays, reading every storage once."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        names = archive.namelist()
        self._root = next(name for name in names if _is_pickle(name)).partition("/")[0]
        self._members = frozenset(names)
        order = f"{self._root}/byteorder"
        self._big_endian = order in self._members and _read_member(path, archive, order).strip() == b"big"
        self._storages: dict[str, bytes] = {}
        self._budget = _MAX_GROWTH * path.stat().st_size

    def build_all(self, tensors: Mapping[str, _Tensor]) -> dict[str, np.ndarray]:
        """Check and copy every tensor."""
        return {name: self._build(name, tensor) for name, tensor in tensors.items()}

    def _build(self, name: str, tensor: _Tensor) -> np.ndarray:
        """Copy one tensor out of its storage; nothing outside the storage's elements is ever addressed."""
        if not isinstance(tensor.storage, _Storage):
            raise self._refuse(name, "has no storage")
        if not _is_geometry(tensor):
            raise self._refuse(name, "has an offset, size or stride that is not a tuple of counts")
        storage, offset, size, stride = tensor
        last = offset + sum((length - 1) * step for length, step in zip(size, stride))
        if offset > storage.numel or (0 not in size and last >= storage.numel):
            raise self._refuse(name, f"reaches beyond its storage of {storage.numel} elements")
        flat = self._elements(name, storage)
        # Lengths of 0 count as 1, because numpy limits the product of the others.
        self._budget -= math.prod(max(length, 1) for length in size) * flat.itemsize
        if self._budget < 0:
            raise self._refuse(name, f"brings the tensors to over {_MAX_GROWTH} times the size of the file")
        if 0 in size:
            view = np.empty(size, flat.dtype)
        else:
            # An axis of length 1 is never stepped along, and its stride may be too large for numpy.
            strides = tuple(step * flat.itemsize if length > 1 else 0 for length, step in zip(size, stride))
            view = np.lib.stride_tricks.as_strided(flat[offset:], size, strides, writeable=False)
        return _convert(view, storage.kind)

    def _elements(self, name: str, storage: _Storage) -> np.ndarray:
        """Return a storage as a read-only array of shape (numel,) in the file's byte order."""
        dtype = np.dtype(_BITS.get(storage.kind, storage.kind)).newbyteorder(">" if self._big_endian else "<")
        member = f"{self._root}/data/{storage.key}"
        if storage.key not in self._storages:
            if member not in self._members:
                raise self._refuse(name, f"needs the missing member {member!r:.200}")
            self._storages[storage.key] = _read_member(self._path, self._archive, member)
        content = self._storages[storage.key]
        if storage.numel * dtype.itemsize > len(content):
            raise self._refuse(name, f"needs {storage.numel} elements, and {member!r} has only {len(content)} bytes")
        return np.frombuffer(content, dtype, count=storage.numel)

    def _refuse(self, name: str, fact: str) -> ZooError:
        return ZooError(
            f"{self._path} is damaged: the tensor {name!r:.200} {fact}, but torch.save never writes that: "
            "download or save it again"
        )


def _is_count(value: Any) -> bool:
    """Tell whether a value is an int that a 64-bit index can hold."""
    return type(value) is int and 0 <= value < 2**63


def _is_geometry(tensor: _Tensor) -> bool:
    """Tell whether offset, size and stride have the right types and lengths."""
    size, stride = tensor.size, tensor.stride
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= _MAX_DIMENSIONS:
        return False
    return all(map(_is_count, (tensor.offset, *size, *stride)))


def _convert(view: np.ndarray, kind: str) -> np.ndarray:
    """Copy a strided view into a new C-ordered array of the machine's byte order, decoding bool and bfloat16."""
    array = np.array(view, dtype=view.dtype.newbyteorder("="), order="C")
    if kind == "bool":
        return np.asarray(array != 0)
    if kind == "bfloat16":
        # bfloat16 is the upper half of a float32: https://arxiv.org/abs/1905.12322
        return np.left_shift(array, 16, dtype=np.uint32, out=np.empty(array.shape, np.uint32)).view(np.float32)
    return array
