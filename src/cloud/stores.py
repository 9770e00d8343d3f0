"""Which client opens an address of object storage: moxing, Huawei's SDK or s3fs, whichever this machine has."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

from src.cloud.job_environment import KEY, SECRET, Access, access
from src.cloud.storage import SCHEMES, Store
from src.engine.errors import ZooError


@functools.cache
def connected(kind: Callable[[Access], Store], access: Access) -> Store:
    """One client for all copies of a process; making one takes a second."""
    return kind(access)


def access_to(url: str) -> Access:
    """The access that the environment gives; a client without one would take files' or a machine's, or go without."""
    found = access()
    for value, names in ((found.key, KEY), (found.secret, SECRET)):
        if not value:
            raise ZooError(
                f"the environment has no complete credentials for {url}; set {names[0]}, or {', '.join(names[1:])}"
            )
    return found


def open_store(url: str) -> Store:
    """moxing where the platform has it; else Huawei's SDK for obs:// and s3fs for s3://, or the one that is there."""
    if importlib.util.find_spec("moxing"):
        from src.cloud.moxing_store import MoxingStore

        return MoxingStore()
    has = {"obs": importlib.util.find_spec("obs"), "s3": importlib.util.find_spec("s3fs")}
    wanted = url.partition("://")[0]
    scheme = wanted if has[wanted] else next((other for other in SCHEMES if has[other]), "")
    if scheme == "obs":
        from src.cloud.obs_store import ObsStore

        return connected(ObsStore, access_to(url))
    if scheme == "s3":
        from src.cloud.s3_store import S3Store

        return connected(S3Store, access_to(url))
    raise ZooError(f"{url} needs a storage client and none is installed; run: pip install -r requirements-cloud.txt")
