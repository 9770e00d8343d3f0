"""The 310 application and the stand-in for AscendCL, built for aarch64 and started in the emulator."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.aarch64 import emulation
from tests.ascend310.conftest import CACHE, STANDIN, App, build, photos, tools, workers  # noqa: F401 fixtures
from tests.conftest import ROOT

CROSS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_CXX_COMPILER={emulation.COMPILER}",
    f"-DCMAKE_CXX_FLAGS={emulation.PROCESSOR}",
    f"-DCMAKE_CROSSCOMPILING_EMULATOR={';'.join(emulation.EMULATOR)}",
    "-DCMAKE_BUILD_TYPE=Release",
)


@pytest.fixture(scope="session")
def toolkit(tools) -> Path:  # noqa: F811
    if emulation.missing():
        pytest.skip(emulation.missing())
    return build(STANDIN, CACHE / "standin-aarch64", *CROSS, f"-DPYTHON={sys.executable}")


@pytest.fixture(scope="session")
def program_folder(toolkit) -> Path:
    """Programs that start themselves in the emulator; ctest does so as well."""
    out = CACHE / "app-aarch64"
    options = ("-DINFER_WARNINGS_ARE_ERRORS=ON", "-DINFER_TESTS=ON", f"-DCMAKE_RUNTIME_OUTPUT_DIRECTORY={out}/programs")
    build(ROOT / "ascend310_infer", out, *CROSS, f"-DASCEND_HOME_PATH={toolkit}", *options)
    for name in ("infer310", "dump_input"):
        (out / name).write_text(f'#!/bin/sh\nexec {" ".join(emulation.EMULATOR)} {out}/programs/{name} "$@"\n')
        (out / name).chmod(0o755)
    return out


@pytest.fixture()
def app(program_folder, toolkit, workers, tmp_path) -> App:  # noqa: F811
    return App(program_folder / "infer310", toolkit, workers, tmp_path)
