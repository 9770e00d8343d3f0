"""The two things MobileNetV2 training can be about: the whole network on images, or the head on cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn

from src.engine import loop, plots
from src.engine.data import stream
from src.engine.data.cached_files import CachedFiles
from src.engine.data.image_folder import EVAL_FOLDERS, ImageFolder, scan
from src.engine.errors import UsageError
from src.engine.io import checkpoint
from src.engine.io.journal import METRICS
from src.engine.io.run import CURVES, Run
from src.engine.metrics import Classification
from src.engine.ranks import Rank
from src.engine.steps import boost, profiling, step
from src.mobilenetv2 import dataset, extraction, features
from src.mobilenetv2.config import Config
from src.mobilenetv2.loss import cross_entropy
from src.mobilenetv2.lr_generator import get_lr
from src.mobilenetv2.network import MobileNetV2


@dataclass(frozen=True)
class Work:
    """What the loop needs to know: the trained cell, its loss, its batches, and how to evaluate (None: not wanted)."""

    net: nn.Cell
    loss: Callable[..., Tensor]
    batches: Callable[[int, int], Iterable]
    samples: int
    bad: tuple[stream.BadFiles, ...]
    evaluate: Callable[[], Classification] | None
    cache: CachedFiles | None = None


def whole(
    net: MobileNetV2, folder: ImageFolder, held_out: ImageFolder | None, cfg: Config, run: Run, rank: Rank
) -> Work:
    """Train every weight on augmented images."""
    bad = dataset.bad_files(folder, cfg, run.journal.line)
    trained = ms.amp.auto_mixed_precision(net, cfg.amp_level) if cfg.amp_level != "O0" else net

    def loss(image: Tensor, target: Tensor, keep: Tensor = None) -> Tensor:
        return cross_entropy(trained(image, keep), target)

    cache = CachedFiles(folder, int(cfg.cache_session_id), cfg.cache_spilling) if cfg.enable_cache else None
    contents = cache.rows if cache else stream.without_contents

    def batches(epoch: int, first_step: int) -> Iterable:
        arriving = dataset.train_batches(folder, cfg, bad, epoch, first_step, rank.index, rank.count, contents)
        return with_dropout(arriving, net.backbone.out_channels, cfg, epoch, first_step, rank)

    evaluate, bad_files = None, (bad,)
    if held_out is not None:
        bad_held_out = dataset.bad_files(held_out, cfg, run.journal.line)
        bad_files = (bad, bad_held_out)

        def evaluate() -> Classification:
            rank.share_statistics(net)
            arriving = dataset.eval_batches(held_out, cfg, bad_held_out, cfg.batch_size, rank.index, rank.count)
            metric = loop.evaluate(loop.predictor(net), arriving, Classification(len(folder.class_to_index)), rank)
            net.set_train(True)
            return metric

    return Work(net, loss, batches, len(folder), bad_files, evaluate, cache)


def head(
    net: MobileNetV2, folder: ImageFolder, held_out: ImageFolder | None, cfg: Config, run: Run, rank: Rank
) -> Work:
    """Train the classifier on features that the frozen backbone computes once, with the evaluation transform."""
    bad = dataset.bad_files(folder, cfg, run.journal.line)
    total = len(folder) + (len(held_out) if held_out is not None else 0)
    predict = extraction.predictor(net, total, cfg, run.journal.line)
    weights = {p.name: p.asnumpy() for p in net.backbone.get_parameters()}

    def features_of(images: ImageFolder, bad: stream.BadFiles):
        return features.cached(predict, weights, images, cfg, run.folder, bad, run.journal.line, rank)

    feature, label = features_of(folder, bad)
    classes, channels = len(folder.class_to_index), net.backbone.out_channels

    def loss(pooled: Tensor, target: Tensor, keep: Tensor = None) -> Tensor:
        return cross_entropy(net.head(pooled, keep), target)

    def batches(epoch: int, first_step: int) -> Iterable:
        arriving = features.train_batches(feature, label, classes, cfg, epoch, first_step, rank)
        return with_dropout(arriving, channels, cfg, epoch, first_step, rank)

    evaluate, bad_files = None, (bad,)
    if held_out is not None:
        bad_held_out = dataset.bad_files(held_out, cfg, run.journal.line)
        bad_files = (bad, bad_held_out)
        held_out_features = features_of(held_out, bad_held_out)

        def evaluate() -> Classification:
            arriving = features.eval_batches(*held_out_features, cfg.batch_size)
            return loop.evaluate(loop.predictor(net.head), arriving, Classification(classes))

    return Work(net.head, loss, batches, len(label), bad_files, evaluate)


def with_dropout(arriving: Iterable, channels: int, cfg: Config, epoch: int, first_step: int, rank: Rank) -> Iterable:
    """Append dropout's mask (N, C) to every batch; nothing where dropout is 0."""
    for index, (inputs, target) in enumerate(arriving, start=first_step):
        if not cfg.dropout:
            yield inputs, target
            continue
        key = index * rank.count + rank.index
        yield inputs, target, dataset.dropout_mask((len(inputs), channels), cfg.dropout, cfg.seed, epoch, key)


def validation_folder(folder: ImageFolder, cfg: Config) -> ImageFolder:
    """Where run_eval finds its images: eval_dataset_path, or val/ beside the training folder."""
    if cfg.eval_dataset_path:
        return scan(cfg.eval_dataset_path, EVAL_FOLDERS, folder.class_to_index)
    for name in EVAL_FOLDERS:
        candidate: Path = folder.root.resolve().parent / name
        if candidate.is_dir():
            return scan(str(candidate), (), folder.class_to_index)
    raise UsageError(f"run_eval is True and there is no val/ beside {folder.root}; name it with --eval_dataset_path")


def loss_scale(cfg: Config) -> float:
    """The fixed loss scale belongs to mixed precision; float32 needs none."""
    return cfg.loss_scale if cfg.amp_level != "O0" else 1.0


def require_full_batch(samples: int, cfg: Config, rank: Rank) -> None:
    """Training leaves the incomplete last batch out, so there has to be a full one."""
    if samples < cfg.batch_size * rank.count:
        raise UsageError(
            f"{cfg.dataset_path} holds {samples} images, fewer than one batch of {cfg.batch_size} x {rank.count}; "
            f"give --batch_size {max(1, samples // rank.count)} or less"
        )


def plan(job: Work, cfg: Config, rank: Rank, start_epoch: int = 0) -> loop.Schedule:
    """How many steps, with which learning rates, and when to write.

    `start_epoch` epochs of the learning rate's schedule are over before the first of this run's.
    """
    require_full_batch(job.samples, cfg, rank)
    images_per_step = cfg.batch_size * rank.count
    steps = job.samples // images_per_step
    epochs = start_epoch + cfg.epoch_size
    lr = get_lr(cfg.lr_init, cfg.lr_end, cfg.lr_max, cfg.warmup_epochs, epochs, steps, start_epoch)
    return loop.Schedule(
        epochs=cfg.epoch_size,
        steps_per_epoch=steps,
        images_per_step=images_per_step,
        samples=job.samples,
        lr=lr,
        log_interval=cfg.log_interval,
        save_epochs=cfg.save_checkpoint_epochs,
        save_steps=cfg.save_checkpoint_steps,
    )


def train_step(
    job: Work,
    plan: loop.Schedule,
    optimizer: nn.Optimizer,
    average: ms.ParameterTuple | None,
    cfg: Config,
    run: Run,
    rank: Rank,
    start: loop.Position,
) -> Callable:
    """The compiled training step, profiled if wanted."""
    if cfg.boost_mode != "O0":
        optimizer = step.momentum_optimizer(job.net, cfg.momentum, cfg.weight_decay, plan.lr)
        config = boost.settings(cfg.boost_mode, len(plan.lr))
        return boost.make_step(job.net, cross_entropy, optimizer, cfg.boost_mode, config, loss_scale(cfg))
    compiled = step.make_step(
        job.loss,
        optimizer,
        loss_scale=loss_scale(cfg),
        clip_norm=cfg.clip_norm,
        average=average,
        average_decay=cfg.ema_decay,
        ranks=rank.count,
    )
    return profiling.profiled(compiled, run.folder, run.journal.line) if cfg.enable_profiling else compiled


def carry_out(
    job: Work,
    net: MobileNetV2,
    best: str,
    cfg: Config,
    run: Run,
    rank: Rank,
    start_epoch: int = 0,
    make_step: Callable[..., Callable] = train_step,
) -> int:
    """Train from where the run stands to its end, evaluating and saving as configured; returns the exit status.

    `best` names the file that keeps the best weights of `net`; `make_step` takes the arguments of `train_step`.
    """
    say = run.journal.line
    optimizer = step.momentum_optimizer(job.net, cfg.momentum, cfg.weight_decay)
    average = step.moving_average_of(optimizer.parameters) if cfg.ema_decay else None
    schedule = plan(job, cfg, rank, start_epoch)
    state = step.state_of(net, optimizer, average)
    start = run.restore(state, schedule, best)
    if start.epoch >= cfg.epoch_size:
        say(f"nothing left to do: {start.epoch} of {cfg.epoch_size} epochs are done")
        finish(job, run)
        return 0
    job.net.set_train(True)
    one_step = make_step(job, schedule, optimizer, average, cfg, run, rank, start)

    def save(position: loop.Position) -> None:
        if cfg.save_checkpoint:
            run.save(state, position, schedule, cfg.keep_checkpoint_max)

    def evaluate_now(position: loop.Position) -> loop.Score:
        with step.averaged(optimizer.parameters, average):
            metric = job.evaluate()
            if metric.top1 > position.best and cfg.save_checkpoint:
                weights = checkpoint.arrays_of(net.get_parameters())
                run.save_weights(best, weights, metric.top1)
        return loop.Score(metric.top1, {"top1": metric.top1, "top5": metric.top5, "samples": metric.samples})

    try:
        measure = evaluate_now if job.evaluate else None
        loop.train(one_step, job.batches, schedule, start, run.journal, save, measure, rank=rank)
    except loop.Stop as stop:
        saved = "the state is saved, --resume auto goes on from here" if cfg.save_checkpoint else "nothing is saved"
        say(f"stopped by {stop}; {saved}")
        return 128 + stop.signal_number
    finish(job, run)
    return 0


def finish(job: Work, run: Run) -> None:
    """The last words of a run: what was skipped, and the picture of its curves."""
    for bad in job.bad:
        if bad.reasons:
            run.journal.line(bad.summary())
    if job.cache is not None:
        run.journal.line(job.cache.statistics())
    if run.writes and (run.folder / METRICS).stat().st_size:
        plots.curves(run.folder / METRICS, run.folder / CURVES)
        run.journal.line(f"curves in {run.folder / CURVES}")
