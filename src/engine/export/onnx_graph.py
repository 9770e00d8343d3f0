"""Writing an ONNX graph node by node. No MindSpore here."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.engine.export import onnx_model

OPSET = 13
IR_VERSIONS = {13: 8, 17: 8, 20: 9, 21: 10}  # the newest that a program which knows the opset has to know
IMAGE, SCORES = "image", "scores"


class Graph:
    """A growing graph; every method returns the name of the tensor that it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}:{operator}", **attributes))
        return output

    def convolution(
        self, x: str, weight_and_bias: tuple[str, str], output: str, kernel: int, stride: int, group: int
    ) -> str:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounded up; `kernel` is odd."""
        return self.node(
            "Conv", [x, *weight_and_bias], output, kernel_shape=[kernel, kernel], strides=[stride, stride],
            pads=[(kernel - 1) // 2] * 4, group=group,
        )  # fmt: skip

    def clip(self, x: str, least: float, greatest: float, output: str) -> str:
        """`x` between two limits."""
        limits = [self.constant(f"{output}.{name}", np.float32(v)) for name, v in (("low", least), ("high", greatest))]
        return self.node("Clip", [x, *limits], output)

    def checked(
        self, name: str, image: list[int | str], output: tuple[str, list[int | str]], metadata: dict, opset: int = OPSET
    ) -> onnx.ModelProto:
        """The checked model; sides of `image` and of the named `output` that are symbols stay free."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="mobile-zoo")
        made.ir_version = IR_VERSIONS[opset]
        onnx_model.store_metadata(made, metadata)
        onnx.checker.check_model(made, full_check=True)
        return made
