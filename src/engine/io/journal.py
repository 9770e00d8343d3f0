"""What a run leaves behind while it trains: train.log, metrics.jsonl, TensorBoard events and the progress bar."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.engine import report

LOG, METRICS, EVENTS = "train.log", "metrics.jsonl", "events"


class Events:
    """TensorBoard's file of scalars. tensorboardX's own writer is a thread, which a clock that jumps can stop."""

    def __init__(self, folder: Path):
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        count = len(list(folder.iterdir()))
        self._file = RecordWriter(str(folder / f"events.out.tfevents.{time.time():010.0f}.{count}.{os.getpid()}"))
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Any) -> None:
        self._file.write(event.SerializeToString())
        self._file.flush()

    def add(self, tag: str, value: float, at: int) -> None:
        """One number of step or epoch `at`."""
        summary = self._summary(value=[self._summary.Value(tag=tag, simple_value=value)])
        self._write(self._event(wall_time=time.time(), step=at, summary=summary))

    def close(self) -> None:
        self._file.close()


def end_with_a_line(path: Path) -> None:
    """Take off what a full disk or a power cut left of the last line, which programs could not read."""
    if path.is_file():
        with path.open("r+b") as file:
            text = file.read()
            file.truncate(text.rfind(b"\n") + 1)


class Journal:
    """Writes to `folder`; with folder None (ranks other than the first) it only prints its lines."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._bar: tqdm | None = None

    def __enter__(self) -> Journal:
        if self._folder:
            self._log = (self._folder / LOG).open("a", encoding="utf-8", buffering=1)
            end_with_a_line(self._folder / METRICS)
            self._metrics = (self._folder / METRICS).open("a", encoding="utf-8", buffering=1)
            self._events = Events(self._folder / EVENTS)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._folder:
            self._log.close()
            self._metrics.close()
            self._events.close()

    def line(self, text: str) -> None:
        """One line for people: on standard output and in train.log."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        if self._folder:
            self._log.write(text + "\n")

    def measure(self, kind: str, at: int, **values: Any) -> None:
        """Numbers for programs: a JSON line, and TensorBoard scalars `kind/name` at step `at`."""
        if self._folder:
            self._metrics.write(report.json_line(kind=kind, at=at, time=round(time.time(), 3), **values) + "\n")
            for name, value in values.items():
                self._events.add(f"{kind}/{name}", value, at)

    def bar(self, steps: Iterable, first: int, total: int, title: str) -> Iterator:
        """Iterate with a progress bar (on a terminal only) that shows rate and remaining time."""
        hidden = not (self._folder and sys.stderr.isatty())
        with tqdm(steps, initial=first, total=total, desc=title, unit="step", disable=hidden, leave=False) as bar:
            self._bar = bar
            yield from bar

    def on_bar(self, **values: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)
