"""The pictures of docs/ that show what programs write, from what two quick starts left.

bash scripts/quickstart.sh; bash scripts/quickstart.sh segformer         (what they are drawn from)
python -m benchmarks.screenshots [NAME ...] [--out docs/images] [--folder .]

NAME is one of the pictures; without any, all are drawn, which takes some minutes: side_by_side trains twice, compare
measures latencies. Reports are pages: they are opened in Chromium, which has to be installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.pictures import DIGITS, STREETS, needed
from benchmarks.processes import ROOT
from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError, reports_errors

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
WIDTH = 860
COLOURS = 64
LIMIT = 600  # seconds that a program may take
RARE, KEPT = range(5, 10), 10  # digits that lose all but so many of their pictures


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


def thinned(digits: Path, out: Path) -> None:
    """The digits with few training pictures of some."""
    shutil.copytree(digits, out)
    for digit in RARE:
        for file in sorted((out / "train" / str(digit)).iterdir())[KEPT:]:
            file.unlink()


def contact_sheet(folder: Path, work: Path, out: Path) -> None:
    """What infer.py draws of the digits."""
    run_folder = folder / DIGITS / "run"
    config, best = run_folder / "config.yaml", run_folder / "mobilenetv2-best.ckpt"
    run(
        sys.executable, ROOT / "infer.py", "--config_path", config, "--pretrain_ckpt", best,
        "--data_path", folder / DIGITS / "digits" / "val", "--infer_output_path", work / "infer_result",
    )  # fmt: skip
    shutil.copy(work / "infer_result" / "contact_sheet.png", out)


def report(folder: Path, work: Path, out: Path) -> None:
    """The report of the digits' run."""
    run_folder, val = folder / DIGITS / "run", folder / DIGITS / "digits" / "val"
    run(sys.executable, "tools/report.py", run_folder, "--data_path", val, "--report", work / "run.html")
    photograph(work / "run.html", out, 900)


def check_data(folder: Path, work: Path, out: Path) -> None:
    """What check_data.py finds in digits with faults."""
    with_faults(folder / DIGITS / "digits", work / "digits")
    checked = work / "check.html"
    run(
        sys.executable, ROOT / "tools/check_data.py", "digits", "--report", checked, cwd=work, may_end_with=(1,)
    )  # fmt: skip
    photograph(checked, out, 620)


def side_by_side(folder: Path, work: Path, out: Path) -> None:
    """The report of two runs on digits of which some are rare: without and with the balanced sampler."""
    thinned(folder / DIGITS / "digits", work / "digits")
    for name, more in (("plain", ()), ("balanced_sampler", ("--sampler", "balanced"))):
        run(
            sys.executable, ROOT / "train.py", "--config_path", ROOT / "configs/mobilenetv2/digits_cpu.yaml",
            "--dataset_path", "digits/train", "--epoch_size", 30, "--save_checkpoint_path", f"runs/{name}", *more,
            cwd=work,
        )  # fmt: skip
    run(
        sys.executable, ROOT / "tools/report.py", "runs/plain", "runs/balanced_sampler",
        "--data_path", "digits/val", "--report", "report.html", cwd=work,
    )  # fmt: skip
    photograph(work / "report.html", out, 1296)


def compare(folder: Path, work: Path, out: Path) -> None:
    """The street scenes' network as checkpoint, in floats and, after calibration, in integers."""
    streets = folder / STREETS
    config, data = ("--config_path", streets / "run/config.yaml"), ("--data_path", streets / "scenes")
    best = streets / "run/segformer_mit_b0_best.ckpt"
    run(
        sys.executable, ROOT / "train.py", *config, *data, "--load_ckpt", True, "--pretrained_ckpt_path", best,
        "--quant", True, "--calibrate_only", 8, "--resume", "", "--checkpoint_path", work / "run",
    )  # fmt: skip
    calibrated, whole = next((work / "run").glob("*calibrated.ckpt")), work / "scenes_int8.onnx"
    run(
        sys.executable, ROOT / "export.py", *config, *data, "--export_ckpt_path", calibrated,
        "--export_format", "ONNX", "--export_name", whole,
    )  # fmt: skip
    run(
        sys.executable, ROOT / "tools/compare_backends.py", best, streets / "scenes.onnx", whole, *config, *data,
        "--picture", out,
    )  # fmt: skip


PICTURES: dict[str, Callable[[Path, Path, Path], None]] = {
    function.__name__: function for function in (contact_sheet, report, check_data, side_by_side, compare)
}


def draw(names: list[str], folder: Path, out: Path) -> None:
    """The named pictures, from the quick starts in `folder`."""
    if set(names) - {"compare"}:
        needed(folder, str(DIGITS / "run" / "metrics.jsonl"), "bash scripts/quickstart.sh")
    if "compare" in names:
        needed(folder, str(STREETS / "run" / "metrics.jsonl"), "bash scripts/quickstart.sh segformer")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="pictures-") as work:
            PICTURES[name](folder, Path(work), out / f"{name}.png")
        print(f"written: {out / name}.png", flush=True)


@reports_errors
def main(argv: list[str]) -> int:
    flags = Parser(prog="python -m benchmarks.screenshots", description=__doc__.split("\n")[0])
    flags.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    flags.add_argument("--out", type=Path, default=ROOT / "docs" / "images", metavar="FOLDER")
    flags.add_argument("--folder", type=Path, default=ROOT, metavar="FOLDER", help="where the quick starts lie")
    options = flags.parse_args(argv)
    unknown = [name for name in options.names if name not in PICTURES]
    if unknown:
        raise UsageError(f"there is no picture {unknown[0]}; name some of {', '.join(PICTURES)}")
    draw(options.names or list(PICTURES), options.folder.expanduser().resolve(), options.out.expanduser().resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
