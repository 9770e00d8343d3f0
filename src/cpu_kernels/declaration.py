"""What an entry of the operator table consists of, and the order in which a kernel's tensors are checked.

A shape is a text of sides: "n c h w". A side is a name, a whole number or an expression without blanks ("2*c"). A name
that appears for the first time takes the value that the tensor has; afterwards it stands for this value. "*rest" at the
end is any number of further sides. No side may be 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Union

from src.cpu_kernels import expressions


@dataclass(frozen=True)
class Argument:
    """One tensor. `numbers` names its elements where each has a meaning of its own, as "eps momentum".

    A number that a shape or a rule uses has to be whole. `dtype` is that of the elements, as MindSpore calls it.
    `each`: a list of tensors, of any shapes; what comes after the lists are outputs only, and all lists of a kernel
    have `entries` tensors, those of one place one shape, which is "*sides". `written`: the kernel changes it in place.
    """

    name: str
    shape: str
    meaning: str
    dtype: str = "float32"
    numbers: tuple[str, ...] = ()
    each: bool = False
    written: bool = False

    @property
    def sides(self) -> list[str]:
        return self.shape.split()


def tensors(name: str, meaning: str, written: bool = False) -> Argument:
    """A list of tensors."""
    return Argument(name, "*sides", meaning, each=True, written=written)


def scalars(name: str, numbers: str, meaning: str) -> Argument:
    """A vector of numbers with names."""
    return Argument(name, str(len(numbers.split())), meaning, numbers=tuple(numbers.split()))


@dataclass(frozen=True)
class Gradient:
    """Where the gradients of an operator's inputs come from; an input that is not named here has none (zeros).

    `reads`: what the backward kernel is given, a text of inputs, outputs and "dy" for the gradient of an output y.
    `of`: the inputs whose gradients it returns, as "dx" for an input x.
    `passed`: inputs whose gradient is that of the first output.
    `ready`: input -> the output that is its gradient where the first output's is 1; there is no backward kernel then.
    `working`: memory that the backward kernel writes to and nobody reads afterwards.
    """

    reads: str = ""
    of: str = ""
    passed: str = ""
    ready: dict[str, str] = field(default_factory=dict)
    working: tuple[Argument, ...] = ()


class Rule(NamedTuple):
    """A condition on sides and numbers."""

    text: str


class Derived(NamedTuple):
    """A side or number that follows from others."""

    name: str
    text: str


@dataclass(frozen=True)
class Check:
    """Tensor `index` has to be as its argument says. `whole`: those of its numbers that have to be whole."""

    index: int
    argument: Argument
    whole: tuple[str, ...]


Step = Union[Rule, Derived, Check]


@dataclass(frozen=True)
class Kernel:
    """One function of the library, or several that differ in their variant: forward or backward."""

    name: str
    meaning: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    derived: dict[str, str]
    rules: tuple[str, ...]
    variants: dict[str, dict[str, int]]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.inputs + self.outputs

    @property
    def lists(self) -> tuple[Argument, ...]:
        return tuple(argument for argument in self.inputs if argument.each)

    @property
    def constants(self) -> tuple[str, ...]:
        """What the variants set."""
        return tuple(next(iter(self.variants.values())))

    def of(self, inputs: int) -> Kernel:
        """The kernel for so many tensors: each of a list's as an argument of its own, `entries` a constant."""
        if not self.lists:
            return self
        fixed = len(self.inputs) - len(self.lists)
        entries = max(1, (inputs - fixed) // len(self.lists))
        written_out = [
            replace(argument, name=f"{argument.name}[{entry}]", shape=f"*sides{entry}", each=False)
            for argument in self.lists
            for entry in range(entries)
        ]
        variants = {name: {**constants, "entries": entries} for name, constants in self.variants.items()}
        return replace(self, inputs=(*self.inputs[:fixed], *written_out), variants=variants)

    def whole_numbers(self) -> tuple[str, ...]:
        """Numbers that decide about shapes; Python has to be told them, as it sees no values while it compiles."""
        shapes = [side for argument in self.arguments for side in argument.sides if not side.startswith("*")]
        texts = (*shapes, *self.rules, *self.derived.values())
        used = {name for text in texts for name in expressions.names(text)}
        return tuple(name for argument in self.inputs for name in argument.numbers if name in used)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The checks of all tensors in turn; rules and derived values as soon as their names have values."""
        return tuple(self._steps())

    def _steps(self) -> Iterator[Step]:
        known, rules, derived = {*self.constants, "entries"}, list(self.rules), dict(self.derived)
        whole = self.whole_numbers()
        for index, argument in enumerate(self.arguments):
            yield from _settled(known, rules, derived)
            late = [side for side in argument.sides if side in derived]
            if late:
                raise ValueError(f"{self.name}: {argument.name} needs {', '.join(late)} too early")
            yield Check(index, argument, tuple(name for name in argument.numbers if name in whole))
            known |= {side.lstrip("*") for side in argument.sides if side.lstrip("*").isidentifier()}
            known |= set(argument.numbers)
        yield from _settled(known, rules, derived)
        if rules or derived:
            raise ValueError(f"{self.name}: nothing gives a value to {', '.join([*rules, *derived])}")


def _settled(known: set[str], rules: list[str], derived: dict[str, str]) -> Iterator[Step]:
    """Rules first: they protect the derived values, say from a division by 0."""
    for text in [text for text in rules if known.issuperset(expressions.names(text))]:
        rules.remove(text)
        yield Rule(text)
    for name, text in [item for item in derived.items() if known.issuperset(expressions.names(item[1]))]:
        del derived[name]
        known.add(name)
        yield Derived(name, text)


@dataclass(frozen=True)
class Operator:
    """An entry of the table.

    `derived`: sides that follow from others. `rules`: conditions on sides and numbers. `variants`: suffix of the
    kernel's name -> what is constant in it; `{"": {}}` is a single kernel.
    """

    name: str
    meaning: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    gradient: Gradient | None = None
    derived: dict[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    variants: dict[str, dict[str, int]] = field(default_factory=lambda: {"": {}})

    def forward(self) -> Kernel:
        return Kernel(self.name, self.meaning, self.inputs, self.outputs, self.derived, self.rules, self.variants)

    def backward(self) -> Kernel | None:
        """The kernel that computes gradients, None without one; each is shaped as what it is the gradient of."""
        if self.gradient is None or not self.gradient.reads:
            return None
        of = {argument.name: argument for argument in self.inputs + self.outputs}
        of.update({f"d{output.name}": _gradient_of(output) for output in self.outputs})
        inputs = tuple(of[name] for name in self.gradient.reads.split())
        outputs = (*(_gradient_of(of[name]) for name in self.gradient.of.split()), *self.gradient.working)
        meaning = f"Gradients of {self.name}."
        return Kernel(f"{self.name}Backward", meaning, inputs, outputs, self.derived, self.rules, self.variants)

    def kernels(self) -> list[Kernel]:
        return [kernel for kernel in (self.forward(), self.backward()) if kernel is not None]


def _gradient_of(argument: Argument) -> Argument:
    return Argument(f"d{argument.name}", argument.shape, f"gradient of {argument.name}", argument.dtype)
