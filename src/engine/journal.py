"""What a run leaves behind while it trains: train.log, metrics.jsonl, TensorBoard events and the progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.engine import report

LOG, METRICS, EVENTS = "train.log", "metrics.jsonl", "events"


class Journal:
    """Writes to `folder`; with folder None (ranks other than the first) it only prints its lines."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._events = None
        self._bar = None

    def __enter__(self) -> Journal:
        if self._folder:
            from tensorboardX import SummaryWriter

            self._log = (self._folder / LOG).open("a", encoding="utf-8", buffering=1)
            self._metrics = (self._folder / METRICS).open("a", encoding="utf-8", buffering=1)
            self._events = SummaryWriter(str(self._folder / EVENTS))
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
                self._events.add_scalar(f"{kind}/{name}", value, at)

    def bar(self, steps: Iterable, first: int, total: int, title: str) -> Iterator:
        """Iterate with a progress bar (on a terminal only) that shows rate and remaining time."""
        hidden = not (self._folder and sys.stderr.isatty())
        with tqdm(steps, initial=first, total=total, desc=title, unit="step", disable=hidden, leave=False) as self._bar:
            yield from self._bar

    def on_bar(self, **values: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)
