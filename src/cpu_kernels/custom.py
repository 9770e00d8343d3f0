"""An entry of the operator table as a MindSpore operator: inference of shapes and types, and the gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
from mindspore import Tensor, ops

from src.cpu_kernels.checking import check_types, output_shapes
from src.cpu_kernels.declaration import Kernel, Operator
from src.cpu_kernels.operators import OPERATORS

ZEROS = -1  # in place of an index: this input has no gradient


def custom_operator(library: Path, name: str, variant: str = "", **numbers: int) -> ops.Custom:
    """The operator `name` of the table, on the compiled `library`.

    `numbers` are those that decide about shapes, as heads=4. Its inputs are tensors in the order of the table; tensors
    of another type or shape raise checking.Refused while MindSpore compiles, else RuntimeError with the same sentence.
    """
    entry = OPERATORS[name]
    bprop = _bprop(library, entry, variant, numbers) if entry.gradient is not None else None
    return _custom(library, entry.forward(), variant, numbers, bprop)


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
        found = output_shapes(kernel, variant, shapes, numbers)
        return found[0] if len(found) == 1 else tuple(found)

    def out_dtype(*types):
        check_types(kernel, variant, [str(found.element_type()).lower() for found in types])
        return dtypes[0] if len(dtypes) == 1 else dtypes

    function = f"{library}:{kernel.name}{variant}"
    operator = ops.Custom(function, out_shape, out_dtype, func_type="aot", bprop=bprop)
    for name, value in numbers.items():
        operator.add_prim_attr(name, value)  # MindSpore takes operators of equal attributes for the same one
    return operator


class Plan(NamedTuple):
    """Which tensors make a gradient, as places in two lists.

    `reads`: what the backward kernel is given, of the inputs, the outputs and the outputs' gradients. `gives`: for each
    input a place in the results of the backward kernel, followed by the same list; or ZEROS.
    """

    reads: tuple[int, ...]
    gives: tuple[int, ...]


def plan_of(entry: Operator) -> Plan:
    """The plan of an entry whose gradient has a backward kernel."""
    inputs, outputs = ([argument.name for argument in side] for side in (entry.inputs, entry.outputs))
    values = [*inputs, *outputs, *(f"d{name}" for name in outputs)]
    of, passed = entry.gradient.of.split(), entry.gradient.passed.split()
    first = len(of) + values.index(f"d{outputs[0]}")
    gives = (of.index(name) if name in of else first if name in passed else ZEROS for name in inputs)
    return Plan(tuple(map(values.index, entry.gradient.reads.split())), tuple(gives))


def _bprop(library: Path, entry: Operator, variant: str, numbers: dict[str, int]) -> Callable:
    """The gradient as MindSpore wants it: a function of the inputs, the output and its gradient."""
    if entry.gradient.ready:
        return _with_parameters(_scaled(entry), len(entry.inputs))
    kernel = entry.backward()
    plan, backward = plan_of(entry), _custom(library, kernel, variant, numbers)
    reads, gives, one_output, one_gradient = *plan, len(entry.outputs) == 1, len(kernel.outputs) == 1

    # MindSpore compiles the source of these functions, hence tuples and loops over constants instead of comprehensions.
    def gradients(inputs, out, dout):
        values = inputs + ((out, dout) if one_output else out + dout)
        given = ()
        for place in reads:
            given = given + (values[place],)
        found = backward(*given)
        results = ((found,) if one_gradient else found) + values
        chosen = ()
        for number, place in enumerate(gives):
            chosen = chosen + ((ops.zeros_like(inputs[number]) if place == ZEROS else results[place]),)
        return chosen

    return _with_parameters(gradients, len(entry.inputs))


def _scaled(entry: Operator) -> Callable:
    """Gradients that are among the outputs, times the gradient of the first output."""
    outputs = [output.name for output in entry.outputs]
    ready = entry.gradient.ready
    places = tuple(outputs.index(ready[given.name]) if given.name in ready else ZEROS for given in entry.inputs)

    def gradients(inputs, out, dout):
        chosen = ()
        for number, place in enumerate(places):
            chosen = chosen + ((ops.zeros_like(inputs[number]) if place == ZEROS else out[place] * dout[0]),)
        return chosen

    return gradients


def _with_parameters(gradients: Callable, inputs: int) -> Callable:
    """`gradients` as a function with one parameter per input: MindSpore counts them and takes no *inputs here."""

    def of_two(a, b, out, dout):
        return gradients((a, b), out, dout)

    def of_three(a, b, c, out, dout):
        return gradients((a, b, c), out, dout)

    def of_four(a, b, c, d, out, dout):
        return gradients((a, b, c, d), out, dout)

    def of_five(a, b, c, d, e, out, dout):
        return gradients((a, b, c, d, e), out, dout)

    def of_six(a, b, c, d, e, f, out, dout):
        return gradients((a, b, c, d, e, f), out, dout)

    def of_seven(a, b, c, d, e, f, g, out, dout):
        return gradients((a, b, c, d, e, f, g), out, dout)

    return {2: of_two, 3: of_three, 4: of_four, 5: of_five, 6: of_six, 7: of_seven}[inputs]
