"""The scripts of tools/ and examples/ as users call them: from any folder, whatever lies there."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import ROOT, run_command
from tools import quant_comparison

SHIM = "src.py"
SCRIPTS = sorted(path for folder in ("tools", "examples") for path in (ROOT / folder).glob("*.py") if path.name != SHIM)
QUICK_STARTS = [path for path in SCRIPTS if path.name.startswith("quickstart")]


def relative(path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with a space and with a package src of its own, which PYTHONPATH names as well."""
    folder = tmp_path / "my work"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "__init__.py").write_text("raise SystemExit('the wrong src')\n")
    return folder


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_help_from_another_folder(path, elsewhere):
    result = run_command(path, "--help", cwd=elsewhere, PYTHONPATH=str(elsewhere))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: ")
    assert sorted(entry.name for entry in elsewhere.iterdir()) == ["src"]


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_an_unknown_word_is_wrong_usage(path, elsewhere):
    result = run_command(path, "--no_such_flag", cwd=elsewhere)
    assert (result.returncode, result.stdout) == (2, "")
    assert "error: " in result.stderr and "Traceback" not in result.stderr
    assert sorted(entry.name for entry in elsewhere.iterdir()) == ["src"]


@pytest.mark.parametrize("path", QUICK_STARTS, ids=relative)
@pytest.mark.parametrize("word", ["--no_such_flag", "segformer"])
def test_a_quick_start_shows_its_usage(path, word, elsewhere):
    result = run_command(path, word, cwd=elsewhere)
    usage, error = result.stderr.splitlines()
    assert (result.returncode, usage) == (2, f"usage: python {relative(path)} [-h]")
    assert error.endswith(f"error: unrecognized arguments: {word}")


@pytest.mark.parametrize("words", [["--help"], ["resnet"], ["segformer", "more"]])
def test_the_script_of_the_quick_starts_shows_its_usage(words):
    command = ["bash", str(ROOT / "scripts" / "quickstart.sh"), *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "Usage: bash scripts/quickstart.sh [mobilenetv2|mobilenetv2_quant|segformer]\n"


@pytest.mark.parametrize("folder", ["tools", "examples"])
def test_no_script_changes_the_path(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "sys.path" not in text and "E402" not in text, relative(path)


@pytest.mark.parametrize(
    ("least", "said"),
    [(0.0, ""), (0.9, ""), (0.96, "error: trained: top-1 of the ONNX file is 0.9000, less than 0.96\n")],
)
def test_a_file_that_scores_too_little_ends_the_comparison_with_status_1(least, said, capsys):
    scores = {"float": 0.97, "trained": 0.9}
    rows = [quant_comparison.Row(name, 1.0, top1, 10, 10, 2.6, 0.2, 0.2, 0.2) for name, top1 in scores.items()]
    assert quant_comparison.tell_shortfalls(rows, least) == (1 if said else 0)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("files", "more", "sentence"),
    [
        (("absent.ckpt", "a.onnx"), (), "--network names absent.ckpt, which is not a file"),
        (("a.ckpt", "absent.onnx"), (), "--network names absent.onnx, which is not a file"),
        (("a.ckpt", "a.onnx"), ("--trials", "9"), "trials is 9; it has to be at least 10"),
        (("a.ckpt", "a.onnx"), ("--least_top1", "96"), "least_top1 is 96; it is a share, from 0 to 1"),
    ],
)
def test_networks_that_cannot_be_compared(tmp_path, files, more, sentence):
    for name in ("a.ckpt", "a.onnx"):
        (tmp_path / name).touch()
    flags = ["--config_path", "x.yaml", "--dataset_path", ".", "--network", "float", *files, *more]
    result = run_command(ROOT / "tools" / "quant_comparison.py", *flags, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {sentence}") and result.stderr.count("\n") == 1
