"""The table of the CPU kernels: inputs, outputs, shapes and gradient of every operator.

From it follow the MindSpore operator with its inference and its gradient (custom.py), and in C++ the structure of an
operator's named arguments with their check (header.py). A new kernel is one entry in the module of its kind and one
file in native/ that exports <name><variant>, and <name>Backward<variant> if the gradient reads anything.
N images, C channels, H x W pixels.
"""

from __future__ import annotations

from src.cpu_kernels.operators import convolutions, inverted_residuals, optimizers, quantisation, transformers

OPERATORS = {
    entry.name: entry
    for kind in (convolutions, inverted_residuals, transformers, quantisation, optimizers)
    for entry in kind.OPERATORS
}
