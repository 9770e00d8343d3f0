"""A ModelArts job: data and checkpoint come to this server, the recipe runs on local paths, results go to train_url.

The configuration's own keys say what is where. A plain path instead of an obs:// or s3:// address is used as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from src.cloud import inputs
from src.cloud.job_environment import process
from src.cloud.once import once
from src.cloud.storage import Remote, is_remote
from src.cloud.stores import open_store
from src.cloud.uploads import mirrored
from src.engine.errors import UsageError, ZooError
from src.engine.io.files import checkpoint_number


@contextlib.contextmanager
def opened(command: str, cfg: Any) -> Iterator[Any]:
    """The configuration with local paths; on leaving, the results are in train_url.

    Raises UsageError for parameters that do not fit together, ZooError where something cannot be copied.
    """
    me = process()
    cfg = dataclasses.replace(cfg, **local_outputs(command, cfg))
    arrived = once(
        Path(getattr(cfg, cfg.job_keys().local_data)).expanduser(),
        "copying the job's data",
        me.job,
        lambda heartbeat: download_all(command, cfg, heartbeat),
    )
    cfg = dataclasses.replace(cfg, **arrived)
    if not (is_remote(cfg.train_url) and me.writes):
        yield cfg
        return
    store, folder = open_store(cfg.train_url), Path(cfg.output_path).expanduser()
    stored = store.list(cfg.train_url) if goes_on(command, cfg) else None
    with mirrored(store, folder, cfg.train_url, say, stored):
        yield cfg


def goes_on(command: str, cfg: Any) -> bool:
    return command == "train" and bool(cfg.resume)


def reads_data(command: str, cfg: Any) -> bool:
    """Some exports compare on real images, and only if the key of the data names some."""
    keys = cfg.job_keys()
    return command != "export" or (keys.export_reads_data and bool(getattr(cfg, keys.data)))


def say(text: str) -> None:
    print(text, flush=True)


def download_all(command: str, cfg: Any, heartbeat: Callable[[], None]) -> dict[str, str]:
    """Copy what `command` reads to this server; returns the keys that now have another, local, value.

    Nothing of this job is stored yet, for no rank trains before all have joined.
    """
    if is_remote(cfg.train_url) and command == "train" and cfg.resume != "auto":
        of_run = names_of_run(cfg, open_store(cfg.train_url).list(cfg.train_url))
        if cfg.resume:
            require_latest(cfg, of_run)
        else:
            require_unused(cfg, of_run)
    changes = {}
    if cfg.data_url and reads_data(command, cfg):
        changes = inputs.download_data(cfg, say, heartbeat)
    elif cfg.data_url:
        say(f"this export needs no data, so nothing is copied from {cfg.data_url}")
    if cfg.checkpoint_url and command in cfg.job_keys().checkpoints:
        changes.update(inputs.download_checkpoint(command, cfg, say, heartbeat))
    if is_remote(cfg.train_url) and goes_on(command, cfg):
        changes.update(inputs.download_run(cfg, say, heartbeat))
    return changes


def local_outputs(command: str, cfg: Any) -> dict[str, str]:
    """The keys of results, put below output_path, or below train_url where that is a plain path."""
    keys = cfg.job_keys()
    if not cfg.train_url:
        if command != "eval":
            raise UsageError(
                "enable_modelarts is True and train_url is not set; results would be lost, give --train_url"
            )
        return {}
    root = Path(cfg.output_path if is_remote(cfg.train_url) else cfg.train_url).expanduser()
    changes = {"output_path": str(root)}
    for key in (keys.run_folder, *keys.results):
        value = getattr(cfg, key)
        if not value:
            continue
        path = Path(os.path.normpath(root / Path(value).expanduser()))
        if not path.is_relative_to(os.path.normpath(root)):
            raise UsageError(
                f"{key} {value} is outside of {root}, so it would not reach train_url; give a relative path"
            )
        changes[key] = str(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"cannot make the folder {root}: {error.strerror}; set output_path to another one") from error
    return changes


def names_of_run(cfg: Any, stored: dict[str, Remote]) -> list[str]:
    """The stored files of the run folder, by their paths below it."""
    root = Path(cfg.output_path).expanduser()
    folder = Path(getattr(cfg, cfg.job_keys().run_folder)).relative_to(root).as_posix()
    prefix = "" if folder == "." else f"{folder}/"
    return sorted(name[len(prefix) :] for name in stored if name.startswith(prefix))


def require_unused(cfg: Any, old: list[str]) -> None:
    """A new run must not replace the files of an earlier one."""
    if old:
        raise UsageError(
            f"{cfg.train_url} holds the files of an earlier run ({old[0]}, {len(old)} in all); "
            "continue it with resume=auto or give another train_url"
        )


def require_latest(cfg: Any, old: list[str]) -> None:
    """A run that goes back must not be mixed with what it goes back from, which the store keeps."""
    resumed = checkpoint_number(Path(cfg.resume).name)
    found = [(number, name) for name in old if (number := checkpoint_number(name))]
    later = [
        (number[1:], name)
        for number, name in found
        if resumed is None or (number[0] == resumed[0] and number[1:] > resumed[1:])
    ]
    if later:
        raise UsageError(
            f"{cfg.train_url} holds {max(later)[1]}, which is later than {cfg.resume}, and would hold two runs; "
            "give another train_url or continue with resume=auto"
        )
