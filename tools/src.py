"""Where a script of this folder finds the package src: Python looks beside the script, not in the folder above."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent.parent / "src")]
