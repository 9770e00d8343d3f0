"""What a SegFormer training consists of: batches with their masks, steps and rates, the compiled step, evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.engine import loop
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.engine.io.run import Run
from src.engine.metrics import Segmentation
from src.engine.ranks import Rank
from src.engine.steps import step
from src.engine.steps.adamw import AdamW
from src.engine.steps.average import moving_average_of
from src.engine.steps.loss_scale import DynamicScale
from src.engine.steps.step import TrainStep
from src.quantisation.phases import NEVER, Phase, Phases
from src.segformer import on_cpu, report
from src.segformer.config import Config
from src.segformer.data.class_list import ClassList
from src.segformer.data.dataset import Loader, Pairs
from src.segformer.drop_masks import keep_masks
from src.segformer.loss import cross_entropy, weighed
from src.segformer.lr_generator import SCHEDULES, get_lr
from src.segformer.network import QuarterLogits, SegFormer
from src.segformer.predicting import prediction
from src.segformer.quantised.network import activation_quantisers
from src.segformer.variants import drop_path_rates

HEAD_MULTIPLIER = 10.0  # of the decode head's learning rate, in the paper's recipe


def schedule(pairs: Pairs, cfg: Config, rank: Rank) -> loop.Schedule:
    """How many steps, with which learning rates, and when to write."""
    images_per_step = cfg.batch_size * cfg.accumulate
    if cfg.batch_size % rank.count:
        raise UsageError(
            f"batch_size is {cfg.batch_size} for {rank.count} cards together; give a multiple of {rank.count}"
        )
    steps = len(pairs) // images_per_step
    if not steps:
        fits = len(pairs) // (cfg.accumulate * rank.count) * rank.count
        remedy = f"--batch_size {fits} or less" if fits else f"at least {cfg.accumulate * rank.count} images"
        raise UsageError(
            f"{pairs.where} holds {len(pairs)} training images, fewer than one batch of {images_per_step}; "
            f"give {remedy}"
        )
    return loop.Schedule(
        epochs=cfg.epoch_size,
        steps_per_epoch=steps,
        images_per_step=images_per_step,
        samples=len(pairs),
        lr=get_lr(SCHEDULES[cfg.recipe], cfg.lr, cfg.warmup_steps, cfg.warmup_ratio, cfg.epoch_size * steps),
        log_interval=cfg.train_log_interval,
        log_last=steps < cfg.train_log_interval,
        save_epochs=cfg.save_checkpoint_epoch_interval,
        save_steps=cfg.save_checkpoint_steps,
    )


def batches(loader: Loader, width: int) -> Callable[[int, int], Iterator[tuple[np.ndarray, ...]]]:
    """`f(epoch, first_step)` yields image, label and the masks of stochastic depth and dropout.

    `width` are the channels of the decode head.
    """
    cfg, shard = loader.cfg, loader.shard
    rates = drop_path_rates(cfg.backbone, cfg.drop_path)

    def arriving(epoch: int, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        for index, (image, label) in enumerate(loader.train_batches(epoch, first_step), start=first_step):
            key = (cfg.seed, epoch, index * shard.count + shard.index)
            keep_path, keep_channel = keep_masks(rates, width, cfg.head_dropout, len(image), key)
            yield image, label, keep_path.transpose(2, 0, 1).copy(), keep_channel  # the batch first, see accumulate.py

    return arriving


def optimizer(net: SegFormer, cfg: Config) -> AdamW:
    """The recipe's AdamW."""
    is_paper = cfg.recipe == "paper"

    def multiplier(name: str) -> float:
        return HEAD_MULTIPLIER if is_paper and name.startswith("decode_head.") else 1.0

    return AdamW(net.trainable_params(), cfg.weight_decay, is_paper, multiplier)


def train_step(net: SegFormer, classes: ClassList, cfg: Config, rank: Rank) -> TrainStep:
    """The compiled training step; float16 has a dynamic loss scale, and bfloat16, with float32's range, needs none."""
    weights = Tensor(classes.weights if cfg.class_weights else [1.0] * len(classes), ms.float32)
    ignore, factor = classes.ignore, cfg.loss_weight
    net.set_train(True)
    hard = cfg.focal_gamma, cfg.ohem_threshold, cfg.dice_weight
    fused = None if any(hard) else on_cpu.loss_of(net, weights, ignore)
    measure = weighed(weights, ignore, *hard) if any(hard) else None

    def loss(image: Tensor, label: Tensor, keep: Tensor, keep_channel: Tensor) -> Tensor:
        keep_path = keep.transpose(1, 2, 0)
        if fused is not None:
            return fused(image, label, keep_path, keep_channel) * factor
        logits = net(image, keep_path, keep_channel)
        if measure is not None:
            return measure(logits, label) * factor
        return cross_entropy(logits, label, weights, ignore) * factor

    scale = DynamicScale() if cfg.dtype == "float16" else 1.0
    options = step.StepOptions(scale, cfg.clip_norm, cfg.ema_decay, rank.count, accumulate=cfg.accumulate)
    if cfg.quant:
        return quantised_step(net, loss, options, cfg, rank)
    return step.make_step(loss, optimizer(net, cfg), options, net.get_parameters())


def quantised_step(net: SegFormer, loss: Callable, options: step.StepOptions, cfg: Config, rank: Rank) -> TrainStep:
    """A step whose activation ranges stay as they are from quant_freeze_ranges on."""
    adamw = optimizer(net, cfg)
    average = moving_average_of(adamw.parameters) if cfg.ema_decay else None

    def make() -> TrainStep:
        net.set_train(True)
        return step.make_step(loss, adamw, options, net.get_parameters(), average)

    def enter(phase: Phase, done: int) -> None:
        if 0 < done == cfg.quant_freeze_ranges:
            rank.share_statistics(net)  # what stays has to be alike on all ranks
        for quantiser in activation_quantisers(net):
            quantiser.moving = not phase.ranges_frozen

    phases = Phases(make, enter, quant_delay=0, freeze_bn=NEVER, freeze_ranges=cfg.quant_freeze_ranges)
    return replace(make(), run=phases.run, begin=phases.begin)


def no_line(*_: float) -> str:
    return ""


LINES = loop.Lines(report.step_line, no_line, no_line)


@dataclass(frozen=True)
class Data:
    """The pairs of a training, and those that score it (None: not wanted)."""

    train: Pairs
    held_out: Pairs | None


def training(net: SegFormer, data: Data, cfg: Config, run: Run) -> loop.Training:
    """The whole network on augmented crops."""
    rank, say = run.rank, run.journal.line
    one_step = train_step(net, data.train.classes, cfg, rank)
    loader = Loader(data.train, cfg, stream.BadFiles(cfg.on_bad_image, say), rank.shard)
    held_out = data.held_out and Loader(data.held_out, cfg, stream.BadFiles(cfg.on_bad_image, say), rank.shard)

    def closing() -> Iterator[str]:
        return (files.bad.summary() for files in (loader, held_out) if files and files.bad.reasons)

    return loop.Training(
        net=net,
        step=one_step,
        batches=batches(loader, net.decode_head.width),
        schedule=schedule(data.train, cfg, rank),
        evaluate=evaluation(net, held_out, run) if held_out else None,
        lines=LINES,
        closing=closing,
        score=("miou", "mIoU"),
    )


def score(predict: prediction.Predict, loader: Loader, say: Callable[[str], None], rank: Rank) -> Segmentation:
    """Predict every image at the size of its label and count; what is kept does not grow with their number.

    With ranks, each predicts its share and all know the result.
    """
    pairs, cfg = loader.pairs, loader.cfg
    metric = Segmentation(len(pairs.classes), pairs.classes.ignore)
    say(report.eval_size_line(len(pairs)))
    began, counted = time.perf_counter(), 0
    for sample in loader.eval_samples(cfg.multi_scale[0]):
        rank.wait()  # ranks that drift too far apart would lose each other, see engine/ranks.py
        if sample is None:
            continue
        metric.update(prediction.class_map(predict, sample.picture, sample.image, cfg), sample.mask)
        if metric.images % cfg.eval_log_interval == 0:
            cost = 1000 * (time.perf_counter() - began) / (metric.images - counted)
            say(report.eval_progress_line(metric.images, len(pairs), cost))
            began, counted = time.perf_counter(), metric.images
    metric.add_up(rank.total_counts)
    if not metric.images:
        raise ZooError(f"none of the {len(pairs)} images in {pairs.where} can be read; check the data folder")
    return metric


def tell(metric: Segmentation, pairs: Pairs, file: str, seconds: float, say: Callable[[str], None]) -> None:
    """The result of an evaluation in the documented lines."""
    for line in report.result_lines(pairs.classes.names, metric.iou, metric.miou, file):
        say(line)
    say(report.counts_line(metric.macc, metric.pixel_accuracy, metric.images, len(pairs), seconds))


def evaluation(net: SegFormer, held_out: Loader, run: Run) -> Callable[[loop.Position], loop.Score | None]:
    """What happens after an epoch: nothing, or the mIoU of the held-out images."""
    predict = loop.predictor(QuarterLogits(net))
    net.set_train(True)
    cfg, rank, say = held_out.cfg, run.rank, run.journal.line

    def evaluate(position: loop.Position) -> loop.Score | None:
        epoch, is_last = position.epoch, position.epoch == cfg.epoch_size
        if epoch < cfg.eval_start_epoch or (epoch % cfg.eval_interval and not is_last):
            return None
        began = time.perf_counter()
        net.set_train(False)
        rank.share_statistics(net)
        metric = score(predict, held_out, say, rank)
        net.set_train(True)
        tell(metric, held_out.pairs, run.settings.names.of(epoch, 1, 1), time.perf_counter() - began, say)
        miou = 0.0 if math.isnan(metric.miou) else metric.miou
        values = {"miou": miou, "macc": metric.macc, "pixel_accuracy": metric.pixel_accuracy}
        return loop.Score(miou, {**values, "images": metric.images}, metric.images)

    return evaluate
