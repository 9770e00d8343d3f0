"""Every key of an image classifier's configuration: type, default, rule and meaning. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass

from src.engine.amp import AMP_DTYPE, AMP_DTYPES, require_half_precision
from src.engine.config import option, require_file, require_folder
from src.engine.errors import UsageError
from src.engine.job_keys import JobKeys

UNUSED = "accepted so that the original YAML files load; has no effect"


@dataclass(frozen=True)
class Config:
    """Values that the recipe reads; built once by src.engine.config and never changed."""

    # What runs where
    model: str = option("which model")
    platform: str = option("where to run", choices=("Ascend", "GPU", "CPU"), aliases=("device_target",))
    device_id: int = option("card of this machine; the environment variable DEVICE_ID wins", 0, low=0)
    run_distribute: bool = option("data parallel, one process per card", False, aliases=("distribute",))
    seed: int = option("fixes initial weights, data order, augmentation and dropout", 1, low=0, high=2**31 - 1)
    cpu_kernels: str = option("compiled kernels on CPU", "auto", choices=("auto", "on", "off"))
    amp_level: str = option("mixed precision: O0 is float32, O2 amp_dtype with float32 BN", "O0", choices=("O0", "O2"))
    amp_dtype: str = option(AMP_DTYPE, "float16", choices=AMP_DTYPES)
    enable_graph_kernel: bool = option("fuse the operators of the training step (GPU, Ascend)", False)
    boost_mode: str = option("MindSpore's boost (Ascend); O1 and O2 are the same", "O0", choices=("O0", "O1", "O2"))
    enable_profiling: bool = option("profile the first steps into the run folder", False)

    # Data
    dataset_path: str = option("folder of class folders, or a folder that holds train/ and val/", "")
    num_classes: int = option("number of classes; 0 takes it from the folders or the checkpoint", 0, low=0)
    image_height: int = option("input height in pixels", low=1, high=4096)
    image_width: int = option("input width in pixels", low=1, high=4096)
    batch_size: int = option("images per step and card", low=1)
    num_workers: int = option("data threads; never more than there are cores", low=1)
    on_bad_image: str = option("what to do with a file that is no image", "skip", choices=("skip", "error"))
    auto_augment: str = option("extra augmentation policy", "none", choices=("none", "randaugment", "trivialaugment"))
    color_jitter: float = option("strength of brightness, contrast and saturation changes", 0.4, low=0, high=1)
    crop_min_scale: float = option(
        "smallest share of the image area that a training crop covers", 0.08, above=0, high=1
    )
    flip_probability: float = option("how often a training image is mirrored", 0.5, low=0, high=1)
    mixup_alpha: float = option("mixup strength, 0 is off", 0.0, low=0)
    cutmix_alpha: float = option("cutmix strength, 0 is off", 0.0, low=0)
    enable_cache: bool = option("read images through a MindData cache server", False)
    cache_session_id: str = option("session of the cache server", "")
    cache_spilling: bool = option("let the cache server use its disk folder when its memory is full", False)

    # Network
    dropout: float = option("share of features dropped before the classifier", 0.0, low=0, below=1)
    activation: str = option("head activation outside training", "Softmax", choices=("None", "Sigmoid", "Softmax"))

    # Training
    epoch_size: int = option("epochs", low=1)
    warmup_epochs: int = option("epochs of linear warm-up, part of epoch_size", low=0)
    lr_init: float = option("learning rate of the first warm-up step", low=0)
    lr_max: float = option("learning rate after warm-up", above=0)
    lr_end: float = option("learning rate that the cosine ends at", low=0)
    momentum: float = option("momentum of the optimizer", low=0, below=1)
    weight_decay: float = option("L2 decay of convolution and classifier weights", low=0)
    label_smooth: float = option("label smoothing", low=0, below=1)
    loss_scale: float = option("fixed loss scale of float16", above=0)
    clip_norm: float = option("largest global gradient norm, 0 is off", 0.0, low=0)
    ema_decay: float = option("decay of the moving average of the weights, 0 is off", 0.0, low=0, below=1)
    pretrain_ckpt: str = option("checkpoint to start from, or to evaluate", "", aliases=("checkpoint",))
    freeze_layer: str = option(
        "with pretrain_ckpt: none trains everything, backbone only the head", "", choices=("", "none", "backbone")
    )
    filter_head: bool = option("do not load the head of pretrain_ckpt", False)
    resume: str = option("continue a run: 'auto' (newest good checkpoint of the run folder) or a file", "")
    run_eval: bool = option("evaluate after each epoch and keep the best checkpoint", False)
    eval_dataset_path: str = option("validation images for run_eval; empty looks for val/ beside train/", "")
    log_interval: int = option("steps between log lines; 0 is one line per epoch", 0, low=0)

    # What a run writes
    save_checkpoint: bool = option("write checkpoints", True)
    save_checkpoint_epochs: int = option("epochs between checkpoints", 1, low=1)
    save_checkpoint_steps: int = option("also save every so many steps, 0 is off", 0, low=0)
    keep_checkpoint_max: int = option("epoch checkpoints that are kept", 20, low=1)
    save_checkpoint_path: str = option("run folder", "./checkpoint", aliases=("checkpoint_path",))

    # Evaluation
    eval_backend: str = option("what runs the network", "mindspore", choices=("mindspore", "onnx"))
    per_class_csv: str = option("eval: write accuracy per class to this file", "")
    confusion_matrix: str = option("eval: draw the confusion matrix into this PNG file", "")

    # Export
    ckpt_file: str = option("checkpoint to export", "")
    file_name: str = option("exported file, the suffix is added", "network")
    file_format: str = option("format to export", "MINDIR", choices=("MINDIR", "ONNX", "AIR"))
    batch_size_export: int = option("batch size of the exported file", 1, low=1)
    dynamic_batch: bool = option("ONNX: any batch size", False)

    # Keys of the original files
    enable_modelarts: bool = option("run as a ModelArts job", False)
    data_url: str = option("ModelArts: where the data set is", "")
    train_url: str = option("ModelArts: where results go", "")
    checkpoint_url: str = option("ModelArts: where the checkpoint is", "")
    data_path: str = option("ModelArts: local copy of data_url", "/cache/data")
    output_path: str = option("ModelArts: local copy of train_url", "/cache/train")
    load_path: str = option("ModelArts: local copy of checkpoint_url", "/cache/checkpoint_path")
    need_modelarts_dataset_unzip: bool = option("ModelArts: the data set is a zip file", True)
    modelarts_dataset_unzip_name: str = option("ModelArts: name of the zip file without suffix", "ImageNet_Original")
    rank_id: int = option(UNUSED, 0)
    rank_size: int = option(UNUSED, 1)
    is_training: bool = option(UNUSED, True)
    is_training_eval: bool = option(UNUSED, False)
    is_training_export: bool = option(UNUSED, False)
    run_distribute_eval: bool = option(UNUSED, False)
    run_distribute_export: bool = option(UNUSED, False)
    device_id_export: int = option(UNUSED, 0)
    batch_size_postprocess: int = option(UNUSED, 1)
    result_path: str = option("postprocess.py's flag; has no effect here", "")
    label_path: str = option("postprocess.py's flag; has no effect here", "")

    @property
    def dtype(self) -> str:
        """What convolutions and matrix products compute in; a CPU evaluates in float32 what a card has trained."""
        return "float32" if self.amp_level == "O0" or self.platform == "CPU" else self.amp_dtype

    @staticmethod
    def job_keys() -> JobKeys:
        """Which of these keys a cloud job brings and takes away."""
        return JobKeys(
            data="dataset_path",
            more_data=("eval_dataset_path",),
            local_data="data_path",
            checkpoints={"train": ("pretrain_ckpt",), "eval": ("pretrain_ckpt",), "export": ("ckpt_file",)},
            run_folder="save_checkpoint_path",
            results=("per_class_csv", "confusion_matrix", "file_name"),
            export_reads_data=True,
        )

    def check_for(self, command: str) -> None:
        """Rules between keys, and the inputs that `command` cannot do without. Raises UsageError."""
        {"train": self._check_train, "eval": self._check_eval, "export": self._check_export}[command]()

    def _check_train(self) -> None:
        require_folder("dataset_path", self.dataset_path)
        if self.warmup_epochs > self.epoch_size:
            raise UsageError(
                f"warmup_epochs is {self.warmup_epochs} and epoch_size {self.epoch_size}; "
                "the warm-up is part of the epochs, so give a smaller --warmup_epochs"
            )
        if self.lr_end > self.lr_max:
            raise UsageError(
                f"lr_end is {self.lr_end} and lr_max {self.lr_max}; the cosine falls, so give --lr_end at most lr_max"
            )
        if self.pretrain_ckpt:
            require_file("pretrain_ckpt", self.pretrain_ckpt)
            if self._requires_freeze_layer() and not self.freeze_layer:
                raise UsageError(
                    "pretrain_ckpt is given without freeze_layer; "
                    "add --freeze_layer none (train everything) or --freeze_layer backbone (train the head)"
                )
        elif self.freeze_layer == "backbone" or self.filter_head:
            key = "filter_head" if self.filter_head else "freeze_layer backbone"
            raise UsageError(f"{key} is given without pretrain_ckpt; name the checkpoint with --pretrain_ckpt FILE")
        if self.freeze_layer == "backbone" and (self.mixup_alpha or self.cutmix_alpha):
            raise UsageError("freeze_layer backbone trains on cached features; leave mixup_alpha and cutmix_alpha at 0")
        if self.enable_cache and not self.cache_session_id.isdigit():
            raise UsageError(
                f"enable_cache is True and cache_session_id '{self.cache_session_id}'; it has to be the number of a "
                "session, which scripts/run_train_nfs_cache.sh makes"
            )
        if self.boost_mode != "O0":
            self._check_boost()
        if self.amp_level != "O0":
            require_half_precision(self.amp_dtype, self.platform)
        if self.resume not in ("", "auto"):
            require_file("resume", self.resume)
        if self.run_eval and self.eval_dataset_path:
            require_folder("eval_dataset_path", self.eval_dataset_path)

    def _requires_freeze_layer(self) -> bool:
        """Whether a run that starts from a checkpoint has to say what it trains."""
        return True

    def _check_boost(self) -> None:
        if self.platform != "Ascend":
            raise UsageError(
                f"boost_mode {self.boost_mode} needs an Ascend machine and platform is {self.platform}; leave it at O0"
            )
        for key in ("ema_decay", "clip_norm", "dropout"):
            if getattr(self, key):
                raise UsageError(f"{key} and boost_mode {self.boost_mode} do not go together; use one of the two")

    def _check_eval(self) -> None:
        require_folder("dataset_path", self.dataset_path)
        require_file("pretrain_ckpt", self.pretrain_ckpt)
        is_onnx_file = self.pretrain_ckpt.endswith(".onnx")
        if is_onnx_file != (self.eval_backend == "onnx"):
            raise UsageError(
                f"eval_backend is {self.eval_backend} and pretrain_ckpt {self.pretrain_ckpt}; "
                "backend onnx takes an .onnx file, backend mindspore a checkpoint"
            )
        if self.confusion_matrix and not self.confusion_matrix.endswith(".png"):
            raise UsageError(f"confusion_matrix is {self.confusion_matrix}; it is drawn as PNG, so give FILE.png")

    def _check_export(self) -> None:
        require_file("ckpt_file", self.ckpt_file)
        if self.dataset_path:
            require_folder("dataset_path", self.dataset_path)
        if self.file_format == "AIR" and self.platform != "Ascend":
            raise UsageError(
                f"file_format AIR needs an Ascend machine and platform is {self.platform}; export MINDIR or ONNX here"
            )
        if self.dynamic_batch and self.file_format != "ONNX":
            raise UsageError(
                f"dynamic_batch is for ONNX and file_format is {self.file_format}; use --batch_size_export"
            )
