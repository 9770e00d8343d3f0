"""Write pictures of what a checkpoint predicts on images without labels.

python infer.py --config_path FILE --infer_ckpt_path FILE.ckpt --data_path IMAGES_OR_ONE_IMAGE
"""

import sys

from src import zoo

if __name__ == "__main__":
    sys.exit(zoo.run("infer", sys.argv[1:]))
