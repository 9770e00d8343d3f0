"""The life of a training, for every model: restore, train, evaluate, keep the best, save, stop, finish."""

from __future__ import annotations

import dataclasses

from src.engine import loop, plots
from src.engine.io.journal import METRICS
from src.engine.io.run import CURVES, Run
from src.engine.loop import Position, Score, Training


def run_training(training: Training, run: Run) -> int:
    """Train from where the run stands to its end; returns the exit status."""
    say, schedule, step = run.journal.line, training.schedule, training.step
    start = run.restore(step.state, schedule)
    if start.epoch >= schedule.epochs:
        say(f"nothing left to do: {start.epoch} of {schedule.epochs} epochs are done")
        finish(training, run)
        return 0
    step.begin(start.epoch * schedule.steps_per_epoch + start.step)

    def save(position: Position) -> None:
        run.save(step.state, position, schedule)

    def evaluate(position: Position) -> Score | None:
        return evaluate_and_keep(training, run, position)

    measured = dataclasses.replace(training, evaluate=evaluate if training.evaluate else None)
    try:
        loop.train(measured, start, run.journal, save, run.rank)
    except loop.Stop as stop:
        saved = "the state is saved, --resume auto goes on from here" if run.settings.save else "nothing is saved"
        say(f"stopped by {stop}; {saved}")
        return 128 + stop.signal_number
    finish(training, run)
    return 0


def evaluate_and_keep(training: Training, run: Run, position: Position) -> Score | None:
    """Score the weights, or their moving average where the step keeps one; the best are written as they were scored."""
    with training.step.averaged():
        score = training.evaluate(position) if training.evaluate else None
        if score is not None and score.value > position.best:
            run.save_best(training.net, score.value)
    return score


def finish(training: Training, run: Run) -> None:
    """The last words of a run, and the picture of its curves."""
    for line in training.closing():
        run.journal.line(line)
    if skipped := training.step.skipped():
        run.journal.line(f"{skipped} steps overflowed and changed nothing; a lower loss scale avoids that")
    if run.writes and (run.folder / METRICS).stat().st_size:
        plots.curves(run.folder / METRICS, run.folder / CURVES, *training.score)
        run.journal.line(f"curves in {run.folder / CURVES}")
