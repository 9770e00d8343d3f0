"""Builds the application and the stand-in for AscendCL, and runs the one on the other."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT

CACHE = ROOT / ".cache" / "ascend310"  # builds are kept, so that the next run only builds what has changed
SANITIZED = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -O0 -g1")
STANDIN = ROOT / "tests" / "ascend310" / "standin"
FOUND = 87  # how a program ends in which a sanitizer found something; their own choice is 1, as after any failure
SANITIZERS = {
    "ASAN_OPTIONS": ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), f"detect_leaks=1:exitcode={FOUND}"])),
    "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:exitcode={FOUND}",
}


def run_program(*command: object, cwd: Path | None = None, timeout: float = 600, **environment: str):
    """Run a program that is built with sanitizers, or what starts one; whatever they find fails the test."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **SANITIZERS, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    said = done.stdout + done.stderr  # a script may have put the one into the other, and has a status of its own
    assert done.returncode != FOUND and not re.search(r"Sanitizer|: runtime error: ", said), said
    return done


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time builds in a folder; the tests run in several."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(source: Path, out: Path, *options: str, targets: Iterable[str] = ("all",)) -> Path:
    """Run CMake; what it says goes into the failure."""
    with locked(out):
        for command in (
            ["cmake", "-S", source, "-B", out, *options],
            ["cmake", "--build", out, "--parallel", "2", "--target", *targets],
        ):
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return out


def lacking(what: str) -> None:
    """Skip what this machine cannot test; continuous integration has to be able to test all."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def tools():
    """The tests need a C++ compiler, CMake, libjpeg and libpng; nothing installs them."""
    for program in ("cmake", "c++"):
        if not shutil.which(program):
            lacking(f"{program} is not installed (Debian: cmake, g++)")
    for header in ("jpeglib.h", "png.h"):
        code = f"#include <cstdio>\n#include <{header}>\n"
        if subprocess.run(["c++", "-fsyntax-only", "-xc++", "-"], input=code.encode(), capture_output=True).returncode:
            lacking(f"{header} is not installed (Debian: libjpeg-dev, libpng-dev)")


@pytest.fixture(scope="session")
def toolkit(tools) -> Path:
    """The stand-in, as a folder that looks like a CANN toolkit."""
    return build(STANDIN, CACHE / "standin", f"-DPYTHON={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug")


@pytest.fixture(scope="session")
def workers() -> Iterator[str]:
    """The server of processes that run networks: most runs are shorter than the start of Python."""
    with tempfile.TemporaryDirectory() as folder:  # not pytest's: a socket's path has to be short
        path = f"{folder}/workers"
        with subprocess.Popen(
            [sys.executable, STANDIN / "worker.py", "--serve", path], stdout=subprocess.PIPE
        ) as server:
            assert server.stdout.readline() == b"ready\n"
            yield path
            server.terminate()


@pytest.fixture(scope="session")
def program_folder(toolkit) -> Path:
    """The application and its core's tests with sanitizers; warnings are errors."""
    options = (f"-DASCEND_HOME_PATH={toolkit}", "-DINFER_WARNINGS_ARE_ERRORS=ON", "-DINFER_TESTS=ON", *SANITIZED)
    return build(ROOT / "ascend310_infer", CACHE / "app", *options)


@functools.lru_cache
def converted(toolkit: Path, onnx: bytes, options: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.onnx").write_bytes(onnx)
        command = [toolkit / "bin/atc", "--framework=5", f"--model={folder}/model.onnx", f"--output={folder}/model"]
        command += ["--soc_version=Ascend310", *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return (Path(folder) / "model.om").read_bytes()


@dataclass(frozen=True)
class App:
    """The application on the stand-in, in a working folder."""

    program: Path
    toolkit: Path
    workers: str
    cwd: Path

    def convert(self, onnx: Path, *options: str, name: str = "model") -> Path:
        """What atc makes of a file; the same file and options are converted once."""
        om = self.cwd / f"{name}.om"
        om.write_bytes(converted(self.toolkit, onnx.read_bytes(), options))
        return om

    def run(self, om: Path, data: Path, mode: str, *options: object, **environment: str):
        known = {"LD_LIBRARY_PATH": str(self.toolkit / "lib64"), "STANDIN_WORKERS": self.workers}
        command = [self.program, "--model", om, "--data", data, "--mode", mode, *options]
        return run_program(*command, cwd=self.cwd, **{**known, **environment})

    def scores(self, name: str, output: int = 0, folder: str = "result_Files") -> np.ndarray:
        return np.fromfile(self.cwd / folder / f"{name}_{output}.bin", np.float32)

    def results(self) -> list[str]:
        folder = self.cwd / "result_Files"
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.bin"))


@pytest.fixture()
def app(program_folder, toolkit, workers, tmp_path) -> App:
    return App(program_folder / "infer310", toolkit, workers, tmp_path)


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
