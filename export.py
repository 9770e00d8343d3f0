"""Export a checkpoint for deployment and check that the file gives the network's answers.

python export.py --platform CPU --ckpt_file FILE.ckpt --file_format MINDIR|ONNX|AIR
"""

import sys

from src import zoo

if __name__ == "__main__":
    sys.exit(zoo.run("export", sys.argv[1:]))
