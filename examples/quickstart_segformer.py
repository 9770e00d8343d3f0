"""Street scenes from nothing to a deployed file: draw, train, evaluate, write pictures, export, and print one table.

bash scripts/quickstart.sh segformer   (makes the environment and runs this)

Everything lies in ./quickstart_segformer; what is there already is used again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from quickstart import ROOT, check_arguments, median_speed, run, size
from src.engine import environment
from src.engine.report import table

OUT = Path("quickstart_segformer")
CONFIG = Path("configs/segformer/street_scenes_cpu.yaml")
DATA, RUN, PICTURES = OUT / "scenes", OUT / "run", OUT / "pictures"
VAL = DATA / "leftImg8bit" / "val"
BEST = RUN / "segformer_mit_b0_best.ckpt"
MINDIR, ONNX = OUT / "scenes.mindir", OUT / "scenes.onnx"
PER_CLASS, SCORES, GRID = OUT / "per_class.csv", OUT / "scores.json", OUT / "grid.png"
SCENES = ("--train", "128", "--val", "16", "--size", "256x512", "--things", "large")
ROWS = 4  # of the picture grid
LEAST_MIOU = 0.60  # over the classes present; a training that learns nothing ends the quick start with status 1
LEAST_SAME = 0.999  # share of pixels where an exported file finds the network's class

CONFIGURED = ("--config_path", str(CONFIG))
COMMANDS = (
    ("examples/make_street_scenes.py", str(DATA), *SCENES),
    ("tools/convert_dataset.py", str(DATA)),
    ("train.py", *CONFIGURED, "--data_path", str(DATA), "--checkpoint_path", str(RUN), "--resume", "auto"),
    ("eval.py", *CONFIGURED, "--data_path", str(DATA), "--eval_ckpt_path", str(BEST),
     "--per_class_csv", str(PER_CLASS), "--eval_json", str(SCORES)),
    ("infer.py", *CONFIGURED, "--data_path", str(VAL), "--infer_ckpt_path", str(BEST),
     "--infer_output_path", str(PICTURES)),
    ("export.py", *CONFIGURED, "--export_ckpt_path", str(BEST), "--export_format", "MINDIR",
     "--export_name", str(MINDIR)),  # and ONNX beside it
)  # fmt: skip


def compare() -> dict[str, float]:
    """The share of held-out pixels where an exported file finds the class that the network finds; draws the grid too.

    The network's answers are read from the pictures that infer.py wrote.
    """
    import cv2
    import numpy as np

    from src import zoo
    from src.engine.data import stream
    from src.engine.export import exporting
    from src.segformer.data import dataset
    from src.segformer.predicting import pictures

    cfg = zoo.configure("export", [*CONFIGURED, "--export_ckpt_path", str(BEST), "--export_format", "ONNX"])
    pairs = dataset.find_pairs(str(DATA), "val")
    models = {path.name: exporting.reload(path, stream.usable_threads(64)) for path in (MINDIR, ONNX)}
    same, pixels, rows = dict.fromkeys(models, 0), 0, []
    loader = dataset.Loader(pairs, cfg, stream.BadFiles("error", print))
    for sample in loader.eval_samples():
        stem = Path(sample.file).relative_to(VAL.relative_to(DATA)).with_suffix("")
        predicted = cv2.imread(str(PICTURES / f"{stem}{pictures.GRAY}"), cv2.IMREAD_UNCHANGED)
        pixels += predicted.size
        for name, predict in models.items():
            planes = predict(sample.image[None])[0]
            enlarged = [cv2.resize(plane, predicted.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in planes]
            same[name] += int((np.argmax(enlarged, 0) == predicted).sum())
        if len(rows) < ROWS:
            rows.append((sample.picture, sample.mask, predicted))
    pictures.save_png(GRID, pictures.grid(rows, pairs.classes))
    return {name: count / pixels for name, count in same.items()}


def summary(scores: dict, agree: dict[str, float], seconds: float) -> str:
    """The closing table."""
    present = sum(row["iou"] is not None for row in scores["classes"].values())
    return table(
        [
            (f"mIoU over the {present} classes present", f"{scores['miou']:.4f}"),
            ("mean accuracy of the classes", f"{scores['macc']:.4f}"),
            ("pixel accuracy", f"{scores['pixel_accuracy']:.4f}"),
            ("held-out scenes seen", f"{scores['images']}"),
            ("training, crops/s (median epoch)", f"{median_speed(RUN):.1f}"),
            ("MINDIR finds the network's class", f"{100 * agree[MINDIR.name]:.3f} % of pixels"),
            ("ONNX finds the network's class", f"{100 * agree[ONNX.name]:.3f} % of pixels"),
            ("checkpoint", f"{size(BEST)}  {BEST}"),
            ("MINDIR", f"{size(MINDIR)}  {MINDIR}"),
            ("ONNX", f"{size(ONNX)}  {ONNX}"),
            ("image, truth, prediction", f"{GRID}"),
            ("pictures of every held-out scene", f"{PICTURES}"),
            ("IoU per class", f"{PER_CLASS}"),
            ("training curves", f"{RUN / 'curves.png'}"),
            ("time", f"{seconds / 60:.1f} minutes"),
        ]
    )


def shortfalls(agree: dict[str, float], miou: float) -> list[str]:
    """One sentence for each number that is lower than it has to be."""
    found = [
        f"{name} finds the network's class at {100 * share:.3f} % of the pixels, less than {100 * LEAST_SAME:g} %; "
        f"remove {OUT} and run the quick start again"
        for name, share in agree.items()
        if share <= LEAST_SAME
    ]
    if miou < LEAST_MIOU:
        found.append(f"mIoU is {miou:.4f}, less than {LEAST_MIOU:.2f}; remove {OUT} and run the quick start again")
    return found


def main(argv: list[str]) -> int:
    check_arguments(argv, __file__, __doc__)
    os.chdir(ROOT)
    environment.prepare()
    began = time.perf_counter()
    for command in COMMANDS:
        run(command)
    print("\ncomparing the exported files with the network on every held-out scene", flush=True)
    agree = compare()
    scores = json.loads(SCORES.read_text(encoding="utf-8"))
    print(f"\n{summary(scores, agree, time.perf_counter() - began)}")
    wrong = shortfalls(agree, scores["miou"])
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
