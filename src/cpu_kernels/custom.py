"""An entry of the operator table as a MindSpore operator: inference of shapes and types, and the gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, ops
from mindspore.ops import signature

from src.cpu_kernels import gradients
from src.cpu_kernels.checking import check_types, output_shapes
from src.cpu_kernels.declaration import Kernel
from src.cpu_kernels.operators import OPERATORS

WRITES, READS = signature.sig_rw.RW_WRITE, signature.sig_rw.RW_READ


def custom_operator(library: Path, name: str, variant: str = "", **numbers: int) -> ops.Custom:
    """The operator `name` of the table, on the compiled `library`.

    `numbers` are those that decide about shapes, as heads=4. Its inputs are tensors in the order of the table; tensors
    of another type or shape raise checking.Refused while MindSpore compiles, else RuntimeError with the same sentence.
    """
    entry, bprop = OPERATORS[name], None
    if entry.gradient is not None:
        kernel = entry.backward()
        backward = _custom(library, kernel, variant, numbers) if kernel is not None else None
        bprop = getattr(gradients.load(library), name)(backward)
    return _custom(library, entry.forward(), variant, numbers, bprop)


def in_place_operator(library: Path, name: str, entries: int) -> ops.Custom:
    """The operator `name`, which writes into its inputs, on lists of `entries` tensors.

    MindSpore is told that it has effects, so it stays between what comes before and after it in a compiled function,
    and that it wants the parameters themselves rather than their values.
    """
    kernel = OPERATORS[name].forward()
    operator = _custom(library, kernel, "", {})
    operator.add_prim_attr("side_effect_mem", True)
    operator.set_signatures(
        [
            signature.make_sig(f"{argument.name}_{entry}", WRITES if argument.written else READS)
            for argument in kernel.inputs
            for entry in range(entries if argument.each else 1)
        ]
    )
    return operator


def settings(name: str, argument: str = "settings", **values: float) -> Tensor:
    """An operator's vector of numbers with names, in the order of the table."""
    (names,) = (found.numbers for found in OPERATORS[name].inputs if found.name == argument)
    if set(names) != set(values):
        raise ValueError(f"{argument} of {name} takes {', '.join(names)}, not {', '.join(values)}")
    return Tensor([values[number] for number in names], ms.float32)


def _custom(
    library: Path, kernel: Kernel, variant: str, numbers: dict[str, int], bprop: Callable | None = None
) -> ops.Custom:
    """One kernel, forward or backward."""
    if set(numbers) != set(kernel.whole_numbers()):
        wanted = ", ".join(kernel.whole_numbers()) or "no number"
        raise ValueError(f"{kernel.name} has to be told {wanted}, not {', '.join(numbers) or 'nothing'}")
    dtypes = tuple(getattr(ms, output.dtype) for output in kernel.outputs)

    def out_shape(*shapes):
        found = output_shapes(kernel.of(len(shapes)), variant, shapes, numbers)
        return tuple(found) if len(found) > 1 else found[0]

    def out_dtype(*types):
        check_types(kernel.of(len(types)), variant, [str(found.element_type()).lower() for found in types])
        return dtypes[0] if len(dtypes) == 1 else dtypes

    function = f"{library}:{kernel.name}{variant}"
    operator = ops.Custom(function, out_shape, out_dtype, func_type="aot", bprop=bprop)
    for name, value in numbers.items():
        operator.add_prim_attr(name, value)  # MindSpore takes operators of equal attributes for the same one
    return operator
