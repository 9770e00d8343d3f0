"""Write the label file of a folder of class folders, for scripts/run_infer_310.sh: one line name:label per image.

python tools/make_label_file.py DATA_DIR label.txt [--classes FILE.mindir.json|FILE.onnx]

Labels number the class folders in sorted order. A validation folder that lacks a class needs --classes, an exported
file (or what lies beside it) that knows the classes of training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from src.engine.data.image_folder import scan
from src.engine.errors import ZooError, reports_errors
from src.engine.export.result_files import names_of
from src.engine.io import files


def classes_of(path: Path) -> dict[str, int]:
    """The classes of training that an exported file knows."""
    if path.suffix == ".onnx":
        from src.engine.export import onnx_model

        found = onnx_model.load(path, threads=1).class_to_index
    else:
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("class_to_index")
        except (OSError, ValueError, AttributeError) as error:
            raise ZooError(f"cannot read classes from {path} ({error}); give a .mindir.json or .onnx file") from error
    if not found:
        raise ZooError(f"{path} does not know its classes; leave --classes out")
    return found


@reports_errors
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA_DIR", help="folder of class folders")
    parser.add_argument("out", type=Path, metavar="LABEL_FILE", help="file to write")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="exported file that knows the classes")
    options = parser.parse_args()
    try:
        folder = scan(options.data, (), classes_of(options.classes) if options.classes else None)
        lines = [f"{name}:{label}\n" for name, label in zip(names_of(folder.names), folder.labels)]
        files.write_text(options.out, "".join(lines))
    except OSError as error:
        print(f"error: cannot write {options.out}: {error.strerror}; choose another file", file=sys.stderr)
        return 1
    print(f"{len(lines)} images of {len(set(folder.labels))} classes in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
