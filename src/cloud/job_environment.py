"""What a cloud job finds in its environment variables: who this process is, and the access to object storage.

Credentials live here only: they are handed to a storage client and taken out of every message by `redacted`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

import psutil

# Per value the names that are looked at, in this order: ModelArts', AWS's and Huawei's own.
KEY = ("AWS_ACCESS_KEY_ID", "OBS_ACCESS_KEY_ID", "ACCESS_KEY_ID", "AccessKeyID")
SECRET = ("AWS_SECRET_ACCESS_KEY", "OBS_SECRET_ACCESS_KEY", "SECRET_ACCESS_KEY", "SecretAccessKey")
TOKEN = ("AWS_SESSION_TOKEN", "OBS_SECURITY_TOKEN", "SECURITY_TOKEN", "SecurityToken")
ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT", "OBS_ENDPOINT", "OBS_SERVER")
JOB = ("MA_JOB_ID", "BATCH_JOB_ID", "JOB_ID", "MA_TASK_NAME")
LAUNCH = "LAUNCH_ID"  # set by src.launch, another one for every launch
OFF = ("0", "false", "no")


@dataclass(frozen=True)
class Access:
    """How to reach object storage; the secret parts are left out of its repr."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(repr=False)
    endpoint: str  # URL, "" for the client's own default
    verify: bool


@dataclass(frozen=True)
class Process:
    """This process among those of the job; `job` is the same in the processes of one start on one server, or ""."""

    writes: bool
    job: str


def first(names: tuple[str, ...]) -> str:
    """The first of some environment variables that is set; ModelArts sets JOB_ID to an empty text at times."""
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def access() -> Access:
    endpoint = first(ENDPOINT)
    if endpoint and "://" not in endpoint:
        scheme = "http" if os.environ.get("S3_USE_HTTPS", "1").lower() in OFF else "https"
        endpoint = f"{scheme}://{endpoint}"
    verify = os.environ.get("S3_VERIFY_SSL", "1").lower() not in OFF
    return Access(first(KEY), first(SECRET), first(TOKEN), endpoint, verify)


def redacted(text: str) -> str:
    """`text` without any credential of this environment."""
    for names in (KEY, SECRET, TOKEN):
        for name in names:
            if os.environ.get(name):
                text = text.replace(os.environ[name], "***")
    return text


def process() -> Process:
    """Who this process is, before the ranks have joined.

    A platform's own starter is told apart from its next start by its process: the job's number alone would let the
    marker of a start that failed count for the one after it.
    """
    writes = os.environ.get("RANK_ID", "0") in ("", "0") and os.environ.get("MS_ROLE") != "MS_SCHED"
    if os.environ.get("RANK_SIZE", "1") in ("", "0", "1") and not os.environ.get(LAUNCH):
        return Process(writes, "")
    job = os.environ.get(LAUNCH, "")
    if not job and first(JOB):
        job = first(JOB)
        with contextlib.suppress(psutil.Error):  # outside of this container, or ended: then the number has to do
            starter = psutil.Process(os.getppid())
            job = f"{job} {starter.pid} {starter.create_time()}"
    return Process(writes, job)
