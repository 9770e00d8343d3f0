"""MobileNetV2-quant's recipes in prose: calibrate and train, evaluate, infer, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from src.classification import checkpoints as float_checkpoints
from src.classification import conversion, distillation, evaluation, training
from src.classification.dataset import Loader, bad_files
from src.classification.inference import Predict
from src.classification.predicting import comparing, prediction
from src.classification.recipe import run_settings
from src.classification.training import Trained
from src.cpu_kernels import availability
from src.engine import device, loop
from src.engine.comparison import Contender, Task
from src.engine.data.image_folder import TRAIN_FOLDERS, require_classes, scan
from src.engine.io import checkpoint as files
from src.engine.io.run import Run, open_run
from src.engine.loop import Schedule
from src.engine.steps import step
from src.engine.steps.average import moving_average_of
from src.engine.steps.step import TrainStep
from src.engine.training import run_training
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2_quant import calibration, checkpoints, equalisation, integer_file, network
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT
from src.mobilenetv2_quant.config import Config
from src.quantisation.phases import Phase, Phases

CALIBRATED = "mobilenetv2_quant-calibrated.ckpt"


def train(cfg: Config) -> int:
    """Take the activation ranges from a few batches, then train with simulated quantisation."""
    rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute)
    images = scan(cfg.dataset_path, TRAIN_FOLDERS, indexes=training.indexes(cfg))
    classes = require_classes(images, cfg.num_classes)
    training.require_trainable(images, cfg, rank)
    held_out = training.validation_data(images, cfg) if cfg.run_eval and not cfg.calibrate_only else None
    teacher = None if cfg.calibrate_only else distillation.open_teacher(MOBILENETV2, cfg, images.class_to_index)
    data = training.Data(images, held_out, teacher)
    initial = checkpoints.read_any(cfg.first_weights) if cfg.first_weights else None
    net = network.build(classes, cfg, kernels_of(cfg))
    loaded = checkpoints.load(net, initial, images.class_to_index, cfg) if initial else "weights start anew"
    metadata = float_checkpoints.metadata(MOBILENETV2_QUANT, cfg, images.class_to_index)
    with open_run(run_settings(MOBILENETV2_QUANT, cfg, metadata, (CALIBRATED,)), rank) as run:
        say = run.journal.line
        say(f"{len(images)} images of {classes} classes in {images.where}; {loaded}")
        tell_kernels(cfg, say)
        if run.resumed is None and checkpoints.has_ranges(initial, cfg):
            say(f"activation ranges are those of {cfg.pretrain_ckpt}")
        elif run.resumed is None:
            loader = Loader(images, MOBILENETV2_QUANT.transforms, cfg, bad_files(images, cfg, say))
            wanted = cfg.calibrate_only or cfg.calibration_batches
            if cfg.calibrate_only and cfg.cross_layer_equalisation:
                say(f"{equalisation.equalise(net)} channels scaled to equalise neighbouring weights")
            batches = calibration.batches(loader, wanted)
            count = calibration.calibrate(net, batches, cfg.calibration_method, cfg.corrects_biases)
            say(f"activation ranges from {count} batches of {cfg.batch_size} images ({cfg.calibration_method})")
            if cfg.corrects_biases:
                say("biases corrected for what rounding does to the weights")
        if cfg.calibrate_only:
            arrays = files.arrays_of(net.get_parameters())
            run.save_weights(CALIBRATED, arrays, -1.0, f"after calibration; check {cfg.pretrain_ckpt}")
            say(f"calibrated network in {run.folder / CALIBRATED}")
            return 0

        def make_step(trained: Trained, planned: Schedule) -> TrainStep:
            return train_step(trained, cfg, run)

        return run_training(training.full_network(MOBILENETV2_QUANT, net, data, cfg, run, make_step), run)


def train_step(trained: Trained, cfg: Config, run: Run) -> TrainStep:
    """A step for each phase of the quantisation."""
    net, optimizer = trained.cell, training.optimizer_of(trained.cell, cfg)
    average = moving_average_of(optimizer.parameters) if cfg.ema_decay else None
    options = training.step_options(cfg, 1.0, run.rank)

    def make() -> TrainStep:
        net.set_train(True)
        return step.make_step(trained.loss, optimizer, options, trained.weights, average)

    def enter(phase: Phase, done: int) -> None:
        network.set_phase(net, *phase)
        if done and done in (cfg.quant_delay, cfg.freeze_bn, cfg.quant_freeze_ranges):
            run.rank.share_statistics(net)  # what is trained or stays from here on has to be alike on all ranks
        if 0 < done == cfg.quant_delay:
            calibration.start_learning(net)  # from what the steps before have observed
        if cfg.quant_delay or phase.frozen or phase.ranges_frozen:
            ranges = ", ranges frozen True" if phase.ranges_frozen else ""
            run.journal.line(f"from here on: quantising {phase.quantising}, BN frozen {phase.frozen}{ranges}")

    phases = Phases(make, enter, cfg.quant_delay, cfg.freeze_bn, cfg.quant_freeze_ranges)
    return training.watched(replace(make(), run=phases.run, begin=phases.begin), cfg, run)


def kernels_of(cfg: Config) -> str:
    """The mode of the CPU kernels, which training and evaluation use on the platform CPU."""
    return cfg.cpu_kernels if cfg.platform == "CPU" else "off"


def tell_kernels(cfg: Config, say: Callable[[str], None]) -> None:
    """Say that the compiled kernels are missing, where they are: evaluation then computes in another way."""
    library, reason = availability.find_library(kernels_of(cfg))
    if cfg.platform == "CPU" and library is None:
        say(f"CPU kernels off: {reason}; evaluation computes with floats on grids, not with whole numbers")


def evaluate(cfg: Config) -> int:
    """Score a quantised checkpoint, or an exported ONNX file, on every image of a folder."""
    return evaluation.run(MOBILENETV2_QUANT, cfg, open_checkpoint)


def infer(cfg: Config) -> int:
    """Name the likeliest classes of images, by a quantised checkpoint or an exported ONNX file."""
    return prediction.run(MOBILENETV2_QUANT, cfg, open_checkpoint)


def contender(cfg: Config) -> tuple[Contender, Task]:
    """A quantised checkpoint or an exported file, to be compared with others."""
    return comparing.contender(MOBILENETV2_QUANT, cfg, open_checkpoint)


def open_checkpoint(cfg: Config) -> tuple[files.Checkpoint, Predict]:
    """The checkpoint to score with, and what does."""
    checkpoint = checkpoints.read(cfg.pretrain_ckpt)
    tell_kernels(cfg, print)
    return checkpoint, loop.predictor(checkpoints.network_of(checkpoint, cfg, kernels_of(cfg)))


def export(cfg: Config) -> int:
    """Write the simulated network as MINDIR or AIR, and the integer network as ONNX with a report per layer.

    ONNX is written alone or beside MINDIR.
    """
    device.setup(cfg.platform, cfg.device_id)
    checkpoint = checkpoints.read(cfg.ckpt_file)
    net = checkpoints.network_of(checkpoint, cfg, activation=cfg.activation)
    if cfg.file_format != "ONNX":
        conversion.run(MOBILENETV2_QUANT, net, checkpoint, cfg)
    if not cfg.writes_integers():
        return 0
    tell_kernels(cfg, print)
    simulated = checkpoints.network_of(checkpoint, cfg, kernels_of(cfg), cfg.activation, tell=False)
    return integer_file.run(net, simulated, checkpoint, cfg if cfg.file_format == "ONNX" else conversion.beside(cfg))
