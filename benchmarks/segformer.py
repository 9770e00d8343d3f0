"""Measure SegFormer-B0 on this machine: training step, inference, evaluation memory, next to PyTorch.

python -m benchmarks.segformer [--size 512x1024] [--rounds 3] [--steps 3] [--only train,infer,evaluate]

Each contender runs in a process of its own, alternating; medians. PyTorch's rows need torch and transformers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import machine
from src.engine import environment
from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError

ROOT = Path(__file__).resolve().parent.parent
CLASSES, BATCH, LR, DECAY = 19, 1, 1e-4, 0.01
WARM_UP = 2  # calls before the clock starts, beside the one that compiles
FEW, MANY = 5, 40  # images of the two evaluations whose memory is compared
TORCH = ("torch", "transformers")
CONTENDERS = {  # worker -> kind, label, packages; ratios are to the last row of a kind
    "train_kernels": ("train", "MindSpore, our CPU kernels", ()),
    "train_stock": ("train", "MindSpore, stock operators", ()),
    "train_torch": ("train", "PyTorch eager (transformers)", TORCH),
    "infer_kernels": ("infer", "MindSpore, our CPU kernels", ()),
    "infer_stock": ("infer", "MindSpore, stock operators", ()),
    "infer_onnx": ("infer", "onnxruntime, our export", ()),
    "infer_torch": ("infer", "PyTorch eager (transformers)", TORCH),
}


def batch_of(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Random image (N, 3, H, W) float32 and label (N, H, W) int32."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((BATCH, 3, *size)).astype(np.float32)
    return image, rng.integers(0, CLASSES, (BATCH, *size)).astype(np.int32)


def seconds_per_call(call: Callable[[], object], steps: int) -> dict:
    for _ in range(1 + WARM_UP):
        call()
    began = time.perf_counter()
    for _ in range(steps):
        call()
    return {"seconds": (time.perf_counter() - began) / steps}


def network_on_cpu(kernels: str):
    from src.engine import device
    from src.segformer import network, on_cpu

    device.setup("CPU")
    net = network.build("mit_b0", CLASSES, 0, seed=1)
    on_cpu.accelerate(net, kernels)
    return net


def train_ours(args: argparse.Namespace, kernels: str) -> dict:
    """The step that train.py runs, from numpy and read back."""
    import mindspore as ms

    from src.engine.steps import step
    from src.engine.steps.adamw import AdamW
    from src.segformer import on_cpu
    from src.segformer.loss import cross_entropy

    net = network_on_cpu(kernels)
    net.set_train(True)
    weights = ms.Tensor(np.ones(CLASSES, np.float32))

    fused = on_cpu.loss_of(net, weights, 255)

    def loss(image, label):
        if fused is not None:
            return fused(image, label, None, None)
        return cross_entropy(net(image), label, weights, 255)

    train = step.make_step(loss, AdamW(net.trainable_params(), DECAY, True))
    image, label = batch_of(args.size)
    return seconds_per_call(lambda: float(train(LR, image, label).asnumpy()), args.steps)


def infer_ours(args: argparse.Namespace, kernels: str) -> dict:
    """What eval.py runs per image: numpy to coarse logits."""
    from src.engine import loop
    from src.segformer.network import QuarterLogits

    predict, image = loop.predictor(QuarterLogits(network_on_cpu(kernels))), batch_of(args.size)[0]
    return seconds_per_call(lambda: predict(image), args.steps)


def infer_onnx(args: argparse.Namespace) -> dict:
    """The exported network, logits at the size of the image."""
    from mindspore import ops

    from src.engine.export import exporting, onnx_model
    from src.segformer import conversion, network

    plain, file = network_on_cpu("off"), Path("segformer.onnx")
    written = network.build("mit_b0", CLASSES, 0, seed=1, erf=ops.Sin())
    inputs = {"random": batch_of(args.size)[0]}
    exporting.export(plain, file, "ONNX", {}, inputs, written=written, renamed=conversion.ERF_STAND_IN)
    predict = onnx_model.load(file, args.threads).predict
    return seconds_per_call(lambda: predict(inputs["random"]), args.steps)


def torch_model(args: argparse.Namespace, channels_last: bool):
    """The network in one memory format, and an image and its label."""
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    config = transformers.SegformerConfig(num_labels=CLASSES, drop_path_rate=0.0, classifier_dropout_prob=0.0)
    model = transformers.SegformerForSemanticSegmentation(config).to(memory_format=layout)
    image, label = (torch.from_numpy(array) for array in batch_of(args.size))
    return model, image.contiguous(memory_format=layout), label.long()


def train_torch(args: argparse.Namespace, channels_last: bool = False, compiled: bool = False) -> dict:
    """The same network, loss and optimizer in PyTorch; stochastic depth and dropout are off in both."""
    import torch

    model, image, label = torch_model(args, channels_last)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=DECAY)

    def loss_of(image, label):
        logits = model(image).logits
        logits = torch.nn.functional.interpolate(logits, args.size, mode="bilinear", align_corners=False)
        return torch.nn.functional.cross_entropy(logits, label)

    compare = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        loss = compare(image, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return seconds_per_call(step, args.steps)


def infer_torch(args: argparse.Namespace, channels_last: bool = False, compiled: bool = False) -> dict:
    import torch

    model, image, _ = torch_model(args, channels_last)
    model.eval()
    forward = torch.compile(model) if compiled else model

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return forward(image).logits.numpy()

    return seconds_per_call(predict, args.steps)


def evaluate(args: argparse.Namespace, images: int) -> dict:
    """What eval.py does with `images` drawn street scenes: seconds per image and peak memory."""
    import dataclasses

    from src import zoo
    from src.engine import loop
    from src.engine.data import stream
    from src.engine.ranks import Rank
    from src.segformer import dataset, work
    from src.segformer.network import QuarterLogits

    height, width = args.size
    made = ["scenes", "--train", "1", "--val", str(FEW), "--size", f"{height}x{width}"]
    if not Path("scenes").exists():
        subprocess.run([sys.executable, ROOT / "examples" / "make_street_scenes.py", *made], check=True)
        subprocess.run([sys.executable, ROOT / "tools" / "convert_dataset.py", "scenes", "--nproc", "1"], check=True)
    config = str(ROOT / "configs" / "segformer" / "segformer.b0.512x1024.city.yaml")
    flags = ["--config_path", config, "--platform", "CPU", "--data_path", "scenes", "--load_ckpt", "False"]
    size = f"{height},{width}"
    cfg = zoo.configure("train", [*flags, "--base_size", size, "--crop_size", size])
    pairs = dataset.find_pairs("scenes", "val")
    times = -(-images // len(pairs))
    pairs = dataclasses.replace(pairs, images=(pairs.images * times)[:images], masks=(pairs.masks * times)[:images])
    predict = loop.predictor(QuarterLogits(network_on_cpu("auto")))
    predict(np.zeros((1, 3, height, width), np.float32))
    began = time.perf_counter()
    bad = stream.BadFiles("error", print)
    metric = work.score(predict, pairs, cfg, bad, lambda line: None, Rank())
    return {"seconds": (time.perf_counter() - began) / metric.images}


WORKERS = {
    "train_kernels": lambda args: train_ours(args, "on"),
    "train_stock": lambda args: train_ours(args, "off"),
    "train_torch": train_torch,
    "infer_kernels": lambda args: infer_ours(args, "on"),
    "infer_stock": lambda args: infer_ours(args, "off"),
    "infer_onnx": infer_onnx,
    "infer_torch": infer_torch,
    "evaluate_few": lambda args: evaluate(args, FEW),
    "evaluate_many": lambda args: evaluate(args, MANY),
}
for _name, _how in {
    "channels_last": {"channels_last": True},
    "compiled": {"compiled": True},
    "compiled_channels_last": {"channels_last": True, "compiled": True},
}.items():
    WORKERS[f"train_torch_{_name}"] = partial(train_torch, **_how)
    WORKERS[f"infer_torch_{_name}"] = partial(infer_torch, **_how)


def call(worker: str, args: argparse.Namespace, scratch: Path) -> dict:
    """Run one worker in a process of its own; what it printed last is its answer."""
    size = "x".join(map(str, args.size))
    command = [sys.executable, "-m", "benchmarks.segformer", "--worker", worker, "--size", size]
    command += ["--steps", str(args.steps), "--threads", str(args.threads)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=scratch, env=env, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ZooError(f"{worker} failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, list[dict]]:
    """Answers per worker, one per round."""
    missing = [package for package in TORCH if importlib.util.find_spec(package) is None]
    names = [n for n, (kind, _, needs) in CONTENDERS.items() if kind in args.only and not set(needs) & set(missing)]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(1, args.rounds + 1):
        for name in names:
            found[name].append(call(name, args, scratch))
            print(f"round {number}/{args.rounds}: {name}: {found[name][-1]['seconds']:.3f} s", file=sys.stderr)
    return found


def tell(found: dict[str, list[dict]], only: list[str]) -> None:
    for kind, title in (("train", "training step"), ("infer", "inference")):
        rows = [name for name in found if CONTENDERS[name][0] == kind]
        if kind not in only or not rows:
            continue
        medians = {name: statistics.median(answer["seconds"] for answer in found[name]) for name in rows}
        peaks = {name: statistics.median(answer["peak_mb"] for answer in found[name]) for name in rows}
        reference = f"{kind}_torch"
        print(f"\n| {title}, batch {BATCH} | s | peak MB | x PyTorch |\n| --- | ---: | ---: | ---: |")
        for name in rows:
            ratio = f"{medians[reference] / medians[name]:.2f}" if reference in medians else "-"
            print(f"| {CONTENDERS[name][1]} | {medians[name]:.3f} | {peaks[name]:.0f} | {ratio} |")


def size_of(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"size is {text}; it has to look like 512x1024")
    return int(height), int(width)


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m benchmarks.segformer", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--size", default="512x1024", help="height x width in pixels (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed calls per round (default 3)")
    parser.add_argument("--only", default="train,infer,evaluate")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    try:
        args = parser.parse_args(argv)
        args.size, args.only = size_of(args.size), args.only.split(",")
        if args.worker:
            if "torch" not in args.worker:
                environment.prepare()
            answer = WORKERS[args.worker](args)
            answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(json.dumps(answer))
            return 0
        facts = machine.facts()
        print("\n".join([*(f"{name}: {value}" for name, value in facts.items()), *machine.warnings()]))
        args.threads = int(facts["cores"])
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            tell(measure(args, Path(name)), args.only)
            if "evaluate" in args.only:
                print()
                for worker, images in (("evaluate_few", FEW), ("evaluate_many", MANY)):
                    answer = call(worker, args, Path(name))
                    took = f"{answer['seconds']:.3f} s each, peak {answer['peak_mb']:.0f} MB"
                    print(f"evaluation of {images} images: {took}")
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
