"""Compile the .cc files of native/ for the machine at hand, once; later calls find the library in the cache.

Of the operator table are made the header that native/ includes as operators.h, which exists while compiling only, and
the file of gradients beside the library.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.cpu_kernels import gradients, header
from src.engine.io import files

NATIVE = Path(__file__).parent / "native"
SOURCES = sorted(NATIVE.rglob("*.cc"))
HEADERS = sorted(NATIVE.rglob("*.h"))
REPOSITORY = Path(__file__).resolve().parents[2]
# No -ffast-math: it would drop NaN, and the training loop has to see a loss that diverged.
FLAGS = (
    "-O3",
    "-march=native",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
)
COMPILE_SECONDS = 300


class KernelsUnavailable(RuntimeError):
    """The library cannot be had on this machine; the message is one sentence that says why."""


def library_path() -> Path:
    """Path of the shared library, compiled first unless the cache already holds it."""
    compiler = _compiler()
    key = _cache_key(compiler)
    folder = _cache_folder()
    library = folder / f"{key}.so"
    if not _is_there(library):
        _compile_once(compiler, library)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelsUnavailable(f"the compiled CPU kernels cannot be loaded: {error}") from error
    return library


def _compiler() -> list[str]:
    """Command of the C++ compiler: $CXX (which may hold options), else the first usual name that exists."""
    chosen = os.environ.get("CXX", "").split()
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise KernelsUnavailable(f"the C++ compiler named by CXX, {chosen[0]}, does not exist")
        return chosen
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    raise KernelsUnavailable("no C++ compiler found")


def _cache_key(compiler: list[str]) -> str:
    """Hash of everything that decides what the compiler writes; -march=native makes the processor part of it."""
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailable(f"the C++ compiler {compiler[0]} does not start: {error}") from error
    digest = hashlib.sha256()
    for file in (*SOURCES, *HEADERS):
        digest.update(file.read_bytes() + b"\0")
    for part in (header.text(), gradients.text(), *FLAGS, *compiler, _processor()):
        digest.update(part.encode() + b"\0")
    digest.update(version.stdout)
    return digest.hexdigest()


def _processor() -> str:
    """Architecture, model and instruction sets of the processor, as far as the system tells."""
    wanted = ("model name", "flags", "CPU part", "Features")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.startswith(wanted)})])


def _cache_folder() -> Path:
    """<repository>/.cache/cpu_kernels, or the user's cache folder if the repository cannot be written to."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (REPOSITORY / ".cache" / "cpu_kernels", user_cache / "mobile_zoo" / "cpu_kernels"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise KernelsUnavailable(f"neither {REPOSITORY} nor {user_cache} can be written to")


def _is_there(library: Path) -> bool:
    """Whether the library and the gradients of its operators are there."""
    return library.exists() and gradients.file_of(library).exists()


def _compile_once(compiler: list[str], library: Path) -> None:
    """Compile unless another process has done so meanwhile; the ranks of a run start at the same time."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(library.with_suffix(".lock")))
        except OSError as error:
            raise KernelsUnavailable(f"the compiled CPU kernels cannot be stored: {error}") from error
        if not _is_there(library):
            _compile(compiler, library)


def compile_library(compiler: list[str], flags: Sequence[str], library: Path) -> None:
    """Make `library`: the sources side by side, one for each core, then one library of them all.

    Raises KernelsUnavailable with the compiler's first error.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        (Path(folder) / "operators.h").write_text(header.text(), encoding="utf-8")
        # Numbered, because two rooms may have a file of one name.
        objects = [Path(folder) / f"{number}.o" for number in range(len(SOURCES))]
        command = [*compiler, *flags, f"-I{folder}", f"-I{NATIVE}"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: _run([*command, "-c", str(pair[0]), "-o", str(pair[1])]), zip(SOURCES, objects)))
        _run([*command, *map(str, objects), "-o", str(library)])


def _run(command: list[str]) -> None:
    """Run the compiler."""
    try:
        result = subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailable(f"compiling the CPU kernels failed: {error}") from error
    if result.returncode != 0:
        reason = _first_error(result.stderr) or f"{command[0]} ended with status {result.returncode}"
        raise KernelsUnavailable(f"compiling the CPU kernels failed: {reason}")


def _compile(compiler: list[str], library: Path) -> None:
    """Compile into a temporary file and rename it, so that a second process never sees half a library."""
    try:
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            unfinished = Path(folder) / library.name
            compile_library(compiler, FLAGS, unfinished)
            functions = Path(folder) / "gradients.py"
            functions.write_text(gradients.text(), encoding="utf-8")
            functions.replace(gradients.file_of(library))
            unfinished.replace(library)
    except OSError as error:
        raise KernelsUnavailable(f"the compiled CPU kernels cannot be stored: {error}") from error


def _first_error(said: str) -> str:
    """The first line with "error:", or the last one; compilers end with a piece of the code."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[-1] if lines else "")
