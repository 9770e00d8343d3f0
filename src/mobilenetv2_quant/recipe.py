"""MobileNetV2-quant's recipes in prose: calibrate and train, evaluate, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mindspore import ParameterTuple, nn

from src.cpu_kernels import availability
from src.engine import device, loop
from src.engine.config import to_yaml
from src.engine.data.image_folder import TRAIN_FOLDERS, require_classes, scan
from src.engine.io import checkpoint
from src.engine.io.run import Run, open_run
from src.engine.ranks import Rank
from src.mobilenetv2 import conversion, dataset, evaluation, work
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant import calibration, integer_file, network, pretrained, schedule
from src.mobilenetv2_quant.config import Config

NAMES = checkpoint.Names("mobilenetv2_quant")
BEST = "mobilenetv2_quant-best.ckpt"
CALIBRATED = "mobilenetv2_quant-calibrated.ckpt"


def train(cfg: Config) -> int:
    """Take the activation ranges from a few batches, then train with simulated quantisation."""
    rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute, cfg.enable_graph_kernel)
    folder = scan(cfg.dataset_path, TRAIN_FOLDERS)
    classes = require_classes(folder, cfg.num_classes)
    held_out = work.validation_folder(folder, cfg) if cfg.run_eval and not cfg.calibrate_only else None
    work.require_full_batch(len(folder), cfg, rank)
    initial = pretrained.read_any(cfg.pretrain_ckpt) if cfg.pretrain_ckpt else None
    net = network.build(classes, cfg, kernels_of(cfg))
    loaded = pretrained.load(net, initial, folder.class_to_index, cfg) if initial else "weights start anew"
    about = pretrained.about(cfg, folder.class_to_index)
    output = Path(cfg.save_checkpoint_path).expanduser()
    used = cfg.pretrain_ckpt
    with open_run(output, NAMES, BEST, cfg.resume, about, to_yaml(cfg), used, rank, (CALIBRATED,)) as run:
        say = run.journal.line
        say(f"{len(folder)} images of {classes} classes in {folder.root}; {loaded}")
        tell_kernels(cfg, say)
        if run.resumed is None and pretrained.has_ranges(initial, cfg):
            say(f"activation ranges are those of {used}")
        elif run.resumed is None:
            bad = dataset.bad_files(folder, cfg, say)
            wanted = cfg.calibrate_only or cfg.calibration_batches
            count = calibration.calibrate(net, calibration.batches(folder, cfg, bad, wanted))
            say(f"activation ranges from {count} batches of {cfg.batch_size} images")
        if cfg.calibrate_only:
            arrays = checkpoint.arrays_of(net.get_parameters())
            run.save_weights(CALIBRATED, arrays, -1.0, f"after calibration; check {used}")
            say(f"calibrated network in {output / CALIBRATED}")
            return 0
        job = work.whole(net, folder, held_out, cfg, run, rank)
        return work.carry_out(job, net, BEST, cfg, run, rank, cfg.start_epoch, train_step)


def train_step(
    job: work.Work,
    plan: loop.Schedule,
    optimizer: nn.Optimizer,
    average: ParameterTuple | None,
    cfg: Config,
    run: Run,
    rank: Rank,
    start: loop.Position,
) -> Callable:
    """The step of src.mobilenetv2.work, one for each phase of the quantisation."""

    def make() -> Callable:
        job.net.set_train(True)
        return work.train_step(job, plan, optimizer, average, cfg, run, rank, start)

    def enter(phase: schedule.Phase, done: int) -> None:
        network.set_phase(job.net, *phase)
        if 0 < done == cfg.quant_delay:
            rank.share_statistics(job.net)  # what is trained has to begin alike on all ranks
            calibration.start_learning(job.net)  # from what the steps before have observed
        if cfg.quant_delay or phase.frozen:
            run.journal.line(f"from here on: quantising {phase.quantising}, BN frozen {phase.frozen}")

    done = start.epoch * plan.steps_per_epoch + start.step
    return schedule.phased(make, enter, done, cfg.quant_delay, cfg.freeze_bn)


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
    return evaluation.run(cfg, open_checkpoint)


def open_checkpoint(cfg: Config) -> tuple[checkpoint.Checkpoint, MobileNetV2]:
    """The checkpoint to evaluate and its network."""
    stored = pretrained.read(cfg.pretrain_ckpt)
    tell_kernels(cfg, print)
    return stored, pretrained.network_of(stored, cfg, kernels_of(cfg))


def export(cfg: Config) -> int:
    """Write the simulated network as MINDIR or AIR, or the integer network as ONNX with a report per layer."""
    device.setup(cfg.platform, cfg.device_id)
    stored = pretrained.read(cfg.ckpt_file)
    net = pretrained.network_of(stored, cfg, activation=cfg.activation)
    if cfg.file_format != "ONNX":
        return conversion.run(net, stored, cfg)
    tell_kernels(cfg, print)
    simulated = pretrained.network_of(stored, cfg, kernels_of(cfg), cfg.activation, tell=False)
    return integer_file.run(net, simulated, stored, cfg)
