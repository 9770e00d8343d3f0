"""A training in the engine's real loop, run folder and checkpoints, with a few sums in place of a network.

It starts in milliseconds where a compiled network needs ten seconds, so it can be killed often:

python -m tests.fault_training FOLDER                       train to the end, or go on from the newest checkpoint
python -m tests.fault_training FOLDER --kills N --seed S    first be killed (SIGKILL) N times, at random moments
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from src.engine import environment

environment.prepare()

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
import tensorboardX  # noqa: E402, F401  (once, instead of in every child)

from src.engine import loop  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.io.run import RunSettings, open_run  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps.step import TrainStep  # noqa: E402

EPOCHS, STEPS = 6, 5
SIZE = 2000  # weights
NAMES, BEST = checkpoint.Names("toy"), "toy-best.ckpt"
LAST = NAMES.of(EPOCHS, STEPS, STEPS)
WRITERS = ("save_checkpoint", "fsync", "replace", "unlink", "mkdir")


class Scalar(float):
    """A loss as the loop expects it."""

    def asnumpy(self) -> np.ndarray:
        return np.float32(self)


def train(
    folder: Path, size: int = SIZE, diverges_at: int = 0, pause: float = 0.0, stops_at: int = 0, in_flight: int = 1
) -> None:
    """Momentum on noise that belongs to (epoch, step): any lost or repeated step changes the weights.

    The weights are no longer finite after `diverges_at` steps, whose losses all are. SIGTERM comes in step `stops_at`.
    """
    done = 0
    weight, moment = (ms.Parameter(ms.Tensor(np.zeros(size, np.float32)), name=name) for name in ("weight", "moment"))

    def batches(epoch: int, first_step: int):
        for index in range(first_step, STEPS):
            yield (np.random.Generator(np.random.Philox(key=[epoch, index])).standard_normal(size, np.float32),)

    def step(rate: float, noise: ms.Tensor) -> Scalar:
        nonlocal done
        done += 1
        time.sleep(pause)
        if done == stops_at:
            os.kill(os.getpid(), signal.SIGTERM)
        moved = 0.9 * moment.asnumpy() + noise.asnumpy()
        moment.set_data(ms.Tensor(moved))
        weight.set_data(ms.Tensor(weight.asnumpy() - np.float32(rate) * moved))
        loss = Scalar(np.abs(weight.asnumpy()).mean())
        if done == diverges_at:
            weight.set_data(ms.Tensor(np.where(np.arange(size) == 7, np.float32(np.inf), weight.asnumpy())))
        return loss

    schedule = loop.Schedule(
        epochs=EPOCHS, steps_per_epoch=STEPS, images_per_step=1, samples=STEPS,
        lr=np.linspace(0.1, 0.0, EPOCHS * STEPS), save_steps=2,
    )  # fmt: skip
    settings = RunSettings(folder, NAMES, BEST, {"model": "toy", "size": size}, "model: toy\n", "auto", keep=3)
    with open_run(settings, Rank()) as run:
        one_step = TrainStep(step, [weight, moment])
        start = run.restore(one_step.state, schedule)

        def evaluate(position: loop.Position) -> loop.Score:
            score = float(-np.abs(weight.asnumpy()).mean())
            if score > position.best:
                run.save_weights(BEST, checkpoint.arrays_of([weight]), score)
            return loop.Score(score, {"score": score}, STEPS)

        training = loop.Training(None, one_step, batches, schedule, evaluate, in_flight=in_flight)
        loop.train(training, start, run.journal, lambda p: run.save(one_step.state, p, schedule))


def die_in_a_writer(name: str, count: int) -> None:
    """SIGKILL this process within the `count`-th call of a function that a checkpoint's writing uses, half done."""
    owner = {"save_checkpoint": ms, "fsync": os}.get(name, Path)
    original, calls = getattr(owner, name), 0

    def last_words(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls < count:
            return original(*arguments, **options)
        if name == "save_checkpoint":
            original(*arguments, **options)
            written = Path(arguments[1])
            os.truncate(written, random.randrange(written.stat().st_size))
        elif random.random() < 0.5:
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, last_words)


def child(folder: Path, in_flight: int, writer: str = "", count: int = 0) -> int:
    """Train in a forked process, whose output goes to a file; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    with contextlib.suppress(BaseException):
        output = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if writer:
            die_in_a_writer(writer, count)
        try:
            train(folder, in_flight=in_flight)
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(status)


def kill_often(folder: Path, kills: int, seed: int, in_flight: int) -> dict:
    """Start and kill until `kills` processes have died of it; every second one dies in a writer. Returns what was hit.

    A training that reaches its end is begun anew.
    """
    random.seed(seed)
    began = time.perf_counter()
    os.waitpid(child(folder.with_name("undisturbed"), in_flight), 0)
    whole = time.perf_counter() - began
    hits: dict[str, int] = {"anywhere": 0, "finished first": 0}
    while sum(hits.values()) - hits["finished first"] < kills:
        writer = random.choice(WRITERS) if sum(hits.values()) % 2 else ""
        pid = child(folder, in_flight, writer, random.randrange(1, 8))
        if not writer:
            time.sleep(random.uniform(0, whole / 3))
            os.kill(pid, signal.SIGKILL)
        ended = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(ended):
            hits[writer or "anywhere"] = hits.get(writer or "anywhere", 0) + 1
        else:
            hits["finished first"] += 1
            if os.WEXITSTATUS(ended):
                raise SystemExit(folder.with_suffix(".log").read_text())
            for path in folder.glob("toy-[2-9]*.ckpt"):
                path.unlink()
    return hits


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each step")
    parser.add_argument("--in_flight", type=int, default=1, help="steps that are started before a loss is read")
    given = parser.parse_args()
    try:
        if given.kills:
            print(json.dumps(kill_often(given.folder, given.kills, given.seed, given.in_flight)))
            pid = child(given.folder, given.in_flight)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        train(given.folder, pause=given.pause, in_flight=given.in_flight)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
