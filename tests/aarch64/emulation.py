"""Debian's cross compiler and qemu-user: building for aarch64, running it, and calling its CPU kernels from numpy."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

COMPILER = "aarch64-linux-gnu-g++"
# The host of Ascend servers is a Kunpeng 920: GCC knows it as tsv110; of qemu's processors, this one has the same
# instruction sets (ARMv8.2, NEON of 128 bits, no SVE).
PROCESSOR = "-mcpu=tsv110"
EMULATOR = ("qemu-aarch64", "-cpu", "cortex-a76")
LIBRARIES = Path("/usr/lib/aarch64-linux-gnu")
NEEDED = ("libc.so.6", "libstdc++.so.6", "libgomp.so.1", "libjpeg.so", "libpng.so")
MACHINE = 183  # of aarch64 in an ELF file's header


def missing() -> str:
    """What this machine lacks, as a reason to skip; empty if it has everything."""
    lacking = [name for name in (COMPILER, EMULATOR[0]) if not shutil.which(name)]
    lacking += [f"{LIBRARIES / name}" for name in NEEDED if not (LIBRARIES / name).exists()]
    return f"{lacking[0]} is missing; scripts/test_aarch64.sh says what to install" if lacking else ""


def is_foreign(library: Path) -> bool:
    """True for an aarch64 file on a machine that is none."""
    with Path(library).open("rb") as file, Path("/proc/self/exe").open("rb") as python:
        machine, own = (struct.unpack_from("<H", source.read(20), 18)[0] for source in (file, python))
    return machine == MACHINE != own


@functools.lru_cache(maxsize=1)
def _scratch() -> tempfile.TemporaryDirectory:
    """A folder that goes when Python ends."""
    return tempfile.TemporaryDirectory()


@functools.lru_cache(maxsize=1)
def _caller() -> Path:
    """The program that calls kernels for us."""
    program = Path(_scratch().name) / "call_kernels"
    source = Path(__file__).with_name("call_kernels.cc")
    subprocess.run([COMPILER, "-std=c++17", "-O1", "-Wall", "-Werror", source, "-o", program], check=True)
    return program


class Process:
    """call_kernels.cc with one library, under emulation."""

    def __init__(self, library: Path):
        command = [*EMULATOR, str(_caller()), str(library)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, name: str, arrays: list[np.ndarray]) -> str:
        """Run one kernel, which writes into the last arrays; the sentence with which it refuses them, or nothing."""
        request = [_text(name.encode()), _number(len(arrays))]
        for array in arrays:
            request += [_text(array.dtype.name.encode()), _number(array.ndim), *map(_number, array.shape)]
            request += [_text(array.tobytes())]
        self._process.stdin.write(b"".join(request))
        self._process.stdin.flush()
        refusal = self._read_text().decode()
        for array in arrays:
            np.copyto(array, np.frombuffer(self._read_text(), array.dtype).reshape(array.shape))
        return refusal

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(60) == 0

    def _read(self, count: int) -> bytes:
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise RuntimeError(f"the emulated process ended with status {self._process.wait(60)}")
        return data

    def _read_text(self) -> bytes:
        return self._read(struct.unpack("<q", self._read(8))[0])


def _number(number: int) -> bytes:
    return struct.pack("<q", number)


def _text(text: bytes) -> bytes:
    return _number(len(text)) + text
