"""A real network, killed twenty times while it trains, reaches the weights of one that was not. Takes minutes."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = [pytest.mark.needs_mindspore, pytest.mark.slow, pytest.mark.timeout(2400)]
pytest.importorskip("mindspore")

from tests.conftest import ROOT, run_command, write_settings  # noqa: E402
from tests.needs_mindspore.test_faults import assert_same  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

KILLS = 20
EPOCHS = 200  # of 4 steps; 20 kills may see 20 of them pass each
SETTINGS = {
    "__BASE__": str(ROOT / "default_config_cpu.yaml"),
    "image_height": 32,
    "image_width": 32,
    "batch_size": 6,
    "width_mult": 0.25,
    "epoch_size": EPOCHS,
    "lr_max": 0.01,
    "lr_end": 0.0,
    "dropout": 0.2,
    "ema_decay": 0.9,
    "mixup_alpha": 0.2,
    "save_checkpoint_steps": 1,
    "keep_checkpoint_max": 3,
    "save_checkpoint_path": "run",
}
LAST = f"run/mobilenetv2-{EPOCHS}_4.ckpt"


def test_killed_twenty_times(images, tmp_path):
    """Each time at a random moment of the half second after the first step that is new."""
    settings = write_settings(tmp_path / "settings.yaml", SETTINGS)
    flags = [str(ROOT / "train.py"), "--config_path", str(settings), "--dataset_path", str(images / "train")]
    (tmp_path / "undisturbed").mkdir()
    undisturbed = run_command(*flags, cwd=tmp_path / "undisturbed", timeout=900)
    assert undisturbed.returncode == 0, undisturbed.stderr
    seed = int(time.time())
    rng, metrics = np.random.default_rng(seed), tmp_path / "run" / "metrics.jsonl"
    for kill in range(KILLS):
        before = metrics.stat().st_size if metrics.exists() else 0
        with subprocess.Popen(
            [sys.executable, *flags, "--resume", "auto"], cwd=tmp_path, stdout=subprocess.DEVNULL
        ) as process:
            wait_until(
                lambda size=before: metrics.exists() and metrics.stat().st_size > size,
                f"a step (seed {seed}, kill {kill})",
                process=process,
                pause=0.002,
            )
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
        assert process.returncode == -9, (seed, kill)
    last = run_command(*flags, "--resume", "auto", cwd=tmp_path, timeout=900)
    assert last.returncode == 0, last.stderr
    assert_same(tmp_path / LAST, tmp_path / "undisturbed" / LAST)
