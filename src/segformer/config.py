"""Every key of SegFormer's configuration: type, default, rule and meaning. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.engine.config import changed, option, require_data, require_file, require_images, shared, unused
from src.engine.errors import UsageError
from src.engine.job_keys import JobKeys
from src.quantisation import config as quantisation
from src.quantisation.config import TRAIN
from src.segformer.variants import REDUCTIONS, SMALLEST_SIDE, VARIANTS

MOST_ENLARGED = 2.0  # times base_size, by the random resize of training
PATCH = 4 * REDUCTIONS[0]  # an input of multiples of this fills every patch of every stage
PREDICTING = ("train", "eval", "infer")
FILES = "the data are Cityscapes' tree or images/ and masks/, whichever lies in data_path"
LAUNCHER = "scripts/segformer/run_distribute_train.sh says how many cards there are"


@dataclass(frozen=True)
class Data(shared.Data):
    """Pictures with a class per pixel, and how they are cut and normalised."""

    data_path: str = option(
        "train and eval: Cityscapes, or a folder with images/ and masks/, or a .tar or .zip file of either; infer: an "
        "image, or a folder or archive of images; export: pictures for the report of a quantised network",
        "./data/cityscapes/",
        aliases=("dataset_path",),
        is_input=True,
    )
    class_list: str = option(
        "CSV file with names, colours and weights of the classes; empty: the data folder's",
        "",
        read_by=PREDICTING,
        is_input=True,
    )
    class_num: int = option("number of classes", low=2, high=255)
    dataset_ignore_label: int = option("value of label pixels that do not count", 255, low=0, high=255)
    on_missing_label: str = option(
        "what to do with an image without label", "error", choices=("error", "skip"), read_by=("train", "eval")
    )
    base_size: tuple[int, ...] = option(
        "height and width that images are fitted to, in training times 0.5 to 2",
        low=SMALLEST_SIDE,
        high=8192,
        lengths=(2,),
    )
    native_size: bool = option("leave images at their own size instead of fitting them to base_size", False)
    reduce_zero_label: bool = option(
        "mask value 0 does not count and others are one less, as in ADE20K's masks",
        False,
        read_by=("train", "eval"),
    )
    crop_size: tuple[int, ...] = option(
        "height and width of a training crop", low=SMALLEST_SIDE, high=8192, lengths=(2,)
    )
    img_norm_mean: tuple[float, ...] = option("mean of red, green and blue", lengths=(3,))
    img_norm_std: tuple[float, ...] = option("standard deviation of red, green and blue", above=0, lengths=(3,))
    dataset_ignore_image: float = option("value of the padding of normalised images", 255.0, read_by=("train",))
    dataset_num_parallel_workers: int = option("data threads; never more than there are cores", low=1)
    batch_size: int = option("images of all cards together in one part of a step", low=1, read_by=("train",))


@dataclass(frozen=True)
class Network:
    """Encoder and decode head."""

    backbone: str = option("encoder", choices=tuple(VARIANTS))
    decoder_dim: int = option("channels of the decode head; 0 takes those of the encoder's last stage", 0, low=0)


@dataclass(frozen=True)
class Training(shared.Training):
    """Learning rate, loss, what is dropped, and where the weights come from."""

    recipe: str = option(
        "original: constant learning rate, AdamW without bias correction (old spelling: seed); "
        "paper: linear decay, AdamW, ten times the learning rate in the head",
        "original",
        choices=("original", "paper"),
        renamed={"seed": "original"},
    )
    lr: float = option("learning rate after warm-up", above=0)
    warmup_steps: int = option("steps of linear warm-up, part of the training", 0, low=0)
    warmup_ratio: float = option("first learning rate of the warm-up, as a share of lr", 0.0, low=0, high=1)
    optimizer: str = option("only adamw", "adamw", choices=("adamw",))
    weight_decay: float = option("decay of matrices and filters; biases and norms have none", low=0)
    class_weights: bool = option("weight the classes in the loss as the class list says", True)
    loss_weight: float = option("factor of the loss", 1.0, above=0)
    ohem_threshold: float = option(
        "train on pixels whose class has less probability than this (and the hardest sixteenth); 0 is off",
        0.0,
        low=0,
        below=1,
    )
    dice_weight: float = option("factor of the Dice loss that is added; 0 is off", 0.0, low=0)
    drop_path: float = option("stochastic depth: drop rate of the last block", 0.1, low=0, below=1)
    head_dropout: float = option("share of the decode head's channels that is dropped", 0.1, low=0, below=1)
    load_ckpt: bool = option("start from pretrained_ckpt_path", True)
    pretrained_ckpt_path: str = option(
        "checkpoint to start from; tools/convert_model.py makes one",
        "",
        aliases=("pretrain_ckpt", "checkpoint"),
        is_input=True,
    )
    run_eval: bool = option("evaluate while training", True)
    eval_start_epoch: int = option("first epoch that is evaluated", 0, low=0)
    eval_interval: int = option("epochs between evaluations", 1, low=1)
    train_log_interval: int = option("steps between log lines", 100, low=1)


@dataclass(frozen=True)
class Quantisation(quantisation.Quantisation):
    """A network in 8 bits; whatever reads its checkpoint finds in there how it was quantised."""

    quant: bool = option(
        "train in 8 bits, after a calibration on a few batches, or with calibrate_only instead",
        False,
        read_by=TRAIN,
    )
    activation_symmetric: bool = changed(quantisation.Quantisation, "activation_symmetric", False, read_by=TRAIN)
    range_decay: float = changed(quantisation.Quantisation, "range_decay", 0.99, read_by=TRAIN)


@dataclass(frozen=True)
class Checkpoints(shared.Checkpoints):
    """What a run writes."""

    keep_checkpoint_max: int = changed(shared.Checkpoints, "keep_checkpoint_max", 0)
    save_checkpoint_epoch_interval: int = option("epochs between checkpoints", 1, low=1)
    save_best_ckpt: bool = option("keep the weights with the best mIoU, with run_eval", True)
    checkpoint_path: str = option("run folder", "./checkpoint/", aliases=("save_checkpoint_path",))


@dataclass(frozen=True)
class Evaluation(shared.Evaluation):
    """How images are predicted and scored, while training too."""

    eval_ckpt_path: str = option("checkpoint to evaluate", "", read_by=("eval",), is_input=True)
    eval_log_interval: int = option("images between log lines of an evaluation", 100, low=1, read_by=("train", "eval"))
    eval_mode: str = option(
        "the whole image at once, or sliding windows", "whole", choices=("whole", "slide"), read_by=PREDICTING
    )
    slide_crop: tuple[int, ...] = option(
        "height and width of a window; empty is crop_size", (), low=SMALLEST_SIDE, lengths=(0, 2), read_by=PREDICTING
    )
    slide_stride: tuple[int, ...] = option(
        "rows and columns between windows; empty is 3/4 of a window", (), low=1, lengths=(0, 2), read_by=PREDICTING
    )
    multi_scale: tuple[float, ...] = option(
        "average over these multiples of base_size", (1.0,), above=0, high=8, read_by=PREDICTING
    )
    flip: bool = option("average over the image and its mirror image", False, read_by=PREDICTING)
    size_divisor: int = option(
        "pad images to multiples of so many pixels, so that few sizes are compiled; 1 is off",
        PATCH,
        low=1,
        read_by=PREDICTING,
    )
    per_class_csv: str = option("eval: write IoU and accuracy per class to this file", "", read_by=("eval",))
    eval_json: str = option("eval: write all scores and the confusion matrix to this file", "", read_by=("eval",))


@dataclass(frozen=True)
class Inference(shared.Inference):
    """Which pictures infer.py writes."""

    infer_ckpt_path: str = option("checkpoint to predict with", "", is_input=True)
    infer_copy_original_img: bool = option("copy the image beside its pictures", True)
    infer_save_gray_img: bool = option("write class indices as grey values", True)
    infer_save_color_img: bool = option("write the classes in their colours", True)
    infer_save_overlap_img: bool = option("write the colours over the image", True)
    infer_save_label_ids: bool = option("write the ids of label files, for submission to Cityscapes", False)
    infer_batch_size: int = option("images of one size that are computed together", 1, low=1)
    infer_log_interval: int = option("images between log lines of an inference", 100, low=1)


@dataclass(frozen=True)
class Export(quantisation.Export):
    """What export.py writes."""

    export_ckpt_path: str = option("checkpoint to export", "", aliases=("ckpt_file",), is_input=True)
    export_format: str = option("format to export", "AIR", choices=("AIR", "MINDIR", "ONNX"), aliases=("file_format",))
    dynamic_size: bool = option("export ONNX for any number of images of any size instead of one of base_size", False)
    export_name: str = option(
        "exported file, the suffix is added; without it the name of the YAML file", "segformer", aliases=("file_name",)
    )


@dataclass(frozen=True)
class Device(shared.Device):
    """What computes, and how exactly."""

    platform: str = changed(
        shared.Device,
        "platform",
        "auto",
        help="where to run; auto is the best that this machine has",
        choices=("auto", "Ascend", "GPU", "CPU"),
    )
    amp_level: str = option(
        "mixed precision: O0 is float32, O2 amp_dtype; auto is O2 on Ascend and GPU",
        "auto",
        choices=("auto", "O0", "O2"),
    )


@dataclass(frozen=True)
class Cloud(shared.Cloud):
    """A ModelArts job."""

    data_dir: str = option("ModelArts: local copy of data_url", "/cache/data/")
    modelarts_dataset_unzip_name: str = changed(
        shared.Cloud, "modelarts_dataset_unzip_name", "cityscapes_segformer_dataset"
    )


@dataclass(frozen=True)
class Unused:
    """Keys of the original SegFormer's files that nothing reads here."""

    dataset_name: str = unused("cityscapes", FILES)
    mode_name: str = unused("GRAPH", "networks are always compiled")
    device_num: int = unused(1, LAUNCHER)
    total_batch_size: int = unused(2, "batch_size counts the images of all cards together")
    dataset_max_rowsize: int = unused(50, "images are passed on in memory, without rows of a fixed size")
    dataset_eval_num_parallel_workers: int = unused(4, "dataset_num_parallel_workers counts for evaluation too")
    momentum: float = unused(0.9, "AdamW has no momentum")


@dataclass(frozen=True)
class Config(
    Data,
    Network,
    Training,
    Quantisation,
    Checkpoints,
    Evaluation,
    Inference,
    Export,
    Device,
    Cloud,
    Unused,
    shared.Shared,
):
    """Values that the recipe reads; built once by src.engine.config and never changed."""

    model: str = option("which model", "segformer", choices=("segformer",))

    @staticmethod
    def named_after(file: Path) -> dict[str, str]:
        """An exported file has the name of the YAML file."""
        return {"export_name": file.stem}

    @property
    def dtype(self) -> str:
        """What convolutions and matrix products compute in."""
        is_mixed = self.amp_level == "O2" or (self.amp_level == "auto" and self.device != "CPU")
        return self.amp_dtype if is_mixed else "float32"

    @property
    def has_checkpoints(self) -> bool:
        """Whether the run folder holds checkpoints to go on from."""
        return any(Path(self.checkpoint_path).expanduser().glob("*.ckpt"))

    @property
    def window(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Size and stride of the sliding windows."""
        size = self.slide_crop or self.crop_size
        return size, self.slide_stride or (size[0] * 3 // 4, size[1] * 3 // 4)

    @staticmethod
    def job_keys() -> JobKeys:
        """Which of these keys a cloud job brings and takes away."""
        either = "pretrained_ckpt_path"  # what the other models call `checkpoint` for every command
        return JobKeys(
            data="data_path",
            more_data=(),
            more_files=("class_list",),
            local_data="data_dir",
            checkpoints={
                "train": (either,),
                "eval": ("eval_ckpt_path", either),
                "infer": ("infer_ckpt_path", either),
                "export": ("export_ckpt_path", either),
            },
            run_folder="checkpoint_path",
            results=("per_class_csv", "eval_json", "infer_output_path", "export_name", "report_path"),
            export_reads_data=False,
        )

    def check_for(self, command: str) -> None:
        """Rules between keys, and the inputs that `command` cannot do without. Raises UsageError."""
        if self.amp_level == "O2":
            self.require_half_precision()
        checks = {"train": self._check_train, "eval": self._check_eval, "infer": self._check_infer}
        checks.get(command, self._check_export)()

    def switched_off(self, command: str) -> list[tuple[bool, tuple[str, ...], str]]:
        """See Shared."""
        train, infer, is_slide = command == "train", command == "infer", self.eval_mode == "slide"
        averages = self.flip or len(self.multi_scale) > 1
        evaluated = ("eval_start_epoch", "eval_interval", "save_best_ckpt", "eval_log_interval")
        saved = ("save_checkpoint_epoch_interval", "save_best_ckpt")
        quantised = (
            "activation_symmetric", "range_decay", "calibration_batches", "calibration_method",
            "calibrate_only", "bias_correction", "quant_freeze_ranges",
        )  # fmt: skip
        of_training = ("calibration_batches", "run_eval", "quant_freeze_ranges")
        export_is_float = command == "export" and self.export_format == "AIR"
        return super().switched_off(command) + [
            (self.dtype == "float32", ("amp_dtype",), f"amp_level is {self.amp_level}"),
            (train and not self.load_ckpt, ("pretrained_ckpt_path",), "load_ckpt is False"),
            (train and not self.quant, quantised, "quant is False"),
            (train and self.quant and not self.calibrate_only, ("bias_correction",), "calibrate_only is 0"),
            (train and bool(self.calibrate_only), of_training, "calibrate_only trains nothing"),
            (export_is_float, ("report_path", "report_images", "onnx_target"), "export_format is AIR"),
            (train and not self.warmup_steps, ("warmup_ratio",), "warmup_steps is 0"),
            (train and not self.run_eval, evaluated, "run_eval is False"),
            (train and not self.save_checkpoint, saved, "save_checkpoint is False"),
            (self.native_size and command != "export", ("base_size",), "native_size is True"),
            (not is_slide, ("slide_crop", "slide_stride"), "eval_mode is whole"),
            (is_slide, ("size_divisor",), "eval_mode is slide, and all windows have one size"),
            (infer and is_slide, ("infer_batch_size",), "eval_mode slide computes one image at a time"),
            (infer and averages, ("infer_batch_size",), "flip and multi_scale compute one image at a time"),
        ]

    def _check_train(self) -> None:
        require_data("data_path", self.data_path)
        largest, least = (MOST_ENLARGED * side for side in (max(self.base_size), min(self.base_size)))
        if not self.native_size and (max(self.crop_size) > largest or min(self.crop_size) > least):
            raise UsageError(
                f"crop_size is {list(self.crop_size)} and base_size {list(self.base_size)}; images are enlarged to "
                f"{MOST_ENLARGED:g} times base_size at most, so no image fills the crop: give a smaller --crop_size"
            )
        if self.resume not in ("", "auto"):
            require_file("resume", self.resume)
        elif self.load_ckpt and not (self.resume and self.has_checkpoints):
            require_file("pretrained_ckpt_path", self.pretrained_ckpt_path, " (--load_ckpt False starts anew)")
        self._check_quantisation()
        if self.run_eval:
            self._check_prediction()

    def _check_quantisation(self) -> None:
        if not self.quant:
            return
        if self.dtype != "float32":
            raise UsageError(
                f"quant is True and the network computes in {self.dtype}, which is too coarse for grids of 8 bits: "
                "rounding would move values to other steps than the integer network's; give --amp_level O0"
            )
        if self.calibrate_only and self.resume:
            raise UsageError("calibrate_only trains nothing, so there is nothing to resume; leave one of the two out")
        if self.calibrate_only and not self.load_ckpt:
            raise UsageError("calibrate_only needs trained weights; give --load_ckpt True --pretrained_ckpt_path FILE")

    def _check_eval(self) -> None:
        require_data("data_path", self.data_path)
        self.require_model("eval_ckpt_path", self.eval_ckpt_path)
        self._check_prediction()

    def _check_infer(self) -> None:
        require_images("data_path", self.data_path)
        self.require_model("infer_ckpt_path", self.infer_ckpt_path)
        self._check_prediction()

    def _check_prediction(self) -> None:
        size, stride = self.window
        if stride[0] > size[0] or stride[1] > size[1]:
            raise UsageError(
                f"slide_stride is {list(stride)} and the window {list(size)}; "
                "pixels between windows would be missed, give a smaller --slide_stride"
            )
        if not self.multi_scale:
            raise UsageError("multi_scale is empty; give --multi_scale 1.0 for one scale")

    def _check_export(self) -> None:
        require_file("export_ckpt_path", self.export_ckpt_path)
        if self.export_format == "AIR" and self.device != "Ascend":
            raise UsageError(
                f"export_format AIR needs an Ascend machine and platform is {self.device}; "
                "give --export_format MINDIR or ONNX here"
            )
        if self.dynamic_size and self.export_format != "ONNX":
            raise UsageError(
                f"dynamic_size is True and a SegFormer's {self.export_format} holds the one size it is written for; "
                "give --export_format ONNX or leave --dynamic_size out"
            )
