"""Scripts that make environments and look at other platforms: wrong arguments, and what is said without a network."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


def bash(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "scripts" / script), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("arguments", [(), ("newest",), ("2.10; ls",), ("2",)])
def test_a_version_of_mindspore_is_a_number(arguments):
    before = sorted(ROOT.glob(".venv*"))
    done = bash("try_mindspore.sh", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: " in done.stderr and ("VERSION is" in done.stderr) == bool(arguments)
    assert sorted(ROOT.glob(".venv*")) == before


def python_that_is(version: str, folder: Path) -> str:
    """A stand-in for an interpreter: python -c exits as find_python's question wants for this version."""
    program = folder / f"python-{version}"
    major, minor = version.split(".")
    text = f"""#!/usr/bin/env python3
import sys
sys.version_info = ({major}, {minor}, 1)
exec(sys.argv[2])
"""
    program.write_text(text)
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(("version", "fits"), [("3.8", False), ("3.9", True), ("3.12", True), ("3.13", False)])
def test_which_python_is_taken(tmp_path, version, fits):
    program = python_that_is(version, tmp_path)
    command = ["bash", "-c", f"source '{ROOT}/scripts/common.sh'; find_python"]
    environment = {**os.environ, "PYTHON": program}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == ((0, program) if fits else (1, ""))
    assert fits or "it has to be a Python from 3.9 to 3.12" in done.stderr


def test_the_supported_versions_are_the_same_everywhere():
    checked = re.search(r"PYTHONS=\(([\d. ]+)\)", (ROOT / "scripts/check_requirements.sh").read_text("utf-8"))[
        1
    ].split()
    assert checked == ["3.9", "3.10", "3.11", "3.12"]
    assert 'requires-python = ">=3.9,<3.13"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert "Python 3.9 to 3.12" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.skipif(not (ROOT / ".venv/bin/uv").exists(), reason="uv is not installed (requirements-dev.txt)")
def test_without_a_package_index_nothing_fails():
    done = bash("check_requirements.sh", UV_DEFAULT_INDEX="http://127.0.0.1:9/simple", UV_NO_CACHE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("no package index answers; the requirement files were not checked\n")


def test_aarch64_is_asked_for_in_one_way():
    done = bash("test_aarch64.sh", "--install", "more")
    assert (done.returncode, done.stdout) == (2, "") and "usage: " in done.stderr
