"""Opening a page in a real browser, Chromium without a display: what a script finds, and what the console says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.screenshots import BROWSERS, FLAGS

LOGGING = ("--enable-logging=stderr", "--v=0")
LIMIT = 120  # seconds
RESULT = re.compile(r'<pre id="found-by-test">(.*?)</pre>', re.S)


class Opened(NamedTuple):
    """What the script returned, and the lines of the console."""

    found: Any
    console: list[str]


def browser() -> str:
    """The browser of this machine; skips the test where there is none."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"this machine has no {BROWSERS[0]}; on Debian: apt-get install {BROWSERS[0]}")
    return found


def open_page(page: Path, script: str, profile: Path) -> Opened:
    """Open a page, run `script` (the body of a function that returns something) on it and give back what it returns."""
    told = (
        "<script>window.addEventListener('load', () => { const out = document.createElement('pre');"
        f"out.id = 'found-by-test'; out.textContent = JSON.stringify((() => {{ {script} }})());"
        "document.body.append(out); });</script>"
    )
    copy = profile / "page.html"
    profile.mkdir(parents=True, exist_ok=True)
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{told}</body>"), encoding="utf-8")
    command = [
        browser(),
        *FLAGS,
        *LOGGING,
        f"--user-data-dir={profile / 'profile'}",
        "--dump-dom",
        copy.resolve().as_uri(),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 0, ended.stderr
    found = RESULT.search(ended.stdout)
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    assert found, "\n".join(console) or ended.stderr
    return Opened(json.loads(html.unescape(found[1])), console)
