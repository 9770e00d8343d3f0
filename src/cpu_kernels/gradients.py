"""The gradients of the operator table as Python functions, in a file: MindSpore compiles their source.

It has to be straight-line code, because MindSpore counts a gradient's parameters and takes several times as long for
one function that interprets the table. build.py puts the file beside the library.
To see it: python -c "from src.cpu_kernels import gradients; print(gradients.text())"
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from src.cpu_kernels.declaration import Gradient, Operator
from src.cpu_kernels.operators import OPERATORS

BEGINNING = '''"""Written by gradients.py: what makes an operator's bprop of its backward operator."""

from mindspore.ops import zeros_like
'''


def text() -> str:
    """The whole file."""
    return "\n\n".join(
        [BEGINNING, *(_function(entry, entry.gradient) for entry in OPERATORS.values() if entry.gradient is not None)]
    )


def file_of(library: Path) -> Path:
    """Where build.py puts it."""
    return library.with_suffix(".py")


@cache
def load(library: Path) -> ModuleType:
    """The functions, as a module."""
    name = f"cpu_kernel_gradients_{library.stem}"
    spec = importlib.util.spec_from_file_location(name, file_of(library))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file_of(library)} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where MindSpore looks for the names that a function uses
    spec.loader.exec_module(module)
    return module


def _function(entry: Operator, gradient: Gradient) -> str:
    inputs, outputs = ([argument.name for argument in side] for side in (entry.inputs, entry.outputs))
    single = len(outputs) == 1
    values = {name: name for name in inputs}
    for index, name in enumerate(outputs):
        values[name] = "out" if single else f"out[{index}]"
        values[f"d{name}"] = "dout" if single else f"dout[{index}]"
    of, first = gradient.of.split(), values[f"d{outputs[0]}"]
    is_alone = len(of) + len(gradient.working) == 1
    found = {name: "found" if is_alone else f"found[{index}]" for index, name in enumerate(of)}
    found.update({name: first for name in gradient.passed.split()})
    found.update({name: f"{values[output]} * {first}" for name, output in gradient.ready.items()})
    call = f"backward({', '.join(values[name] for name in gradient.reads.split())})"
    gradients = ", ".join(found.get(name, f"zeros_like({name})") for name in inputs)
    body = [f"found = {call}", f"return ({gradients},)"]
    if of == inputs and len(of) > 1 and not gradient.working:
        body = [f"return {call}"]
    elif not of:
        body = body[1:]
    lines = [f"    def bprop({', '.join(inputs)}, out, dout):", *(f"        {line}" for line in body)]
    return "\n".join([f"def {entry.name}(backward):", *lines, "", "    return bprop", ""])
