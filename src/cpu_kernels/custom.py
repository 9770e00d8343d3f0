"""A function of the compiled kernels as a MindSpore operator."""

from collections.abc import Callable
from pathlib import Path
from typing import Optional

import mindspore as ms
from mindspore import ops


def _float32(*_shapes_or_types):
    """Output type of every single-output kernel."""
    return ms.float32


def custom_operator(
    library: Path, name: str, out_shape: Callable, outputs: int = 1, bprop: Optional[Callable] = None
) -> ops.Custom:
    """Custom operator for the function `name` of the library; `out_shape` maps input shapes to output shapes."""
    out_dtype = _float32 if outputs == 1 else (lambda *_types: (ms.float32,) * outputs)
    return ops.Custom(f"{library}:{name}", out_shape, out_dtype, func_type="aot", bprop=bprop)
