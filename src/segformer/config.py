"""Every key of SegFormer's configuration: type, default, rule and meaning. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.engine.amp import AMP_DTYPE, AMP_DTYPES, require_half_precision
from src.engine.config import option, require_file, require_folder
from src.engine.environment import usable_platform
from src.engine.errors import UsageError
from src.engine.job_keys import JobKeys
from src.segformer.variants import REDUCTIONS, SMALLEST_SIDE, VARIANTS

UNUSED = "accepted so that the original YAML files load; has no effect"
MOST_ENLARGED = 2.0  # times base_size, by the random resize of training
PATCH = 4 * REDUCTIONS[0]  # an input of multiples of this fills every patch of every stage


@dataclass(frozen=True)
class Config:
    """Values that the recipe reads; built once by src.engine.config and never changed."""

    # What runs where
    model: str = option("which model", "segformer", choices=("segformer",))
    platform: str = option(
        "where to run; auto is the best that this machine has",
        "auto",
        choices=("auto", "Ascend", "GPU", "CPU"),
        aliases=("device_target",),
    )
    device_id: int = option("card of this machine; the environment variable DEVICE_ID wins", 0, low=0)
    run_distribute: bool = option("data parallel, one process per card", False, aliases=("distribute",))
    seed: int = option("fixes initial weights, data order, augmentation and dropout", 1, low=0, high=2**31 - 1)
    cpu_kernels: str = option("fused training kernels on CPU", "auto", choices=("auto", "on", "off"))
    amp_level: str = option(
        "mixed precision: O0 is float32, O2 amp_dtype; auto is O2 on Ascend and GPU",
        "auto",
        choices=("auto", "O0", "O2"),
    )
    amp_dtype: str = option(AMP_DTYPE, "float16", choices=AMP_DTYPES)

    # Data
    data_path: str = option(
        "train and eval: Cityscapes, or a folder with images/ and masks/; infer: an image or a folder",
        "./data/cityscapes/",
    )
    class_list: str = option("CSV file with names, colours and weights of the classes; empty: the data folder's", "")
    class_num: int = option("number of classes", low=2, high=255)
    dataset_ignore_label: int = option("value of label pixels that do not count", 255, low=0, high=255)
    on_missing_label: str = option("what to do with an image without label", "error", choices=("error", "skip"))
    on_bad_image: str = option("what to do with a file that is no image", "skip", choices=("skip", "error"))
    base_size: tuple[int, ...] = option(
        "height and width that images are fitted to, in training times 0.5 to 2",
        low=SMALLEST_SIDE,
        high=8192,
        lengths=(2,),
    )
    crop_size: tuple[int, ...] = option(
        "height and width of a training crop", low=SMALLEST_SIDE, high=8192, lengths=(2,)
    )
    img_norm_mean: tuple[float, ...] = option("mean of red, green and blue", lengths=(3,))
    img_norm_std: tuple[float, ...] = option("standard deviation of red, green and blue", above=0, lengths=(3,))
    dataset_ignore_image: float = option("value of the padding of normalised images", 255.0)
    dataset_num_parallel_workers: int = option("data threads; never more than there are cores", low=1)
    batch_size: int = option("images per step, of all cards together", low=1)

    # Network
    backbone: str = option("encoder", choices=tuple(VARIANTS))
    decoder_dim: int = option("channels of the decode head; 0 takes those of the encoder's last stage", 0, low=0)

    # Training
    recipe: str = option(
        "seed: constant learning rate, AdamW without bias correction; "
        "paper: linear decay, AdamW, ten times the learning rate in the head",
        "seed",
        choices=("seed", "paper"),
    )
    epoch_size: int = option("epochs", low=1)
    lr: float = option("learning rate after warm-up", above=0)
    warmup_steps: int = option("steps of linear warm-up, part of the training", 0, low=0)
    warmup_ratio: float = option("first learning rate of the warm-up, as a share of lr", 0.0, low=0, high=1)
    weight_decay: float = option("decay of matrices and filters; biases and norms have none", low=0)
    class_weights: bool = option("weight the classes in the loss as the class list says", True)
    loss_weight: float = option("factor of the loss", 1.0, above=0)
    drop_path: float = option("stochastic depth: drop rate of the last block", 0.1, low=0, below=1)
    head_dropout: float = option("share of the decode head's channels that is dropped", 0.1, low=0, below=1)
    clip_norm: float = option("largest global gradient norm, 0 is off", 0.0, low=0)
    load_ckpt: bool = option("start from pretrained_ckpt_path", True)
    pretrained_ckpt_path: str = option(
        "checkpoint to start from; tools/convert_model.py makes one", "", aliases=("pretrain_ckpt", "checkpoint")
    )
    resume: str = option("continue a run: 'auto' (newest good checkpoint of the run folder) or a file", "")
    train_log_interval: int = option("steps between log lines", 100, low=1)

    # What a run writes
    save_checkpoint: bool = option("write checkpoints", True)
    save_checkpoint_epoch_interval: int = option("epochs between checkpoints", 1, low=1)
    save_checkpoint_steps: int = option("also save every so many steps, 0 is off", 0, low=0)
    save_best_ckpt: bool = option("keep the weights with the best mIoU, with run_eval", True)
    keep_checkpoint_max: int = option("epoch checkpoints that are kept", 10, low=1)
    checkpoint_path: str = option("run folder", "./checkpoint/", aliases=("save_checkpoint_path",))

    # Evaluation
    run_eval: bool = option("evaluate while training", True)
    eval_start_epoch: int = option("first epoch that is evaluated", 0, low=0)
    eval_interval: int = option("epochs between evaluations", 1, low=1)
    eval_ckpt_path: str = option("checkpoint to evaluate", "")
    eval_log_interval: int = option("images between log lines of an evaluation", 100, low=1)
    eval_mode: str = option("the whole image at once, or sliding windows", "whole", choices=("whole", "slide"))
    slide_crop: tuple[int, ...] = option(
        "height and width of a window; empty is crop_size", (), low=SMALLEST_SIDE, lengths=(0, 2)
    )
    slide_stride: tuple[int, ...] = option(
        "rows and columns between windows; empty is 3/4 of a window", (), low=1, lengths=(0, 2)
    )
    multi_scale: tuple[float, ...] = option("average over these multiples of base_size", (1.0,), above=0, high=8)
    flip: bool = option("average over the image and its mirror image", False)
    size_divisor: int = option(
        "pad images to multiples of so many pixels, so that few sizes are compiled; 1 is off", PATCH, low=1
    )
    per_class_csv: str = option("eval: write IoU and accuracy per class to this file", "")
    eval_json: str = option("eval: write all scores and the confusion matrix to this file", "")

    # Inference
    infer_ckpt_path: str = option("checkpoint to predict with", "")
    infer_output_path: str = option("folder for the pictures", "./infer_result/")
    infer_copy_original_img: bool = option("copy the image beside its pictures", True)
    infer_save_gray_img: bool = option("write class indices as grey values", True)
    infer_save_color_img: bool = option("write the classes in their colours", True)
    infer_save_overlap_img: bool = option("write the colours over the image", True)
    infer_save_label_ids: bool = option("write the ids of label files, for submission to Cityscapes", False)
    infer_batch_size: int = option("images of one size that are computed together", 1, low=1)
    infer_log_interval: int = option("images between log lines of an inference", 100, low=1)

    # Export
    export_ckpt_path: str = option("checkpoint to export", "", aliases=("ckpt_file",))
    export_format: str = option("format to export", "AIR", choices=("AIR", "MINDIR", "ONNX"), aliases=("file_format",))
    dynamic_size: bool = option("export ONNX for any number of images of any size instead of one of base_size", False)
    export_name: str = option(
        "exported file, the suffix is added; without it the name of the YAML file", "segformer", aliases=("file_name",)
    )

    # Keys of the original files
    enable_modelarts: bool = option("run as a ModelArts job", False)
    data_url: str = option("ModelArts: where the data set is", "")
    train_url: str = option("ModelArts: where results go", "")
    checkpoint_url: str = option("ModelArts: where the checkpoint is", "")
    data_dir: str = option("ModelArts: local copy of data_url", "/cache/data/")
    output_path: str = option("ModelArts: local copy of train_url", "/cache/train")
    load_path: str = option("ModelArts: local copy of checkpoint_url", "/cache/checkpoint_path")
    need_modelarts_dataset_unzip: bool = option("ModelArts: the data set is a zip file", True)
    modelarts_dataset_unzip_name: str = option(
        "ModelArts: name of the zip file without suffix", "cityscapes_segformer_dataset"
    )
    dataset_name: str = option(UNUSED, "cityscapes")
    mode_name: str = option(UNUSED, "GRAPH")
    device_num: int = option(UNUSED, 1)
    rank_id: int = option(UNUSED, 0)
    rank_size: int = option(UNUSED, 1)
    total_batch_size: int = option(UNUSED, 2)
    dataset_max_rowsize: int = option(UNUSED, 50)
    dataset_eval_num_parallel_workers: int = option(UNUSED, 4)
    optimizer: str = option("only adamw", "adamw", choices=("adamw",))
    momentum: float = option(UNUSED, 0.9)

    @property
    def device(self) -> str:
        """The platform that "auto" stands for on this machine."""
        return usable_platform() if self.platform == "auto" else self.platform

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
    def window(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size and stride of the sliding windows."""
        size = self.slide_crop or self.crop_size
        return size, self.slide_stride or (size[0] * 3 // 4, size[1] * 3 // 4)

    @staticmethod
    def job_keys() -> JobKeys:
        """Which of these keys a cloud job brings and takes away."""
        either = "pretrained_ckpt_path"  # what the other models call `checkpoint` for every command
        return JobKeys(
            data="data_path",
            more_data=("class_list",),
            local_data="data_dir",
            checkpoints={
                "train": (either,),
                "eval": ("eval_ckpt_path", either),
                "infer": ("infer_ckpt_path", either),
                "export": ("export_ckpt_path", either),
            },
            run_folder="checkpoint_path",
            results=("per_class_csv", "eval_json", "infer_output_path", "export_name"),
            export_reads_data=False,
        )

    def check_for(self, command: str) -> None:
        """Rules between keys, and the inputs that `command` cannot do without. Raises UsageError."""
        if self.amp_level == "O2":
            require_half_precision(self.amp_dtype, self.device)
        checks = {"train": self._check_train, "eval": self._check_eval, "infer": self._check_infer}
        checks.get(command, self._check_export)()

    def _check_train(self) -> None:
        require_folder("data_path", self.data_path)
        if max(self.crop_size) > MOST_ENLARGED * max(self.base_size) or min(self.crop_size) > MOST_ENLARGED * min(
            self.base_size
        ):
            raise UsageError(
                f"crop_size is {list(self.crop_size)} and base_size {list(self.base_size)}; images are enlarged to "
                f"{MOST_ENLARGED:g} times base_size at most, so no image fills the crop: give a smaller --crop_size"
            )
        if self.resume not in ("", "auto"):
            require_file("resume", self.resume)
        elif self.load_ckpt and not (self.resume and self.has_checkpoints):
            require_file("pretrained_ckpt_path", self.pretrained_ckpt_path, " (--load_ckpt False starts anew)")
        if self.run_eval:
            self._check_prediction()

    def _check_eval(self) -> None:
        require_folder("data_path", self.data_path)
        require_file("eval_ckpt_path", self.eval_ckpt_path)
        self._check_prediction()

    def _check_infer(self) -> None:
        if not self.data_path or not Path(self.data_path).expanduser().exists():
            raise UsageError(f"data_path {self.data_path} does not exist; give --data_path IMAGE or FOLDER")
        require_file("infer_ckpt_path", self.infer_ckpt_path)
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
