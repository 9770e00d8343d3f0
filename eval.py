"""Evaluate a checkpoint or an exported ONNX file.

python eval.py --platform CPU --dataset_path VAL_DIR --pretrain_ckpt FILE.ckpt
"""

import sys

from src import zoo

if __name__ == "__main__":
    sys.exit(zoo.run("eval", sys.argv[1:]))
