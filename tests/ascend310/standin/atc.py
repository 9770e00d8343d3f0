"""A stand-in for atc, the converter of the CANN toolkit: checks its arguments as atc does and writes a file that only
the stand-in library loads. Test only.

atc --framework=5 --model=X.onnx --output=PREFIX --soc_version=Ascend310 [--input_shape=NAME:N,3,H,W]
    [--insert_op_conf=AIPP.cfg] [--output_type=FP32|FP16]
With --framework=1 the model is expected to be a MINDIR file under the name of an AIR file, since AIR files can only be
written on Ascend.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from engine import LOADERS

MAGIC = "standin-om 1"
ENGINES = {1: "mindir", 5: "onnx"}
INPUT_FORMATS = {"YUV420SP_U8": 1, "RGB888_U8": 3}
# Lowest and highest value of the keys that the stand-in knows.
RANGES = {
    "related_input_rank": (0, 0),
    **{f"src_image_size_{side}": (0, 4096) for side in "wh"},
    **{f"matrix_r{row}c{column}": (-32768, 32767) for row in range(3) for column in range(3)},
    **{f"{kind}_bias_{row}": (0, 255) for kind in ("input", "output") for row in range(3)},
    **{f"mean_chn_{channel}": (0, 255) for channel in range(4)},
    **{f"min_chn_{channel}": (0, 255) for channel in range(4)},
    **{f"var_reci_chn_{channel}": (-65504, 65504) for channel in range(4)},
}
WHOLE = re.compile(r"src_|matrix_|_bias_|mean_chn|related")


class WrongInput(Exception):
    """What atc would end with."""


def read_aipp(path: Path) -> dict[str, float]:
    """Keys of the one aipp_op block, as numbers."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    block = re.fullmatch(r"\s*aipp_op\s*\{(.*)\}\s*", text, re.S)
    if not block:
        raise WrongInput(f"{path}: not one aipp_op block")
    found: dict[str, float] = {}
    for key, value in re.findall(r"(\w+)\s*:\s*(\S+)", block[1]):
        if key == "aipp_mode":
            if value != "static":
                raise WrongInput(f"aipp_mode {value} is not supported")
        elif key == "input_format":
            if value not in INPUT_FORMATS:
                raise WrongInput(f"input_format {value} is not supported")
            found[key] = INPUT_FORMATS[value]
        elif key in ("csc_switch", "rbuv_swap_switch", "crop", "padding"):
            if value not in ("true", "false") or (value == "true" and key != "csc_switch"):
                raise WrongInput(f"{key}: {value} is not supported")
            found[key] = value == "true"
        elif key in RANGES:
            number = int(value) if WHOLE.search(key) else float(value)
            if not RANGES[key][0] <= number <= RANGES[key][1]:
                raise WrongInput(f"{key}: {value} is out of range")
            found[key] = number
        else:
            raise WrongInput(f"unknown key {key}")
    if "input_format" not in found:
        raise WrongInput("input_format is missing")
    return found


def input_of(options: argparse.Namespace, content: bytes) -> tuple[str, list[int]]:
    """Name and fixed shape of the network's only input."""
    name, shape = "input", []
    if options.framework == 5:
        import onnx

        value = onnx.load_from_string(content).graph.input[0]
        name = value.name
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    else:
        from mindspore.train.mind_ir_pb2 import ModelProto

        shape = list(ModelProto.FromString(content).graph.input[0].tensor[0].dims)
    if options.input_shape:
        given, _, dims = options.input_shape.rpartition(":")
        if options.framework == 5 and given != name:
            raise WrongInput(f"--input_shape names '{given}'; the input is called '{name}'")
        shape = [int(dim) for dim in dims.split(",")]
    if len(shape) != 4 or min(shape) < 1:
        raise WrongInput(f"the input's shape {shape} is not fixed; give --input_shape")
    return name, shape


def type_of(output: np.ndarray, wanted: str | None) -> str:
    return {"FP16": "float16", "FP32": "float32"}[wanted] if wanted and output.dtype.kind == "f" else output.dtype.name


def convert(options: argparse.Namespace) -> None:
    content = options.model.read_bytes()
    engine = ENGINES[options.framework]
    name, shape = input_of(options, content)
    run, names = LOADERS[engine](content)
    outputs = run(np.zeros(shape, np.float32))
    aipp = read_aipp(options.insert_op_conf) if options.insert_op_conf else {}
    lines = [MAGIC, f"soc {options.soc_version}", f"python {sys.executable}"]
    lines.append(" ".join(["input", name, "float16" if options.input_fp16_nodes else "float32", *map(str, shape)]))
    for output_name, output in zip(names, outputs):
        words = [output_name.replace(" ", "_"), type_of(output, options.output_type), *map(str, output.shape)]
        lines.append(" ".join(["output", *words]))
    lines += [f"aipp {key} {float(value)!r}" for key, value in aipp.items()]
    head = "\n".join([*lines, f"payload {engine} {len(content)}", ""])
    Path(f"{options.output}.om").write_bytes(head.encode() + content)


def main() -> int:
    parser = argparse.ArgumentParser(prog="atc", allow_abbrev=False)
    parser.add_argument("--framework", type=int, choices=sorted(ENGINES), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--soc_version", choices=["Ascend310", "Ascend310P3"], required=True)
    parser.add_argument("--input_format", choices=["NCHW"], default="NCHW")
    parser.add_argument("--input_shape")
    parser.add_argument("--insert_op_conf", type=Path)
    parser.add_argument("--output_type", choices=["FP32", "FP16"])
    parser.add_argument("--input_fp16_nodes")
    parser.add_argument("--log", default="error")
    try:
        convert(parser.parse_args())
    except Exception as error:  # whatever a network that cannot be read raises
        print(f"ATC run failed: {str(error).strip() or type(error).__name__}")
        return 1
    print("ATC run success")
    return 0


if __name__ == "__main__":
    sys.exit(main())
