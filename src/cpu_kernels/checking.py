"""The check of a kernel's tensors in Python, with the sentences of the check in C++ (native/tensors.h).

Each refusal is one sentence that names the kernel, the argument, what is expected and what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from src.cpu_kernels.declaration import Argument, Derived, Kernel, Rule
from src.cpu_kernels.expressions import evaluate, names

MOST = 1 << 20  # numbers that decide about shapes are smaller

Shape = tuple[int, ...]


class Refused(ValueError):
    """Tensors that a kernel cannot work on; the message is one sentence."""


def check_types(kernel: Kernel, variant: str, types: Sequence[str]) -> None:
    """Raise Refused unless the tensors' types, as "float32", are those of the first arguments."""
    for argument, found in zip(kernel.arguments, types):
        if found != argument.dtype:
            sentence = f"{argument.name} must be of type {argument.dtype}, not {found}"
            raise Refused(f"CPU kernel {kernel.name}{variant}: {sentence}")


def output_shapes(
    kernel: Kernel, variant: str, shapes: Sequence[Sequence[int]], numbers: Mapping[str, float]
) -> list[Shape]:
    """Shapes of the outputs for those of the inputs; the outputs' may follow, to be checked as well.

    `numbers` are the values that decide about shapes. Raises Refused.
    """
    found, values = [], dict(kernel.variants[variant])
    rests: dict[str, Shape] = {}

    def refuse(sentence: str) -> Refused:
        return Refused(f"CPU kernel {kernel.name}{variant}: {sentence}")

    for step in kernel.steps:
        if isinstance(step, Derived):
            values[step.name] = evaluate(step.text, values)
        elif isinstance(step, Rule):
            if not evaluate(step.text, values):
                raise refuse(f"{step.text} has to hold, with {_with_values(step.text, values)}")
        elif step.index >= len(shapes):
            found.append(_expected(step.argument, values, rests))
        else:
            sentence = _mismatch(step.argument, tuple(shapes[step.index]), values, rests)
            if sentence:
                raise refuse(sentence)
            for name in step.whole:
                if not (0 <= numbers[name] < MOST and numbers[name] == int(numbers[name])):
                    raise refuse(f"{name} must be a whole number from 0 to {MOST - 1}, not {numbers[name]:g}")
                values[name] = int(numbers[name])
    return found


def check_count(kernel: Kernel, variant: str, count: int) -> None:
    """Raise Refused unless as many tensors are given as there are arguments; lists may have any one length."""
    wanted = ", ".join(argument.name for argument in kernel.arguments)
    fixed, lists = len(kernel.arguments) - len(kernel.lists), len(kernel.lists)
    if lists and (count <= fixed or (count - fixed) % lists):
        sentence = f"{fixed} tensors and {lists} lists of one length are needed ({wanted}), not {count} tensors"
    elif not lists and count != fixed:
        sentence = f"{fixed} tensors are needed ({wanted}), not {count}"
    else:
        return
    raise Refused(f"CPU kernel {kernel.name}{variant}: {sentence}")


def _with_values(text: str, values: Mapping[str, int]) -> str:
    return " and ".join(f"{name}={values[name]}" for name in names(text))


def _expected(argument: Argument, values: Mapping[str, int], rests: Mapping[str, Shape]) -> Shape:
    shape: Shape = ()
    for side in argument.sides:
        shape += rests[side] if side.startswith("*") else (evaluate(side, values),)
    return shape


def _mismatch(argument: Argument, found: Shape, values: dict[str, int], rests: dict[str, Shape]) -> str | None:
    """What is wrong with a shape, None if nothing is; gives values to the names that are new."""
    fixed = [side for side in argument.sides if not side.startswith("*")]
    texts, fits = [], True
    before = dict(values)
    for position, side in enumerate(fixed):
        if side.isidentifier() and side not in values:
            texts.append(side)
            values[side] = found[position] if position < len(found) else 0
            fits = fits and values[side] > 0
            continue
        value = evaluate(side, values)
        texts.append(side if side.isdigit() or side not in before and side.isidentifier() else f"{side}={value}")
        fits = fits and position < len(found) and found[position] == value
    rest = found[len(fixed) :]
    if len(fixed) < len(argument.sides):
        name = argument.sides[-1]
        texts += [name] if name not in rests else [str(side) for side in rests[name]]
        fits = fits and rest == rests.setdefault(name, rest) and min(rest, default=1) > 0
    elif rest:
        fits = False
    if fits:
        return None
    without = " without a side of 0" if 0 in found else ""
    return f"{argument.name} must have the shape {_tuple(texts)}{without}, not {_tuple(map(str, found))}"


def _tuple(sides: Iterable[str]) -> str:
    """As Python prints a tuple of numbers."""
    sides = list(sides)
    return f"({sides[0]},)" if len(sides) == 1 else f"({', '.join(sides)})"
