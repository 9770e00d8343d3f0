"""MobileNetV2's configuration: a classifier's keys, its width, and keys of the original files. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from src.classification import config
from src.engine.config import changed, option, unused

ONE_COMMAND = "the command that is started says what is done"
DEVICES = "run_distribute, device_id and the launcher say what runs where, in every command"
POSTPROCESS = "it is a flag of postprocess.py"


@dataclass(frozen=True)
class Unused:
    """Keys of the original MobileNetV2's files that nothing reads here."""

    is_training: bool = unused(True, ONE_COMMAND)
    is_training_eval: bool = unused(False, ONE_COMMAND)
    is_training_export: bool = unused(False, ONE_COMMAND)
    run_distribute_eval: bool = unused(False, DEVICES)
    run_distribute_export: bool = unused(False, DEVICES)
    device_id_export: int = unused(0, DEVICES)
    batch_size_postprocess: int = unused(1, "postprocess.py reads one result at a time")
    result_path: str = unused("", POSTPROCESS)
    label_path: str = unused("", POSTPROCESS)


@dataclass(frozen=True)
class Config(config.Config, Unused):
    """Values that the recipe reads; built once by src.engine.config and never changed."""

    trains_bfloat16_on_cpu: ClassVar[bool] = True

    model: str = option("which model", "mobilenetv2", choices=("mobilenetv2",))
    width_mult: float = option("channel multiplier", 1.0, low=0.1, high=4)
    output_stride: int = option(
        "how much the network shrinks its input: 32 as in the paper; 8 or 16 for pictures of 32 to 96 pixels",
        32,
        choices=(8, 16, 32),
    )
    file_name: str = changed(config.Export, "file_name", "mobilenetv2")
