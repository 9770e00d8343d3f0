"""What is compared with what. Plain data: tables are rows of contenders, contenders are functions with options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from benchmarks.jobs import Job

OURS, PEERS = "ours", "peers"  # the two environments: .venv and .venv-peers


@dataclass(frozen=True)
class Metric:
    """A field of the workers' answers: its unit, how it is printed, whether more is better."""

    field: str
    unit: str
    number: str
    more_is_better: bool = False


SPEED = Metric("images_per_s", "images/s", ".1f", True)
SECONDS = Metric("seconds", "s", ".3f")
START = Metric("start_s", "s", ".1f")
MEMORY = Metric("peak_mb", "peak MB", ".0f")


@dataclass(frozen=True)
class Contender:
    """A function of benchmarks with its options and its work, the environment it runs in, and the files it reads.

    `peer`: ratios are to the best of them. `packages`: whose versions the row names.
    """

    label: str
    function: str
    options: dict[str, object] = field(default_factory=dict)
    job: Job = Job()
    environment: str = PEERS
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def peer(self) -> bool:
        return not self.label.startswith("ours")

    @property
    def key(self) -> str:
        """What is measured, to the letter; rows that measure the same share it."""
        given = {f.name: getattr(self.job, f.name) for f in dataclasses.fields(Job)}
        work = [f"{name}={value}" for name, value in given.items() if name != "began"]
        return " ".join([self.function, *(f"{name}={value}" for name, value in sorted(self.options.items())), *work])


@dataclass(frozen=True)
class Row:
    """A table: the title without the unit, the metric, and who is measured."""

    title: str
    metric: Metric
    contenders: tuple[Contender, ...]


@dataclass(frozen=True)
class Written:
    """A file or folder that contenders read: who writes it, and what has to be there before."""

    function: str
    options: dict[str, object] = field(default_factory=dict)
    job: Job = Job()
    environment: str = OURS
    needs: tuple[str, ...] = ()


B0 = Job(network="mit_b0", batch=1, height=512, width=1024)
B2 = Job(network="mit_b2", batch=2, height=512, width=512)
FILES = {
    "classes": Written("ours.write_classes"),
    "photos": Written("ours.write_photos"),
    "scenes": Written("ours.write_scenes", job=dataclasses.replace(B0, images=40)),
    "mobilenetv2.ckpt": Written(
        "ours.write_checkpoint", {"file": "mobilenetv2.ckpt"}, Job(batch=100, height=32, width=32), needs=("classes",)
    ),
    "mobilenetv2.onnx": Written("ours.write_onnx", {"file": "mobilenetv2.onnx"}, needs=("mobilenetv2.ckpt",)),
    "int8.onnx": Written("ours.write_int8", {"file": "int8.onnx"}, needs=("mobilenetv2.ckpt",)),
    "segformer.ckpt": Written("ours.write_checkpoint", {"file": "segformer.ckpt"}, B0, needs=("scenes",)),
    "segformer.onnx": Written("ours.write_onnx", {"file": "segformer.onnx"}, B0, needs=("segformer.ckpt",)),
}
for _batch in (1, 32):
    for _kind, _int8 in (("float", False), ("int8", True)):
        _file = f"{_kind}-{_batch}.tflite"
        _options = {"file": _file, "int8": _int8}
        FILES[_file] = Written("tensorflow_peer.write_litert", _options, Job(batch=_batch), PEERS)

VARIANTS = {
    "PyTorch eager": {},
    "PyTorch eager, channels-last": {"channels_last": True},
    "torch.compile": {"compiled": True},
    "torch.compile, channels-last": {"channels_last": True, "compiled": True},
}
BEST = ("PyTorch eager, channels-last", "torch.compile, channels-last")  # where a row has few peers


def torch(function: str, job: Job, only: tuple[str, ...] = tuple(VARIANTS)) -> tuple[Contender, ...]:
    """PyTorch's variants in the precision of the job."""
    packages = ("torch", "transformers") if job.network.startswith("mit") else ("torch",)
    files = ("photos",) if function == "finetune" else ()
    made = {"job": job, "files": files, "packages": packages}
    suffix = ", bfloat16" if job.bfloat16 else ""
    return tuple(Contender(label + suffix, f"torch_peer.{function}", VARIANTS[label], **made) for label in only)


def ours(label: str, function: str, job: Job, files: tuple[str, ...] = (), **options: object) -> Contender:
    return Contender(label, f"ours.{function}", options, job, OURS, files, ("mindspore",))


def tensorflow(job: Job) -> tuple[Contender, ...]:
    return (
        Contender("TensorFlow", "tensorflow_peer.train", {}, job, packages=("tensorflow-cpu",)),
        Contender("TensorFlow XLA", "tensorflow_peer.train", {"xla": True}, job, packages=("tensorflow-cpu",)),
    )


def without_xla(job: Job) -> tuple[Contender, ...]:
    """Ours next to PyTorch and TensorFlow; XLA and JAX, which take ten times as long, are in two rows."""
    return (ours("ours", "train", job, ("classes",)), *torch("train", job), tensorflow(job)[0])


def mobilenet_training(job: Job) -> tuple[Contender, ...]:
    """Ours next to every framework."""
    jax = Contender("JAX", "jax_peer.train", {}, job, packages=("jax",))
    return (*without_xla(job), tensorflow(job)[1], jax)


def few(job: Job) -> tuple[Contender, ...]:
    """Ours next to PyTorch's two best variants."""
    return (ours("ours", "train", job, ("classes",)), *torch("train", job, BEST))


def square(size: int, batch: int = 32, **more: object) -> Job:
    return Job(batch=batch, height=size, width=size, **more)


def bfloat16(job: Job) -> Job:
    return dataclasses.replace(job, bfloat16=True)


def bfloat16_rows(job: Job, files: tuple[str, ...]) -> tuple[Contender, ...]:
    return (
        ours("ours, bfloat16", "train", bfloat16(job), files),
        ours("ours, float32", "train", job, files),
        *torch("train", bfloat16(job)),
    )


def openvino(job: Job, file: str) -> tuple[Contender, ...]:
    made = {"job": job, "files": (file,), "packages": ("openvino",)}
    return (
        Contender("OpenVINO float32", "runtimes.openvino", {"file": file, "float32": True}, **made),
        Contender("OpenVINO, its default precision", "runtimes.openvino", {"file": file}, **made),
    )


def litert(job: Job, kind: str) -> Contender:
    file = f"{kind}-{job.batch}.tflite"
    return Contender(f"LiteRT, {kind}", "runtimes.litert", {"file": file}, job, PEERS, (file,), ("ai-edge-litert",))


def onnxruntime(job: Job, file: str) -> tuple[Contender, ...]:
    """One call for the whole batch, and where there are several images, parts of it on a thread each."""
    made = {"job": job, "files": (file,), "packages": ("onnxruntime",)}
    whole = Contender("onnxruntime", "runtimes.onnxruntime", {"file": file}, **made)
    apart = Contender("onnxruntime, a thread per image", "runtimes.onnxruntime", {"file": file, "apart": True}, **made)
    return (whole, apart) if job.batch > 1 else (whole,)


def evaluator(label: str, job: Job, file: str, quant: bool = False) -> Contender:
    made = ours(label, "evaluate", job, ("classes", file), file=file, quant=quant)
    packages = ("onnxruntime",) if file.endswith(".onnx") else ("mindspore", "onnxruntime")
    return dataclasses.replace(made, packages=packages)


def inference(batch: int) -> tuple[Contender, ...]:
    job = Job(batch=batch)
    return (
        evaluator("ours (exported, onnxruntime)", job, "mobilenetv2.onnx"),
        evaluator("ours (checkpoint)", job, "mobilenetv2.ckpt"),
        *torch("infer", job),
        *torch("infer", bfloat16(job), BEST[1:]),
        *openvino(job, "mobilenetv2.onnx"),
        litert(job, "float"),
    )


def int8(batch: int) -> tuple[Contender, ...]:
    job = Job(batch=batch)
    ours_int8 = evaluator("ours, INT8 (exported, onnxruntime)", job, "int8.onnx", True)
    return (ours_int8, openvino(job, "int8.onnx")[1], litert(job, "int8"))


TRAIN, CLASS_FILES, SCENES = Job(), ("classes",), ("scenes",)
TRAINING = mobilenet_training(TRAIN)
STOCK = ours("ours, MindSpore's stock operators", "train", TRAIN, CLASS_FILES, kernels="off")
TENSORFLOW_BF16 = dataclasses.replace(tensorflow(bfloat16(TRAIN))[0], label="TensorFlow, bfloat16")
B0_TRAINING = (
    ours("ours", "train", B0, SCENES),
    ours("ours, MindSpore's stock operators", "train", B0, SCENES, kernels="off"),
    *torch("train", B0),
)
SCALES = {  # what changes of the first row: name of the row, words of its title, job
    "train-1-core": ("224 x 224, batch 32, on 1 core", Job(threads=1)),
    "train-96": ("96 x 96, batch 32", square(96)),
    "train-128": ("128 x 128, batch 32", square(128)),
    "train-160": ("160 x 160, batch 32", square(160)),
    "train-width-0.75": ("width 0.75, 224 x 224, batch 32", Job(multiplier=0.75)),
}
SMALL = {f"train-{size}-{batch}": square(size, batch) for size, batch in ((64, 64), (64, 128))}
SMALL |= {f"train-32-{batch}": square(32, batch) for batch in (32, 64, 128)}
NARROW = {f"train-width-{width}": square(160, multiplier=width) for width in (0.35, 0.5)}
MOBILENET, B0_NAME = "MobileNetV2 training", "SegFormer-B0 training, 512 x 1024, batch 1"

ROWS = {
    "train": Row(f"{MOBILENET}, 224 x 224, batch 32", SPEED, (*TRAINING, STOCK)),
    "train-bf16": Row(
        f"{MOBILENET} in bfloat16, 224 x 224, batch 32", SPEED, (*bfloat16_rows(TRAIN, CLASS_FILES), TENSORFLOW_BF16)
    ),
    "memory": Row(f"{MOBILENET}, 224 x 224, batch 32", MEMORY, (*TRAINING, STOCK)),
    "start": Row(f"{MOBILENET}, 224 x 224, batch 32: from the start to the end of the first step", START, TRAINING),
    **{
        name: Row(
            f"{MOBILENET}, {job.height} x {job.width}, batch {job.batch}",
            SPEED,
            mobilenet_training(job) if name == "train-64-64" else without_xla(job),
        )
        for name, job in SMALL.items()
    },
    **{
        name: Row(f"{MOBILENET}, width {job.multiplier}, 160 x 160, batch 32", SPEED, without_xla(job))
        for name, job in NARROW.items()
    },
    "quant": Row(
        "MobileNetV2 quantisation-aware training, 224 x 224, batch 32",
        SPEED,
        (
            ours("ours", "train", TRAIN, CLASS_FILES, quant=True),
            ours("ours, float", "train", TRAIN, CLASS_FILES),
            Contender("torch.ao eager", "torch_peer.train_quantised", packages=("torch",)),
            Contender("torch.ao, torch.compile", "torch_peer.train_quantised", {"compiled": True}, packages=("torch",)),
        ),
    ),
    **{name: Row(f"{MOBILENET}, {what}", SPEED, few(job)) for name, (what, job) in SCALES.items()},
    "segformer": Row(B0_NAME, SECONDS, B0_TRAINING),
    "segformer-bf16": Row(f"{B0_NAME}, in bfloat16", SECONDS, bfloat16_rows(B0, SCENES)),
    "segformer-memory": Row(B0_NAME, MEMORY, B0_TRAINING),
    "segformer-b2": Row(
        "SegFormer-B2 training, 512 x 512, batch 2", SECONDS, (ours("ours", "train", B2, SCENES), *torch("train", B2))
    ),
    "eval": Row(
        "MobileNetV2 evaluation of a checkpoint, without decoding, 224 x 224, batch 32",
        SPEED,
        (evaluator("ours", Job(), "mobilenetv2.ckpt"), *onnxruntime(Job(), "mobilenetv2.onnx")),
    ),
    "infer-32": Row("MobileNetV2 inference, 224 x 224, batch 32", SPEED, inference(32)),
    "infer-1": Row("MobileNetV2 inference, 224 x 224, batch 1", SPEED, inference(1)),
    "int8-32": Row("MobileNetV2 inference in INT8, 224 x 224, batch 32", SPEED, int8(32)),
    "int8-1": Row("MobileNetV2 inference in INT8, 224 x 224, batch 1", SPEED, int8(1)),
    "segformer-infer": Row(
        "SegFormer-B0 inference, 512 x 1024, batch 1",
        SECONDS,
        (
            ours("ours", "segment", B0, ("scenes", "segformer.ckpt")),
            ours("ours, bfloat16", "segment", bfloat16(B0), ("scenes", "segformer.ckpt")),
            *torch("infer", B0),
            *torch("infer", bfloat16(B0), BEST),
            *openvino(B0, "segformer.onnx"),
            *onnxruntime(B0, "segformer.onnx"),
        ),
    ),
    "segformer-eval": Row(
        "SegFormer-B0 evaluation of files, 512 x 1024: memory does not grow with their number",
        MEMORY,
        tuple(
            ours(f"ours, {count} images", "segment_files", dataclasses.replace(B0, images=count), ("segformer.ckpt",))
            for count in (5, 40)
        ),
    ),
    "finetune": Row(
        "Head-only fine-tuning of MobileNetV2, 256 photographs, 15 epochs, from start to end",
        START,
        (ours("ours", "finetune", Job(), ("photos", "mobilenetv2.ckpt")), *torch("finetune", Job())),
    ),
    "data": Row(
        "Data pipeline, 224 x 224, batch 32",
        SPEED,
        (
            ours("ours", "data", Job(), ("photos",)),
            Contender("MindData (C++)", "pipelines.minddata", {}, Job(), OURS, ("photos",), ("mindspore",)),
            Contender("PIL in processes, as a DataLoader", "pipelines.pil", {}, Job(), OURS, ("photos",), ("pillow",)),
        ),
    ),
}
