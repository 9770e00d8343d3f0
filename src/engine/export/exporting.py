"""Write a network as MINDIR, ONNX or AIR, and prove that the file gives the network's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
from mindspore import nn

from src.engine import precision
from src.engine.errors import ZooError, first_line
from src.engine.export import onnx_model
from src.engine.io import files

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
BATCH_NAME = "batch"  # symbolic first dimension of an ONNX file with dynamic batch


@dataclass(frozen=True)
class Target:
    """The file to write; its suffix is added. `metadata` travels inside ONNX and beside the other formats.

    `renamed` maps the names of operators in an ONNX file to those they should have.
    """

    file: Path
    file_format: str
    metadata: dict
    dynamic_batch: bool = False
    renamed: dict[str, str] = field(default_factory=dict)


def export(
    net: nn.Cell, target: Target, inputs: dict[str, np.ndarray], written: nn.Cell | None = None
) -> tuple[Path, dict[str, float]]:
    """Write the file, for inputs of the shape of the first of `inputs`, and compare it with `net`.

    Returns the path and the largest difference per named input. A file that differs raises ZooError and replaces
    nothing. Where the ONNX exporter lacks an operator that ONNX has, `written` is the same network with
    another operator in its place, which the target renames.
    """
    shape, path = next(iter(inputs.values())).shape, path_of(target.file, target.file_format)
    written = net if written is None else written
    written.set_train(False)

    def write(temporary: Path) -> None:
        zeros = ms.Tensor(np.zeros(shape, np.float32))
        try:
            ms.export(written, zeros, file_name=str(temporary), file_format=target.file_format)
        except RuntimeError as error:
            reason = first_line(error)
            raise ZooError(f"MindSpore cannot export {path} as {target.file_format}: {reason}") from error
        temporary.chmod(files.FILE_MODE)  # the framework writes read-only files
        if target.file_format == "ONNX":
            finish_onnx(temporary, target)

    found = replace_checked(path, write, net, inputs)
    if target.file_format != "ONNX":
        text = json.dumps(target.metadata, indent=2, ensure_ascii=False) + "\n"
        files.write_text(path.with_name(path.name + ".json"), text)
    return path, found


def path_of(file: Path, file_format: str) -> Path:
    """`file` with the suffix of the format."""
    suffix = SUFFIXES[file_format]
    return file if file.suffix == suffix else file.with_name(file.name + suffix)


def tell(path: Path, found: dict[str, float]) -> None:
    """Say what was written and how far it is from the network, per named input."""
    for kind, difference in found.items():
        print(f"largest difference to the network on {kind} input: {difference:.3g}")
    print(f"exported {path} ({path.stat().st_size / 1e6:.1f} MB)")


def onnx_beside(file: str) -> str:
    """The ONNX file that every MINDIR file gets as a neighbour: AscendCL reads no MINDIR, and atc converts ONNX.

    scripts/run_infer_310.sh takes the neighbour when it is given the MINDIR file.
    """
    return str(path_of(Path(file).expanduser(), "MINDIR").with_suffix(SUFFIXES["ONNX"]))


def replace_checked(
    path: Path, write: Callable[[Path], None], net: nn.Cell, inputs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Let `write` write the file, compare it with `net`, and only then put it in place; returns the differences."""
    found = {}
    net.set_train(False)

    def written(temporary: Path) -> None:
        write(temporary)
        found.update(differences(net, temporary, inputs))

    files.replace_file(path, written)
    return found


def finish_onnx(path: Path, target: Target) -> None:
    """Store the metadata, rename operators, free the batch dimension if wanted, and check the model."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.op_type = target.renamed.get(node.op_type, node.op_type)
    onnx_model.store_metadata(model, target.metadata)
    if target.dynamic_batch:
        for value in (*model.graph.input[:1], *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = BATCH_NAME
        del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def random_input(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def reload(path: Path, threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """numpy -> numpy inference with the written file."""
    if path.suffix == ".onnx":
        return onnx_model.load(path, threads).predict
    net = nn.GraphCell(ms.load(str(path)))
    return lambda inputs: net(ms.Tensor(inputs)).asnumpy()


def differences(net: nn.Cell, path: Path, inputs: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest absolute difference between network and file per named input; AIR cannot be read back and gives {}.

    Raises ZooError above the device's tolerance.
    """
    if path.suffix == ".air":
        return {}
    tolerance = precision.TOLERANCES[ms.get_context("device_target")]
    again = reload(path)
    found = {}
    for kind, array in inputs.items():
        found[kind] = float(np.abs(net(ms.Tensor(array)).asnumpy() - again(array)).max())
        if not found[kind] <= tolerance:
            raise ZooError(f"{path.name} differs from the network by {found[kind]:.3g} on {kind} input; it is not kept")
    return found
