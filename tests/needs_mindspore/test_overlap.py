"""Batches are made while a step runs, and on cards a loss is read once the next step has begun; nothing else changes.

The card is a step whose loss is there only after something that a loop without overlap would do too late: such a loop
fails here after WAIT seconds, whatever the machine's speed.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from benchmarks import host  # noqa: E402
from src.engine import loop  # noqa: E402
from src.engine import ranks as ranks_module  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.loop import Position, Schedule, Stop, Training  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps.step import TrainStep  # noqa: E402
from tests import fault_training  # noqa: E402
from tests.fault_training import LAST  # noqa: E402
from tests.needs_mindspore.test_faults import assert_same  # noqa: E402

WAIT = 20.0
STEPS, EPOCHS = 5, 2


class Late:
    """A loss that is there once `ready` returns true; it waits at most WAIT."""

    def __init__(self, value: float, ready: Callable[[], bool]):
        self.value, self._ready = value, ready

    def asnumpy(self) -> np.ndarray:
        assert self._ready(), f"the loss {self.value} is not there, and nothing goes on"
        return np.float32(self.value)


def now() -> bool:
    return True


@dataclass
class Card:
    """Steps and batches, whose beginnings are events; the loss of step n (from 0, of the whole run) is n + 0.5."""

    made: list[threading.Event] = field(default_factory=lambda: [threading.Event() for _ in range(STEPS * EPOCHS)])
    begun: list[threading.Event] = field(default_factory=lambda: [threading.Event() for _ in range(STEPS * EPOCHS)])
    inputs: list[np.ndarray] = field(default_factory=list)

    def batches(self, epoch: int, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        for index in range(first_step, STEPS):
            self.made[epoch * STEPS + index].set()
            yield (np.full(3, epoch * STEPS + index, np.float32),)

    def step(self, rate: float, numbers: ms.Tensor) -> Late:
        number = int(numbers.asnumpy()[0])
        self.begun[number].set()
        return Late(number + 0.5, lambda: self.is_over(number))

    def is_over(self, number: int) -> bool:
        return True

    def training(self, in_flight: int, save_steps: int = 0) -> Training:
        schedule = Schedule(
            EPOCHS, STEPS, 4, 4 * STEPS, np.linspace(1.0, 0.1, EPOCHS * STEPS), log_interval=1, save_steps=save_steps
        )
        return Training(None, TrainStep(self.step, []), self.batches, schedule, in_flight=in_flight)


class Notes:
    """A journal that keeps what it is told."""

    def __init__(self):
        self.lines, self.rows = [], []

    bar = staticmethod(lambda steps, *names: steps)
    on_bar = staticmethod(lambda **values: None)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def measure(self, kind: str, at: int, **values: float) -> None:
        self.rows.append((kind, at, values))

    def losses(self) -> list[tuple[int, float, float]]:
        return [(at, values["loss"], values["lr"]) for kind, at, values in self.rows if kind == "train"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("data")]


class OneStepBehind(Card):
    """The loss of a step is there once the next one has begun, except at the end of an epoch."""

    def is_over(self, number: int) -> bool:
        return (number + 1) % STEPS == 0 or self.begun[number + 1].wait(WAIT)


def test_a_step_begins_before_the_loss_of_the_one_before_is_read():
    notes = Notes()
    loop.train(OneStepBehind().training(in_flight=2), Position(), notes, lambda position: None)
    assert [loss for _, loss, _ in notes.losses()] == [number + 0.5 for number in range(EPOCHS * STEPS)]


def test_a_loop_that_reads_at_once_would_be_noticed(monkeypatch):
    monkeypatch.setattr(f"{__name__}.WAIT", 0.2)
    with pytest.raises(AssertionError, match=r"the loss 0.5 is not there"):
        loop.train(OneStepBehind().training(in_flight=1), Position(), Notes(), lambda position: None)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_the_next_batch_is_made_while_a_step_runs(in_flight):
    """Even where the call that starts a step returns at its end, as on CPU."""

    class WaitsForData(Card):
        def step(self, rate, numbers):
            loss, number = super().step(rate, numbers), int(numbers.asnumpy()[0])
            assert (number + 1) % STEPS == 0 or self.made[number + 1].wait(WAIT), "no batch is made"
            return loss

    loop.train(WaitsForData().training(in_flight), Position(), Notes(), lambda position: None)


@pytest.mark.parametrize("in_background", [True, False])
def test_batches_are_asked_for_by_the_main_thread_where_another_may_not(in_background):
    class Tells(Card):
        def batches(self, epoch, first_step):
            for batch in super().batches(epoch, first_step):
                seen.add(threading.current_thread() is threading.main_thread())
                yield batch

    seen, notes = set(), Notes()
    training = dataclasses.replace(Tells().training(in_flight=2), in_background=in_background)
    loop.train(training, Position(), notes, lambda position: None)
    assert seen == {not in_background}
    assert [loss for _, loss, _ in notes.losses()] == [number + 0.5 for number in range(EPOCHS * STEPS)]


def test_no_more_than_one_batch_waits_for_its_step():
    class Counts(Card):
        def step(self, rate, numbers):
            number = int(numbers.asnumpy()[0])
            if (number + 1) % STEPS:
                assert self.made[number + 1].wait(WAIT)
            if (number + 2) % STEPS > 1:
                assert not self.made[number + 2].wait(0.02)
            return super().step(rate, numbers)

    loop.train(Counts().training(2), Position(), Notes(), lambda position: None)


@pytest.mark.parametrize("first", [Position(), Position(epoch=1, step=2, loss_sum=12.0)])
def test_what_is_written_does_not_depend_on_when_losses_are_read(first):
    written = []
    for in_flight in (1, 2, 4):
        notes, saved = Notes(), []
        end = loop.train(Card().training(in_flight, save_steps=2), first, notes, saved.append)
        lines = [line.split(", time:")[0] for line in notes.lines if line.startswith("epoch: ")]
        written.append((end, saved, notes.losses(), lines))
    assert written[0] == written[1] == written[2]
    assert len(written[0][2]) == len(written[0][3]) == EPOCHS * STEPS - first.epoch * STEPS - first.step


@pytest.mark.parametrize("save_steps", [STEPS - 1, STEPS, STEPS + 1])
def test_saves_count_the_steps_of_all_epochs(save_steps):
    saved, training = [], Card().training(1, save_steps=save_steps)
    training = dataclasses.replace(training, schedule=dataclasses.replace(training.schedule, save_epochs=100))
    loop.train(training, Position(), Notes(), saved.append)
    wanted = [*range(save_steps, EPOCHS * STEPS, save_steps), EPOCHS * STEPS]
    assert [position.epoch * STEPS + position.step for position in saved] == wanted


def test_everything_is_read_before_it_is_saved_or_scored():
    notes, seen = Notes(), []

    def look(position: Position) -> None:
        done = position.epoch * STEPS + position.step
        assert (len(notes.losses()), sum(event.is_set() for event in card.begun)) == (done, done)
        seen.append(done)

    card = Card()
    training = dataclasses.replace(card.training(in_flight=3, save_steps=2), evaluate=look)
    loop.train(training, Position(), notes, look)
    assert seen == [2, 4, 5, 5, 6, 8, 10, 10]


@pytest.mark.parametrize(("in_flight", "more"), [(1, 0), (2, 1), (3, 2)])
def test_a_loss_that_is_not_finite_stops_the_run_at_most_so_many_steps_later(in_flight, more):
    class Diverges(Card):
        def step(self, rate, numbers):
            loss = super().step(rate, numbers)
            return Late(math.nan, now) if loss.value == 6.5 else loss

    card, saved, notes = Diverges(), [], Notes()
    with pytest.raises(ZooError, match="the loss is nan at epoch 2, step 2, learning rate 0.4; the last checkpoint"):
        loop.train(card.training(in_flight, save_steps=3), Position(), notes, saved.append)
    assert sum(event.is_set() for event in card.begun) == 7 + more
    assert [(position.epoch, position.step) for position in saved] == [(0, 3), (1, 0), (1, 1)]
    assert len(notes.losses()) == 6


def test_an_overflow_is_told_at_its_step():
    """As numbers or as tensors, which are read with the loss."""
    card, told, numbers = Card(), [], []

    def scaling() -> tuple:
        number = sum(event.is_set() for event in card.begun) - 1
        return (number == 3, float(number)) if number % 2 else (ms.Tensor(number == 6), ms.Tensor(float(number)))

    training = card.training(in_flight=2)
    training = dataclasses.replace(
        training,
        step=TrainStep(card.step, [], scaling=scaling),
        lines=training.lines._replace(step=lambda now: told.append((now.overflow, now.loss_scale)) or ""),
    )
    loop.train(training, Position(), Notes(), lambda position: None)
    numbers = range(EPOCHS * STEPS)
    assert told == [(number in (3, 6), float(number)) for number in numbers]


@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 4, 5, 10])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, in_flight, step):
    fault_training.train(tmp_path / "whole", in_flight=1)
    with pytest.raises(Stop):
        fault_training.train(tmp_path / "run", in_flight=in_flight, stops_at=step)
    fault_training.train(tmp_path / "run", in_flight=in_flight)
    assert_same(tmp_path / "run" / LAST, tmp_path / "whole" / LAST)


@dataclass(frozen=True)
class Ranks(Rank):
    """One of two ranks that are threads of this process and meet here instead of in MindSpore."""

    count: int = 2
    parts: dict[int, np.ndarray] = field(default_factory=dict)
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    def sum_of(self, values: ms.Tensor) -> ms.Tensor:
        self.parts[self.index] = values.asnumpy()
        self.meeting.wait(WAIT)
        summed = np.sum(list(self.parts.values()), 0, dtype=np.float32)
        self.meeting.wait(WAIT)
        return ms.Tensor(summed)


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("asked_at", [0, 3, 4, 6])
def test_ranks_stop_after_the_same_step_by_a_signal_that_one_of_them_got(monkeypatch, in_flight, asked_at):
    asked = {}

    class Request:
        """Threads take no signals."""

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        @property
        def number(self) -> int:
            return asked.get(threading.current_thread().name, 0)

    one_at_a_time, stack = threading.Lock(), ranks_module.ops.stack

    def stacked(parts: tuple[ms.Tensor, ...]) -> ms.Tensor:
        with one_at_a_time:  # MindSpore computes in one thread of a process only
            return stack(parts)

    monkeypatch.setattr(ranks_module.ops, "stack", stacked)
    monkeypatch.setattr(loop, "StopRequest", Request)
    first = Ranks()
    ranks = first, Ranks(1, parts=first.parts, meeting=first.meeting)

    def train(rank: Rank) -> tuple:
        card, saved, notes = Card(), [], Notes()

        def step(rate: float, numbers: ms.Tensor) -> ms.Tensor:
            loss = card.step(rate, numbers).value + rank.index
            if rank.index == 1 and loss == asked_at + 1.5:
                asked[threading.current_thread().name] = int(signal.SIGINT)
            return ms.Tensor(loss, ms.float32)

        training = dataclasses.replace(card.training(in_flight), step=TrainStep(step, []))
        with pytest.raises(Stop) as stop:
            loop.train(training, Position(), notes, saved.append, rank)
        return saved, notes.losses(), stop.value.signal_number

    with ThreadPoolExecutor(2, thread_name_prefix="rank") as pool:
        one, other = pool.map(train, ranks)
    assert one[:2] == other[:2]
    assert (one[2], other[2]) == (signal.SIGTERM, signal.SIGINT)
    done = one[0][-1].epoch * STEPS + one[0][-1].step
    assert asked_at + 1 <= done <= asked_at + in_flight
    assert [loss for _, loss, _ in one[1]] == [number + 1.0 for number in range(done)], "means of both ranks"


@pytest.mark.parametrize(("device", "count"), [("CPU", 1), ("Ascend", 2), ("GPU", 2)])
def test_cards_have_two_steps_in_flight(monkeypatch, device, count):
    monkeypatch.setattr(loop.ms, "get_context", lambda name: device)
    assert Training(None, TrainStep(Card().step, []), Card().batches, None).in_flight == count


def test_tensors_share_the_memory_of_a_batch_and_keep_it():
    array = np.arange(6, dtype=np.float32)
    ((tensor, other),) = loop.as_tensors([(array, array[::2])])
    array[0] = 7
    assert tensor.asnumpy()[0] == 7
    del array
    assert tensor.asnumpy().tolist() == [7, 1, 2, 3, 4, 5]
    assert other.asnumpy().tolist() == [0, 2, 4]


def test_what_a_batch_raises_comes_after_the_steps_before_it():
    class Broken(Card):
        def batches(self, epoch, first_step):
            for index, batch in enumerate(super().batches(epoch, first_step)):
                if index == 3:
                    raise ZooError("a bad file")
                yield batch

    notes, saved = Notes(), []
    with pytest.raises(ZooError, match="a bad file"):
        loop.train(Broken().training(in_flight=1), Position(), notes, saved.append)
    assert len(notes.losses()) == 3


def test_the_benchmark_measures_every_row(capsys):
    """What it finds depends on the machine; that it runs, and on what, does not."""
    words = ["--rounds", "1", "--steps", "2", "--batch", "4", "--size", "32", "--device_ms", "5"]
    before = os.sched_getaffinity(0)
    assert host.main(words) == 0
    assert os.sched_getaffinity(0) == before
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines() if "|" in line]
    cores = str(len(before))
    measured = [("1", "0"), (cores, "0"), (cores, "5")] if cores != "1" else [("1", "0"), ("1", "5")]
    wanted = [(data, *row) for data in ("decoded in memory", "JPEG files") for row in measured]
    assert [tuple(row[1:4]) for row in rows[2:]] == wanted
    for row in rows[2:]:
        assert float(row[4].split()[0]) >= float(row[3]), "no step is shorter than the card's"
        assert (row[6] == "-") == (row[3] == "0")


def test_steps_of_the_benchmarks_card_follow_each_other(monkeypatch):
    """The second begins when the first is over, the third when it is asked for; a loss is there at its step's end."""
    clock = [10.0]
    monkeypatch.setattr(host.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(host.time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    card = host.Card(2.0)
    first, second = card.step(0.1), card.step(0.1)
    first.asnumpy()
    assert clock == [12.0]
    second.asnumpy()
    assert clock == [14.0]
    clock[0] = 20.0
    card.step(0.1)
    assert card.began == [10.0, 12.0, 20.0]
