"""The keys that all models share, by topic, and what a model's Config answers when it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from src.engine.config.options import option, unused
from src.engine.config.paths import require_file
from src.engine.environment import usable_platform
from src.engine.errors import UsageError
from src.engine.job_keys import JobKeys

SAVING = ("save_checkpoint_steps", "keep_checkpoint_max")
IN_A_JOB = (
    "data_url", "train_url", "checkpoint_url", "output_path", "load_path",
    "need_modelarts_dataset_unzip", "modelarts_dataset_unzip_name",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """What is read."""

    on_bad_image: str = option("what to do with a file that is no image", "skip", choices=("skip", "error"))


@dataclass(frozen=True)
class Training:
    """How long a training goes on, and from where."""

    epoch_size: int = option("epochs", low=1)
    accumulate: int = option("parts of a batch whose gradients make one step; a step has batch_size of each", 1, low=1)
    ema_decay: float = option("decay of the moving average of the weights, 0 is off", 0.0, low=0, below=1)
    focal_gamma: float = option("focal loss: how much less it counts what is known already; 0 is off", 0.0, low=0)
    clip_norm: float = option("largest global gradient norm, 0 is off", 0.0, low=0)
    resume: str = option("continue a run: 'auto' (newest good checkpoint of the run folder) or a file", "")


@dataclass(frozen=True)
class Checkpoints:
    """What a run writes."""

    save_checkpoint: bool = option("write checkpoints", True)
    save_checkpoint_steps: int = option("also save every so many steps, 0 is off", 0, low=0)
    keep_checkpoint_max: int = option("epoch checkpoints that are kept; 0 keeps all", 20, low=0)


@dataclass(frozen=True)
class Evaluation:
    """What computes where no network is trained."""

    eval_backend: str = option(
        "what runs the network: mindspore a checkpoint, onnx (onnxruntime) and openvino an exported ONNX file",
        "mindspore",
        choices=("mindspore", "onnx", "openvino"),
        read_by=("eval", "infer"),
    )

    def require_model(self, key: str, path: str) -> None:
        """Raise UsageError where the value of `key` is no file, or none that the backend runs."""
        require_file(key, path)
        if path.endswith(".onnx") == (self.eval_backend == "mindspore"):
            raise UsageError(
                f"eval_backend is {self.eval_backend} and {key} {path}; "
                "backends onnx and openvino take an .onnx file, backend mindspore a checkpoint"
            )


@dataclass(frozen=True)
class Inference:
    """What infer.py writes."""

    infer_output_path: str = option("folder for the results", "./infer_result/")


@dataclass(frozen=True)
class Device:
    """What computes."""

    platform: str = option("where to run", choices=("Ascend", "GPU", "CPU"), aliases=("device_target",))
    device_id: int = option("card of this machine; the environment variable DEVICE_ID wins", 0, low=0)
    run_distribute: bool = option(
        "data parallel, one process per card", False, aliases=("distribute",), read_by=("train", "eval")
    )
    seed: int = option("fixes initial weights, data order, augmentation and dropout", 1, low=0, high=2**31 - 1)
    cpu_kernels: str = option(
        "compiled kernels on CPU; off leaves everything to MindSpore's own operators",
        "auto",
        choices=("auto", "on", "off"),
    )
    amp_dtype: str = option(
        "what amp_level O2 computes in; float16 needs a loss scale, bfloat16 has float32's range and fewer digits",
        "float16",
        choices=("float16", "bfloat16"),
    )

    trains_bfloat16_on_cpu: ClassVar[bool] = False  # whether the compiled kernels of the model do

    @property
    def device(self) -> str:
        """The platform; "auto" stands for the best of this machine."""
        return usable_platform() if self.platform == "auto" else self.platform

    def require_half_precision(self) -> None:
        """Raise UsageError where the device does not train in amp_dtype."""
        if self.device != "CPU":
            return
        if self.amp_dtype == "float16":
            why, remedy = "which computes float16 no faster", "a CPU needs --amp_level O0"
            if self.trains_bfloat16_on_cpu:
                remedy = "use --amp_dtype bfloat16 or --amp_level O0"
        elif not self.trains_bfloat16_on_cpu:
            why, remedy = "whose kernels know no bfloat16 for this model", "a CPU needs --amp_level O0"
        elif self.cpu_kernels == "off":
            why, remedy = "where the kernels compute bfloat16, and cpu_kernels is off", "leave --cpu_kernels at auto"
        else:
            return
        raise UsageError(f"amp_level is O2 and platform CPU, {why}; {remedy}")


@dataclass(frozen=True)
class Cloud:
    """A ModelArts job: see src/cloud/job.py."""

    enable_modelarts: bool = option("run as a ModelArts job", False)
    data_url: str = option("ModelArts: where the data set is", "")
    train_url: str = option("ModelArts: where results go", "")
    checkpoint_url: str = option("ModelArts: where the checkpoint is", "")
    output_path: str = option("ModelArts: local copy of train_url", "/cache/train")
    load_path: str = option("ModelArts: local copy of checkpoint_url", "/cache/checkpoint_path")
    need_modelarts_dataset_unzip: bool = option("ModelArts: the data set is a zip file", True)
    modelarts_dataset_unzip_name: str = option("ModelArts: name of the zip file without suffix", "ImageNet_Original")


@dataclass(frozen=True)
class Unused:
    """Keys of all the original files that nothing reads here."""

    rank_id: int = unused(0, "the launcher tells every process its rank")
    rank_size: int = unused(1, "the launcher says how many processes there are, see scripts/")


@dataclass(frozen=True)
class Shared(Data, Training, Checkpoints, Evaluation, Inference, Device, Cloud, Unused):
    """The base of every model's Config: the keys above, and the questions that src/zoo.py and src/cloud ask."""

    commands: ClassVar[tuple[str, ...]] = ("train", "eval", "infer", "export")

    @staticmethod
    def named_after(file: Path) -> dict[str, str]:
        """Keys whose default is the name of the YAML file, with their values."""
        return {}

    @staticmethod
    def job_keys() -> JobKeys:
        """Which of the keys a cloud job brings and takes away."""
        raise NotImplementedError

    def check_for(self, command: str) -> None:
        """Rules between keys, and the inputs that `command` cannot do without. Raises UsageError."""

    def switched_off(self, command: str) -> list[tuple[bool, tuple[str, ...], str]]:
        """(whether, keys, why): keys that have no effect in `command` while another key has its value."""
        return [
            (not self.enable_modelarts, (*IN_A_JOB, self.job_keys().local_data), "enable_modelarts is False"),
            (self.device != "CPU", ("cpu_kernels",), f"platform is {self.device}"),
            (self.device == "CPU", ("device_id",), "a CPU has no cards"),
            (not self.save_checkpoint, SAVING, "save_checkpoint is False"),
        ]

    def idle(self, command: str) -> dict[str, str]:
        """Keys that have no effect with the values of the others, and why."""
        return {key: why for holds, keys, why in self.switched_off(command) if holds for key in keys}
