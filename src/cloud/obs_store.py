"""Huawei's object storage through its own SDK (esdk-obs-python)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import obs

from src.cloud.job_environment import Access
from src.cloud.storage import CHUNK, Remote, StorageError, bucket_and_key
from src.engine.errors import ZooError

ERRORS = {403: PermissionError, 404: FileNotFoundError}
MOST = 5 * 2**30  # bytes that one request may store


class ObsStore:
    """A Store on ObsClient, whose calls report errors in their results instead of raising them."""

    resumes = True

    def __init__(self, access: Access):
        if not access.endpoint:
            raise ZooError(
                "no address of the object storage is known; set S3_ENDPOINT to https://obs.REGION.myhuaweicloud.com"
            )
        self._client = obs.ObsClient(
            access_key_id=access.key,
            secret_access_key=access.secret,
            security_token=access.token or None,
            server=access.endpoint,
            ssl_verify=access.verify,
        )
        if access.verify and self._client.context is not None:  # the SDK asks for a certificate and knows no authority
            self._client.context.load_default_certs()
            self._client.context.check_hostname = True

    def _ask(self, what: str, url: str, call: Callable, *arguments: Any, **options: Any) -> Any:
        """The body of the answer to a call; raises StorageError also where the answer is an error."""
        try:
            answer = call(*bucket_and_key(url)[: 1 if what == "list" else 2], *arguments, **options)
        except Exception as error:
            raise StorageError(what, url, error) from error
        if answer.status >= 300:
            kind = ERRORS.get(answer.status, OSError)
            raise StorageError(what, url, kind(f"{answer.status} {answer.errorCode or answer.reason}"))
        return answer.body

    def list(self, url: str) -> dict[str, Remote]:
        key, found, marker = bucket_and_key(url)[1], {}, None
        while True:
            page = self._ask("list", url, self._client.listObjects, prefix=key or None, marker=marker)
            for entry in page.contents:
                inside = not key or entry.key == key or entry.key.startswith(key + "/")
                if inside and not entry.key.endswith("/"):  # the mark of an empty folder
                    found[entry.key[len(key) :].strip("/")] = Remote(entry.size, entry.etag.strip('"'))
                marker = entry.key
            marker = page.next_marker or marker
            if not page.is_truncated:
                return found

    def fetch(self, url: str, path: Path, offset: int, moved: Callable[[int], None]) -> None:
        headers = obs.GetObjectHeader(range=f"{offset}-") if offset else None
        body = self._ask("read", url, self._client.getObject, headers=headers, loadStreamInMemory=False)
        with path.open("ab") as target:
            while True:
                try:
                    data = body.response.read(CHUNK)
                except Exception as error:
                    raise StorageError("read", url, error) from error
                if not data:
                    return
                target.write(data)
                moved(len(data))

    def put(self, path: Path, url: str) -> None:
        if path.stat().st_size > MOST:
            about = f"the file has more than the {MOST:,} bytes that can be stored"
            raise StorageError("write", url, about, again=False, remedy="make it smaller")
        self._ask("write", url, self._client.putFile, str(path))

    def is_encrypted(self, url: str) -> bool:
        about = self._ask("read", url, self._client.getObjectMetadata)
        return bool(about.get("sseKms") or about.get("sseC"))
