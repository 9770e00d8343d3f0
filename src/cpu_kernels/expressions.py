"""Whole-number arithmetic in the shapes of the operator table: what it needs, what it gives, and the same in C++.

An expression is one of Python: names, whole numbers, + - * // %, comparisons, `and` and `or`. In C++ // is a division
that rounds towards 0, so what is divided must not be negative; the table's rules see to that.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from functools import cache

ARITHMETIC = {
    ast.Add: (operator.add, "+"),
    ast.Sub: (operator.sub, "-"),
    ast.Mult: (operator.mul, "*"),
    ast.FloorDiv: (operator.floordiv, "/"),
    ast.Mod: (operator.mod, "%"),
}
COMPARISONS = {
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
}


@cache
def parse(text: str) -> ast.expr:
    """The tree of an expression."""
    return ast.parse(text, mode="eval").body


@cache
def names(text: str) -> tuple[str, ...]:
    """The names in an expression, in their order, each once."""
    found = [node for node in ast.walk(parse(text)) if isinstance(node, ast.Name)]
    return tuple(dict.fromkeys(node.id for node in sorted(found, key=lambda node: node.col_offset)))


def evaluate(text: str, values: Mapping[str, int]) -> int:
    """The number, or for a comparison the truth, that an expression stands for."""
    return _evaluate(parse(text), values)


def _evaluate(node: ast.expr, values: Mapping[str, int]) -> int:
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp):
        return ARITHMETIC[type(node.op)][0](_evaluate(node.left, values), _evaluate(node.right, values))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return COMPARISONS[type(node.ops[0])][0](_evaluate(node.left, values), _evaluate(node.comparators[0], values))
    if isinstance(node, ast.BoolOp):
        combined = all if isinstance(node.op, ast.And) else any
        return combined(_evaluate(part, values) for part in node.values)
    raise ValueError(f"{ast.unparse(node)} is no whole-number arithmetic")


def in_cpp(text: str) -> str:
    """The expression in C++; its names become variables."""
    return _in_cpp(parse(text))


def _in_cpp(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return str(node.value)
    if isinstance(node, ast.BinOp):
        return f"({_in_cpp(node.left)} {ARITHMETIC[type(node.op)][1]} {_in_cpp(node.right)})"
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return f"({_in_cpp(node.left)} {COMPARISONS[type(node.ops[0])][1]} {_in_cpp(node.comparators[0])})"
    if isinstance(node, ast.BoolOp):
        sign = " && " if isinstance(node.op, ast.And) else " || "
        return f"({sign.join(map(_in_cpp, node.values))})"
    raise ValueError(f"{ast.unparse(node)} is no whole-number arithmetic")
