"""The operator table as a C++ header: for each kernel a structure of named arguments and sides that checks its tensors.

To see it: python -c "from src.cpu_kernels import header; print(header.text())"
"""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Check, Derived, Kernel, Rule
from src.cpu_kernels.expressions import in_cpp, names
from src.cpu_kernels.operators import OPERATORS

TYPES = {"float32": "float", "int32": "int32_t", "uint8": "uint8_t", "bfloat16": "uint16_t"}
BEGINNING = """// Written by header.py from the operator table.

#pragma once

#include <vector>

#include "tensors.h"

namespace {
"""


def text() -> str:
    """The whole header."""
    kernels = [kernel for entry in OPERATORS.values() for kernel in entry.kernels()]
    return "\n".join([BEGINNING, *map(_structure, kernels), "}  // namespace\n"])


def _structure(kernel: Kernel) -> str:
    """A kernel's structure, and a function that makes it for each variant."""
    name, members, checks = f"{kernel.name}Args", [f"  int64_t {name};" for name in kernel.constants], []
    known, fixed = {*kernel.constants, "entries"}, len(kernel.inputs) - len(kernel.lists)
    if kernel.lists:
        members += [
            "  int64_t entries;  // of each list",
            "  std::vector<int64_t> sides;  // the product of an entry's",
        ]
    for step in kernel.steps:
        if isinstance(step, Check) and step.argument.each:
            checks += _check_list(step, fixed)
            members.append(_list_member(step.argument))
        elif isinstance(step, Rule):
            checks.append(_rule(step))
        elif isinstance(step, Derived):
            members.append(f"  int64_t {step.name};")
            checks.append(f"    {step.name} = {in_cpp(step.text)};")
            known.add(step.name)
        else:
            checks += _check(step, known, _place(kernel, step.index))
            members += _members(step, known, is_input=step.index < len(kernel.inputs))
            known |= {side for side in step.argument.sides if side.lstrip("*").isidentifier()}
            known |= set(step.whole)
    parameters = "".join(f", int64_t {constant}" for constant in kernel.constants)
    constants = ", ".join(f"{constant}({constant})" for constant in kernel.constants)
    wanted = ", ".join(argument.name for argument in kernel.arguments)
    lines = [
        f"// {kernel.meaning}",
        f"struct {name} {{",
        *members,
        "",
        f"  explicit {name}(const Tensors& given{parameters}){' : ' + constants if constants else ''} {{",
        _count(kernel, wanted),
        *checks,
        "  }",
        "};",
    ]
    for variant, values in kernel.variants.items():
        given = "".join(f", {value}" for value in values.values())
        lines.append(
            f"inline {name} Read{kernel.name}{variant}(const Tensors& given) {{ return {name}(given{given}); }}"
        )
    return "\n".join([*lines, ""])


def _count(kernel: Kernel, wanted: str) -> str:
    """The check of the number of tensors."""
    if not kernel.lists:
        return f'    given.CheckCount({len(kernel.arguments)}, "{wanted}");'
    fixed, lists = len(kernel.arguments) - len(kernel.lists), len(kernel.lists)
    return f'    entries = given.CheckLists({fixed}, {lists}, "{wanted}");'


def _place(kernel: Kernel, index: int) -> str:
    """Where an argument's tensor is, in C++: outputs come after all entries of the lists."""
    if index < len(kernel.inputs):
        return str(index)
    return f"{index - len(kernel.lists)} + {len(kernel.lists)} * entries" if kernel.lists else str(index)


def _list_member(argument: Argument) -> str:
    constant = "" if argument.written else "const "
    return f"  {constant}{TYPES[argument.dtype]}* const* {argument.name};  // {argument.meaning}"


def _check_list(step: Check, first: int) -> list[str]:
    """Types and shapes of a list, whose entries are shaped as those of the first list, which begins at `first`."""
    argument, place = step.argument, f"{first} + {step.index - first} * entries"
    constant = "" if argument.written else "const "
    return [
        f'    given.CheckEach({place}, entries, {{"{argument.name}", "{argument.dtype}", ""}}, {first});',
        *([f"    sides = given.Products({first}, entries);"] if step.index == first else []),
        f"    {argument.name} = given.Each<{constant}{TYPES[argument.dtype]}>({place});",
    ]


def _members(step: Check, known: set[str], is_input: bool) -> list[str]:
    """Its pointer or its numbers, and the sides that it is the first to name."""
    argument = step.argument
    members = [f"  int64_t {side};" for side in _new_sides(argument, known) if not side.startswith("*")]
    rest = [f"  int64_t {side[1:]};  // the product of these sides" for side in argument.sides if _is_new(side, known)]
    if argument.numbers:
        numbers = [f"  {'int64_t' if name in step.whole else 'float'} {name};" for name in argument.numbers]
        return [f"  // {argument.meaning}", *numbers, *members, *rest]
    constant = "const " if is_input else ""
    return [f"  {constant}{TYPES[argument.dtype]}* {argument.name};  // {argument.meaning}", *members, *rest]


def _new_sides(argument: Argument, known: set[str]) -> list[str]:
    fresh = [side for side in argument.sides if side.lstrip("*").isidentifier() and side not in known]
    return list(dict.fromkeys(fresh))


def _is_new(side: str, known: set[str]) -> bool:
    return side.startswith("*") and side not in known


def _rule(rule: Rule) -> str:
    values = ", ".join(f'{{"{name}", {name}}}' for name in names(rule.text))
    return f'    given.CheckRule({in_cpp(rule.text)}, "{rule.text}", {{{values}}});'


def _check(step: Check, known: set[str], index: str) -> list[str]:
    """Type and shape of the tensor at `index`, then what it gives values to."""
    argument = step.argument
    fixed = [side for side in argument.sides if not side.startswith("*")]
    shown, values = [], []
    for position, side in enumerate(fixed):
        is_fresh = side.isidentifier() and side not in known
        shown.append(side if is_fresh or side.isdigit() else f"{side}=")
        if not is_fresh:
            values.append(in_cpp(side))
        else:
            first = fixed.index(side)
            values.append("kAny" if first == position else f"given.Side({index}, {first})")
    rest = ""
    if len(fixed) < len(argument.sides):
        name = argument.sides[-1]
        shown.append(name)
        rest = ", Sides{}" if name not in known else f", {name[1:]}_sides"
    described = f'{{"{argument.name}", "{argument.dtype}", "{" ".join(shown)}"}}'
    lines = [f"    given.Check({index}, {described}, {{{', '.join(values)}}}{rest});"]
    for side in _new_sides(argument, known):
        if side.startswith("*"):
            lines.append(f"    const Sides {side[1:]}_sides = given.Rest({index}, {len(fixed)});")
            lines.append(f"    {side[1:]} = {side[1:]}_sides.Product();")
        else:
            lines.append(f"    {side} = given.Side({index}, {fixed.index(side)});")
    if not argument.numbers:
        lines.append(f"    {argument.name} = given.Data<{TYPES[argument.dtype]}>({index});")
    for position, number in enumerate(argument.numbers):
        value = f"given.Data<{TYPES[argument.dtype]}>({index})[{position}]"
        if number in step.whole:
            value = f'given.Whole("{number}", {value})'
        lines.append(f"    {number} = {value};")
    return lines
