"""Results go up while a job runs: new checkpoints at once, logs now and then, everything in the end."""

from __future__ import annotations

import os
import threading
import time

import pytest

from src.cloud import copies, uploads
from src.cloud.storage import StorageError
from src.cloud.stores import open_store
from src.cloud.uploads import Mirror, mirrored
from src.engine.errors import ZooError
from tests.waiting import wait_until


def nothing(*arguments):
    pass


@pytest.fixture
def run(tmp_path):
    """An output folder with a checkpoint, a log and what is not to be sent."""
    folder = tmp_path / "train"
    for name in ("run/m-1.ckpt", "run/train.log", "run/.lock", "run/.writing-x/m-2.ckpt", "run/features/f.npz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"first " + name.encode())
    return folder


@pytest.fixture
def place(bucket):
    url = f"s3://{bucket.name}/out"
    return open_store(url), url


def keys(bucket):
    """Names of the stored files below the job's folder."""
    return [key[len("out/") :] for key in bucket.keys("out/")]


class TestMirror:
    def test_what_is_sent_and_what_not(self, run, place, bucket):
        assert Mirror(place[0], run, place[1], nothing, {}).upload_new() == []
        assert keys(bucket) == ["run/m-1.ckpt", "run/train.log"]
        assert bucket.read("out/run/m-1.ckpt") == b"first run/m-1.ckpt"
        assert not list(run.glob(".uploading-*"))

    def test_what_another_job_has_left_in_the_folder_is_not_sent(self, run, place, bucket):
        (run / ".uploading-killed").mkdir()
        mirror = Mirror(place[0], run, place[1], nothing, None)
        assert mirror.upload_new(everything=True) == [] and keys(bucket) == []
        assert not (run / ".uploading-killed").exists()
        (run / "run" / "m-1.ckpt").unlink()
        (run / "run" / "m-1.ckpt").write_bytes(b"ours")
        mirror.upload_new()
        assert keys(bucket) == ["run/m-1.ckpt"]

    def test_logs_wait_for_a_checkpoint_or_a_minute(self, run, place, bucket, monkeypatch):
        mirror = Mirror(place[0], run, place[1], nothing, {})
        mirror.upload_new()
        log = run / "run" / "train.log"
        log.write_bytes(b"longer")
        mirror.upload_new()
        assert bucket.read("out/run/train.log") != b"longer"
        (run / "run" / "m-2.ckpt").write_bytes(b"second")
        mirror.upload_new()
        assert bucket.read("out/run/train.log") == b"longer"
        log.write_bytes(b"longest log")
        monkeypatch.setattr(uploads, "LOGS_EVERY", 0.0)
        mirror.upload_new()
        assert bucket.read("out/run/train.log") == b"longest log"

    def test_the_newest_checkpoint_goes_first(self, run, place, monkeypatch):
        for number in (2, 3):
            path = run / "run" / f"m-{number}.ckpt"
            path.write_bytes(b"x")
            os.utime(path, (2e9 + number, 2e9 + number))
        sent = []
        monkeypatch.setattr(uploads, "upload", lambda store, path, url: sent.append(path.name))
        Mirror(place[0], run, place[1], nothing, {}).upload_new()
        assert sent[:3] == ["m-3.ckpt", "m-2.ckpt", "m-1.ckpt"]

    def test_what_is_stored_already_is_not_sent_again(self, run, place, monkeypatch):
        Mirror(place[0], run, place[1], nothing, {}).upload_new()
        sent = []
        monkeypatch.setattr(uploads, "upload", lambda store, path, url: sent.append(path.name))
        (run / "run" / "train.log").write_bytes(b"longer")
        Mirror(place[0], run, place[1], nothing, place[0].list(place[1])).upload_new(everything=True)
        assert sent == ["train.log"]

    def test_a_log_that_grows_and_a_checkpoint_that_goes_while_they_are_sent(self, run, place, bucket, monkeypatch):
        """The store compares with a snapshot, so neither is a failure."""
        put = place[0].put

        def disturb(path, url):
            with (run / "run" / "train.log").open("ab") as log:
                log.write(b" more")
            (run / "run" / "m-1.ckpt").unlink(missing_ok=True)
            put(path, url)

        monkeypatch.setattr(place[0], "put", disturb)
        assert Mirror(place[0], run, place[1], nothing, {}).upload_new() == []
        assert bucket.read("out/run/m-1.ckpt") == b"first run/m-1.ckpt"
        assert bucket.read("out/run/train.log").startswith(b"first run/train.log more")


class TestMirrored:
    def test_a_checkpoint_is_there_before_the_job_has_ended(self, run, place, bucket, monkeypatch):
        monkeypatch.setattr(uploads, "LOOK_EVERY", 0.05)
        said = []
        with mirrored(place[0], run, place[1], said.append, {}):
            (run / "run" / "m-2.ckpt").write_bytes(b"second")
            deadline = time.monotonic() + 60
            while "run/m-2.ckpt" not in keys(bucket):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            (run / "run" / "train.log").write_bytes(b"last words")
        assert bucket.read("out/run/train.log") == b"last words"
        assert said == [f"results are in {place[1]}"]
        assert "upload" not in [thread.name for thread in threading.enumerate()]

    @pytest.mark.parametrize("works", [True, False])
    def test_an_error_in_the_job_stays_the_error_and_all_is_sent(self, run, place, bucket, monkeypatch, works):
        said = []
        if not works:
            monkeypatch.setattr(place[0], "put", self.fail)
        with pytest.raises(KeyError), mirrored(place[0], run, place[1], said.append, {}):
            raise KeyError("the job's own")
        assert keys(bucket) == (["run/m-1.ckpt", "run/train.log"] if works else [])
        assert ("results are in" if works else "not all results were stored") in said[-1]

    def test_a_file_that_is_too_large_is_said_and_the_others_are_stored(self, run, bucket, monkeypatch):
        monkeypatch.setattr("src.cloud.obs_store.MOST", 20)
        monkeypatch.setattr(uploads, "LOOK_EVERY", 0.01)
        (run / "run" / "m-2.ckpt").write_bytes(b"one byte too many, 21")
        said, url = [], f"obs://{bucket.name}/out"
        with pytest.raises(KeyError), mirrored(open_store(url), run, url, said.append, {}):
            wait_until(lambda: len(said) > 1, "two lines about the file", seconds=60)
            raise KeyError("the job's own")
        assert keys(bucket) == ["run/m-1.ckpt", "run/train.log"]
        assert "m-2.ckpt (the file has more than the 20 bytes that can be stored); make it smaller" in said[0]
        assert "not all results were stored, all are in" in said[-1]

    @staticmethod
    def fail(path, url):
        raise StorageError("write", url, PermissionError("access denied"))

    def test_a_store_that_fails_is_said_and_is_an_error_in_the_end(self, run, place, monkeypatch):
        monkeypatch.setattr(copies, "PAUSE", 0.0)
        monkeypatch.setattr(uploads, "LOOK_EVERY", 0.01)
        said = []
        monkeypatch.setattr(place[0], "put", self.fail)
        with (
            pytest.raises(ZooError, match="not all results were stored, all are in .*train; cannot write"),
            mirrored(place[0], run, place[1], said.append, {}),
        ):
            wait_until(lambda: said, "a line about the failure", seconds=60)
        assert "is sent again" in said[0]
