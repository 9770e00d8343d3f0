"""One measurement in a process of its own: python -m benchmarks.worker '{"function": "ours.train", ...}'.

The request names a function of benchmarks, its options and the fields of its Job; the last line printed is the answer:
what the function returned, the peak of resident memory, and the versions of the packages that were loaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path

from benchmarks.jobs import Job, NotBuilt

MARK = "answer: "  # frameworks print too
PACKAGES = {  # module -> the package whose version a row names
    "mindspore": "mindspore",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "torch": "torch",
    "transformers": "transformers",
    "tensorflow": "tensorflow-cpu",
    "jax": "jax",
    "openvino": "openvino",
    "ai_edge_litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
}


def answer(request: dict) -> dict:
    """Call what the request names."""
    module, _, function = request["function"].partition(".")
    job = Job(**request["job"])
    try:
        found = getattr(importlib.import_module(f"benchmarks.{module}"), function)(job, **request["options"])
    except NotBuilt as reason:
        return {"not_built": str(reason)}
    loaded = {package for name, package in PACKAGES.items() if name in sys.modules}
    versions = {package: importlib.metadata.version(package) for package in sorted(loaded)}
    return {**(found or {}), "peak_mb": peak_mb(), "versions": versions}


def peak_mb() -> float:
    """Largest resident memory of this process. Not getrusage's, which begins with the peak of the parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def main(argv: list[str]) -> int:
    found = answer(json.loads(argv[0]))
    print(f"\n{MARK}{json.dumps(found)}", flush=True)
    os._exit(0)  # what frameworks do on their way out is not measured and must not fail


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
