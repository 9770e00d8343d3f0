"""The table of the CPU kernels: its expressions in Python and C++, the order of its checks, its gradients' names."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.cpu_kernels import build, expressions, gradients, header
from src.cpu_kernels.checking import Refused, output_shapes
from src.cpu_kernels.declaration import Argument, Derived, Kernel, Operator, Rule
from src.cpu_kernels.operators import OPERATORS

KERNELS = [kernel for entry in OPERATORS.values() for kernel in entry.kernels()]


def test_expressions():
    text = "(h + 2 * padding - kernel) // stride + 1"
    assert expressions.names(text) == ("h", "padding", "kernel", "stride")
    assert expressions.evaluate(text, {"h": 224, "padding": 3, "kernel": 7, "stride": 4}) == 56
    assert expressions.in_cpp(text) == "((((h + (2 * padding)) - kernel) / stride) + 1)"
    assert expressions.in_cpp("rows == 1 or c % rows == 0") == "((rows == 1) || ((c % rows) == 0))"
    assert not expressions.evaluate("rows == 1 or c % rows == 0", {"rows": 2, "c": 3})


@pytest.mark.parametrize("text", ["f(x)", "x ** 2", "x[0]", "'a'", "1.5 * x", "1 < x < 3", "__import__('os')"])
def test_anything_else_is_no_expression(text):
    for use in (lambda: expressions.evaluate(text, {"x": 2}), lambda: expressions.in_cpp(text)):
        with pytest.raises((ValueError, KeyError)):
            use()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_every_name_gets_a_value_and_every_argument_a_meaning(kernel):
    steps = kernel.steps  # raises for a name without a value
    assert [step.text for step in steps if isinstance(step, Rule)] == list(kernel.rules)
    assert {step.name for step in steps if isinstance(step, Derived)} == set(kernel.derived)
    names = [argument.name for argument in kernel.arguments]
    assert len(set(names)) == len(names) and all(argument.meaning for argument in kernel.arguments)
    assert all(argument.dtype in header.TYPES for argument in kernel.arguments)


def test_the_order_of_a_mistaken_entry_is_refused():
    late = Kernel("K", "", (Argument("x", "n out", "x"), Argument("w", "h", "w")), (), {"out": "h + 1"}, (), {"": {}})
    with pytest.raises(ValueError, match="x needs out too early"):
        _ = late.steps
    lacking = Kernel("K", "", (Argument("x", "n", "x"),), (), {}, ("m > 1",), {"": {}})
    with pytest.raises(ValueError, match="nothing gives a value to m > 1"):
        _ = lacking.steps


def test_every_kernel_has_its_function_in_cpp_and_the_other_way_round():
    text = "\n".join(path.read_text() for path in build.SOURCES)
    exported = set(re.findall(r"^EXPORT\((\w+),", text, re.M))
    for name in re.findall(r"^EXPORT_ACTIVATIONS\((\w+),", text, re.M):
        exported |= {f"{name}{variant}" for variant in ("Linear", "ReLU", "ReLU6")}
    assert exported == {f"{kernel.name}{variant}" for kernel in KERNELS for variant in kernel.variants}


@pytest.mark.parametrize("entry", OPERATORS.values(), ids=lambda entry: entry.name)
def test_gradients_are_of_inputs_and_read_what_is_there(entry: Operator):
    if entry.gradient is None:
        return
    inputs = {argument.name for argument in entry.inputs}
    outputs = {argument.name for argument in entry.outputs}
    assert set(entry.gradient.of.split()) | set(entry.gradient.passed.split()) | set(entry.gradient.ready) <= inputs
    assert set(entry.gradient.ready.values()) <= outputs
    assert set(entry.gradient.reads.split()) <= inputs | outputs | {f"d{name}" for name in outputs}


def test_gradients_as_functions():
    text = gradients.text()
    assert (
        """
def RangeFakeQuant(backward):
    def bprop(x, range, settings, out, dout):
        found = backward(x, settings, out[2], out[3], dout[0])
        return (found, zeros_like(range), zeros_like(settings),)

    return bprop
"""
        in text
    )
    assert "return (found[0], found[1], found[2], dout, zeros_like(keep),)" in text
    assert "def bprop(x, weight, out, dout):\n        return backward(x, weight, dout)\n" in text
    assert "return (out[1] * dout[0], zeros_like(label), zeros_like(weights), zeros_like(ignore),)" in text


def test_a_new_operator_is_one_entry(monkeypatch, tmp_path):
    """The structure of an operator that the table has not held before compiles, and its check works in Python."""
    entry = Operator(
        "Halved",
        "Every second column.",
        inputs=(Argument("x", "n w", "bytes", dtype="uint8"),),
        outputs=(Argument("y", "n half", "bytes", dtype="uint8"),),
        derived={"half": "w // 2"},
        rules=("w % 2 == 0",),
    )
    monkeypatch.setitem(OPERATORS, "Halved", entry)
    (tmp_path / "operators.h").write_text(header.text())
    source = tmp_path / "halved.cc"
    source.write_text(
        '#include "operators.h"\nvoid Forward(const HalvedArgs& args) {\n'
        "  for (int64_t i = 0; i < args.n * args.half; ++i) args.y[i] = args.x[2 * i];\n}\nEXPORT(Halved, Forward)\n"
    )
    try:
        compiler = build._compiler()
    except build.KernelsUnavailable as reason:
        pytest.skip(str(reason))
    command = [*compiler, "-std=c++17", "-fsyntax-only", "-Werror", f"-I{tmp_path}", f"-I{build.NATIVE}", str(source)]
    subprocess.run(command, check=True)
    assert output_shapes(entry.forward(), "", [(3, 8)], {}) == [(3, 4)]
    with pytest.raises(Refused, match="CPU kernel Halved: w % 2 == 0 has to hold, with w=7"):
        output_shapes(entry.forward(), "", [(3, 7)], {})


@given(
    st.lists(st.integers(0, 9), max_size=5),
    st.lists(st.integers(0, 9), max_size=5),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_shapes_give_outputs_or_one_sentence(x, weight, stride, padding):
    """Never another error, and outputs without a side of 0."""
    numbers = {"stride": stride, "padding": padding}
    try:
        found = output_shapes(OPERATORS["Conv"].forward(), "", [x, weight, weight[:1], (2,)], numbers)
    except Refused as refusal:
        assert re.fullmatch(r"CPU kernel Conv: .* (must have|has to hold).*", str(refusal))
    else:
        assert len(found) == 1 and min(found[0]) > 0
        assert found[0][0] == x[0] and found[0][1] == weight[0]
