"""Accuracy of what the 310 application wrote. Needs no MindSpore.

python postprocess.py --result_path result_Files --label_path label.txt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from src.engine.errors import ZooError, reports_errors
from src.engine.export.result_files import find_scores, read_labels, read_scores
from src.engine.metrics import Classification


def score(result_path: Path, label_path: Path) -> tuple[Classification, int]:
    """The metric over all results, and how many of the labels have none."""
    labels, files = read_labels(label_path), find_scores(result_path)
    missing = [name for name in files if name not in labels]
    if missing:
        raise ZooError(
            f"{len(missing)} of {len(files)} results have no label in {label_path}, '{missing[0]}' for one; "
            "make the label file of the same folder of images with tools/make_label_file.py"
        )
    metric = None
    for name, file in files.items():
        scores = read_scores(file, len(metric.confusion) if metric else None)
        if labels[name] >= len(scores):
            raise ZooError(f"'{name}' has label {labels[name]}, but the network knows {len(scores)} classes only")
        metric = metric or Classification(len(scores))
        metric.update(scores[None], np.array([labels[name]]))
    return metric, len(set(labels) - set(files))


@reports_errors
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result_path", type=Path, required=True, help="folder with the results")
    parser.add_argument("--label_path", type=Path, required=True, help="lines of name:label")
    options = parser.parse_args()
    metric, without_result = score(options.result_path, options.label_path)
    print(f"'Accuracy': {metric.top1:.5f}")
    print(f"top-5: {metric.top5:.5f}, samples: {metric.samples}")
    if without_result:
        print(f"labels without a result, which are not counted: {without_result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
