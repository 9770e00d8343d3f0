"""Our contenders: the commands of this project, with the clock in place of one function of src.engine.loop.

So what is measured is what a command line sets up: train.py's compiled step, eval.py's predictor. Of src these are
used: zoo.run, and loop.train (its first argument is the training, with step and batches), loop.evaluate (its first is
the predictor) and loop.predictor (it is given the network). The last part writes files that rows read.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import CITY_CLASSES, CLASSES, Job, NotBuilt, noise, repeat, since_start, time_calls
from benchmarks.pipelines import batch_counts, time_batches

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RATE = 1e-4  # learning rate of the timed steps
FINETUNE_BATCH = 32


class Measured(BaseException):
    """Ends a command once the clock has its answer; no Exception, so that nothing handles it on the way."""


def flags_of(job: Job, kernels: str = "auto", quant: bool = False) -> list[str]:
    """The part of a command line that says which network, which size and which precision."""
    workers = str(job.threads)
    if job.network.startswith("mit"):
        size = f"{job.height},{job.width}"
        config = CONFIGS / "segformer" / "segformer.base.yaml"
        flags = ["--backbone", job.network, "--base_size", size, "--crop_size", size, "--data_path", "scenes"]
        flags += ["--dataset_num_parallel_workers", workers, "--load_ckpt", "False"]
    else:
        config = CONFIGS.parent / "default_config_cpu.yaml"
        config = CONFIGS / "mobilenetv2_quant" / "cpu.yaml" if quant else config
        flags = ["--image_height", str(job.height), "--image_width", str(job.width), "--num_workers", workers]
        flags += ["--width_mult", str(job.multiplier), "--dataset_path", "classes"]
    precision = ["--amp_level", "O2", "--amp_dtype", "bfloat16"] if job.bfloat16 else []
    common = ["--config_path", str(config), "--platform", "CPU", "--batch_size", str(job.batch)]
    return [*common, *flags, "--cpu_kernels", kernels, *precision]


def training_flags(job: Job, kernels: str, quant: bool, folder: str) -> list[str]:
    """Stochastic depth, class weights and long calibration are off: the peers have none."""
    if job.network.startswith("mit"):
        own = ["--run_eval", "False", "--drop_path", "0", "--head_dropout", "0", "--class_weights", "False"]
    else:
        own = ["--lr_max", "0.000000001", "--lr_end", "0"]  # tiny images of noise teach nothing good
        own += ["--calibration_batches", "1"] if quant else []
    return [*flags_of(job, kernels, quant), *own, "--epoch_size", "1", "--save_checkpoint_path", folder]


def run(command: str, flags: list[str], job: Job) -> None:
    """Run train.py, eval.py or export.py. Raises NotBuilt where it refuses bfloat16."""
    from src import zoo

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = zoo.run(command, flags)
    if status:
        last = (said.getvalue().strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        if status == 2 and job.bfloat16 and "amp_" in last:
            raise NotBuilt(last)
        raise RuntimeError(f"{command}.py ended with {status}: {last}")


def clocked(command: str, flags: list[str], place: str, clock: Callable[..., dict], job: Job) -> dict:
    """What `clock` answers when it is called in place of the function `place` of src.engine.loop."""
    from src.engine import environment

    environment.prepare()
    from src.engine import loop

    answers = []

    def instead(*given: object, **_: object) -> None:
        answers.append(clock(*given))
        raise Measured

    setattr(loop, place, instead)
    try:
        run(command, flags, job)
    except Measured:
        return answers[0]
    raise RuntimeError(f"{command}.py ended without calling loop.{place}")


def train(job: Job, kernels: str = "auto", quant: bool = False) -> dict:
    """train.py's step on one batch from numpy, its loss read back every time as the loop does.

    Its start includes reading one batch of tiny files, which the peers do not read.
    """

    from src.engine import environment

    environment.prepare()
    from src.engine.loop import as_tensors

    def clock(training: Any, *_: object) -> dict:
        step, arriving = training.step, training.batches(0, 0)
        image, *others = next(arriving)
        arriving.close()
        tensors = next(as_tensors([(noise(image.shape), *others)]))
        return time_calls(lambda: float(step(RATE, *tensors).asnumpy()), job)

    with tempfile.TemporaryDirectory(dir=".", prefix="run-") as folder:
        return clocked("train", training_flags(job, kernels, quant, folder), "train", clock, job)


def evaluate(job: Job, file: str = "mobilenetv2.ckpt", quant: bool = False) -> dict:
    """eval.py's predictor for a checkpoint or an exported file, from numpy to numpy."""
    backend = "onnx" if file.endswith(".onnx") else "mindspore"
    flags = [*flags_of(job, quant=quant), "--pretrain_ckpt", file, "--eval_backend", backend]
    image = noise(job.shape)

    def clock(predict: Callable, *_: object) -> dict:
        return time_calls(lambda: predict(image), job)

    return clocked("eval", flags, "evaluate", clock, job)


def segment(job: Job) -> dict:
    """eval.py's SegFormer, from numpy to logits at a quarter of the image's size."""
    from src.engine import environment

    environment.prepare()
    from src.engine import loop

    make, image = loop.predictor, noise(job.shape)

    def clock(net: object) -> dict:
        predict = make(net)
        return time_calls(lambda: predict(image), job)

    flags = [*flags_of(job), "--eval_ckpt_path", "segformer.ckpt"]
    return clocked("eval", flags, "predictor", clock, job)


def segment_files(job: Job) -> dict:
    """The whole of eval.py on the first `job.images` scenes, for its memory: every image is forgotten at once."""
    with tempfile.TemporaryDirectory(dir=".", prefix="scenes-") as name:
        folder = Path(name)
        shutil.copyfile("scenes/classes.csv", folder / "classes.csv")
        for kind in ("images", "masks"):
            for file in sorted(Path("scenes", kind, "val").iterdir())[: job.images]:
                link = folder / kind / "val" / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, link)
        flags = [*flags_of(job), "--eval_ckpt_path", "segformer.ckpt", "--data_path", name]
        count, elapsed = repeat(lambda: run("eval", flags, job), 1, 0)
    return {"seconds": elapsed / count / job.images, **since_start(job)}


def finetune(job: Job) -> dict:
    """train.py with a frozen backbone, from the start of the program to the last epoch."""
    with tempfile.TemporaryDirectory(dir=".", prefix="run-") as folder:
        flags = [*flags_of(job), "--dataset_path", "photos", "--save_checkpoint_path", folder]
        flags += ["--pretrain_ckpt", "mobilenetv2.ckpt", "--freeze_layer", "backbone", "--filter_head", "True"]
        flags += ["--epoch_size", str(job.epochs), "--save_checkpoint_epochs", str(job.epochs)]
        run("train", flags, job)
    return since_start(job)


def data(job: Job) -> dict:
    """The training batches of train.py, decoded and augmented."""

    def clock(training: Any, *_: object) -> dict:
        return time_batches(training.batches(0, 0), job)

    with tempfile.TemporaryDirectory(dir=".", prefix="run-") as folder:
        flags = [*training_flags(job, "auto", False, folder), "--dataset_path", "many_photos"]
        return clocked("train", flags, "train", clock, job)


def write_classes(job: Job) -> None:
    """classes/: a tiny image in each of CLASSES folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        folder = Path("classes", f"{number:04d}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "one.png")


def write_photos(job: Job) -> None:
    """photos/, and many_photos/ with links to them, as many as the data pipelines take."""
    from benchmarks import photos

    photos.write_photos(Path("photos"), job.images)
    times = -(-sum(batch_counts(job)) * job.batch // job.images)
    for number, file in enumerate(sorted(Path("photos").glob("*/*.jpg")) * times):
        link = Path("many_photos", file.parent.name, f"{number:06d}.jpg")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(file, link)


def write_scenes(job: Job) -> None:
    """scenes/: images and masks of noise in the generic layout; 2 to train on, `job.images` to evaluate."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", job.images)):
        for number in range(count):
            picture = Path("scenes", "images", split, f"{number:03d}.jpg")
            mask = Path("scenes", "masks", split, f"{number:03d}.png")
            for file in (picture, mask):
                file.parent.mkdir(parents=True, exist_ok=True)
            shape = (job.height, job.width)
            Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(picture)
            Image.fromarray(rng.integers(0, CITY_CLASSES, shape, np.uint8)).save(mask)
    rows = [f"{index},class{index},{index},0,0" for index in range(CITY_CLASSES)]
    Path("scenes", "classes.csv").write_text("\n".join(["index,name,red,green,blue", *rows]) + "\n", encoding="utf-8")


def write_checkpoint(job: Job, file: str) -> None:
    """A network after a few steps: speed does not depend on what it has learned."""
    with tempfile.TemporaryDirectory(dir=".", prefix="run-") as folder:
        run("train", training_flags(job, "auto", False, folder), job)
        newest = max(Path(folder).glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
        shutil.move(newest, file)


def write_onnx(job: Job, file: str) -> None:
    """The checkpoint of the same stem as ONNX, MobileNetV2 for any batch size, SegFormer for any size."""
    stem = Path(file).stem
    flags = [*flags_of(job), "--ckpt_file", f"{stem}.ckpt", "--file_name", stem, "--file_format", "ONNX"]
    any_size, any_batch = ["--dynamic_size", "True"], ["--activation", "None", "--dynamic_batch", "True"]
    own = any_size if job.network.startswith("mit") else any_batch
    run("export", [*flags, *own], job)


def write_int8(job: Job, file: str) -> None:
    """MobileNetV2-quant, calibrated on one batch, with whole numbers from the image to the logits."""
    with tempfile.TemporaryDirectory(dir=".", prefix="run-") as folder:
        flags = [*flags_of(job, quant=True), "--pretrain_ckpt", "mobilenetv2.ckpt", "--calibrate_only", "1"]
        run("train", [*flags, "--save_checkpoint_path", folder], job)
        stored = next(Path(folder).glob("*calibrated.ckpt"))
        flags = [*flags_of(job, quant=True), "--ckpt_file", str(stored), "--file_name", Path(file).stem]
        run("export", [*flags, "--file_format", "ONNX", "--activation", "None", "--dynamic_batch", "True"], job)
