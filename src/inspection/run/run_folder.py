"""Reading what a run left behind: configuration, versions and measurements. No MindSpore here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.engine.config import read_yaml
from src.engine.errors import UsageError, ZooError
from src.engine.io.files import checkpoint_number

CONFIG, VERSIONS, METRICS = "config.yaml", "versions.json", "metrics.jsonl"
NO_MODEL = "mobilenetv2"  # of a configuration that does not name one
SCORES = {"top1": "top-1", "miou": "mIoU"}


@dataclass(frozen=True)
class Run:
    """A run folder. `rows` are the lines of metrics.jsonl by kind and by step or epoch."""

    folder: Path
    config: dict[str, Any]
    versions: dict[str, str]
    rows: dict[str, dict[int, dict[str, Any]]]

    @property
    def name(self) -> str:
        return self.folder.name or str(self.folder)

    @property
    def model(self) -> str:
        return str(self.config.get("model", NO_MODEL))

    @property
    def score(self) -> str:
        """The measure that decided which weights are best; empty where nothing was evaluated."""
        last = next(reversed(self.rows.get("eval", {}).values()), {})
        return next((key for key in SCORES if key in last), "")

    @property
    def steps_per_epoch(self) -> float:
        steps, epochs = self.rows.get("train", {}), self.rows.get("epoch", {})
        return max(steps) / max(epochs) if steps and epochs else 1.0

    def series(self, kind: str, key: str) -> list[tuple[float, float]]:
        """(epoch, value) of everything measured; steps as parts of an epoch."""
        per_epoch = self.steps_per_epoch if kind == "train" else 1.0
        rows = self.rows.get(kind, {})
        return [(at / per_epoch, rows[at][key]) for at in sorted(rows) if isinstance(rows[at].get(key), (int, float))]

    def checkpoint(self) -> Path:
        """The best weights, or the newest ones. Raises ZooError where there are none."""
        prefix = f"{self.model}_{self.config['backbone']}" if "backbone" in self.config else self.model
        best = sorted(path for end in ("-best", "_best") for path in self.folder.glob(f"{prefix}{end}.ckpt"))
        numbered_as = f"{prefix}_head" if self.config.get("freeze_layer") == "backbone" else prefix
        numbered = [
            (number[1:], path)
            for path in self.folder.glob("*.ckpt")
            if (number := checkpoint_number(path.name, numbered_as))
        ]
        if not best and not numbered:
            raise ZooError(f"{self.folder} holds no checkpoint to look at pictures with; leave --data_path out")
        return best[-1] if best else max(numbered)[1]


def read(folder: Path) -> Run:
    """Read a run folder. Raises UsageError for another folder, ZooError for a run that holds nothing or is damaged."""
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{folder} is no run folder, which holds {CONFIG}; give what save_checkpoint_path names")
    config = {key: value.raw for key, value in read_yaml(folder / CONFIG).items()}
    rows = read_metrics(folder / METRICS)
    if not any(rows.values()):
        raise ZooError(f"{folder} holds no measurement yet; report a run that has trained for a while")
    return Run(folder, config, read_versions(folder / VERSIONS), rows)


def read_versions(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ZooError(f"{path} is damaged ({type(error).__name__}); remove it, or report another run") from error


def read_metrics(path: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """The measurements by kind; a resumed run repeats some steps, of which the last counts.

    The last line may be cut off: the run is writing it, or was killed while it did.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"cannot read {path} ({error}); report another run") from error
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found.setdefault(row["kind"], {})[int(row["at"])] = row
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                continue
            raise ZooError(
                f"{path}, line {number} is no measurement; the file is damaged, report another run"
            ) from error
    return found


def require_one_model(runs: Sequence[Run]) -> None:
    """Raise UsageError for runs whose numbers mean different things."""
    other = next((run for run in runs if run.model != runs[0].model), None)
    if other is not None:
        raise UsageError(
            f"{runs[0].folder} is a run of {runs[0].model} and {other.folder} of {other.model}, which have no common "
            "measure; report runs of one model together"
        )


def differences(values: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The keys whose values are not the same in all of some dictionaries, with them; "" where a key is missing."""
    keys = dict.fromkeys(key for one in values for key in one)
    found = [(key, [one.get(key, "") for one in values]) for key in keys]
    return [(key, row) for key, row in found if any(value != row[0] for value in row)]
