"""MindSpore's dataset cache server for real: same bytes, same losses, nothing left running."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
pytest.importorskip("mindspore")

from src.engine.data.image_folder import TRAIN_FOLDERS, scan  # noqa: E402
from tests.conftest import ROOT, run_command, write_images  # noqa: E402
from tests.scripts.ports import free_port  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

FLAGS = (
    "--image_height", "32", "--image_width", "32", "--batch_size", "8", "--width_mult", "0.25", "--epoch_size", "2",
    "--cpu_kernels", "off",
)  # fmt: skip
READ_ALL = """
import json, sys
import numpy as np
from src.engine.data.cached_files import CachedFiles
from src.engine.data.image_folder import TRAIN_FOLDERS, scan
folder = scan(sys.argv[1], TRAIN_FOLDERS)
cache = CachedFiles(folder.source, int(sys.argv[2]), False)
for seed in range(2):
    order = np.random.default_rng(seed).permutation(len(folder)).reshape(-1, 2)
    for row in cache.rows(order):
        for index, content in row:
            print(json.dumps([index, content.hex() if content is not None else None]))
print(cache.statistics())
"""


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server():
    """Port and session of a cache server that the test owns."""
    port, tool = free_port(), str(Path(sys.executable).with_name("dataset-cache"))

    def admin(*arguments: str) -> str:
        made = subprocess.run([tool, *arguments, "-p", str(port)], capture_output=True, text=True, timeout=120)
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout

    admin("--start")
    try:
        yield port, admin("--generate_session").split()[-1]
    finally:
        admin("--stop")


def test_every_file_comes_back_in_the_order_asked_for(server, tmp_path):
    """Names with spaces, other suffixes, hidden files and files that are no images do not shift the rows."""
    port, session = server
    root = write_images(tmp_path / "with space", 4, classes=("b c", "a", "Z"))
    shutil.copy(root / "a" / "000.jpg", root / "a" / ".hidden.jpg")
    shutil.copy(root / "a" / "000.jpg", root / "a" / "UPPER.JPG")
    (root / "b c" / "notes.txt").write_text("no image")
    (root / "Z" / "empty folder").mkdir()
    (root / "b c" / "nested").mkdir()
    shutil.copy(root / "a" / "001.jpg", root / "b c" / "nested" / "x.jpg")
    folder = scan(str(root), TRAIN_FOLDERS)
    assert len(folder) == 14
    result = run_command("-c", READ_ALL, root, session, MS_CACHE_PORT=str(port))
    assert result.returncode == 0, result.stderr
    *lines, statistics = result.stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 28
    for index, content in rows:
        if content is None:
            assert folder.source.name(index) == "b c/nested/x.jpg"
        else:
            assert bytes.fromhex(content) == folder.source.read(index)
    assert statistics.startswith("dataset cache: 1") and "in memory, 0 on disk" in statistics


def losses(run: Path) -> list[float]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in found if row["kind"] == "train"]


@pytest.mark.slow
def test_cached_training_gives_the_same_losses_and_stops_its_server(images, tmp_path):
    port = free_port()
    (tmp_path / "cached").mkdir()
    (tmp_path / "plain").mkdir()
    result = subprocess.run(
        ["bash", ROOT / "scripts" / "run_train_nfs_cache.sh", "CPU", images / "train", "--", *FLAGS],
        cwd=tmp_path / "cached",
        env={**os.environ, "PYTHON": sys.executable, "CACHE_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    # MindSpore's threads share a buffer that is sent when the first of them is done: what a late one adds may be lost.
    found = re.search(r"dataset cache: (\d+) files in memory, 0 on disk", result.stdout)
    assert found and 12 < int(found[1]) <= 24, result.stdout
    wait_until(lambda: not answers(port), "the server's end")
    plain = run_command(
        ROOT / "train.py", "--platform", "CPU", "--dataset_path", images / "train", *FLAGS, cwd=tmp_path / "plain"
    )
    assert plain.returncode == 0, plain.stderr
    np.testing.assert_array_equal(losses(tmp_path / "cached" / "checkpoint"), losses(tmp_path / "plain" / "checkpoint"))


def test_server_that_is_gone_is_one_sentence(images, tmp_path):
    result = run_command(
        ROOT / "train.py", "--platform", "CPU", "--dataset_path", images / "train", *FLAGS, "--enable_cache", "True",
        "--cache_session_id", "123", cwd=tmp_path, MS_CACHE_PORT=str(free_port()),
    )  # fmt: skip
    assert result.returncode == 1
    assert "error: the dataset cache failed (Network error." in result.stderr
    assert "Traceback" not in result.stderr
