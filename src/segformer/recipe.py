"""SegFormer's recipes in prose: train, evaluate, infer, export. Each builds plain objects and hands them on."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from src.cpu_kernels import availability
from src.engine import device, precision
from src.engine.comparison import Contender, Task
from src.engine.config import to_yaml
from src.engine.data import stream
from src.engine.data.archive import IndexFolder, index_folder
from src.engine.errors import UsageError, ZooError
from src.engine.export import exporting
from src.engine.io import checkpoint as files_of
from src.engine.io import files
from src.engine.io.checkpoint import Checkpoint, Names
from src.engine.io.run import Run, RunSettings, open_run
from src.engine.ranks import Rank
from src.engine.training import run_training
from src.quantisation.config import TENSORRT
from src.segformer import checkpoints, network, on_cpu, report, training
from src.segformer.config import Config
from src.segformer.data import dataset
from src.segformer.data.class_list import ClassList, read_class_list
from src.segformer.data.labels import CITYSCAPES
from src.segformer.export import comparing, conversion
from src.segformer.network import SegFormer
from src.segformer.predicting import inference, pictures
from src.segformer.predicting.segmenter import Segmenter, open_segmenter
from src.segformer.quantised import calibration, integer_file
from src.segformer.quantised.network import quantise

TRAIN, VAL = "train", "val"


def train(cfg: Config) -> int:
    """Train from pretrained weights or from scratch; returns the exit status."""
    began = time.perf_counter()
    rank = device.setup(cfg.device, cfg.device_id, cfg.run_distribute, cfg.dtype)
    indexes = index_folder(cfg.checkpoint_path, cfg.resume)
    pairs = find(TRAIN, cfg, indexes)
    data = training.Data(pairs, find(VAL, cfg, indexes) if cfg.run_eval else None)
    dataset.require_filled_crops(pairs, cfg)
    training.schedule(pairs, cfg, rank)  # refuses a batch that does not fit before anything is built
    initial = first_weights(cfg)
    sync_bn = cfg.run_distribute and cfg.device == "Ascend"
    net = network.build(cfg.backbone, cfg.class_num, cfg.decoder_dim, cfg.seed, sync_bn)
    precision.apply(net, cfg.dtype)
    loaded = checkpoints.load(net, initial, cfg) if initial else "weights start anew"
    kernels, kernels_off = availability.find_library(cfg.cpu_kernels if cfg.quant and cfg.device == "CPU" else "off")
    if cfg.quant:
        quantise(net, cfg.range_decay, kernels, cfg.activation_symmetric)
    settings = run_settings(cfg, checkpoints.metadata(cfg, pairs.classes), initial is not None)
    with open_run(settings, rank) as run:
        say = run.journal.line
        say(report.train_size_line(len(pairs)))
        say(f"{len(pairs.classes)} classes in {pairs.where}; {loaded}")
        if padding := dataset.padding_line(pairs, cfg):
            say(padding)
        if cfg.quant:
            say("8 bits" + ("" if kernels else f"; CPU kernels off: {kernels_off}"))
            if run.resumed is None:
                say(first_ranges(net, initial, pairs, cfg))
        elif cfg.device == "CPU":
            say(on_cpu.accelerate(net, cfg.cpu_kernels))
        if cfg.calibrate_only and cfg.quant:
            return save_calibrated(net, cfg, run)
        status = run_training(training.training(net, data, cfg, run), run)
        if status == 0:
            say(f"all train process done, cost:{time.perf_counter() - began:.0f}s")
        return status


def first_ranges(net: SegFormer, initial: Checkpoint | None, pairs: dataset.Pairs, cfg: Config) -> str:
    """Give a quantised network the ranges that it starts with; returns a sentence for the log."""
    if initial:
        cfg.require_float_start(initial.path, checkpoints.QUANTISATION in initial.meta)
    if checkpoints.load_ranges(net, initial, cfg):
        return f"activation ranges are those of {cfg.pretrained_ckpt_path}"
    count = calibration.calibrate(net, pairs, cfg, cfg.calibrate_only or cfg.calibration_batches)
    if not count:
        raise ZooError(f"no batch of {cfg.batch_size} images of {pairs.where} can be read to calibrate on; check it")
    corrected = "; biases corrected" if cfg.corrects_biases else ""
    return f"activation ranges from {count} batches of {cfg.batch_size} images ({cfg.calibration_method}){corrected}"


def save_calibrated(net: SegFormer, cfg: Config, run: Run) -> int:
    """Write the network whose ranges are known and whose weights are as they were."""
    arrays, file = files_of.arrays_of(net.get_parameters()), calibrated_file(cfg)
    run.save_weights(file, arrays, -1.0, f"after calibration; check {cfg.pretrained_ckpt_path}")
    run.journal.line(f"calibrated network in {run.folder / file}")
    return 0


def calibrated_file(cfg: Config) -> str:
    return f"segformer_{cfg.backbone}_calibrated.ckpt"


def run_settings(cfg: Config, metadata: dict, starts_from_weights: bool) -> RunSettings:
    """The run folder's files and rules."""
    prefix = f"segformer_{cfg.backbone}"
    needed = f"{cfg.pretrained_ckpt_path} was not read; start with --pretrained_ckpt_path FILE"
    return RunSettings(
        folder=Path(cfg.checkpoint_path).expanduser(),
        names=Names(prefix, "{prefix}_{epoch}.ckpt"),
        best_file=f"{prefix}_best.ckpt",
        metadata=metadata,
        config_text=to_yaml(cfg),
        resume=cfg.resume,
        started_from=cfg.pretrained_ckpt_path if starts_from_weights else "",
        needs_checkpoint=needed if cfg.load_ckpt and not starts_from_weights else "",
        other_results=(calibrated_file(cfg),) if cfg.quant else (),
        save=cfg.save_checkpoint,
        save_best=cfg.save_best_ckpt,
        keep=cfg.keep_checkpoint_max,
    )


def first_weights(cfg: Config) -> Checkpoint | None:
    """The checkpoint to start from; None where there is none to be, or where it is gone and the run goes on anyway."""
    is_gone = cfg.resume == "auto" and cfg.has_checkpoints and not Path(cfg.pretrained_ckpt_path).expanduser().is_file()
    if not cfg.load_ckpt or cfg.resume not in ("", "auto") or is_gone:
        return None
    return checkpoints.read(cfg.pretrained_ckpt_path)


def find(split: str, cfg: Config, indexes: IndexFolder | None = None) -> dataset.Pairs:
    """The images and labels of a split, whose classes have to be as many as the configuration says."""
    pairs = dataset.find_pairs(cfg.data_path, split, cfg.class_list, cfg.on_missing_label, indexes)
    pairs = dataclasses.replace(pairs, reduces_zero=cfg.reduce_zero_label)
    pairs.classes.require(cfg.class_num, cfg.dataset_ignore_label)
    if pairs.without_mask:
        print(f"{len(pairs.without_mask)} images of {split} have no label and are left out")
    return pairs


def evaluate(cfg: Config) -> int:
    """Score a checkpoint or an exported file on every image of the validation split, at the size of the labels."""
    began, rank = time.perf_counter(), Rank()
    if cfg.eval_backend == "mindspore":
        rank = device.setup(cfg.device, cfg.device_id, cfg.run_distribute, cfg.dtype)
    pairs = find(VAL, cfg)
    segmenter = open_segmenter(cfg.eval_ckpt_path, cfg)
    segmenter.require_classes_of(pairs)
    cfg, predict = segmenter.cfg, segmenter.predictor()
    loader = dataset.Loader(pairs, cfg, stream.BadFiles(cfg.on_bad_image, print), rank.shard)
    since = time.perf_counter()
    metric = training.score(predict, loader, print, rank)
    training.tell(metric, pairs, segmenter.path.name, time.perf_counter() - since, print)
    if loader.bad.reasons:
        print(loader.bad.summary())
    if not rank.is_first:
        return 0
    if cfg.per_class_csv:
        files.write_text(Path(cfg.per_class_csv).expanduser(), metric.per_class_csv(pairs.classes.names))
    if cfg.eval_json:
        files.write_text(Path(cfg.eval_json).expanduser(), metric.json(pairs.classes.names))
    print(report.eval_done_line(time.perf_counter() - began))
    return 0


def classes_to_draw(segmenter: Segmenter, cfg: Config) -> ClassList:
    """Names and colours: those of class_list, or of the checkpoint or exported file, or Cityscapes'."""
    if cfg.class_list:
        classes = read_class_list(Path(cfg.class_list).expanduser())
    else:
        classes = segmenter.classes or CITYSCAPES
        if classes is CITYSCAPES and cfg.class_num != len(CITYSCAPES):
            raise UsageError(
                f"class_num is {cfg.class_num} and {segmenter.path} does not name its classes; "
                "give --class_list FILE with their names and colours"
            )
    classes.require(cfg.class_num, cfg.dataset_ignore_label)
    return classes


def contender(cfg: Config) -> tuple[Contender, Task]:
    """A checkpoint or an exported file, to be compared with others on the validation split."""
    return comparing.contender(find(VAL, cfg), cfg)


def infer(cfg: Config) -> int:
    """Write pictures of what a checkpoint or an exported file sees, each at the size of its image."""
    began = time.perf_counter()
    if cfg.eval_backend == "mindspore":
        device.setup(cfg.device, cfg.device_id, dtype=cfg.dtype)
    output = Path(cfg.infer_output_path).expanduser()
    inputs = pictures.list_inputs(cfg.data_path, str(output))
    segmenter = open_segmenter(cfg.infer_ckpt_path, cfg)
    classes = classes_to_draw(segmenter, cfg)
    cfg, predict = segmenter.cfg, segmenter.predictor()
    print(report.infer_size_line(len(inputs), str(output.resolve())))
    bad = stream.BadFiles(cfg.on_bad_image, print)
    pictures.save_png(output / pictures.LEGEND, pictures.legend(classes))
    inference.segment(inputs, predict, output, classes, cfg, bad)
    if bad.reasons:
        print(bad.summary())
    if len(bad.reasons) == len(inputs):
        raise ZooError(f"none of the {len(inputs)} images can be read; check {cfg.data_path}")
    print(report.infer_done_line(time.perf_counter() - began))
    return 0


def export(cfg: Config) -> int:
    """Write AIR, MINDIR (with ONNX beside it) or ONNX and compare what can be read back with the network."""
    device.setup(cfg.device, cfg.device_id)
    checkpoint = checkpoints.read(cfg.export_ckpt_path)
    metadata = {
        **checkpoint.meta,
        "image_size": list(cfg.base_size),
        "mean": cfg.img_norm_mean,
        "std": cfg.img_norm_std,
    }
    if checkpoints.QUANTISATION in checkpoint.meta:
        return integer_file.run(checkpoint, cfg, metadata)
    if cfg.onnx_target == TENSORRT:
        raise ZooError(
            f"onnx_target tensorrt is for quantised networks, and {cfg.export_ckpt_path} holds a float one, "
            "whose file is the same for all; leave onnx_target out"
        )
    write = conversion.write_any_size if cfg.dynamic_size else conversion.write_fixed_size
    exporting.tell(*write(checkpoint, cfg, metadata))
    if cfg.export_format == "MINDIR":
        exporting.tell(*write(checkpoint, conversion.beside(cfg), metadata))
    return 0
