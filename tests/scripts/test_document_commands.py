"""The shell commands of the documents, as plans: every one is accepted as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
FOUND = re.compile(r"`((?:[A-Z_]+=\S+ )*bash scripts/run_(?:train|eval)\S*\.sh [^`]+)`")
COMMANDS = sorted({command for page in PAGES for command in FOUND.findall(page.read_text(encoding="utf-8"))})
COMMANDS = [command for command in COMMANDS if "_DIR" in command]  # the others only name a script


def test_there_are_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command, tmp_path):
    for folder in ("TRAIN_DIR", "VAL_DIR"):
        (tmp_path / folder).mkdir()
    (tmp_path / "X.ckpt").touch()
    devices = [{"device_id": str(n), "device_ip": f"10.0.0.{n}", "rank_id": str(n)} for n in range(8)]
    table = {"server_count": "1", "server_list": [{"server_id": "a", "device": devices}], "status": "completed"}
    (tmp_path / "hccl_8p.json").write_text(json.dumps(table))
    words = shlex.split(command)
    given = [word for word in words[: words.index("bash")]]
    script, *arguments = words[words.index("bash") + 1 :]
    env = {**os.environ, "PYTHON": sys.executable, "DRY_RUN": "1", **dict(word.split("=", 1) for word in given)}
    result = subprocess.run(
        ["bash", ROOT / script, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    expected = next((word for word in arguments if word.isdigit()), env.get("DEVICE_NUM", "1"))
    assert len(rows) == int(expected)
    assert all(row["log"].startswith(str(tmp_path)) for row in rows)
