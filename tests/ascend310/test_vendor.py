"""The application and the stand-in against the vendor's own headers, which a wheel on the package index carries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.ascend310.conftest import CACHE, STANDIN, build, lacking
from tests.conftest import ROOT

WHEEL = "torch_npu==2.7.1"
INSIDE = "torch_npu/include/third_party/acl/inc/"


def fetch(folder: Path) -> None:
    """The headers out of the wheel; they are under the vendor's licence and never committed."""
    command = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
    command += ["--platform=manylinux_2_28_x86_64", "--dest", str(folder), WHEEL]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=600)
    if done.returncode:
        without_index = re.search(r"from versions: none|[cC]onnection|[tT]imeout|timed out", done.stderr)
        # only what continuous integration cannot help is skipped there
        (pytest.skip if without_index else lacking)(
            f"the vendor's headers cannot be fetched: pip download {WHEEL}: {done.stderr.strip()[-200:]}"
        )
    for wheel in folder.glob("torch_npu*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(INSIDE)])
        wheel.unlink()


def test_only_a_machine_without_an_index_does_without_the_headers(monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # a port where nobody listens
    with pytest.raises(pytest.skip.Exception, match="cannot be fetched"):
        fetch(tmp_path)
    (tmp_path / "torch_npu-0.1-py3-none-any.whl").write_bytes(b"")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="No matching distribution"):
        fetch(tmp_path)


@pytest.fixture(scope="module")
def vendor_headers(tools) -> Path:
    """Fetched once; this module's tests are the only ones that do."""
    folder = CACHE / "vendor"
    if not (folder / INSIDE / "acl/acl.h").is_file():
        fetch(folder)
    return folder / INSIDE


def test_application_compiles_without_a_warning(vendor_headers):
    options = [f"-DACL_INCLUDE_DIR={vendor_headers}", "-DINFER_WARNINGS_ARE_ERRORS=ON", "-DCMAKE_CXX_FLAGS=-O0"]
    options.append("-DCMAKE_OPTIMIZE_DEPENDENCIES=ON")
    # objects only: there is nothing to link with, and the library of the core knows no header of the vendor
    out = build(ROOT / "ascend310_infer", CACHE / "app_vendor", *options, targets=("infer_acl", "infer_main"))
    assert list(out.rglob("main.cc.o"))


def test_standin_is_what_the_headers_declare(vendor_headers, toolkit):
    """The stand-in is compiled against them too: other signatures would not compile, other layouts print otherwise."""
    options = [f"-DACL_HEADERS={vendor_headers}", "-DCMAKE_CXX_FLAGS=-O0"]
    other = build(STANDIN, CACHE / "standin_vendor", *options)
    printed = [subprocess.run([folder / "layout"], capture_output=True, text=True) for folder in (toolkit, other)]
    assert printed[0].returncode == printed[1].returncode == 0
    assert printed[0].stdout == printed[1].stdout and len(printed[0].stdout.splitlines()) > 40
