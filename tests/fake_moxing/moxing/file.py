"""`mox.file` as its documentation describes it, for what src/cloud/moxing_store.py calls."""

import os
import shutil
from pathlib import Path

ROOT = Path(os.environ["FAKE_OBS_ROOT"])


def _path(url):
    scheme, mark, rest = url.partition("://")
    if mark and scheme not in ("obs", "s3"):
        raise ValueError(f"unsupported address {url}")
    return ROOT / rest if mark else Path(url)


def exists(url):
    return _path(url).exists()


def is_directory(url):
    return _path(url).is_dir()


def get_size(url, recursive=False):
    path = _path(url)
    return path.stat().st_size if path.is_file() else 0


def list_directory(url, recursive=False):
    """Relative names, folders among them."""
    path = _path(url)
    found = path.rglob("*") if recursive else path.iterdir()
    return [entry.relative_to(path).as_posix() for entry in found]


def copy(src_url, dst_url):
    """One file; a folder has to be copied with copy_parallel."""
    source, target = _path(src_url), _path(dst_url)
    if source.is_dir():
        raise IsADirectoryError(src_url)
    if "://" in dst_url:
        target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
