"""One S3 server for all of these tests, and a store of each kind on a fresh bucket."""

from __future__ import annotations

import itertools

import pytest

from tests import object_storage
from tests.object_storage import Bucket, Folder

numbers = itertools.count()


@pytest.fixture(scope="session")
def endpoint():
    pytest.importorskip("moto")
    with object_storage.s3_server() as address:
        yield address


@pytest.fixture(autouse=True)
def no_outer_job(monkeypatch):
    """The variables of a job that runs these tests are not for them."""
    for name in object_storage.CLEARED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """A bucket of the S3 server, with its access in this process's environment."""
    made = Bucket(f"bucket{next(numbers)}", endpoint)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def moxing_bucket(tmp_path_factory, monkeypatch):
    """A bucket of the stand-in for moxing, which this process can import."""
    made = Folder("bucket", tmp_path_factory.mktemp("obs"))
    monkeypatch.setenv("FAKE_OBS_ROOT", made.environment["FAKE_OBS_ROOT"])
    monkeypatch.syspath_prepend(str(object_storage.FAKE_MOXING))
    object_storage.forget_moxing()
    yield made
    object_storage.forget_moxing()


@pytest.fixture(params=["s3", "obs", "moxing"])
def stored(request):
    """(scheme, bucket) for every kind of store."""
    if request.param == "moxing":
        return "obs", request.getfixturevalue("moxing_bucket")
    return request.param, request.getfixturevalue("bucket")
