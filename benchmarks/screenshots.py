"""The pictures of docs/ that show what programs write, from what the quick start of the digits left.

bash scripts/quickstart.sh                                             (what they are drawn from)
python -m benchmarks.screenshots [--out docs/images] [--folder .]

Reports are pages: they are opened in Chromium, which has to be installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pictures import DIGITS, needed
from benchmarks.processes import ROOT
from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError, reports_errors

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
WIDTH = 860
COLOURS = 64
LIMIT = 300  # seconds that a program may take


def run(*command: object, cwd: Path = ROOT, may_end_with: tuple[int, ...] = (0,)) -> None:
    """A program of this repository, or the browser. Raises ZooError where it fails."""
    words = [str(part) for part in command]
    ended = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, check=False)
    if ended.returncode not in may_end_with:
        said = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise ZooError(f"{command[1]} ended with status {ended.returncode}: {said}")


def photograph(page: Path, out: Path, height: int) -> None:
    """The top of a page as a picture of few colours."""
    from PIL import Image

    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        raise UsageError(
            f"there is no {BROWSERS[0]} here, which opens the reports; on Debian: apt-get install chromium"
        )
    with tempfile.TemporaryDirectory(prefix="browser-") as folder:
        shot = Path(folder) / "shot.png"
        run(
            browser, *FLAGS, "--hide-scrollbars", f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},{height}", f"--screenshot={shot}", page.resolve().as_uri(),
        )  # fmt: skip
        Image.open(shot).convert("RGB").quantize(COLOURS).save(out, optimize=True)


def with_faults(digits: Path, out: Path) -> None:
    """The digits with a copy, an enlarged copy, a picture in a wrong class, and a cut and an empty file."""
    from PIL import Image

    shutil.copytree(digits, out)
    train, val = out / "train", sorted((out / "val" / "3").iterdir())
    shutil.copy(val[0], train / "3" / "copy.jpg")
    Image.open(val[1]).resize((64, 64)).save(train / "3" / "enlarged.png")
    shutil.copy(sorted((train / "7").iterdir())[0], train / "1" / "a_seven.png")
    whole = sorted((train / "5").iterdir())[0].read_bytes()
    (train / "5" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (train / "5" / "empty.png").touch()


def draw(folder: Path, out: Path) -> None:
    """All pictures, from the quick start of the digits in `folder`."""
    run_folder = needed(folder, str(DIGITS / "run" / "metrics.jsonl"), "bash scripts/quickstart.sh").parent
    digits, python = folder / DIGITS / "digits", sys.executable
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        work = Path(name)
        config, best = run_folder / "config.yaml", run_folder / "mobilenetv2-best.ckpt"
        run(
            python, ROOT / "infer.py", "--config_path", config, "--pretrain_ckpt", best, "--data_path", digits / "val",
            "--infer_output_path", work / "infer_result",
        )  # fmt: skip
        shutil.copy(work / "infer_result" / "contact_sheet.png", out / "contact_sheet.png")
        run(python, "tools/report.py", run_folder, "--data_path", digits / "val", "--report", work / "run.html")
        photograph(work / "run.html", out / "report.png", 900)
        with_faults(digits, work / "digits")
        checked = work / "check.html"
        run(python, ROOT / "tools/check_data.py", "digits", "--report", checked, cwd=work, may_end_with=(1,))
        photograph(checked, out / "check_data.png", 620)


@reports_errors
def main(argv: list[str]) -> int:
    flags = Parser(prog="python -m benchmarks.screenshots", description=__doc__.split("\n")[0])
    flags.add_argument("--out", type=Path, default=ROOT / "docs" / "images", metavar="FOLDER")
    flags.add_argument("--folder", type=Path, default=ROOT, metavar="FOLDER", help="where the quick start lies")
    options = flags.parse_args(argv)
    draw(options.folder.expanduser().resolve(), options.out.expanduser().resolve())
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
