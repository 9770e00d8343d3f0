"""Object storage for the tests: a real S3 server on loopback, and the stand-in for ModelArts' library."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SECRET = "wJalrXUtnFEMI-never-printed"
FAKE_MOXING = Path(__file__).with_name("fake_moxing")
CLEARED = ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "OBS_SERVER", "RANK_ID", "RANK_SIZE", "JOB_ID")


@functools.cache
def client(endpoint: str):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


class Bucket:
    """A bucket of the server, seen from outside of the code under test; `environment` is what a job needs to use it."""

    def __init__(self, name: str, endpoint: str):
        self.name = name
        self.environment = {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._client = client(endpoint)
        self._client.create_bucket(Bucket=name)

    def write(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def keys(self, prefix: str = "") -> list[str]:
        return [
            entry["Key"] for entry in self._client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        ]


class Folder:
    """The same for the stand-in of moxing: a bucket is a folder."""

    def __init__(self, name: str, root: Path):
        self.name = name
        self._root = root / name
        self._root.mkdir()
        path = os.pathsep.join([str(FAKE_MOXING), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {"FAKE_OBS_ROOT": str(root), "PYTHONPATH": path}

    def write(self, key: str, content: bytes) -> None:
        (self._root / key).parent.mkdir(parents=True, exist_ok=True)
        (self._root / key).write_bytes(content)

    def read(self, key: str) -> bytes:
        return (self._root / key).read_bytes()

    def keys(self, prefix: str = "") -> list[str]:
        found = (path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix))


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server that ends with the tests."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def forget_moxing() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "moxing"]:
        del sys.modules[name]
