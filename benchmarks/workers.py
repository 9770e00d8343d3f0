"""One function per contender; each is called in a process of its own and returns what it measured.

Frameworks are imported inside the functions, so that a process holds only the one that it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from src.engine import environment
from src.engine.config import Value, build, read_yaml
from src.engine.errors import ZooError, first_line
from src.mobilenetv2.config import Config

CONFIG = Path(__file__).resolve().parent.parent / "default_config_cpu.yaml"
CLASSES = 1000
LEARNING_RATE = 0.01
WARM_UP = 2  # steps after the first one, which compiles
DATA_STEPS = 4  # a batch of data takes a fraction of a training step
AHEAD_SAMPLES, AHEAD_BATCHES = 256, 3  # what our threads and each PIL process may have started when the clock stops
EPOCHS, FINETUNE_BATCH = 15, 32
PRETRAINED = Path("pretrained.ckpt")
BEGAN = "BENCHMARK_BEGAN"  # environment variable: seconds since 1970
BYTES = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss


class LeftOut(Exception):
    """This machine cannot run the contender; the text says why."""


def run(arguments: argparse.Namespace) -> None:
    """Call the worker that is named and print its answer as one line."""
    worker = WORKERS.get(arguments.worker)
    if "torch" not in arguments.worker:
        environment.prepare()  # as train.py does; PyTorch keeps its own settings
    if worker is None:
        raise ZooError(f"no worker {arguments.worker}; there are {', '.join(WORKERS)}")
    try:
        answer = worker(arguments)
    except LeftOut as reason:
        answer = {"left_out": str(reason)}
    except ZooError:
        raise
    except Exception as error:
        raise ZooError(f"{type(error).__name__}: {first_line(error) or 'no message'}") from error
    # Linux hands a parent's peak down to the program it starts, so the process that starts us has to stay small.
    answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES / 1e6
    print(json.dumps(answer), flush=True)


def config(arguments: argparse.Namespace) -> Config:
    """The configuration for CPUs with the size of this benchmark."""
    changed = {
        "image_height": arguments.size,
        "image_width": arguments.size,
        "batch_size": arguments.batch,
        "num_workers": arguments.threads,
        "width_mult": arguments.width,
    }
    return build(Config, {**read_yaml(CONFIG), **{key: Value(raw, "the benchmark") for key, raw in changed.items()}})


def training_batch(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, 3, H, W) and smoothed target probabilities (N, CLASSES), float32."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((arguments.batch, 3, arguments.size, arguments.size), np.float32)
    target = np.full((arguments.batch, CLASSES), 0.1 / (CLASSES - 1), np.float32)
    target[np.arange(arguments.batch), rng.integers(CLASSES, size=arguments.batch)] = 0.9
    return image, target


def images_of(arguments: argparse.Namespace, batch: int) -> np.ndarray:
    return training_batch(arguments)[0][:batch]


def time_steps(step: Callable[[], object], images: int, steps: int) -> dict:
    """Images/s of `steps` calls, each of which handles `images`; the calls before them compile and warm up."""
    step()
    answer = since_start()
    for _ in range(WARM_UP):
        step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return {"images_per_s": images * steps / (time.perf_counter() - began), **answer}


def since_start() -> dict:
    """Seconds since the caller started this process, if it left a note of when that was."""
    return {"start_s": time.time() - float(os.environ[BEGAN])} if BEGAN in os.environ else {}


def network_on_cpu(cfg: Config, kernels: str):
    """The network that train.py and eval.py build, with or without the CPU kernels."""
    from src.cpu_kernels import rewrite
    from src.engine import device
    from src.mobilenetv2 import network

    device.setup("CPU")
    net = network.build(CLASSES, cfg.width_mult, cfg.seed)
    try:
        rewrite.accelerate(net, kernels)
    except ZooError as error:
        raise LeftOut(str(error)) from error
    return net


def quantised_on_cpu(cfg: Config, kernels: str):
    """The network of MobileNetV2-quant, as train.py builds it."""
    from src.engine import device
    from src.mobilenetv2_quant import network
    from src.mobilenetv2_quant.config import Config as QuantConfig

    device.setup("CPU")
    shared = {key: value for key, value in vars(cfg).items() if key not in ("model", "file_name")}
    return network.build(CLASSES, QuantConfig(**shared), kernels)


def train_mindspore(arguments: argparse.Namespace, kernels: str, make: Callable = network_on_cpu) -> dict:
    """The step that train.py runs, fed from numpy and read back every time as the training loop does."""
    from src.engine.steps import step
    from src.mobilenetv2.loss import cross_entropy

    cfg = config(arguments)
    net = make(cfg, kernels)
    net.set_train(True)
    optimizer = step.momentum_optimizer(net, cfg.momentum, cfg.weight_decay)

    def loss(image, target):
        return cross_entropy(net(image), target)

    train = step.make_step(loss, optimizer)
    image, target = training_batch(arguments)
    return time_steps(lambda: float(train(LEARNING_RATE, image, target).asnumpy()), arguments.batch, arguments.steps)


def train_kernels(arguments: argparse.Namespace) -> dict:
    return train_mindspore(arguments, "on")


def train_stock(arguments: argparse.Namespace) -> dict:
    return train_mindspore(arguments, "off")


def quant_float(arguments: argparse.Namespace) -> dict:
    return train_mindspore(arguments, "on")


def quant_aware(arguments: argparse.Namespace) -> dict:
    return train_mindspore(arguments, "on", quantised_on_cpu)


def train_torch(arguments: argparse.Namespace, channels_last: bool, compiled: bool = False) -> dict:
    """The same network, loss and optimizer in PyTorch. The batch is in its memory format already, at no cost."""
    from benchmarks import torch_peer

    cfg = config(arguments)
    peer = torch_peer.Peer(CLASSES, arguments.threads, channels_last, compiled)
    image, target = (peer.tensor(array) for array in training_batch(arguments))
    train = peer.train_step(LEARNING_RATE, cfg.momentum, cfg.weight_decay)
    return time_steps(lambda: train(image, target), arguments.batch, arguments.steps)


def infer_mindspore(arguments: argparse.Namespace, kernels: str) -> dict:
    """What eval.py runs, from numpy to numpy."""
    from src.engine import loop

    net = network_on_cpu(config(arguments), kernels)
    predict, image = loop.predictor(net), images_of(arguments, arguments.batch)
    return time_steps(lambda: predict(image), arguments.batch, arguments.steps)


def infer_kernels(arguments: argparse.Namespace) -> dict:
    return infer_mindspore(arguments, "on")


def infer_stock(arguments: argparse.Namespace) -> dict:
    return infer_mindspore(arguments, "off")


def export(arguments: argparse.Namespace) -> dict:
    """Write the ONNX file (any batch size) and compare it with the network; no contender."""
    from src.engine import device
    from src.engine.export import exporting
    from src.mobilenetv2 import network

    cfg = config(arguments)
    device.setup("CPU")
    net = network.build(CLASSES, cfg.width_mult, cfg.seed)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    inputs = {"random": exporting.random_input(shape, cfg.seed)}
    return exporting.export(net, arguments.onnx, "ONNX", {}, inputs, dynamic_batch=True)[1]


def infer_onnx(arguments: argparse.Namespace) -> dict:
    from src.engine.export import onnx_model

    predict = onnx_model.load(arguments.onnx, arguments.threads).predict
    image = images_of(arguments, arguments.batch)
    return time_steps(lambda: predict(image), arguments.batch, arguments.steps)


def infer_onnx_single(arguments: argparse.Namespace) -> dict:
    """As many images as the others, one at a time."""
    from src.engine.export import onnx_model

    predict = onnx_model.load(arguments.onnx, arguments.threads).predict
    image = images_of(arguments, 1)
    return time_steps(lambda: predict(image), 1, arguments.batch * arguments.steps)


def infer_torch(
    arguments: argparse.Namespace, channels_last: bool = True, compiled: bool = False, single: bool = False
) -> dict:
    """PyTorch's answer to a batch, or to as many images one at a time."""
    from benchmarks import torch_peer

    batch, steps = (1, arguments.batch * arguments.steps) if single else (arguments.batch, arguments.steps)
    peer = torch_peer.Peer(CLASSES, arguments.threads, channels_last, compiled)
    predict, image = peer.predictor(), peer.tensor(images_of(arguments, batch))
    return time_steps(lambda: predict(image), batch, steps)


def data_counts(arguments: argparse.Namespace) -> tuple[int, int]:
    """Batches before the clock starts and batches that are timed.

    Multiples of the worker count, because processes that make whole batches deliver them in bursts.
    """
    timed = -(-DATA_STEPS * arguments.steps // arguments.threads) * arguments.threads
    return WARM_UP * arguments.threads, timed


def repeats(files: int, arguments: argparse.Namespace) -> int:
    """How often the files have to be gone through so that no pipeline runs dry while the clock runs."""
    batches = sum(data_counts(arguments)) + AHEAD_BATCHES * arguments.threads
    return -(-(batches * arguments.batch + AHEAD_SAMPLES) // files)


def time_batches(batches: Iterable, arguments: argparse.Namespace) -> dict:
    """Images/s of a pipeline whose batches are taken as soon as they are there."""
    ignored, timed = data_counts(arguments)
    arriving: Iterator = iter(batches)
    took = sum(1 for _ in islice(arriving, ignored))
    began = time.perf_counter()
    took += sum(1 for _ in islice(arriving, timed))
    elapsed = time.perf_counter() - began
    if took != ignored + timed:
        raise ZooError(f"the pipeline gave {took} batches instead of {ignored + timed}")
    return {"images_per_s": arguments.batch * timed / elapsed}


def scanned(arguments: argparse.Namespace):
    """The images that all pipelines read."""
    from src.engine.data.image_folder import TRAIN_FOLDERS, scan

    return scan(arguments.images, TRAIN_FOLDERS)


def count_images(arguments: argparse.Namespace) -> dict:
    """Describe a user's images; no contender."""
    folder = scanned(arguments)
    return {"about": f"data: {len(folder)} images of {len(folder.class_to_index)} classes in {folder.root}"}


def photos(arguments: argparse.Namespace) -> dict:
    """Write images where the user named none; no contender."""
    from benchmarks.photos import write_photos

    return {"about": write_photos(Path(arguments.images))}


def data_ours(arguments: argparse.Namespace) -> dict:
    """The training batches of train.py."""
    import dataclasses

    from src.mobilenetv2 import dataset

    cfg, once = config(arguments), scanned(arguments)
    times = repeats(len(once), arguments)
    folder = dataclasses.replace(once, files=once.files * times, labels=np.tile(once.labels, times))
    bad = dataset.bad_files(folder, cfg, lambda line: print(line, file=sys.stderr))
    return time_batches(dataset.train_batches(folder, cfg, bad, epoch=0), arguments)


def data_pil(arguments: argparse.Namespace) -> dict:
    """The same work by PIL, in one process per core."""
    from benchmarks.pil_pipeline import pil_batches

    folder = scanned(arguments)
    files = [str(folder.path(index)) for index in range(len(folder))]
    total = repeats(len(folder), arguments) * len(folder) // arguments.batch
    return time_batches(pil_batches(files, total, arguments.batch, arguments.size, arguments.threads), arguments)


def data_minddata(arguments: argparse.Namespace) -> dict:
    """The same work by MindSpore's own pipeline."""
    from benchmarks.minddata_pipeline import minddata_batches

    folder = scanned(arguments)
    times = repeats(len(folder), arguments)
    return time_batches(
        minddata_batches(str(folder.root), times, arguments.batch, arguments.size, arguments.threads), arguments
    )


def pretrained(arguments: argparse.Namespace) -> dict:
    """Write weights to fine-tune from; no contender."""
    from src.engine.io import checkpoint
    from src.mobilenetv2 import network
    from src.mobilenetv2.pretrained import about

    cfg = config(arguments)
    net = network.build(CLASSES, cfg.width_mult, cfg.seed)
    names = {f"class{number:04d}": number for number in range(CLASSES)}
    checkpoint.save(PRETRAINED, checkpoint.arrays_of(net.get_parameters()), about(cfg, names))
    return {"about": f"fine-tuning starts from random weights, {EPOCHS} epochs of the classifier"}


def finetune_ours(arguments: argparse.Namespace) -> dict:
    """train.py with a frozen backbone, from the start of the program to the last epoch."""
    from src import zoo

    output = tempfile.mkdtemp(dir=".")
    flags = ["--platform", "CPU", "--dataset_path", arguments.images, "--save_checkpoint_path", output]
    flags += ["--pretrain_ckpt", str(PRETRAINED), "--freeze_layer", "backbone", "--filter_head", "True"]
    flags += ["--epoch_size", str(EPOCHS), "--batch_size", str(FINETUNE_BATCH), "--save_checkpoint_epochs", str(EPOCHS)]
    if zoo.run("train", flags):
        raise ZooError("train.py failed; its log is above")
    return since_start()


def finetune_torch(arguments: argparse.Namespace, channels_last: bool, compiled: bool = False) -> dict:
    """The same in PyTorch: features once, of images decoded by PIL in processes, then the classifier."""
    import torch

    from benchmarks import torch_peer
    from benchmarks.pil_pipeline import centre_batches

    folder = scanned(arguments)
    files = [str(folder.path(index)) for index in range(len(folder))]
    peer = torch_peer.Peer(len(folder.class_to_index), arguments.threads, channels_last, compiled)
    peer.net.classifier = torch.nn.Identity()
    predict, found = peer.predictor(), []
    for images in centre_batches(files, FINETUNE_BATCH, arguments.size, arguments.threads):
        found.append(torch.from_numpy(predict(peer.tensor(images)).copy()))
    feature, label = torch.cat(found), torch.from_numpy(np.asarray(folder.labels)).long()
    head = torch.nn.Linear(feature.shape[1], len(folder.class_to_index))
    optimizer = torch.optim.SGD(head.parameters(), LEARNING_RATE, 0.9)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(label)).split(FINETUNE_BATCH):
            loss = torch.nn.functional.cross_entropy(head(feature[rows]), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return since_start()


WORKERS = {
    function.__name__: function
    for function in (
        train_kernels,
        train_stock,
        infer_kernels,
        infer_stock,
        infer_onnx,
        infer_onnx_single,
        quant_float,
        quant_aware,
        data_ours,
        data_pil,
        data_minddata,
        finetune_ours,
        pretrained,
        export,
        photos,
        count_images,
    )
}
TORCH_VARIANTS = {  # suffix of a worker's name -> memory format and compiler
    "nchw": {"channels_last": False},
    "channels_last": {"channels_last": True},
    "compiled": {"channels_last": False, "compiled": True},
    "compiled_channels_last": {"channels_last": True, "compiled": True},
}
for _name, _how in TORCH_VARIANTS.items():
    WORKERS[f"train_torch_{_name}"] = partial(train_torch, **_how)
    WORKERS[f"infer_torch_{_name}"] = partial(infer_torch, **_how)
    WORKERS[f"infer_torch_{_name}_single"] = partial(infer_torch, **_how, single=True)
    WORKERS[f"finetune_torch_{_name}"] = partial(finetune_torch, **_how)
