"""The keys that all image classifiers share, by topic, and the rules between them. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.engine.config import is_archive, option, require_data, require_file, require_images, shared
from src.engine.errors import UsageError
from src.engine.job_keys import JobKeys

AUGMENTATION = ("auto_augment", "color_jitter", "crop_min_scale", "crop_padding", "flip_probability")


@dataclass(frozen=True)
class Data(shared.Data):
    """Images in one folder per class."""

    dataset_path: str = option(
        "folder of class folders, or one that holds train/ and val/, or a .tar or .zip file of either; an export "
        "compares on its images",
        "",
        is_input=True,
    )
    eval_dataset_path: str = option(
        "validation images for run_eval; empty looks for val/ beside train/", "", read_by=("train",), is_input=True
    )
    num_classes: int = option("number of classes; 0 takes it from the folders or the checkpoint", 0, low=0)
    image_height: int = option("input height in pixels", low=1, high=4096)
    image_width: int = option("input width in pixels", low=1, high=4096)
    crop_pct: float = option(
        "share of an image's shorter side that evaluation cuts out of the middle; 1 suits small pictures",
        0.875,
        low=0.1,
        high=1,
    )
    batch_size: int = option("images per card in one part of a step", low=1)
    num_workers: int = option("data threads; never more than there are cores", low=1)
    enable_cache: bool = option("read images through a MindData cache server", False, read_by=("train",))
    cache_session_id: str = option("session of the cache server", "", read_by=("train",))
    cache_spilling: bool = option(
        "let the cache server use its disk folder when its memory is full", False, read_by=("train",)
    )


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random."""

    auto_augment: str = option("extra augmentation policy", "none", choices=("none", "randaugment", "trivialaugment"))
    color_jitter: float = option("strength of brightness, contrast and saturation changes", 0.4, low=0, high=1)
    crop_min_scale: float = option(
        "smallest share of the image area that a training crop covers", 0.08, above=0, high=1
    )
    crop_padding: int = option(
        "move what evaluation sees of an image by up to so many pixels, its border mirrored, in place of random crops; "
        "0 is off",
        0,
        low=0,
        high=512,
    )
    flip_probability: float = option("how often a training image is mirrored", 0.5, low=0, high=1)
    mixup_alpha: float = option("mixup strength, 0 is off", 0.0, low=0)
    cutmix_alpha: float = option("cutmix strength, 0 is off", 0.0, low=0)


@dataclass(frozen=True)
class Training(shared.Training):
    """Learning rate, optimizer, what is trained and how."""

    warmup_epochs: int = option("epochs of linear warm-up, part of epoch_size", low=0)
    lr_init: float = option("learning rate of the first warm-up step", low=0)
    lr_max: float = option("learning rate after warm-up", above=0)
    lr_end: float = option("learning rate that the cosine ends at", low=0)
    optimizer: str = option(
        "momentum, or adamw, whose steps do not depend on the weights' and gradients' sizes",
        "momentum",
        choices=("momentum", "adamw"),
    )
    momentum: float = option("momentum of the optimizer", low=0, below=1)
    weight_decay: float = option(
        "decay of convolution and classifier weights; adamw wants a thousand times more, because it does not scale "
        "it with the gradients",
        low=0,
    )
    label_smooth: float = option("label smoothing", low=0, below=1)
    class_weights: str = option(
        "factors of the classes' losses: 'balanced', or a file of lines CLASS,WEIGHT; empty is none",
        "",
        is_input=True,
    )
    sampler: str = option(
        "an epoch: each image once, or each class equally often", "shuffle", choices=("shuffle", "balanced")
    )
    dropout: float = option("share of features dropped before the classifier", 0.0, low=0, below=1)
    loss_scale: float = option("fixed loss scale of float16", above=0)
    pretrain_ckpt: str = option(
        "checkpoint to start from, to evaluate or to predict with",
        "",
        aliases=("checkpoint",),
        read_by=("train", "eval", "infer"),
        is_input=True,
    )
    freeze_layer: str = option(
        "with pretrain_ckpt: none trains everything, backbone only the head", "", choices=("", "none", "backbone")
    )
    filter_head: bool = option("do not load the head of pretrain_ckpt", False)
    run_eval: bool = option("evaluate after each epoch and keep the best checkpoint", False)
    log_interval: int = option("steps between log lines; 0 is one line per epoch", 0, low=0)
    boost_mode: str = option("MindSpore's boost (Ascend); O1 and O2 are the same", "O0", choices=("O0", "O1", "O2"))
    enable_graph_kernel: bool = option("fuse the operators of the training step (GPU, Ascend)", False)
    enable_profiling: bool = option("profile the first steps into the run folder", False)


@dataclass(frozen=True)
class Distillation:
    """A trained network whose opinions are learned too."""

    teacher: str = option(
        "checkpoint or ONNX file of a classifier of the same classes, whose probabilities are learned too",
        "",
        is_input=True,
    )
    distill_alpha: float = option("share of the teacher in the loss", 0.5, low=0, high=1)
    distill_temperature: float = option(
        "divides the logits of both, so that the teacher's small probabilities count", 2.0, above=0
    )


@dataclass(frozen=True)
class Checkpoints(shared.Checkpoints):
    """What a run writes."""

    save_checkpoint_epochs: int = option("epochs between checkpoints", 1, low=1)
    save_checkpoint_path: str = option("run folder", "./checkpoint", aliases=("checkpoint_path",))


@dataclass(frozen=True)
class Evaluation(shared.Evaluation):
    """How eval.py scores."""

    per_class_csv: str = option("eval: write accuracy per class to this file", "", read_by=("eval",))
    confusion_matrix: str = option("eval: draw the confusion matrix into this PNG file", "", read_by=("eval",))


@dataclass(frozen=True)
class Inference(shared.Inference):
    """What infer.py says about an image."""

    top_k: int = option("classes that are named for each image, the likeliest first", 5, low=1)


@dataclass(frozen=True)
class Export:
    """What export.py writes."""

    ckpt_file: str = option("checkpoint to export", "", is_input=True)
    file_name: str = option("exported file, the suffix is added", "network")
    file_format: str = option("format to export", "MINDIR", choices=("MINDIR", "ONNX", "AIR"))
    batch_size_export: int = option("batch size of the exported file", 1, low=1)
    dynamic_batch: bool = option("ONNX: any batch size", False)
    activation: str = option("head activation outside training", "Softmax", choices=("None", "Sigmoid", "Softmax"))


@dataclass(frozen=True)
class Device(shared.Device):
    """What computes, and how exactly."""

    amp_level: str = option("mixed precision: O0 is float32, O2 amp_dtype with float32 BN", "O0", choices=("O0", "O2"))

    @property
    def dtype(self) -> str:
        """What convolutions and matrix products compute in; a CPU evaluates in float32 what a card has trained."""
        return "float32" if self.amp_level == "O0" or self.device == "CPU" else self.amp_dtype

    @property
    def kernel_dtype(self) -> str:
        """What the compiled kernels of a CPU train in."""
        return "float32" if self.amp_level == "O0" or self.device != "CPU" else self.amp_dtype


@dataclass(frozen=True)
class Cloud(shared.Cloud):
    """A ModelArts job."""

    data_path: str = option(
        "infer: an image, or a folder or archive of images; ModelArts: local copy of data_url", "/cache/data"
    )


@dataclass(frozen=True)
class Config(
    Data, Augmentation, Training, Distillation, Checkpoints, Evaluation, Inference, Export, Device, Cloud, shared.Shared
):
    """A classifier's configuration; a model adds `model` and what its network takes."""

    @staticmethod
    def job_keys() -> JobKeys:
        """Which of these keys a cloud job brings and takes away."""
        return JobKeys(
            data="dataset_path",
            more_data=("eval_dataset_path",),
            more_files=("class_weights", "teacher"),
            local_data="data_path",
            checkpoints={
                "train": ("pretrain_ckpt",),
                "eval": ("pretrain_ckpt",),
                "infer": ("pretrain_ckpt",),
                "export": ("ckpt_file",),
            },
            run_folder="save_checkpoint_path",
            results=("per_class_csv", "confusion_matrix", "infer_output_path", "file_name"),
            export_reads_data=True,
        )

    @property
    def images_per_step(self) -> int:
        """Of one rank."""
        return self.batch_size * self.accumulate

    def check_for(self, command: str) -> None:
        """Rules between keys, and the inputs that `command` cannot do without. Raises UsageError."""
        checks = {"train": self._check_train, "eval": self._check_eval, "infer": self._check_infer}
        checks.get(command, self._check_export)()

    @property
    def images_to_predict(self) -> str:
        """The image or folder that infer.py reads; a job's data are where dataset_path says, as for eval.py."""
        return self.dataset_path if self.enable_modelarts else self.data_path

    def idle(self, command: str) -> dict[str, str]:
        """See Shared; data_path is more than the place of a job's data where images are predicted."""
        found = super().idle(command)
        return {key: why for key, why in found.items() if not (command == "infer" and key == "data_path")}

    def switched_off(self, command: str) -> list[tuple[bool, tuple[str, ...], str]]:
        """See Shared."""
        train, head_only = command == "train", self.freeze_layer == "backbone"
        by_data_path = command == "infer" and not self.enable_modelarts
        return super().switched_off(command) + [
            (train and head_only, AUGMENTATION, "freeze_layer backbone reads every image once, without augmentation"),
            (train and head_only, ("filter_head",), "freeze_layer backbone always starts with a new head"),
            (by_data_path, ("dataset_path",), "data_path names the images to predict"),
            (self.amp_level == "O0", ("amp_dtype",), "amp_level is O0"),
            (train and self.amp_level == "O0", ("loss_scale",), "amp_level is O0, and float32 needs no loss scale"),
            (
                train and self.amp_level != "O0" and self.amp_dtype == "bfloat16",
                ("loss_scale",),
                "bfloat16 needs no loss scale",
            ),
            (train and self.optimizer == "adamw", ("momentum",), "optimizer is adamw"),
            (train and not self.teacher, ("distill_alpha", "distill_temperature"), "teacher is empty"),
            (train and self.crop_padding > 0, ("crop_min_scale",), "crop_padding is given"),
            (train and not self.run_eval, ("eval_dataset_path",), "run_eval is False"),
            (train and not self.enable_cache, ("cache_session_id", "cache_spilling"), "enable_cache is False"),
            (train and not self.warmup_epochs, ("lr_init",), "warmup_epochs is 0"),
            (train and not self.save_checkpoint, ("save_checkpoint_epochs",), "save_checkpoint is False"),
        ]

    def _check_train(self) -> None:
        require_data("dataset_path", self.dataset_path)
        self._check_rates()
        self._check_start()
        if self.enable_cache and not self.cache_session_id.isdigit():
            raise UsageError(
                f"enable_cache is True and cache_session_id '{self.cache_session_id}'; it has to be the number of a "
                "session, which scripts/run_train_nfs_cache.sh makes"
            )
        if self.enable_cache and is_archive(self.dataset_path):
            raise UsageError(
                f"enable_cache is True and dataset_path {self.dataset_path}; the cache server reads folders only, so "
                "unpack the archive or leave enable_cache out"
            )
        if self.boost_mode != "O0":
            self._check_boost()
        if self.amp_level != "O0":
            self.require_half_precision()
        if self.resume not in ("", "auto"):
            require_file("resume", self.resume)
        if self.run_eval and self.eval_dataset_path:
            require_data("eval_dataset_path", self.eval_dataset_path)

    def _check_rates(self) -> None:
        if self.warmup_epochs > self.epoch_size:
            raise UsageError(
                f"warmup_epochs is {self.warmup_epochs} and epoch_size {self.epoch_size}; "
                "the warm-up is part of the epochs, so give a smaller --warmup_epochs"
            )
        if self.lr_end > self.lr_max:
            raise UsageError(
                f"lr_end is {self.lr_end} and lr_max {self.lr_max}; the cosine falls, so give --lr_end at most lr_max"
            )

    @property
    def first_weights(self) -> str:
        """pretrain_ckpt; empty where that file is gone and `resume auto` goes on from checkpoints of the run anyway.

        A run that starts anew moves numbered checkpoints out of its folder, the one it starts from among them.
        """
        if self.resume != "auto" or self.freeze_layer == "backbone" or Path(self.pretrain_ckpt).expanduser().is_file():
            return self.pretrain_ckpt
        goes_on = any(Path(self.save_checkpoint_path).expanduser().glob("*-*_*.ckpt"))
        return "" if goes_on else self.pretrain_ckpt

    def _check_start(self) -> None:
        """What is trained, and from which weights."""
        if self.pretrain_ckpt:
            if self.first_weights:
                require_file("pretrain_ckpt", self.pretrain_ckpt)
            if self._requires_freeze_layer() and not self.freeze_layer:
                raise UsageError(
                    "pretrain_ckpt is given without freeze_layer; "
                    "add --freeze_layer none (train everything) or --freeze_layer backbone (train the head)"
                )
        elif self.freeze_layer == "backbone" or self.filter_head:
            key = "filter_head" if self.filter_head else "freeze_layer backbone"
            raise UsageError(f"{key} is given without pretrain_ckpt; name the checkpoint with --pretrain_ckpt FILE")
        if self.teacher:
            self._check_teacher()
        if self.freeze_layer == "backbone" and (self.mixup_alpha or self.cutmix_alpha):
            raise UsageError("freeze_layer backbone trains on cached features; leave mixup_alpha and cutmix_alpha at 0")
        if self.freeze_layer == "backbone" and self.enable_cache:
            raise UsageError(
                "freeze_layer backbone reads every image once, and a cache server is for images that are read often; "
                "leave enable_cache out"
            )

    def _check_teacher(self) -> None:
        require_file("teacher", self.teacher)
        if not self.teacher.endswith((".onnx", ".ckpt")):
            raise UsageError(f"teacher is {self.teacher}; give a checkpoint (.ckpt) or an exported file (.onnx)")
        if Path(self.teacher).expanduser().resolve().parent == Path(self.save_checkpoint_path).expanduser().resolve():
            raise UsageError(
                f"teacher is {self.teacher}, in the folder that this run writes to and clears for itself; "
                "give another --save_checkpoint_path"
            )
        if self.freeze_layer == "backbone":
            raise UsageError(
                "freeze_layer backbone trains on cached features, which no teacher sees; leave teacher out"
            )

    def _requires_freeze_layer(self) -> bool:
        """Whether a run that starts from a checkpoint has to say what it trains."""
        return True

    def _check_boost(self) -> None:
        if self.optimizer != "momentum":
            raise UsageError(
                f"optimizer is {self.optimizer} and boost_mode {self.boost_mode}, which is made for momentum; "
                "use --optimizer momentum or --boost_mode O0"
            )
        if self.platform != "Ascend":
            raise UsageError(
                f"boost_mode {self.boost_mode} needs an Ascend machine and platform is {self.platform}; leave it at O0"
            )
        alone = {"ema_decay": 0.0, "clip_norm": 0.0, "dropout": 0.0, "enable_profiling": False, "accumulate": 1}
        for key, off in alone.items():
            if getattr(self, key) != off:
                raise UsageError(f"{key} and boost_mode {self.boost_mode} do not go together; use one of the two")
        if self.pretrain_ckpt and self.dtype == "float32":  # between casts MindSpore finds none to leave out
            raise UsageError(
                f"boost_mode {self.boost_mode} leaves normalisations out of training, and the weights of pretrain_ckpt "
                "were trained with them; use --amp_level O2, which keeps them, or leave one of the two out"
            )

    def _check_eval(self) -> None:
        require_data("dataset_path", self.dataset_path)
        self._check_model()
        if self.confusion_matrix and not self.confusion_matrix.endswith(".png"):
            raise UsageError(f"confusion_matrix is {self.confusion_matrix}; it is drawn as PNG, so give FILE.png")

    def _check_infer(self) -> None:
        require_images("data_path", self.images_to_predict)
        self._check_model()

    def _check_model(self) -> None:
        """What is scored, and what runs it."""
        self.require_model("pretrain_ckpt", self.pretrain_ckpt)
        if self.amp_level != "O0" and self.amp_dtype == "bfloat16":
            self.require_half_precision()

    def _check_export(self) -> None:
        require_file("ckpt_file", self.ckpt_file)
        if self.dataset_path:
            require_data("dataset_path", self.dataset_path)
        if self.file_format == "AIR" and self.platform != "Ascend":
            raise UsageError(
                f"file_format AIR needs an Ascend machine and platform is {self.platform}; export MINDIR or ONNX here"
            )
        if self.dynamic_batch and self.file_format != "ONNX":
            raise UsageError(
                f"dynamic_batch is for ONNX and file_format is {self.file_format}; use --batch_size_export"
            )
