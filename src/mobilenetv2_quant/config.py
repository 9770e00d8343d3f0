"""Every key of MobileNetV2-quant's configuration: MobileNetV2's and those of quantisation. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from src.classification.config import Device, Training
from src.engine.config import changed, option
from src.engine.errors import UsageError
from src.engine.job_keys import JobKeys
from src.mobilenetv2 import config
from src.quantisation import config as quantisation
from src.quantisation.config import TENSORRT, TRAIN

EXPORTABLE_BITS = 8  # of activations: ONNX below opset 21 knows no narrower ones


@dataclass(frozen=True)
class Quantisation(quantisation.Quantisation):
    """Grids of weights and activations, and how training finds them."""

    quant_method: str = option(
        "qat: ranges from moving averages; lsq: learned step size (arXiv 1902.08153)", "qat", choices=("qat", "lsq")
    )
    weight_bits: int = option("bits of a weight", 8, low=2, high=8)
    weight_symmetric: bool = option("weights: zero point 0", True)
    weight_per_channel: bool = option("weights: a scale for each output channel", True)
    weight_narrow_range: bool = option("weights: leave the lowest number out (-127..127)", True)
    activation_bits: int = option("bits of an activation", 8, low=2, high=8)
    activation_narrow_range: bool = option("activations: leave the lowest number out (-127..127)", False)
    float_layers: str = option("layers that stay float: 'first', 'last' or names as in the report, with commas", "")
    cross_layer_equalisation: bool = option(
        "with calibrate_only: scale channels inside the blocks so that neighbouring weights have like ranges; of use "
        "where weight_per_channel is False",
        False,
        read_by=TRAIN,
    )
    quant_delay: int = option("steps that only observe ranges before quantisation begins", 0, low=0, read_by=TRAIN)
    freeze_bn: int = option(
        "steps after which BN uses and keeps its moving statistics", 10_000_000, low=0, read_by=TRAIN
    )


@dataclass(frozen=True)
class Config(config.Config, Quantisation, quantisation.Export):
    """MobileNetV2's values, with those of quantisation-aware training; the defaults are this project's."""

    model: str = option("which model", "mobilenetv2_quant", choices=("mobilenetv2_quant",))
    amp_level: str = changed(
        Device, "amp_level", "O0", help="O0 alone, float32; O2 has too few digits for a grid of 8 bits"
    )
    boost_mode: str = changed(
        Training, "boost_mode", "O0", help="off; boost rewrites the network that is quantised", choices=("O0",)
    )
    start_epoch: int = option(
        "epochs of float training that the learning rate's cosine has behind it", 200, low=0, read_by=TRAIN
    )
    lr_max: float = option("learning rate that the cosine began at", above=0, aliases=("lr",))
    pretrain_ckpt: str = changed(
        Training,
        "pretrain_ckpt",
        "",
        help="float or quantised checkpoint to start from; a quantised one to evaluate or to predict with",
        aliases=("checkpoint", "pre_trained"),
    )
    file_name: str = changed(config.Config, "file_name", "mobilenetv2_quant")

    @staticmethod
    def job_keys() -> JobKeys:
        """MobileNetV2's, and the report of an export."""
        keys = config.Config.job_keys()
        return replace(keys, results=(*keys.results, "report_path"))

    def switched_off(self, command: str) -> list[tuple[bool, tuple[str, ...], str]]:
        """See Shared."""
        train, export = command == "train", command == "export"
        report = ("report_path", "report_images")
        return super().switched_off(command) + [
            (
                train and bool(self.calibrate_only),
                ("calibration_batches", "run_eval", "quant_freeze_ranges", "optimizer"),
                "calibrate_only trains nothing",
            ),
            (train and not self.calibrate_only, ("bias_correction", "cross_layer_equalisation"), "calibrate_only is 0"),
            (train and self.quant_method == "lsq", ("quant_freeze_ranges",), "quant_method lsq learns steps"),
            (train and self.freeze_layer == "none", ("freeze_layer",), "the quantised network is trained as a whole"),
            (export and not self.writes_integers(), ("onnx_target",), "no ONNX file of integers is written"),
            (
                export and not self.writes_integers(),
                report,
                f"file_format is {self.file_format}, and ONNX has a report",
            ),
        ]

    def _check_train(self) -> None:
        self._check_quantisation()
        if self.freeze_layer == "backbone":
            raise UsageError("freeze_layer backbone trains a float head; leave it out to train the quantised network")
        if self.boost_mode != "O0":
            raise UsageError(f"boost_mode {self.boost_mode} has its own training step; leave it at O0 for this model")
        if self.quant_method == "lsq" and self.optimizer == "adamw":
            raise UsageError(
                "quant_method lsq learns steps that one step of adamw may carry below 0; use --optimizer momentum"
            )
        if self.calibrate_only and self.resume:
            raise UsageError("calibrate_only trains nothing, so there is nothing to resume; leave one of the two out")
        if self.calibrate_only and self.teacher:
            raise UsageError("calibrate_only trains nothing, so there is nothing to teach; leave one of the two out")
        if self.calibrate_only and not self.pretrain_ckpt:
            raise UsageError("calibrate_only needs trained weights; name the checkpoint with --pretrain_ckpt FILE")
        super()._check_train()

    def _requires_freeze_layer(self) -> bool:
        return False  # the quantised network is always trained as a whole

    def _check_eval(self) -> None:
        self._check_quantisation()
        super()._check_eval()

    def _check_infer(self) -> None:
        self._check_quantisation()
        super()._check_infer()

    @property
    def fits_integers(self) -> bool:
        """ONNX has the activations' grid."""
        return self.activation_bits == EXPORTABLE_BITS and not self.activation_narrow_range

    def writes_integers(self) -> bool:
        """An export holds the network of integers: as ONNX, or as ONNX beside MINDIR."""
        return self.fits_integers and self.file_format != "AIR"

    def _check_export(self) -> None:
        self._check_quantisation()
        super()._check_export()
        if self.writes_integers():
            self.require_target(self.activation_symmetric)
            self._check_target()
        if self.file_format == "ONNX" and not self.writes_integers():
            raise UsageError(
                "ONNX activations have 8 bits and the full range; "
                "use --file_format MINDIR for activation_bits below 8 or activation_narrow_range"
            )

    def _check_target(self) -> None:
        if self.onnx_target == TENSORRT and not (self.weight_symmetric and self.weight_narrow_range):
            raise UsageError(
                "onnx_target is tensorrt, whose weights are -127..127 with zero point 0; calibrate or train with "
                "--weight_symmetric True --weight_narrow_range True and export that"
            )

    def _check_quantisation(self) -> None:
        if self.amp_level != "O0":
            raise UsageError(
                f"amp_level is {self.amp_level}, and float16 (11 binary digits) and bfloat16 (8) are too coarse for "
                "grids of 8 bits: rounding would move values to other steps than the integer network's; leave it at O0"
            )
        if self.weight_per_channel and not self.weight_symmetric:
            raise UsageError(
                "weight_symmetric is False and weight_per_channel True, which no integer kernel runs; change one"
            )
        if self.quant_method == "lsq" and not self.weight_symmetric:
            raise UsageError("quant_method lsq learns symmetric weight steps; leave weight_symmetric True")

    def skipped(self) -> tuple[str, ...]:
        """float_layers as names of layers; those of their tensors in the report do too."""
        given = [name.strip() for name in self.float_layers.split(",") if name.strip()]
        return tuple(name.removesuffix(".weight").removesuffix(".output") for name in given)
