"""Object storage for the tests: a real S3 server on loopback, and the stand-in for ModelArts' library."""

from __future__ import annotations

import contextlib
import datetime
import functools
import ipaddress
import os
import ssl
import sys
import threading
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


@contextlib.contextmanager
def s3_server_over_tls(folder: Path, address: str) -> Iterator[str]:
    """Such a server with a certificate for the IP `address`, whose authority's own one is written to folder/ca.pem."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    write_certificates(folder, address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_certificates(folder: Path, address: str) -> None:
    """ca.pem, an authority's certificate, and server.pem, a key and the certificate for `address` that it signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now, pem = datetime.datetime.now(datetime.timezone.utc), serialization.Encoding.PEM
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority, server = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "server")
    )

    def signed(name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        made = x509.CertificateBuilder(authority, name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        for extension in extensions:
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return made.sign(authority_key, hashes.SHA256()).public_bytes(pem)

    (folder / "ca.pem").write_bytes(signed(authority, authority_key, x509.BasicConstraints(ca=True, path_length=None)))
    known_as = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.pem").write_bytes(server_key.private_bytes(pem, *private) + signed(server, server_key, known_as))


def forget_moxing() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "moxing"]:
        del sys.modules[name]
