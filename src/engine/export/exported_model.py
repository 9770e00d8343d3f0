"""What is known of an exported ONNX file, whatever runs it. No MindSpore here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np

META_KEY = "zoo_meta"  # of the file's metadata, a JSON text

Shape = tuple[Union[int, str, None], ...]  # a side that is free is no number


@dataclass(frozen=True)
class ExportedModel:
    """An open file on `threads` threads; shapes of its first input and output, and `meta`, what the exporter knew."""

    path: Path
    threads: int
    input_shape: Shape
    output_shape: Shape
    meta: dict

    @property
    def batch_size(self) -> int | None:
        """None where the file takes any."""
        size = self.input_shape[0]
        return size if isinstance(size, int) else None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images that the file takes; None where it takes any."""
        sides = [side for side in self.input_shape[2:] if isinstance(side, int)]
        return (sides[0], sides[1]) if len(self.input_shape) == 4 and len(sides) == 2 else None

    @property
    def outputs(self) -> int | None:
        """How many numbers, or planes of them, the first output has for an image; None where that is free."""
        count = self.output_shape[1] if len(self.output_shape) > 1 else None
        return count if isinstance(count, int) else None

    @property
    def class_to_index(self) -> dict[str, int] | None:
        return self.meta.get("class_to_index")

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Any number of inputs of the exported shape -> first output."""
        raise NotImplementedError

    def part(self, run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
        """The answers of one call; too few inputs for a fixed batch size are filled up with zeros."""
        missing = (self.batch_size or len(inputs)) - len(inputs)
        if not missing:
            return run(inputs)
        filled = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
        return run(filled)[: len(inputs)]
