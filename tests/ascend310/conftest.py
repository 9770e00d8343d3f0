"""Builds the application and the stand-in for AscendCL, and runs the one on the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT

CACHE = ROOT / ".cache" / "ascend310"  # builds are kept, so that the next run only builds what has changed
SANITIZED = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -O1")


def build(source: Path, out: Path, *options: str, target: str = "all") -> Path:
    """Run CMake; what it says goes into the failure."""
    for command in (
        ["cmake", "-S", source, "-B", out, *options],
        ["cmake", "--build", out, "--parallel", "2", "--target", target],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="session")
def tools():
    """The tests need a C++ compiler, CMake, libjpeg and libpng; nothing installs them."""
    for program in ("cmake", "c++"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    for header in ("jpeglib.h", "png.h"):
        code = f"#include <cstdio>\n#include <{header}>\n"
        if subprocess.run(["c++", "-fsyntax-only", "-xc++", "-"], input=code.encode(), capture_output=True).returncode:
            pytest.skip(f"{header} is not installed (Debian: libjpeg-dev, libpng-dev)")


@pytest.fixture(scope="session")
def toolkit(tools) -> Path:
    """The stand-in, as a folder that looks like a CANN toolkit."""
    return build(ROOT / "tests/ascend310/standin", CACHE / "standin", f"-DPYTHON={sys.executable}", *SANITIZED)


@pytest.fixture(scope="session")
def program_folder(toolkit) -> Path:
    """The application and its core's tests with sanitizers; warnings are errors."""
    options = (f"-DASCEND_HOME_PATH={toolkit}", "-DINFER_WARNINGS_ARE_ERRORS=ON", "-DBUILD_TESTING=ON", *SANITIZED)
    return build(ROOT / "ascend310_infer", CACHE / "app", *options)


@dataclass(frozen=True)
class App:
    """The application on the stand-in, in a working folder."""

    program: Path
    toolkit: Path
    cwd: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self.toolkit / "lib64"), **more}

    def convert(self, onnx: Path, *options: str, name: str = "model") -> Path:
        command = [self.toolkit / "bin/atc", "--framework=5", f"--model={onnx}", f"--output={self.cwd / name}"]
        command += ["--soc_version=Ascend310", *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.cwd / f"{name}.om"

    def run(self, om: Path, data: Path, mode: str, *options: object, **environment: str):
        command = [self.program, "--model", om, "--data", data, "--mode", mode, *options]
        return subprocess.run(
            list(map(str, command)),
            cwd=self.cwd,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def scores(self, name: str, output: int = 0, folder: str = "result_Files") -> np.ndarray:
        return np.fromfile(self.cwd / folder / f"{name}_{output}.bin", np.float32)

    def results(self) -> list[str]:
        folder = self.cwd / "result_Files"
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.bin"))


@pytest.fixture()
def app(program_folder, toolkit, tmp_path) -> App:
    return App(program_folder / "infer310", toolkit, tmp_path)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth colour picture, as photographs are; RGB."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write(file: Path, image: np.ndarray, *options: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(options))
    return file


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Four JPEG photographs in two class folders, one of them large."""
    root = tmp_path_factory.mktemp("photos")
    for index, (width, height) in enumerate([(64, 48), (61, 75), (300, 200), (32, 32)]):
        write(root / ("owl" if index % 2 else "cat") / f"p{index}.jpg", picture(width, height, index))
    return root
