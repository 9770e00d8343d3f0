"""Every store lists, copies, resumes and compares; what goes wrong is one sentence without credentials."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time

import pytest

from src.cloud import copies, job_environment, moxing_store, storage, stores
from src.cloud.storage import Remote, StorageError
from src.cloud.stores import open_store
from src.engine.errors import ZooError
from tests.object_storage import SECRET, forget_moxing, s3_server_over_tls
from tests.waiting import wait_until

CONTENT = {"a.ckpt": b"x" * 5000, "sub/ä b.txt": b"", "sub/deep/c.bin": os.urandom(3000)}


def nothing(*arguments):
    pass


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(copies, "PAUSE", 0.0)


@pytest.fixture
def filled(stored):
    """(store, URL of a folder with CONTENT, bucket)."""
    scheme, bucket = stored
    for name, content in CONTENT.items():
        bucket.write(f"data/{name}", content)
    bucket.write("data2/other.txt", b"not ours")
    url = f"{scheme}://{bucket.name}/data/"
    return open_store(url), url, bucket


class TestEveryStore:
    def test_lists_what_is_below_a_folder_and_a_file_as_itself(self, filled):
        store, url, _ = filled
        listed = store.list(url)
        assert {name: remote.size for name, remote in listed.items()} == {k: len(v) for k, v in CONTENT.items()}
        assert store.list(url.rstrip("/")) == listed
        assert store.list(f"{url}a.ckpt") == {"": listed["a.ckpt"]}
        assert store.list(f"{url}nothing") == {}

    def test_brings_everything_once(self, filled, tmp_path):
        store, url, _ = filled
        said = []
        copies.download(store, url, store.list(url), tmp_path, said.append, nothing)
        for name, content in CONTENT.items():
            assert (tmp_path / name).read_bytes() == content
        copies.download(store, url, store.list(url), tmp_path, said.append, nothing)
        again = 0 if store.list(url)["a.ckpt"].md5 else 1  # a checkpoint that cannot be compared
        assert said[0].startswith("copied 3 of 3 files") and said[1].startswith(f"copied {again} of 3 files")
        assert not list(tmp_path.rglob("*.part"))

    def test_a_file_of_another_size_is_brought_again(self, filled, tmp_path):
        store, url, _ = filled
        copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        (tmp_path / "a.ckpt").write_bytes(b"x" * 4999)
        copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        assert (tmp_path / "a.ckpt").read_bytes() == CONTENT["a.ckpt"]

    def test_sends_a_file_over_an_older_one(self, filled, tmp_path):
        store, url, bucket = filled
        for content in (b"old", os.urandom(70000)):
            (tmp_path / "model.ckpt").write_bytes(content)
            assert copies.upload(store, tmp_path / "model.ckpt", f"{url}new/model.ckpt").size == len(content)
            assert bucket.read("data/new/model.ckpt") == content

    def test_a_file_that_is_not_there_is_one_sentence(self, filled, tmp_path):
        store, url, _ = filled
        with pytest.raises(ZooError, match="cannot read .*nothing.bin .*check the address"):
            copies.download_file(store, f"{url}nothing.bin", Remote(5), tmp_path / "x", nothing)
        assert not list(tmp_path.iterdir())


class TestCopies:
    def test_the_same_size_with_another_checksum_is_brought_again(self, bucket, tmp_path):
        bucket.write("a.bin", b"right")
        (tmp_path / "a.bin").write_bytes(b"wrong")
        url = f"s3://{bucket.name}"
        store = open_store(url)
        copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        assert (tmp_path / "a.bin").read_bytes() == b"right"

    @pytest.mark.parametrize("scheme", ["s3", "obs"])
    def test_a_broken_connection_goes_on_where_it_stopped(self, bucket, tmp_path, scheme, monkeypatch):
        content = os.urandom(100_000)
        bucket.write("big.bin", content)
        url = f"{scheme}://{bucket.name}/big.bin"
        store = open_store(url)
        offsets, whole = [], store.fetch

        def fetch(url, path, offset, heartbeat):
            offsets.append(offset)
            if len(offsets) < 3:
                with path.open("ab") as handle:
                    handle.write(content[offset : offset + 30_000])
                raise StorageError("read", url, ConnectionResetError("reset by peer"))
            whole(url, path, offset, heartbeat)

        monkeypatch.setattr(store, "fetch", fetch)
        copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        assert (tmp_path / "big.bin").read_bytes() == content
        assert offsets == [0, 30_000, 60_000]

    @pytest.mark.parametrize(("again", "offset"), [(b"1", 20_000), (b"2", 0)])
    def test_a_killed_copy_is_resumed_but_not_with_other_content(self, bucket, tmp_path, again, offset, monkeypatch):
        class Killed(BaseException):
            pass

        def killed(url, path, offset, heartbeat):
            path.write_bytes(b"1" * 20_000)
            raise Killed

        def resumed(url, path, offset, heartbeat):
            begun.append(offset)
            whole(url, path, offset, heartbeat)

        url, begun = f"s3://{bucket.name}/big.bin", []
        store = open_store(url)
        whole = store.fetch
        for content, fetch in ((b"1", killed), (again, resumed)):
            bucket.write("big.bin", content * 50_000)
            monkeypatch.setattr(store, "fetch", fetch)
            with contextlib.suppress(Killed):
                copies.download_file(store, url, store.list(url)[""], tmp_path / "big.bin", nothing)
        assert begun == [offset]
        assert (tmp_path / "big.bin").read_bytes() == again * 50_000

    @pytest.mark.parametrize("late", [0.0, 0.2])
    def test_a_long_copy_of_moxing_gives_signs_of_progress(self, moxing_bucket, tmp_path, monkeypatch, late):
        """Also where the watching thread gets its first turn when the whole file is there already."""
        monkeypatch.setattr(moxing_store, "LOOK_EVERY", 0.01)
        watch = moxing_store.watch
        monkeypatch.setattr(moxing_store, "watch", lambda *args: time.sleep(late) or watch(*args))
        moxing_bucket.write("big.bin", b"x" * 100)
        url, beats = f"obs://{moxing_bucket.name}/big.bin", []
        store = open_store(url)
        copy = store._file.copy

        def slow(source, target):
            copy(source, target)
            wait_until(lambda: beats, "a sign of progress", seconds=60)

        monkeypatch.setattr(store._file, "copy", slow)
        store.fetch(url, tmp_path / "big.bin", 0, beats.append)
        assert sum(beats) == 100
        assert (tmp_path / "big.bin").stat().st_size == 100

    def test_the_files_of_one_folder_are_counted_once_each(self, moxing_bucket, tmp_path, monkeypatch):
        monkeypatch.setattr(moxing_store, "LOOK_EVERY", 0.001)
        for name in range(40):
            moxing_bucket.write(f"data/{name}.bin", bytes(1000))
        url, moved = f"obs://{moxing_bucket.name}/data", []
        store = open_store(url)
        monkeypatch.setattr(copies.Progress, "add", lambda self, count: moved.append(count))
        copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        assert sum(moved) == 40_000

    def test_how_far_a_long_copy_is(self, bucket, tmp_path, monkeypatch):
        monkeypatch.setattr(copies, "REPORT_EVERY", -1.0)
        monkeypatch.setattr("src.cloud.s3_store.CHUNK", 1_000_000)
        bucket.write("big.bin", bytes(3_000_000))
        said, url = [], f"s3://{bucket.name}"
        store = open_store(url)
        copies.download(store, url, store.list(url), tmp_path, said.append, nothing)
        assert [line.partition(": ")[2] for line in said[:3]] == [f"{n}.0 MB of 3.0 MB" for n in (1, 2, 3)]

    def test_content_that_keeps_arriving_wrong_is_an_error(self, bucket, tmp_path):
        bucket.write("a.bin", b"right")
        url = f"s3://{bucket.name}/a.bin"
        with pytest.raises(ZooError, match="arrived 6 times with another size or checksum"):
            copies.download_file(open_store(url), url, Remote(5, "0" * 32), tmp_path / "a.bin", nothing)
        assert not (tmp_path / "a.bin").exists()

    def test_what_does_not_fit_is_refused_before_it_begins(self, bucket, tmp_path, monkeypatch):
        bucket.write("a.bin", b"right")
        monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        url = f"s3://{bucket.name}"
        store = open_store(url)
        with pytest.raises(ZooError, match="needs 0.0 MB and .* has 0.0 MB left"):
            copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        assert not list(tmp_path.iterdir())

    def test_a_disk_that_fills_up_meanwhile_is_one_sentence(self, tmp_path):
        class Full:
            resumes = True

            def fetch(self, url, path, offset, heartbeat):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(ZooError, match="cannot write .*No space left on device; make room"):
            copies.download_file(Full(), "s3://b/x", Remote(5), tmp_path / "x", nothing)

    def test_an_upload_that_arrives_wrong_is_tried_again_and_then_an_error(self, bucket, tmp_path, monkeypatch):
        url = f"s3://{bucket.name}/m.ckpt"
        store, attempts = open_store(url), []
        path = tmp_path / "m.ckpt"
        path.write_bytes(b"whole")
        monkeypatch.setattr(store, "put", lambda path, url: (attempts.append(1), bucket.write("m.ckpt", b"other")))
        with pytest.raises(StorageError, match="the store has another size or checksum"):
            copies.upload(store, path, url)
        assert len(attempts) == copies.ATTEMPTS

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "", "a\0b"])
    def test_names_that_leave_the_folder(self, name, tmp_path):
        with pytest.raises(ZooError, match="would leave the folder"):
            storage.require_inside(name)

    def test_a_stored_name_that_leaves_the_folder_writes_nothing(self, bucket, tmp_path):
        files = {"ok": Remote(1), "../evil": Remote(1)}
        url = f"s3://{bucket.name}"
        with pytest.raises(ZooError, match="would leave the folder"):
            copies.download(open_store(url), url, files, tmp_path / "in", nothing, nothing)
        assert not list(tmp_path.iterdir())


class TestAccess:
    def test_credentials_are_in_no_message_and_no_repr(self, monkeypatch):
        monkeypatch.setenv("SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("ACCESS_KEY_ID", "AKIAHIDDEN")
        error = StorageError("read", "s3://b/k", OSError(f"denied for AKIAHIDDEN with {SECRET}"))
        assert "AKIAHIDDEN" not in str(error) and SECRET not in str(error) and "***" in str(error)
        assert SECRET not in repr(job_environment.access()) and "AKIAHIDDEN" not in repr(job_environment.access())

    @pytest.mark.parametrize(
        ("variables", "endpoint", "verify"),
        [
            ({"S3_ENDPOINT": "https://obs.x.com"}, "https://obs.x.com", True),
            ({"S3_ENDPOINT": "obs.x.com", "S3_VERIFY_SSL": "0"}, "https://obs.x.com", False),
            ({"S3_ENDPOINT": "obs.x.com:80", "S3_USE_HTTPS": "0"}, "http://obs.x.com:80", True),
            ({}, "", True),
        ],
    )
    def test_what_modelarts_says_about_its_storage(self, monkeypatch, variables, endpoint, verify):
        for name in ("AWS_ENDPOINT_URL", "S3_ENDPOINT", "S3_VERIFY_SSL", "S3_USE_HTTPS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert (job_environment.access().endpoint, job_environment.access().verify) == (endpoint, verify)

    @pytest.mark.parametrize(
        ("address", "trusted", "verify", "refused"),
        [
            ("127.0.0.1", True, "1", ""),
            ("127.0.0.2", True, "1", "IP address mismatch"),
            ("127.0.0.1", False, "1", "unable to get local issuer"),
            ("127.0.0.2", False, "0", ""),
        ],
    )
    def test_huaweis_client_verifies_certificates(
        self, bucket, tmp_path, monkeypatch, address, trusted, verify, refused
    ):
        """moto's servers of one process share their buckets."""
        bucket.write("a.bin", b"right")
        with s3_server_over_tls(tmp_path, address) as endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            monkeypatch.setenv("S3_VERIFY_SSL", verify)
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            store, url = open_store("obs://"), f"obs://{bucket.name}/a.bin"
            store._client.max_retry_count = 0
            if not refused:
                assert store.list(url)[""].size == 5
                return
            with pytest.raises(StorageError, match=f"cannot list .*CERTIFICATE_VERIFY_FAILED.*{refused}"):
                store.list(url)

    @pytest.mark.parametrize("scheme", ["obs", "s3"])
    @pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_credentials_come_from_the_environment_only(self, bucket, tmp_path, monkeypatch, scheme, missing):
        """The clients would look into files otherwise, or ask without any."""
        (tmp_path / "credentials").write_text(
            f"[default]\naws_access_key_id=AKIAFILE\naws_secret_access_key={SECRET}\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        for name in next(names for names in (job_environment.KEY, job_environment.SECRET) if missing in names):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ZooError, match=f"no complete credentials .* set {missing}, or ") as caught:
            open_store(f"{scheme}://{bucket.name}/k").list(f"{scheme}://{bucket.name}/k")
        assert "\n" not in str(caught.value)

    def test_no_client_names_the_file_to_install(self, monkeypatch):
        monkeypatch.setattr(stores.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ZooError, match="pip install -r requirements-cloud.txt"):
            open_store("obs://b/k")

    @pytest.mark.parametrize(("has", "kind"), [("obs", "ObsStore"), ("s3fs", "S3Store")])
    @pytest.mark.parametrize("scheme", ["obs", "s3"])
    def test_the_client_that_is_there_serves_both_kinds_of_address(self, bucket, monkeypatch, has, kind, scheme):
        find = stores.importlib.util.find_spec
        monkeypatch.setattr(stores.importlib.util, "find_spec", lambda name: find(name) if name == has else None)
        assert type(open_store(f"{scheme}://{bucket.name}/k")).__name__ == kind

    def test_another_moxing_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "moxing.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "moxing", raising=False)
        with pytest.raises(ZooError, match="not ModelArts' library"):
            open_store("obs://b/k")
        forget_moxing()

    @pytest.mark.parametrize("url", ["http://x/y", "ftp://x"])
    def test_other_addresses(self, url):
        with pytest.raises(ZooError, match="begins with obs:// or s3://"):
            storage.is_remote(url)

    def test_plain_paths_pass(self):
        assert not storage.is_remote("/home/ma-user/x") and not storage.is_remote("")
        with pytest.raises(ZooError, match="names no bucket"):
            storage.bucket_and_key("s3://")

    def test_several_threads_share_a_store(self, bucket, tmp_path):
        for number in range(40):
            bucket.write(f"many/{number}", str(number).encode())
        url = f"s3://{bucket.name}/many"
        store = open_store(url)
        copies.download(store, url, store.list(url), tmp_path, nothing, nothing)
        assert sorted(int(path.read_bytes()) for path in tmp_path.iterdir()) == list(range(40))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("copy")]
