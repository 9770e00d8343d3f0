"""Digits from a float network to one of 8-bit integers: calibrate, train, export, and compare all of them in one table.

bash scripts/quickstart.sh mobilenetv2_quant   (makes the environment and runs this)

Starts from the network of examples/quickstart.py, which is trained first where it is not there yet. Everything lies in
./quickstart; what is there already is used again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import quickstart
from quickstart import BEST as FLOAT
from quickstart import OUT, ROOT, TRAIN, VAL, check_arguments, run, size

CONFIG = "configs/mobilenetv2_quant/digits_cpu.yaml"
CALIBRATION, RUN = OUT / "quant_calibrated", OUT / "quant_run"
CALIBRATED = CALIBRATION / "mobilenetv2_quant-calibrated.ckpt"
BEST = RUN / "mobilenetv2_quant-best.ckpt"
CALIBRATED_ONNX, MINDIR = OUT / "digits_calibrated.onnx", OUT / "digits_int8.mindir"
BEST_ONNX = MINDIR.with_suffix(".onnx")  # written with it


def with_config(script: str, *flags: object) -> tuple[str, ...]:
    return (script, "--config_path", CONFIG, *map(str, flags))


def export(checkpoint: Path, file: Path, file_format: str) -> tuple[str, ...]:
    flags = ("--ckpt_file", checkpoint, "--file_format", file_format, "--file_name", file, "--dataset_path", VAL)
    return with_config("export.py", *flags)


COMMANDS = (
    with_config(
        "train.py", "--dataset_path", TRAIN, "--pretrain_ckpt", FLOAT, "--calibrate_only", 8,
        "--save_checkpoint_path", CALIBRATION,
    ),
    with_config(
        "train.py", "--dataset_path", TRAIN, "--pretrain_ckpt", FLOAT, "--resume", "auto", "--save_checkpoint_path", RUN
    ),
    with_config("eval.py", "--dataset_path", VAL, "--pretrain_ckpt", BEST),
    export(BEST, MINDIR, "MINDIR"),
    export(CALIBRATED, CALIBRATED_ONNX, "ONNX"),
    with_config("eval.py", "--dataset_path", VAL, "--pretrain_ckpt", BEST_ONNX, "--eval_backend", "onnx"),
)  # fmt: skip
COMPARISON = with_config(
    "tools/quant_comparison.py", "--dataset_path", VAL, "--least_top1", quickstart.LEAST_TOP1,
    "--network", "float", FLOAT, quickstart.ONNX,
    "--network", "calibrated only", CALIBRATED, CALIBRATED_ONNX,
    "--network", "trained", BEST, BEST_ONNX,
)  # fmt: skip


def main(argv: list[str]) -> int:
    check_arguments(argv, __file__, __doc__)
    os.chdir(ROOT)
    began = time.perf_counter()
    float_commands = [] if FLOAT.is_file() and quickstart.ONNX.is_file() else quickstart.COMMANDS[:5]
    for command in (*float_commands, *COMMANDS):
        run(command)
    try:
        run(COMPARISON)
    except SystemExit:
        print(f"error: the comparison failed; remove {OUT} and run the quick start again", file=sys.stderr)
        raise
    print(
        f"simulated network: {size(MINDIR)} {MINDIR}; report per layer: {BEST_ONNX.stem}_layers.csv and .png in {OUT}"
    )
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
