"""Predict images without labels: a classifier names their classes, SegFormer writes pictures.

python infer.py --platform CPU --pretrain_ckpt FILE.ckpt --data_path IMAGES_OR_ONE_IMAGE
python infer.py --config_path SEGFORMER.yaml --infer_ckpt_path FILE.ckpt --data_path IMAGES_OR_ONE_IMAGE
"""

import sys

from src import zoo

if __name__ == "__main__":
    sys.exit(zoo.run("infer", sys.argv[1:]))
