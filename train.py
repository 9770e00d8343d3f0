"""Train a model.

python train.py --platform CPU --dataset_path TRAIN_DIR
python train.py --config_path FILE [--key value ...]
"""

import sys

from src import zoo

if __name__ == "__main__":
    sys.exit(zoo.run("train", sys.argv[1:]))
