"""Find or make the offline model (.om) for an exported network, for scripts/run_infer_310.sh; prints its path,
and a line for each option that the application needs to prepare images as the network was trained.

python tools/make_om.py MODEL --mode CPU|DVPP [--batch N] [--soc_version Ascend310] [--out om]

.om is used as it is; .air and .onnx go through atc, whose result is kept in --out by the content of what it was made
from. AscendCL cannot read .mindir, so a file of the same name beside it is used: X_aipp.om (mode DVPP) or X.om (mode
CPU), X.air, X.onnx, the first there is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from src.engine.errors import ZooError, first_line, reports_errors

ROOT = Path(__file__).resolve().parent.parent
AIPP = ROOT / "src" / "mobilenetv2" / "aipp_yuv.cfg"
NORMALISATION = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}  # the application's and AIPP's
FRAMEWORKS = {".air": 1, ".onnx": 5}  # atc's numbers
LOG = "atc.log"
META_KEY = "zoo_meta"  # as src.engine.export.exported_model has it, which needs numpy


def say(text: str) -> None:
    print(text, file=sys.stderr)


def resolve(model: Path, mode: str) -> Path:
    """The file to start from: `model` itself, or what lies beside a .mindir."""
    if not model.is_file():
        raise ZooError(f"{model} is not a file; give an exported .mindir, .air, .onnx or .om file")
    if model.suffix in (".om", *FRAMEWORKS):
        return model
    if model.suffix != ".mindir":
        raise ZooError(f"{model} is not an exported network; give a .mindir, .air, .onnx or .om file")
    om = model.with_name(f"{model.stem}_aipp.om") if mode == "DVPP" else model.with_suffix(".om")
    for candidate in (om, model.with_suffix(".air"), model.with_suffix(".onnx")):
        if candidate.is_file():
            older = candidate.stat().st_mtime < model.stat().st_mtime - 3600
            say(f"using {candidate} for {model.name}{'; it is OLDER, is it the same network?' if older else ''}")
            return candidate
    raise ZooError(
        f"AscendCL cannot read {model.name}, and no {om.name}, {model.stem}.air or {model.stem}.onnx is beside it; "
        "export the network again with --file_format AIR (on Ascend) or ONNX (anywhere), to the same folder"
    )


def read(model: Path) -> Any:
    """An onnx.ModelProto without its weights."""
    import onnx

    try:
        return onnx.load(str(model), load_external_data=False)
    except Exception as error:
        raise ZooError(f"{model} is no ONNX file ({first_line(error)}); export it again") from error


def input_shape(model: Path, batch: int) -> str:
    """atc's --input_shape for an ONNX file: its input with the wanted batch, or with its own, or 1."""
    value = read(model).graph.input[0]
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if batch and dims[0] not in (0, batch):
        raise ZooError(
            f"{model} was exported for batch {dims[0]}, not {batch}; export it again with --dynamic_batch True"
        )
    dims[0] = dims[0] or batch or 1
    if len(dims) != 4 or not all(dims):
        raise ZooError(f"{model} takes an input of shape {dims}; it has to have four sizes, fixed but for the batch")
    return f"{value.name}:{','.join(map(str, dims))}"


def application_options(model: Path, used: Path, options: argparse.Namespace) -> list[str]:
    """What the files say of the network's images that is not the application's default.

    `used` is what was found for `model`, which the user named. Raises ZooError where mode DVPP would normalise images
    in another way than the network was trained with.
    """
    about = said_of(model, used)
    if about is None:
        say(f"nothing beside {used} names its crop_pct; unless that is 0.875, give -- --resize_ratio 1/crop_pct")
        return []
    crop_pct = about.get("crop_pct")
    found = [f"--resize_ratio={1 / crop_pct}"] if crop_pct else []
    own = {key: about[key] for key in NORMALISATION if about.get(key, NORMALISATION[key]) != NORMALISATION[key]}
    if own and options.mode == "DVPP" and used.suffix != ".om" and options.aipp.resolve() == AIPP:
        said = ", ".join(f"{key} {values}" for key, values in own.items())
        raise ZooError(
            f"{used} was trained with {said}, and {AIPP.name} normalises with ImageNet's; use mode CPU, or give the "
            ".om file that tools/make_om.py --mode DVPP --aipp FILE makes with a FILE that holds these"
        )
    if options.mode == "CPU":
        found += [f"--{key}={','.join(map(str, values))}" for key, values in own.items()]
    return found


def said_of(model: Path, used: Path) -> dict | None:
    """The JSON text beside either file, or that in the ONNX file."""
    for file in dict.fromkeys((used, model)):
        about = file.with_name(file.name + ".json")
        if about.is_file():
            return json.loads(about.read_text(encoding="utf-8"))
        if file.suffix == ".onnx":
            return json.loads(metadata(file).get(META_KEY, "{}"))
    return None


def metadata(model: Path) -> dict[str, str]:
    """The texts that an ONNX file carries."""
    return {entry.key: entry.value for entry in read(model).metadata_props}


def command(model: Path, options: argparse.Namespace, output: Path) -> list[str]:
    """The call of atc."""
    words = ["atc", f"--framework={FRAMEWORKS[model.suffix]}", f"--model={model}", f"--output={output}"]
    words += ["--input_format=NCHW", "--output_type=FP32", f"--soc_version={options.soc_version}"]
    shape = options.input_shape
    if not shape and model.suffix == ".onnx":
        shape = input_shape(model, options.batch)
    if shape:
        words.append(f"--input_shape={shape}")
    if options.mode == "DVPP":
        words.append(f"--insert_op_conf={options.aipp}")
    return words


def digest(model: Path, words: list[str], aipp: Path | None) -> str:
    """Changes with the network, the arguments of atc and the pixel arithmetic; not with the place of the files."""
    total = hashlib.sha256(model.read_bytes())
    for word in words[1:]:
        if not word.startswith(("--model=", "--output=", "--insert_op_conf=")):
            total.update(word.encode())
    if aipp:
        total.update(aipp.read_bytes())
    return total.hexdigest()[:12]


def convert(model: Path, options: argparse.Namespace) -> Path:
    """Run atc, unless the same conversion has been done."""
    aipp = options.aipp if options.mode == "DVPP" else None
    key = digest(model, command(model, options, Path("x")), aipp)
    wanted = options.out / f"{model.stem}-{options.mode.lower()}-{key}.om"
    if wanted.is_file():
        return wanted
    if not shutil.which("atc"):
        raise ZooError(f"atc, which converts {model.name}, is not on PATH; source CANN's set_env.sh or give an .om")
    options.out.mkdir(parents=True, exist_ok=True)
    unfinished = wanted.with_name(f"unfinished-{os.getpid()}-{wanted.stem}")
    words = command(model, options, unfinished)
    say(f"$ {shlex.join(words)}")
    with Path(LOG).open("w", encoding="utf-8") as log:
        status = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT).returncode
    made = unfinished.with_name(unfinished.name + ".om")
    if status or not made.is_file():
        lines = Path(LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ZooError(f"atc ended with {status} and says '{lines[-1] if lines else ''}'; {LOG} holds the rest")
    made.replace(wanted)
    return wanted


@reports_errors
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--mode", choices=["CPU", "DVPP"], required=True)
    parser.add_argument("--batch", type=int, default=0, metavar="N", help="images per execution (the file's, or 1)")
    parser.add_argument("--soc_version", default="Ascend310", help="chip, as atc calls it")
    parser.add_argument("--input_shape", help="atc's, where the file does not say it")
    parser.add_argument("--aipp", type=Path, default=AIPP, metavar="FILE", help="pixel arithmetic of mode DVPP")
    parser.add_argument("--out", type=Path, default=Path("om"), metavar="DIR", help="where converted models are kept")
    options = parser.parse_args()
    model = resolve(options.model, options.mode)
    for_application = application_options(options.model, model, options)
    print(model if model.suffix == ".om" else convert(model, options))
    for option in for_application:
        print(option)
    return 0


if __name__ == "__main__":
    sys.exit(main())
