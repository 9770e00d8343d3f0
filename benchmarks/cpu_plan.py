"""What `python -m benchmarks.cpu` compares with what. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

MOBILENET, SEGFORMER = "benchmarks.mobilenetv2", "benchmarks.segformer"


@dataclass(frozen=True)
class Row:
    """One contender: the worker of a module, its flags, and what it is compared with.

    Ratios are to the best `peer` with the same `group`. `cores` 0 stands for all. `second`: run it
    once before, uncounted, so that its caches are full.
    """

    label: str
    module: str
    worker: str
    group: str = ""
    peer: bool = False
    flags: dict[str, object] = field(default_factory=dict)
    cores: int = 0
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    second: bool = False


@dataclass(frozen=True)
class Section:
    """A table: its title with the unit, the field of the workers' answers, whether more is better, and its rows."""

    title: str
    field: str
    number: str
    more_is_better: bool
    rows: tuple[Row, ...]
    most_rounds: int = 99


TORCH = ("torch",)
ONNX = ("onnx", "onnxruntime")
INT8_FILE = "int8.onnx"  # in the scratch folder: the file of --int8
VARIANTS = {
    "nchw": "PyTorch eager",
    "channels_last": "PyTorch eager, channels-last",
    "compiled": "torch.compile",
    "compiled_channels_last": "torch.compile, channels-last",
}
SMALL = {"size": 64, "batch": 64}


def torch_rows(kind: str, suffix: str = "", group: str = "", label: str = "", **flags: object) -> tuple[Row, ...]:
    return tuple(
        Row(f"{text}{label}", MOBILENET, f"{kind}_torch_{name}{suffix}", group, True, flags, needs=TORCH)
        for name, text in VARIANTS.items()
    )


def segformer_rows(kind: str) -> tuple[Row, ...]:
    names = {name: "" if name == "nchw" else f"_{name}" for name in VARIANTS}
    return tuple(
        Row(text, SEGFORMER, f"{kind}_torch{names[name]}", peer=True, needs=(*TORCH, "transformers"))
        for name, text in VARIANTS.items()
    )


def train_rows(**flags: object) -> tuple[Row, ...]:
    return (
        Row("ours", MOBILENET, "train_kernels", flags=flags),
        Row("MindSpore, stock operators", MOBILENET, "train_stock", flags=flags),
        *torch_rows("train", **flags),
    )


def scale_rows() -> tuple[Row, ...]:
    """How training time grows. The number of cores is compared with PyTorch's best format; the others are ours."""
    rows = []
    for cores in (1, 2):
        group = f"{cores} core{'s' if cores > 1 else ''}"
        rows.append(Row(f"ours, {group}", MOBILENET, "train_kernels", group, cores=cores))
        worker = "train_torch_compiled_channels_last"
        rows.append(
            Row(f"{VARIANTS['compiled_channels_last']}, {group}", MOBILENET, worker, group, True, {}, cores, TORCH)
        )
    rows += [Row(f"ours, {size} x {size}", MOBILENET, "train_kernels", flags={"size": size}) for size in (96, 128, 160)]
    rows += [Row(f"ours, width {width}", MOBILENET, "train_kernels", flags={"width": width}) for width in (0.35, 0.75)]
    return tuple(rows)


def infer_rows() -> tuple[Row, ...]:
    return (
        Row("ours (onnxruntime), batch 32", MOBILENET, "infer_onnx", "32", needs=ONNX),
        Row("ours (kernels), batch 32", MOBILENET, "infer_kernels", "32"),
        *torch_rows("infer", group="32", label=", batch 32"),
        Row("ours (onnxruntime), batch 1", MOBILENET, "infer_onnx_single", "1", needs=ONNX),
        *torch_rows("infer", "_single", "1", ", batch 1"),
    )


def int8_rows() -> tuple[Row, ...]:
    """The file of --int8 and our float export, next to PyTorch in float."""
    return (
        Row("ours, INT8 (onnxruntime), batch 32", MOBILENET, "infer_onnx", "32", flags={"onnx": INT8_FILE}, needs=ONNX),
        Row(
            "ours, INT8 (onnxruntime), batch 1",
            MOBILENET,
            "infer_onnx_single",
            "1",
            False,
            {"onnx": INT8_FILE},
            0,
            ONNX,
        ),
        *(row for row in infer_rows() if row.worker != "infer_kernels"),
    )


def startup_rows() -> tuple[Row, ...]:
    """Workers that stop after their first step; PyTorch's cache of compiled graphs off or full.

    MindSpore's own (MS_COMPILER_CACHE_ENABLE) gives wrong numbers on CPU, so device.setup refuses it.
    """
    no_cache = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    flags, compiled = {"steps": 1}, "train_torch_compiled_channels_last"
    return (
        Row("ours", MOBILENET, "train_kernels", flags=flags),
        Row(VARIANTS["channels_last"], MOBILENET, "train_torch_channels_last", "", True, flags, 0, TORCH),
        Row("torch.compile, channels-last", MOBILENET, compiled, "", True, flags, 0, TORCH, no_cache),
        Row("torch.compile, channels-last, with its cache", MOBILENET, compiled, "", True, flags, 0, TORCH, {}, True),
    )


def finetune_rows() -> tuple[Row, ...]:
    return (
        Row("ours (train.py)", MOBILENET, "finetune_ours"),
        *torch_rows("finetune"),
    )


SECTIONS = {
    "train": Section("MobileNetV2 training, 224 x 224, batch 32, images/s", "images_per_s", ".1f", True, train_rows()),
    "memory": Section("Peak memory of that training, MB", "peak_mb", ".0f", False, train_rows()),
    "small": Section(
        "MobileNetV2 training, 64 x 64, batch 64, images/s", "images_per_s", ".0f", True, train_rows(**SMALL)
    ),
    "infer": Section("MobileNetV2 inference, 224 x 224, images/s", "images_per_s", ".1f", True, infer_rows()),
    "int8": Section("MobileNetV2 in INT8, 224 x 224, images/s", "images_per_s", ".1f", True, int8_rows()),
    "segformer_train": Section(
        "SegFormer-B0 training step, 512 x 1024, batch 1, s",
        "seconds",
        ".3f",
        False,
        (
            Row("ours", SEGFORMER, "train_kernels"),
            Row("MindSpore, stock operators", SEGFORMER, "train_stock"),
            *segformer_rows("train"),
        ),
    ),
    "segformer_infer": Section(
        "SegFormer-B0 inference, 512 x 1024, batch 1, s",
        "seconds",
        ".3f",
        False,
        (
            Row("ours (onnxruntime)", SEGFORMER, "infer_onnx", needs=ONNX),
            Row("ours (kernels)", SEGFORMER, "infer_kernels"),
            *segformer_rows("infer"),
        ),
    ),
    "finetune": Section(
        "Head-only fine-tuning of MobileNetV2, 256 photographs, 15 epochs, from start to end, s",
        "start_s",
        ".1f",
        False,
        finetune_rows(),
        2,
    ),
    "data": Section(
        "Data pipeline, images/s",
        "images_per_s",
        ".0f",
        True,
        (
            Row("ours", MOBILENET, "data_ours"),
            Row("MindData (C++)", MOBILENET, "data_minddata"),
            Row("PIL in processes, as PyTorch's DataLoader", MOBILENET, "data_pil", peer=True),
        ),
    ),
    "scale": Section("How training scales, images/s", "images_per_s", ".1f", True, scale_rows(), 1),
    "startup": Section(
        "From start to the end of MobileNetV2's first training step, s", "start_s", ".1f", False, startup_rows(), 1
    ),
}
