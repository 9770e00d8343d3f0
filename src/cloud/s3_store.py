"""Any S3 endpoint (OBS has one too) through s3fs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import s3fs

from src.cloud.job_environment import Access
from src.cloud.storage import CHUNK, Remote, StorageError, bucket_and_key

ONE_PART = 3 * 2**30  # bytes; s3fs stores up to twice as much, and at most 5 GB, in one part, whose tag is the MD5
PLAIN = {  # newer clients add checksums in a form that OBS and older servers do not know
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


class S3Store:
    """A Store on s3fs."""

    resumes = True

    def __init__(self, access: Access):
        client: dict[str, bool | str] = {"verify": access.verify}
        if access.endpoint:
            client["endpoint_url"] = access.endpoint
        self._files = s3fs.S3FileSystem(
            key=access.key or None,
            secret=access.secret or None,
            token=access.token or None,
            client_kwargs=client,
            config_kwargs=PLAIN,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def list(self, url: str) -> dict[str, Remote]:
        path = "/".join(bucket_and_key(url)).rstrip("/")
        try:
            found = self._files.find(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StorageError("list", url, error) from error
        return {
            name[len(path) :].strip("/"): Remote(about["size"], about.get("ETag", "").strip('"'))
            for name, about in found.items()
            if about["type"] == "file" and not name.endswith("/")  # which is the mark of an empty folder
        }

    def fetch(self, url: str, path: Path, offset: int, moved: Callable[[int], None]) -> None:
        try:
            source = self._files.open("/".join(bucket_and_key(url)), "rb", cache_type="none", block_size=CHUNK)
        except Exception as error:
            raise StorageError("read", url, error) from error
        with source, path.open("ab") as target:
            while True:
                try:
                    source.seek(offset)
                    data = source.read(CHUNK)
                except Exception as error:
                    raise StorageError("read", url, error) from error
                if not data:
                    return
                target.write(data)
                offset += len(data)
                moved(len(data))

    def put(self, path: Path, url: str) -> None:
        try:
            self._files.put_file(str(path), "/".join(bucket_and_key(url)), chunksize=ONE_PART)
        except Exception as error:
            raise StorageError("write", url, error) from error

    def is_encrypted(self, url: str) -> bool:
        bucket, key = bucket_and_key(url)
        try:
            about = self._files.call_s3("head_object", Bucket=bucket, Key=key)
        except Exception as error:
            raise StorageError("read", url, error) from error
        return about.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in about
