"""The training loop and the evaluation loop; they are given built objects and know no model and no configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np

from src.engine import report
from src.engine.data.stream import prefetched
from src.engine.errors import ZooError
from src.engine.io.journal import Journal
from src.engine.metrics import Classification
from src.engine.ranks import Rank
from src.engine.steps.step import TrainStep

ALONE = Rank()
DIVERGED = "the last checkpoint is from before, lower the learning rate or set --clip_norm and use --resume auto"


@dataclass(frozen=True)
class Position:
    """Where a run stands: `epoch` whole epochs and `step` steps of the next one are done."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # over the steps done in the unfinished epoch
    best: float = -1.0  # best score of an evaluation so far


@dataclass(frozen=True)
class Schedule:
    """How long to train, with which learning rates, and how often to write."""

    epochs: int
    steps_per_epoch: int
    images_per_step: int  # of all ranks together
    samples: int  # in the training data
    lr: np.ndarray  # (epochs * steps_per_epoch,)
    log_interval: int = 0
    log_last: bool = True  # whether the last step of an epoch has a line in any case
    save_epochs: int = 1
    save_steps: int = 0  # of all epochs together

    def is_due(self, epoch: int) -> bool:
        """Whether `save_epochs` asks for a checkpoint after so many epochs; the last one always has one."""
        return epoch % self.save_epochs == 0 or epoch == self.epochs

    def saves_after(self, steps: int) -> bool:
        """Whether `save_steps` asks for a checkpoint after so many steps of the whole run."""
        return self.save_steps > 0 and steps % self.save_steps == 0


class Score(NamedTuple):
    """What an evaluation found: the number that decides which weights are best, and all that is written down."""

    value: float
    values: dict[str, float]
    samples: int  # that were seen


class Lines(NamedTuple):
    """The lines about a step, about an epoch ("" is none), and what is appended to the latter by an evaluation."""

    step: Callable[[report.StepReport], str] = report.step_line
    epoch: Callable[..., str] = report.epoch_line
    evaluation: Callable[..., str] = report.eval_in_training


def steps_in_flight() -> int:
    """How many steps are started before the loss of the first of them is read.

    Cards compute while Python goes on, so with two there is always one to do. On CPU a step is over when its call
    returns (measured with MindSpore 2.8.0): reading later would gain nothing, and lines and signals would be late.
    """
    return 1 if ms.get_context("device_target") == "CPU" else 2


@dataclass(frozen=True)
class Training:
    """What is trained, on what, how long, and how it is scored.

    `batches(epoch, first_step)` yields the arrays that, as tensors, are the inputs of `step(lr, *inputs)`. They become
    the tensors' memory, so each batch needs new ones. `evaluate(position)` runs after each epoch and returns None where
    it did not measure. `closing()` are the last words of a run.
    """

    net: ms.nn.Cell  # whose weights an evaluation scores
    step: TrainStep
    batches: Callable[[int, int], Iterable]
    schedule: Schedule
    evaluate: Callable[[Position], Score | None] | None = None
    lines: Lines = Lines()
    closing: Callable[[], Iterable[str]] = tuple
    score: tuple[str, str] = ("top1", "top-1")  # the score's name in metrics.jsonl, and for people
    in_flight: int = field(default_factory=steps_in_flight)
    in_background: bool = True  # whether another thread than the main one may ask for batches


class Stop(Exception):
    """The run was asked to stop and has saved its state; `signal_number` says by what."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class StopRequest:
    """While active, SIGTERM and Ctrl-C are remembered instead of killing the process; a second one kills it."""

    def __enter__(self) -> StopRequest:
        self.number = 0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    training: Training, start: Position, journal: Journal, save: Callable[[Position], None], rank: Rank = ALONE
) -> Position:
    """Train from `start` to the end of the schedule; returns the final position. `save` writes a checkpoint.

    Raises Stop after SIGTERM or Ctrl-C (state saved) and ZooError when the loss is not finite. All ranks see one loss
    and stop after the same step.
    """
    schedule, position = training.schedule, start
    with StopRequest() as stop:
        epoch = _Epoch(training, journal, save, rank, stop)
        while position.epoch < schedule.epochs:
            position, epoch_text = epoch.finish(position)
            score = _evaluated(training.evaluate, position, save) if training.evaluate is not None else None
            if score is not None:
                journal.measure("eval", position.epoch, **score.values)
                position = dataclasses.replace(position, best=max(position.best, score.value))
                epoch_text += training.lines.evaluation(score.value, position.best)
            if epoch_text:
                journal.line(epoch_text)
            asked = rank.agree_on(stop.number)
            done = position.epoch * schedule.steps_per_epoch
            if asked or schedule.is_due(position.epoch) or schedule.saves_after(done):
                save(position)
            if asked and position.epoch < schedule.epochs:
                rank.wait()  # a launcher may kill the others as soon as one has ended
                raise Stop(asked)
    return position


def _evaluated(evaluate: Callable, position: Position, save: Callable) -> Score | None:
    """The score of the weights, which are saved first where evaluating fails: a bad label must not cost an epoch."""
    try:
        score = evaluate(position)
        if score is not None and not score.samples:
            raise ZooError(f"the evaluation after epoch {position.epoch} could read nothing; check its data folder")
        return score
    except Exception:
        save(position)
        raise


@dataclass(frozen=True)
class _Started:
    """A step that was started; reading its numbers waits for its end."""

    index: int  # in its epoch
    rate: float
    answer: Callable[[], tuple[float, int]]  # mean loss, and the signal that some rank got
    scaling: tuple[Any, Any]  # overflow and loss scale, numbers or tensors
    inputs: tuple[ms.Tensor, ...]  # kept until its end, because their memory is the batch's arrays


class _Pace:
    """What time went by in an epoch since `first`, the step it began with."""

    def __init__(self, first: int):
        self.first, self.waited = first, 0.0  # seconds, for data
        self._began, self._line_at, self._line_ms = time.perf_counter(), first, 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def next(self, arriving: Iterator) -> Any:
        """The next batch; the time that it takes is waited."""
        before = time.perf_counter()
        batch = next(arriving)
        self.waited += time.perf_counter() - before
        return batch

    def since_line(self, index: int, elapsed: float) -> float:
        """Mean milliseconds of the steps since the one that had a line before step `index`, which has one now."""
        mean = (1000 * elapsed - self._line_ms) / (index + 1 - self._line_at)
        self._line_at, self._line_ms = index + 1, 1000 * elapsed
        return mean


def as_tensors(batches: Iterable) -> Generator[tuple[ms.Tensor, ...], None, None]:
    """The batches' arrays as tensors that share their memory; Tensor(array) copies, and holds all of Python up."""
    for inputs in batches:
        yield tuple(ms.Tensor.from_numpy(array) for array in inputs)
        del inputs


@dataclass(frozen=True)
class _Epoch:
    """Trains to the end of one epoch, from wherever in it a run stands."""

    training: Training
    journal: Journal
    save: Callable[[Position], None]
    rank: Rank
    stop: StopRequest

    def finish(self, position: Position) -> tuple[Position, str]:
        """The rest of the epoch; returns the position after it and the line to print about it."""
        schedule, epoch, first = self.training.schedule, position.epoch, position.step
        total, pace = schedule.steps_per_epoch, _Pace(first)
        started: deque[_Started] = deque()
        batches = as_tensors(self.training.batches(epoch, first))
        if self.training.in_background:
            batches = prefetched(batches)
        with contextlib.closing(batches) as arriving:
            for index in self.journal.bar(range(first, total), first, total, f"epoch {epoch + 1}/{schedule.epochs}"):
                inputs = pace.next(arriving)
                started.append(self._stepped(epoch, index, float(schedule.lr[epoch * total + index]), inputs))
                saves = schedule.saves_after(epoch * total + index + 1)
                unread = 0 if saves or index + 1 == total else self.training.in_flight - 1
                position, asked = self._read(started, unread, position, pace)
                if (saves or asked) and position.step < total:
                    self._save_within(position, asked)
                del inputs
        elapsed, done, mean_loss = pace.seconds, total - first, position.loss_sum / total
        self.journal.measure(
            "epoch", epoch + 1, loss=mean_loss, seconds=elapsed, data_seconds=pace.waited,
            images_per_s=done * schedule.images_per_step / elapsed,
        )  # fmt: skip
        text = self.training.lines.epoch(1000 * elapsed, done, mean_loss)
        return dataclasses.replace(position, epoch=epoch + 1, step=0, loss_sum=0.0), text

    def _stepped(self, epoch: int, index: int, rate: float, inputs: tuple) -> _Started:
        """Start a step; nothing is waited for."""
        step = self.training.step
        loss = step(rate, *inputs)
        return _Started(index, rate, self.rank.agree(loss, self.stop.number), step.scaling(), inputs)

    def _read(self, started: deque[_Started], unread: int, position: Position, pace: _Pace) -> tuple[Position, int]:
        """Read all but the last `unread` steps that were started, or all where a signal asks to stop.

        Returns the position after them and that signal. Raises ZooError where a loss is not finite.
        """
        asked = 0
        while len(started) > (0 if asked else unread):
            step = started.popleft()
            loss, told = step.answer()
            asked = asked or told
            if not math.isfinite(loss):
                raise ZooError(
                    f"the loss is {loss} at epoch {position.epoch + 1}, step {step.index + 1}, "
                    f"learning rate {step.rate:g}; {DIVERGED}"
                )
            position = dataclasses.replace(position, step=step.index + 1, loss_sum=position.loss_sum + loss)
            self._tell(step, loss, position, pace)
        return position, asked

    def _tell(self, step: _Started, loss: float, position: Position, pace: _Pace) -> None:
        """Write down what is known after a step."""
        schedule, journal = self.training.schedule, self.journal
        epoch, index, total, elapsed = position.epoch, step.index, schedule.steps_per_epoch, pace.seconds
        speed = (index + 1 - pace.first) * schedule.images_per_step / elapsed
        journal.on_bar(loss=f"{loss:.3f}", images=f"{speed:.0f}/s")
        journal.measure("train", epoch * total + index + 1, loss=loss, lr=step.rate)
        is_last = index + 1 == total
        if (is_last and schedule.log_last) or (schedule.log_interval and (index + 1) % schedule.log_interval == 0):
            overflow, loss_scale = step.scaling
            now = report.StepReport(
                epoch, schedule.epochs, index, total, loss, position.loss_sum / (index + 1), 1000 * elapsed,
                pace.since_line(index, elapsed), step.rate, bool(overflow), float(loss_scale),
            )  # fmt: skip
            journal.line(self.training.lines.step(now))

    def _save_within(self, position: Position, asked: int) -> None:
        """A checkpoint in the middle of an epoch; where a signal asks to stop, the end of the run."""
        self.save(position)
        if asked:
            self.rank.wait()
            raise Stop(asked)


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray], batches: Iterable, metric: Classification, rank: Rank = ALONE
) -> Classification:
    """Feed every batch (inputs, labels) through `predict` into the metric; with ranks, each has its own batches."""
    for inputs, label in batches:
        metric.update(predict(inputs), label)
        rank.wait()  # ranks that drift too far apart would lose each other, see engine/ranks.py
    metric.add_up(rank.total_counts)
    return metric


def predictor(net: ms.nn.Cell) -> Callable[[np.ndarray], np.ndarray]:
    """numpy -> numpy inference with a network in its evaluation mode, compiled once per input shape."""
    net.set_train(False)

    def predict(inputs: np.ndarray) -> np.ndarray:
        return net(ms.Tensor(inputs)).asnumpy()

    return predict
