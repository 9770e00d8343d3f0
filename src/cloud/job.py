"""A ModelArts job: data and checkpoint come to this server, the recipe runs on local paths, results go to train_url.

The configuration's own keys say what is where. A plain path instead of an obs:// or s3:// address is used as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from src.cloud import copies, zips
from src.cloud.once import once
from src.cloud.storage import Remote, is_remote, open_store
from src.cloud.surroundings import process
from src.cloud.uploads import mirrored
from src.engine.errors import UsageError, ZooError

MODELS = (".ckpt", ".onnx")  # suffixes of what checkpoint_url may hold
LISTED = 5  # names in an error
Beat = Callable[[], None]


def say(text: str) -> None:
    print(text, flush=True)


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
        lambda beat: bring_all(command, cfg, beat),
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


def bring_all(command: str, cfg: Any, beat: Beat) -> dict[str, str]:
    """Copy what `command` reads to this server; returns the keys that now have another, local, value.

    Nothing of this job is stored yet, for no rank trains before all have joined.
    """
    if is_remote(cfg.train_url) and command == "train" and not cfg.resume:
        require_unused(cfg, open_store(cfg.train_url).list(cfg.train_url))
    changes = bring_data(cfg, beat) if cfg.data_url else {}
    if cfg.checkpoint_url and command in cfg.job_keys().checkpoints:
        changes.update(bring_checkpoint(command, cfg, beat))
    if is_remote(cfg.train_url) and goes_on(command, cfg):
        bring_run(cfg, beat)
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


def require_unused(cfg: Any, stored: dict[str, Remote]) -> None:
    """A new run must not replace the files of an earlier one."""
    root = Path(cfg.output_path).expanduser()
    folder = Path(getattr(cfg, cfg.job_keys().run_folder)).relative_to(root).as_posix()
    old = sorted(name for name in stored if name.startswith(f"{folder}/") or folder == ".")
    if old:
        raise UsageError(
            f"{cfg.train_url} holds the files of an earlier run ({old[0]}, {len(old)} in all); "
            "continue it with resume=auto or give another train_url"
        )


def few(names: list[str]) -> str:
    return ", ".join(sorted(names)[:LISTED]) + (" ..." if len(names) > LISTED else "") if names else "nothing"


def bring_data(cfg: Any, beat: Beat) -> dict[str, str]:
    """The data set on this server, unpacked if it is zipped; returns the data keys with their local paths."""
    keys, name = cfg.job_keys(), cfg.modelarts_dataset_unzip_name
    local = Path(getattr(cfg, keys.local_data)).expanduser()
    unzip = cfg.need_modelarts_dataset_unzip
    if unzip and not name:
        raise UsageError("modelarts_dataset_unzip_name is empty; give the name of the zip file without .zip")
    if is_remote(cfg.data_url):
        source = bring_part(cfg.data_url, f"{name}.zip" if unzip else "", name if unzip else "", local, beat)
    else:
        source = Path(cfg.data_url).expanduser()
    archive = source if source.is_file() else source / f"{name}.zip"
    if unzip and archive.is_file():
        root = zips.extract(archive, local, name, say, beat)
    elif unzip and (source / name).is_dir():
        root = source / name
    elif source.is_dir() and not unzip:
        root = source
    else:
        raise UsageError(
            f"data_url {cfg.data_url} holds neither {name}.zip nor a folder {name}; correct "
            "modelarts_dataset_unzip_name, or set need_modelarts_dataset_unzip to False"
        )
    changes = {keys.data: str(within(root, getattr(cfg, keys.data)) or root)}
    for key in keys.more_data:
        found = within(root, getattr(cfg, key))
        if found:
            changes[key] = str(found)
    return changes


def within(root: Path, given: str) -> Path | None:
    """What a key names of the data set, by its local path or relative to the data set; None for anything else."""
    path = Path(os.path.normpath(root / Path(given).expanduser()))
    return path if given and path.is_relative_to(root) and path.exists() else None


def bring_part(url: str, archive: str, folder: str, local: Path, beat: Beat) -> Path:
    """Copy the zip file `archive` below `url`, or without it `folder`, or where both are "" everything."""
    store = open_store(url)
    listed = store.list(url)
    if not listed:
        raise ZooError(f"there is nothing at data_url {url}; check the address")
    if "" in listed:
        copies.bring(store, url, listed, local, say, beat)
        return local / url.rstrip("/").rpartition("/")[2]
    wanted = {name: about for name, about in listed.items() if archive and name == archive}
    wanted = wanted or {name: about for name, about in listed.items() if not folder or name.startswith(f"{folder}/")}
    if wanted:
        copies.bring(store, url, wanted, local, say, beat)
    return local


def bring_checkpoint(command: str, cfg: Any, beat: Beat) -> dict[str, str]:
    """The checkpoint that the command's key names, from checkpoint_url; returns that key with the local path."""
    keys = cfg.job_keys().checkpoints[command]
    local, url = Path(cfg.load_path).expanduser(), cfg.checkpoint_url
    wanted = [relative(getattr(cfg, key), local) if getattr(cfg, key) else "" for key in keys]
    if is_remote(url):
        store = open_store(url)
        listed = store.list(url)
        name = "" if "" in listed else choose(list(listed), wanted, url, keys[0])
        copies.bring(store, url, {name: listed[name]}, local, say, beat)
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
    models = [name for name in names if name.endswith(MODELS)]
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


def bring_run(cfg: Any, beat: Beat) -> None:
    """The run that is continued, from train_url. Files that this server still has are newer and stay."""
    store, folder = open_store(cfg.train_url), Path(cfg.output_path).expanduser()
    listed = store.list(cfg.train_url)
    missing = {name: about for name, about in listed.items() if not (folder / name).exists()}
    if missing:
        copies.bring(store, cfg.train_url, missing, folder, say, beat)
