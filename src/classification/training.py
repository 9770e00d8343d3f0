"""The two trainings of a classifier: the full network on images, or the head on cached features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.classification import distillation, imbalance, inference, losses, targets
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.dataset import Loader, bad_files
from src.classification.distillation import Teacher
from src.classification.features import Extractor, Features
from src.cpu_kernels.optimizer import momentum_kind
from src.engine import loop
from src.engine.data.archive import IndexFolder, index_folder
from src.engine.data.cached_files import CachedFiles
from src.engine.data.image_folder import EVAL_FOLDERS, TRAIN_FOLDERS, find_held_out, find_root, scan, scan_tree
from src.engine.data.source import LabelledImages
from src.engine.data.stream import BadFiles
from src.engine.data.tree import open_tree
from src.engine.errors import UsageError
from src.engine.io.run import Run
from src.engine.loop import Position, Schedule, Score, Training
from src.engine.metrics import Classification
from src.engine.ranks import Rank
from src.engine.steps import boost, profiling, step
from src.engine.steps.adamw import AdamW
from src.engine.steps.step import StepOptions, TrainStep


@dataclass(frozen=True)
class Data:
    """The images of a training, those that score it, and what else knows their classes (None: not wanted)."""

    train: LabelledImages
    held_out: LabelledImages | None
    teacher: Teacher | None = None

    @property
    def classes(self) -> int:
        return len(self.train.class_to_index)


@dataclass(frozen=True)
class Trained:
    """What a step changes: a cell of the network. `loss` maps the inputs of a step to a scalar."""

    cell: nn.Cell
    loss: Callable[..., Tensor]
    weights: list[Parameter]  # of the whole network


StepMaker = Callable[[Trained, Schedule], TrainStep]


def full_network(
    model: Classifier, net: nn.Cell, data: Data, cfg: Config, run: Run, make_step: StepMaker | None = None
) -> Training:
    """Train every weight on augmented images; `make_step` replaces the usual step."""
    rank, say = run.rank, run.journal.line
    cache, images = None, data.train
    if cfg.enable_cache:
        cache = CachedFiles(images.source, int(cfg.cache_session_id), cfg.cache_spilling)
        images = LabelledImages(cache, images.labels, images.class_to_index, images.left_out)
    loader = Loader(images, model.transforms, cfg, bad_files(images, cfg, say), rank.shard)
    held_out = None
    if data.held_out is not None:
        held_out = Loader(data.held_out, model.transforms, cfg, bad_files(data.held_out, cfg, say), rank.shard)

    measure = loss_of(model, cfg)
    measure_both = distillation.loss_of(measure, cfg)

    def own_loss(image: Tensor, target: Tensor, keep: Tensor = None) -> Tensor:
        return measure(net(image, keep), target)

    def taught_loss(image: Tensor, target: Tensor, soft: Tensor, keep: Tensor = None) -> Tensor:
        return measure_both(net(image, keep), target, soft)

    loss = taught_loss if data.teacher else own_loss

    def batches(epoch: int, first_step: int) -> Iterable:
        arriving = distillation.with_soft_targets(loader.train_batches(epoch, first_step), data.teacher)
        return with_dropout(arriving, net.backbone.out_channels, cfg, (epoch, first_step), rank)

    def evaluate(held_out: Loader, position: Position) -> Score:
        rank.share_statistics(net)
        arriving = held_out.eval_batches(cfg.batch_size)
        predict = inference.predictor(model, net, cfg)
        metric = loop.evaluate(predict, arriving, Classification(data.classes), rank)
        net.set_train(True)
        return score(metric)

    planned = schedule(model, len(images), cfg, rank)
    net.set_train(True)
    what = Trained(net, loss, list(net.get_parameters()))
    one_step = make_step(what, planned) if make_step else train_step(what, planned, cfg, run)

    def closing() -> Iterator[str]:
        yield from summaries(loader.bad, held_out.bad if held_out else None)
        if cache is not None:
            yield cache.statistics()

    scored = functools.partial(evaluate, held_out) if held_out else None
    return Training(
        net, one_step, batches, planned, scored, closing=closing,
        in_background=cache is None,  # reading MindSpore's cache from another thread crashes (2.8.0)
    )  # fmt: skip


def head(model: Classifier, net: nn.Cell, data: Data, cfg: Config, run: Run) -> Training:
    """Train the classifier on features that the frozen backbone computes once, with the evaluation transform."""
    rank, say = run.rank, run.journal.line
    weights = {p.name: p.asnumpy() for p in net.backbone.get_parameters()}
    about = model.metadata(cfg)
    network = {key: about[key] for key in model.may_change if about[key] != model.older.get(key)}
    extract = functools.cache(functools.partial(inference.predictor, model, net, cfg, until_pooled=True))
    extractor = Extractor(extract, weights, run, network)

    def loader_of(images: LabelledImages) -> Loader:
        return Loader(images, model.transforms, cfg, bad_files(images, cfg, say), rank.shard)

    loader = loader_of(data.train)
    features = extractor.of(loader)
    require_step(len(features), f"{cfg.dataset_path} holds {len(features)} readable images", cfg, rank)
    class_weights = imbalance.class_weights(cfg.class_weights, features.label, features.class_to_index)
    held_out = loader_of(data.held_out) if data.held_out is not None else None
    held_out_features = extractor.of(held_out) if held_out else None

    measure = loss_of(model, cfg)

    def loss(pooled: Tensor, target: Tensor, keep: Tensor = None) -> Tensor:
        return measure(net.head(pooled, keep), target)

    def batches(epoch: int, first_step: int) -> Iterable:
        arriving = features.train_batches(cfg, epoch, first_step, rank.shard, class_weights)
        return with_dropout(arriving, net.backbone.out_channels, cfg, (epoch, first_step), rank)

    def evaluate(held_out: Features, position: Position) -> Score:
        arriving = held_out.eval_batches(cfg.batch_size)
        return score(loop.evaluate(loop.predictor(net.head), arriving, Classification(data.classes)))

    planned = schedule(model, len(features), cfg, rank)
    net.head.set_train(True)
    what = Trained(net.head, loss, list(net.get_parameters()))
    one_step = train_step(what, planned, cfg, run)
    return Training(
        net, one_step, batches, planned,
        functools.partial(evaluate, held_out_features) if held_out_features is not None else None,
        closing=lambda: summaries(loader.bad, held_out.bad if held_out else None),
    )  # fmt: skip


def loss_of(model: Classifier, cfg: Config) -> Callable[[Tensor, Tensor], Tensor]:
    """The model's own loss, or the focal one."""
    return losses.focal(cfg.focal_gamma) if cfg.focal_gamma else model.loss


def score(metric: Classification) -> Score:
    """Top-1 decides which weights are best."""
    values = {"top1": metric.top1, "top5": metric.top5, "samples": metric.samples}
    return Score(metric.top1, values, metric.samples)


def summaries(*bad: BadFiles | None) -> Iterator[str]:
    """What was skipped."""
    return (files.summary() for files in bad if files is not None and files.reasons)


def with_dropout(
    arriving: Iterable, channels: int, cfg: Config, start: tuple[int, int], rank: Rank
) -> Iterator[tuple[np.ndarray, ...]]:
    """Append dropout's mask (N, C) to every batch from `start`, an epoch and step; nothing where dropout is 0."""
    epoch, first_step = start
    for index, batch in enumerate(arriving, start=first_step):
        if not cfg.dropout:
            yield batch
            continue
        key = index * rank.count + rank.index
        yield *batch, targets.dropout_mask((len(batch[0]), channels), cfg.dropout, cfg.seed, epoch, key)


def validation_data(train: LabelledImages, cfg: Config) -> LabelledImages:
    """Where run_eval finds its images: eval_dataset_path, or val/ beside the training folder."""
    if cfg.eval_dataset_path:
        return scan(cfg.eval_dataset_path, EVAL_FOLDERS, train.class_to_index, indexes(cfg))
    found = find_held_out(find_root(open_tree(cfg.dataset_path, indexes(cfg)), TRAIN_FOLDERS))
    if found is None:
        raise UsageError(
            f"run_eval is True and there is no val/ beside {train.where}; name it with --eval_dataset_path"
        )
    return scan_tree(found, train.class_to_index)


def indexes(cfg: Config) -> IndexFolder:
    """Where the index of a data set in an archive is kept: in the run folder."""
    return index_folder(cfg.save_checkpoint_path, cfg.resume)


def require_trainable(images: LabelledImages, cfg: Config, rank: Rank) -> None:
    """There have to be images for a step, and for class_weights."""
    require_step(len(images), f"{cfg.dataset_path} holds {len(images)} images", cfg, rank)
    imbalance.class_weights(cfg.class_weights, images.labels, images.class_to_index)


def require_step(samples: int, held: str, cfg: Config, rank: Rank) -> None:
    """There has to be a full step, because the incomplete last one is left out; `held` begins the sentence."""
    per_rank = cfg.images_per_step
    if samples < per_rank * rank.count:
        fits = samples // (rank.count * cfg.accumulate)
        remedy = f"--batch_size {fits} or less" if fits else f"at least {rank.count * cfg.accumulate} images"
        raise UsageError(f"{held}, fewer than one batch of {per_rank} x {rank.count}; give {remedy}")


def schedule(model: Classifier, samples: int, cfg: Config, rank: Rank) -> Schedule:
    """How many steps, with which learning rates, and when to write."""
    images_per_step = cfg.images_per_step * rank.count
    steps = samples // images_per_step
    return Schedule(
        epochs=cfg.epoch_size,
        steps_per_epoch=steps,
        images_per_step=images_per_step,
        samples=samples,
        lr=model.learning_rates(cfg, steps),
        log_interval=cfg.log_interval,
        save_epochs=cfg.save_checkpoint_epochs,
        save_steps=cfg.save_checkpoint_steps,
    )


def train_step(trained: Trained, planned: Schedule, cfg: Config, run: Run) -> TrainStep:
    """The compiled step, boosted or profiled if wanted."""
    options = step_options(cfg, loss_scale(cfg), run.rank)
    if cfg.boost_mode != "O0":
        boosted = boost.Boost(len(planned.lr), cfg.seed, cfg.momentum, cfg.weight_decay)
        return watched(boost.make_step(trained.cell, trained.loss, options, boosted, trained.weights), cfg, run)
    optimizer = optimizer_of(trained.cell, cfg)
    return watched(step.make_step(trained.loss, optimizer, options, trained.weights), cfg, run)


def optimizer_of(cell: nn.Cell, cfg: Config) -> nn.Cell:
    """Momentum, in one kernel where the gradients need no unscaling, or AdamW as PyTorch has it."""
    if cfg.optimizer == "adamw":
        return AdamW(cell.trainable_params(), cfg.weight_decay, bias_correction=True)
    is_plain = cfg.platform == "CPU" and loss_scale(cfg) == 1.0
    kind = momentum_kind(cfg.cpu_kernels if is_plain else "off")
    return step.momentum_optimizer(cell, cfg.momentum, cfg.weight_decay, kind=kind)


def step_options(cfg: Config, scale: float, rank: Rank) -> StepOptions:
    return StepOptions(scale, cfg.clip_norm, cfg.ema_decay, rank.count, cfg.enable_graph_kernel, cfg.accumulate)


def watched(compiled: TrainStep, cfg: Config, run: Run) -> TrainStep:
    """The same step, profiled if wanted."""
    if not cfg.enable_profiling:
        return compiled
    return replace(compiled, run=profiling.profiled(compiled.run, run.folder, run.journal.line))


def loss_scale(cfg: Config) -> float:
    """The fixed loss scale belongs to float16; float32 and bfloat16, with its range, need none."""
    return cfg.loss_scale if cfg.dtype == "float16" else 1.0
