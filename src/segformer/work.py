"""What a SegFormer training consists of: batches with their masks, steps and rates, the compiled step, evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.engine import loop, plots
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.engine.io import checkpoint
from src.engine.io.journal import METRICS
from src.engine.io.run import CURVES, Run
from src.engine.metrics import Segmentation
from src.engine.ranks import Rank
from src.engine.steps import mixed, step
from src.engine.steps.adamw import AdamW
from src.segformer import dataset, on_cpu, prediction, report
from src.segformer.class_list import ClassList
from src.segformer.config import Config
from src.segformer.dataset import Pairs
from src.segformer.drop_masks import keep_masks
from src.segformer.loss import cross_entropy
from src.segformer.lr_generator import SCHEDULES, get_lr
from src.segformer.network import QuarterLogits, SegFormer
from src.segformer.variants import drop_path_rates

HEAD_MULTIPLIER = 10.0  # of the decode head's learning rate, in the paper's recipe


def plan(pairs: Pairs, cfg: Config, rank: Rank) -> loop.Schedule:
    """How many steps, with which learning rates, and when to write."""
    if cfg.batch_size % rank.count:
        raise UsageError(
            f"batch_size is {cfg.batch_size} for {rank.count} cards together; give a multiple of {rank.count}"
        )
    steps = len(pairs) // cfg.batch_size
    if not steps:
        raise UsageError(
            f"{pairs.root} holds {len(pairs)} training images, fewer than one batch of {cfg.batch_size}; "
            f"give --batch_size {len(pairs)} or less"
        )
    return loop.Schedule(
        epochs=cfg.epoch_size,
        steps_per_epoch=steps,
        images_per_step=cfg.batch_size,
        samples=len(pairs),
        lr=get_lr(SCHEDULES[cfg.recipe], cfg.lr, cfg.warmup_steps, cfg.warmup_ratio, cfg.epoch_size * steps),
        log_interval=cfg.train_log_interval,
        log_last=steps < cfg.train_log_interval,
        save_epochs=cfg.save_checkpoint_epoch_interval,
        save_steps=cfg.save_checkpoint_steps,
    )


def batches(
    pairs: Pairs, cfg: Config, bad: stream.BadFiles, width: int, rank: Rank
) -> Callable[[int, int], Iterator[tuple[np.ndarray, ...]]]:
    """`f(epoch, first_step)` yields image, label and the masks of stochastic depth and dropout.

    `cfg.batch_size` is the share of this rank here, `width` the channels of the decode head.
    """
    rates = drop_path_rates(cfg.backbone, cfg.drop_path)

    def arriving(epoch: int, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        samples = dataset.train_batches(pairs, cfg, bad, epoch, first_step, rank.index, rank.count)
        for index, (image, label) in enumerate(samples, start=first_step):
            key = (cfg.seed, epoch, index * rank.count + rank.index)
            yield (image, label, *keep_masks(rates, width, cfg.head_dropout, len(image), key))

    return arriving


def optimizer(net: SegFormer, cfg: Config) -> AdamW:
    """The recipe's AdamW."""
    is_paper = cfg.recipe == "paper"

    def multiplier(name: str) -> float:
        return HEAD_MULTIPLIER if is_paper and name.startswith("decode_head.") else 1.0

    return AdamW(net.trainable_params(), cfg.weight_decay, is_paper, multiplier)


def train_step(
    net: SegFormer, classes: ClassList, optimizer: AdamW, scale: mixed.DynamicScale | None, cfg: Config, rank: Rank
) -> Callable:
    """The compiled training step; with a loss scale it computes in float16."""
    weights = Tensor(classes.weights if cfg.class_weights else [1.0] * len(classes), ms.float32)
    ignore, factor = classes.ignore, cfg.loss_weight
    trained = net if scale is None else ms.amp.auto_mixed_precision(net, "O2")
    net.set_train(True)

    fused = on_cpu.loss_of(net, weights, ignore)

    def loss(image: Tensor, label: Tensor, keep_path: Tensor, keep_channel: Tensor) -> Tensor:
        if fused is not None:
            return fused(image, label, keep_path, keep_channel) * factor
        return cross_entropy(trained(image, keep_path, keep_channel), label, weights, ignore) * factor

    if scale is not None:
        return mixed.MixedStep(loss, optimizer, scale, cfg.clip_norm, rank.count)
    return step.make_step(loss, optimizer, clip_norm=cfg.clip_norm, ranks=rank.count)


def lines(train_step: Callable, start: loop.Position) -> loop.Lines:
    """The lines of a training; the cost in a line is the mean of the steps since the line before."""
    before = {"epoch": start.epoch, "step": start.step, "ms": 0.0}

    def step_line(epoch: int, epochs: int, index: int, steps: int, loss: float, mean: float, ms: float, lr: float):
        if epoch != before["epoch"]:
            before.update(epoch=epoch, step=0, ms=0.0)
        cost = (ms - before["ms"]) / (index + 1 - before["step"])
        before.update(step=index + 1, ms=ms)
        overflow, scale = getattr(train_step, "overflow", False), getattr(train_step, "loss_scale", 1.0)
        return report.step_line(epoch + 1, epochs, index + 1, steps, loss, overflow, scale, cost)

    def nothing(*_: float) -> str:
        return ""

    return loop.Lines(step_line, nothing, nothing)


def score(
    predict: prediction.Predict,
    pairs: Pairs,
    cfg: Config,
    bad: stream.BadFiles,
    say: Callable[[str], None],
    rank: Rank,
) -> Segmentation:
    """Predict every image at the size of its label and count; what is kept does not grow with their number.

    With ranks, each predicts its share and all know the result.
    """
    metric = Segmentation(len(pairs.classes), pairs.classes.ignore)
    say(report.eval_size_line(len(pairs)))
    began, counted = time.perf_counter(), 0
    for sample in dataset.eval_samples(pairs, cfg, bad, cfg.multi_scale[0], rank.index, rank.count):
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
        raise ZooError(f"none of the {len(pairs)} images in {pairs.root} can be read; check the data folder")
    return metric


def tell(metric: Segmentation, pairs: Pairs, file: str, seconds: float, say: Callable[[str], None]) -> None:
    """The result of an evaluation in the documented lines."""
    for line in report.result_lines(pairs.classes.names, metric.iou, metric.miou, file):
        say(line)
    say(report.counts_line(metric.macc, metric.pixel_accuracy, metric.images, len(pairs), seconds))


def evaluation(
    net: SegFormer, held_out: Pairs, cfg: Config, bad: stream.BadFiles, run: Run, best_file: str, rank: Rank
) -> Callable[[loop.Position], loop.Score | None]:
    """What happens after an epoch: nothing, or an evaluation that keeps the weights if they are the best so far."""
    predict = loop.predictor(QuarterLogits(net))
    net.set_train(True)
    say = run.journal.line

    def evaluate(position: loop.Position) -> loop.Score | None:
        epoch, is_last = position.epoch, position.epoch == cfg.epoch_size
        if epoch < cfg.eval_start_epoch or (epoch % cfg.eval_interval and not is_last):
            return None
        began = time.perf_counter()
        net.set_train(False)
        rank.share_statistics(net)
        metric = score(predict, held_out, cfg, bad, say, rank)
        net.set_train(True)
        tell(metric, held_out, run.names.of(epoch, 1, 1), time.perf_counter() - began, say)
        miou = 0.0 if math.isnan(metric.miou) else metric.miou
        if miou > position.best and cfg.save_checkpoint and cfg.save_best_ckpt:
            run.save_weights(best_file, checkpoint.arrays_of(net.get_parameters()), miou)
        values = {"miou": miou, "macc": metric.macc, "pixel_accuracy": metric.pixel_accuracy}
        return loop.Score(miou, {**values, "images": metric.images})

    return evaluate


def finish(bad: Iterable[stream.BadFiles], run: Run) -> None:
    """The last words of a run: what was skipped, and the picture of its curves."""
    for files in bad:
        if files.reasons:
            run.journal.line(files.summary())
    if run.writes and (run.folder / METRICS).stat().st_size:
        plots.curves(run.folder / METRICS, run.folder / CURVES, "miou", "mIoU")
        run.journal.line(f"curves in {run.folder / CURVES}")


def state(net: nn.Cell, optimizer: AdamW, scale: mixed.DynamicScale | None) -> list[ms.Parameter]:
    """Everything a checkpoint has to hold so that training goes on as if it had never stopped."""
    return step.state_of(net, optimizer, None) + (list(scale.get_parameters()) if scale is not None else [])
