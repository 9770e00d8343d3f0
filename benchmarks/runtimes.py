"""Inference runtimes on a written file: OpenVINO, onnxruntime, LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.jobs import Job, noise, time_calls

PART = 4  # images that one thread computes at a time


def timed(predict: Callable[[np.ndarray], np.ndarray], job: Job) -> dict:
    image = noise(job.shape)
    return time_calls(lambda: predict(image), job)


def quarter_logits(file: str) -> bytes:
    """Our SegFormer without its last step, which enlarges the logits to the image's size: what all others compute."""
    import onnx

    model = onnx.load(file)
    last = [node for node in model.graph.node if node.op_type == "Resize"][-1]
    model.graph.output[0].name = last.input[0]
    for side in model.graph.output[0].type.tensor_type.shape.dim:
        side.Clear()
    while model.graph.node[-1].output[0] != last.input[0]:
        del model.graph.node[-1]
    return model.SerializeToString()


def model_of(job: Job, file: str) -> bytes:
    return quarter_logits(file) if job.network.startswith("mit") else Path(file).read_bytes()


def openvino(job: Job, file: str, float32: bool = False) -> dict:
    """Its default precision is bfloat16 where the processor has it."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(model_of(job, file), b"")
    model.reshape(list(job.shape))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job.threads}
    if float32:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(model, "CPU", settings)
    return timed(lambda image: compiled(image)[0], job)


def onnxruntime(job: Job, file: str, apart: bool = False) -> dict:
    """The batch in one call on all threads, or its parts apart, each on a thread of its own."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1 if apart else job.threads
    session = ort.InferenceSession(model_of(job, file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(image: np.ndarray) -> np.ndarray:
        return session.run(None, {name: image})[0]

    if not apart:
        return timed(predict, job)
    with ThreadPoolExecutor(job.threads) as pool:
        parts = -(-job.batch // PART)
        return timed(lambda image: np.concatenate(list(pool.map(predict, np.array_split(image, parts)))), job)


def litert(job: Job, file: str) -> dict:
    """With XNNPACK, its default; the image is on the file's grid already where that has whole numbers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=job.threads)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def predict(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    image = noise(tuple(given["shape"]))
    if given["dtype"] != np.float32:
        image = (32 * image).clip(-128, 127).astype(given["dtype"])
    return time_calls(lambda: predict(image), job)
