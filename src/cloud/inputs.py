"""What a cloud job reads: its data set, unpacked, its checkpoint, and the run that it continues, on this server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from src.cloud import copies, zips
from src.cloud.storage import is_remote
from src.cloud.stores import open_store
from src.engine.config.paths import ARCHIVES, first_file
from src.engine.errors import UsageError, ZooError
from src.engine.io.files import checkpoint_number

LISTED = 5  # names in an error
Say = Callable[[str], None]
Heartbeat = Callable[[], None]


def few(names: list[str]) -> str:
    return ", ".join(sorted(names)[:LISTED]) + (" ..." if len(names) > LISTED else "") if names else "nothing"


def download_data(cfg: Any, say: Say, heartbeat: Heartbeat) -> dict[str, str]:
    """The data set on this server, unpacked if that is wanted; returns the data keys with their local paths."""
    keys, name = cfg.job_keys(), cfg.modelarts_dataset_unzip_name
    local = Path(getattr(cfg, keys.local_data)).expanduser()
    unzip = cfg.need_modelarts_dataset_unzip
    if unzip and not name:
        raise UsageError("modelarts_dataset_unzip_name is empty; give the name of the zip file without .zip")
    archives = [f"{name}.zip"] if unzip else [f"{name}{suffix}" for suffix in ARCHIVES if name]
    if is_remote(cfg.data_url):
        source = download_part(cfg.data_url, archives, name if unzip else "", local, say, heartbeat)
    else:
        source = Path(cfg.data_url).expanduser()
    archive = source if source.is_file() else first_file(source / file for file in archives)
    if unzip and archive is not None:
        root = zips.extract(archive, local, name, say, heartbeat)
    elif unzip and (source / name).is_dir():
        root = source / name
    elif not unzip and (archive is not None or source.is_dir()):
        root = archive or source  # a data set may be read from an archive as it is
    else:
        raise UsageError(
            f"data_url {cfg.data_url} holds neither {name}.zip nor a folder {name}; correct "
            "modelarts_dataset_unzip_name, or set need_modelarts_dataset_unzip to False"
        )
    changes = {keys.data: str(within(root, getattr(cfg, keys.data)) or root)}
    for key in (*keys.more_data, *keys.more_files):
        found = within(root, getattr(cfg, key))
        if found and (found.is_file() or key in keys.more_data):  # class_weights may be a word, and a class's name
            changes[key] = str(found)
    return changes


def within(root: Path, given: str) -> Path | None:
    """What a key names of the data set, by its local path or relative to the data set; None for anything else."""
    path = Path(os.path.normpath(root / Path(given).expanduser()))
    return path if given and path.is_relative_to(root) and path.exists() else None


def download_part(url: str, archives: list[str], folder: str, local: Path, say: Say, heartbeat: Heartbeat) -> Path:
    """Copy the first of `archives` that is below `url`, or without one `folder`, or where that is "" everything."""
    store = open_store(url)
    listed = store.list(url)
    if not listed:
        raise ZooError(f"there is nothing at data_url {url}; check the address")
    if "" in listed:
        copies.download(store, url, listed, local, say, heartbeat)
        return local / url.rstrip("/").rpartition("/")[2]
    wanted = {name: listed[name] for name in [name for name in archives if name in listed][:1]}
    wanted = wanted or {name: about for name, about in listed.items() if not folder or name.startswith(f"{folder}/")}
    if wanted:
        copies.download(store, url, wanted, local, say, heartbeat)
    return local


def download_checkpoint(command: str, cfg: Any, say: Say, heartbeat: Heartbeat) -> dict[str, str]:
    """The checkpoint that the command's key names, from checkpoint_url; returns that key with the local path."""
    keys = cfg.job_keys().checkpoints[command]
    local, url = Path(cfg.load_path).expanduser(), cfg.checkpoint_url
    wanted = [relative(getattr(cfg, key), local) if getattr(cfg, key) else "" for key in keys]
    if is_remote(url):
        store = open_store(url)
        listed = store.list(url)
        name = "" if "" in listed else choose(list(listed), wanted, url, keys[0])
        copies.download(store, url, {name: listed[name]}, local, say, heartbeat)
        return {keys[0]: str(local / (name or url.rstrip("/").rpartition("/")[2]))}
    path = Path(url).expanduser()
    if path.is_file():
        return {keys[0]: str(path)}
    if not path.is_dir():
        raise UsageError(f"checkpoint_url {url} is neither here nor an obs:// or s3:// address; correct it")
    names = [file.relative_to(path).as_posix() for file in path.rglob("*")]
    return {keys[0]: str(path / choose(names, wanted, url, keys[0]))}


def relative(value: str, local: Path) -> str:
    """A checkpoint key as a path below checkpoint_url: ./a/x.ckpt and /cache/checkpoint_path/a/x.ckpt are a/x.ckpt."""
    path = PurePosixPath(os.path.normpath(value))
    return (path.relative_to(local) if path.is_relative_to(local) else path).as_posix()


def choose(names: list[str], wanted: list[str], url: str, key: str) -> str:
    """The one of `names` that is meant: of the path that is wanted first, or of its file name, or the only one.

    Further entries of `wanted` may come from a default, so they do not have to be there.
    """
    models = [name for name in names if name.endswith(copies.MODELS)]
    for path in filter(None, wanted):
        alike = [name for name in models if PurePosixPath(name).name == PurePosixPath(path).name]
        if path in models or len(alike) == 1:
            return path if path in models else alike[0]
    if wanted[0] or len(models) != 1:
        raise UsageError(
            f"checkpoint_url {url} holds {few(models)}; name one of its checkpoints with {key}"
            + (f", which is {wanted[0]} now" if wanted[0] else "")
        )
    return models[0]


def no_longer_kept(names: list[str], keep: int) -> set[str]:
    """Those of some checkpoints that are older than the newest `keep` of their run; none where `keep` is 0."""
    if not keep:
        return set()
    runs: dict[tuple[str, str], list[tuple[int, float, str]]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        number = checkpoint_number(file)
        if number:
            runs.setdefault((folder, number[0]), []).append((*number[1:], name))
    return {name for run in runs.values() for *_, name in sorted(run)[:-keep]}


def download_run(cfg: Any, say: Say, heartbeat: Heartbeat) -> dict[str, str]:
    """The run that is continued, from train_url; returns the key that names its checkpoint, if it does not say auto.

    Files that this server still has are newer and stay. Checkpoints that the run would not keep stay in the store.
    """
    store, folder = open_store(cfg.train_url), Path(cfg.output_path).expanduser()
    listed = store.list(cfg.train_url)
    passed = no_longer_kept(list(listed), cfg.keep_checkpoint_max)
    missing = {name: about for name, about in listed.items() if name not in passed and not (folder / name).exists()}
    if missing:
        copies.download(store, cfg.train_url, missing, folder, say, heartbeat)
    for place in (folder, Path(getattr(cfg, cfg.job_keys().run_folder))):
        if (place / cfg.resume).is_file():
            return {"resume": str(place / cfg.resume)}
    return {}
