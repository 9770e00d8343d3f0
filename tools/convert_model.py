"""Turn the weights of another library's model into a checkpoint that train.py, eval.py, infer.py and export.py read.

python tools/convert_model.py --pt_model_path mobilenet_v2.pth --ms_model_path mobilenet_v2.ckpt
python tools/convert_model.py --pt_model_path mit_b0.pth --ms_model_path ms_pretrained_b0.ckpt
python tools/convert_model.py --pt_model_path HUGGING_FACE_FOLDER --ms_model_path segformer.ckpt

What is read: a .pth file with a state dict, or a training checkpoint with one inside; a .safetensors file (its library
has to be installed); a folder that Hugging Face's save_pretrained wrote, whose config.json names the classes. Known are
MobileNetV2 with torchvision's names, SegFormer or its encoder alone with the authors' or Hugging Face's names, and
SegFormer's encoder with mmsegmentation's. PyTorch is not needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.engine import environment
from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError, reports_errors
from src.engine.io import foreign_weights
from src.engine.io.foreign_weights import Foreign
from src.mobilenetv2.names import TORCH_BN, from_torchvision
from src.segformer import names as segformer_names
from src.segformer.data import class_list
from src.segformer.data.labels import CITYSCAPES
from src.segformer.variants import VARIANTS

MOBILENETV2, SEGFORMER = MODELS = ("mobilenetv2", "segformer")
FIRST_KEY = "features.0.0.weight"  # what a MobileNetV2 is recognised by
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
COUNTER = "num_batches_tracked"  # of PyTorch's batch normalisation; nothing reads it with a fixed momentum
TORCH_LEAF = {ours: torch for torch, ours in TORCH_BN.items()}
NAMED = 5  # how many keys an error names


class Converted(NamedTuple):
    """What goes into the checkpoint, the keys that do not, and a sentence about the former."""

    arrays: dict[str, np.ndarray]
    meta: dict
    unused: list[str]
    text: str


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python tools/convert_model.py", description=__doc__)
    parser.add_argument("--pt_model_path", required=True, metavar="FILE", help=".pth or .safetensors file, or folder")
    parser.add_argument("--ms_model_path", required=True, metavar="CKPT", help="checkpoint to write")
    parser.add_argument("--model", choices=MODELS, help="default: recognised from the keys in the file")
    parser.add_argument("--classes", metavar="TXT", help="MobileNetV2: class names, one per line, in output order")
    parser.add_argument("--width_mult", type=float, help=f"MobileNetV2; default: the one of {WIDTHS} that fits")
    args = parser.parse_args(argv)
    args.pt_model_path = Path(args.pt_model_path).expanduser()
    args.ms_model_path = Path(args.ms_model_path).expanduser()
    if args.ms_model_path.suffix != ".ckpt":
        raise UsageError(f"ms_model_path is {args.ms_model_path}; its name has to end in .ckpt")
    if args.ms_model_path.resolve() == args.pt_model_path.resolve():
        raise UsageError("ms_model_path and pt_model_path are the same file; give the checkpoint another name")
    if args.width_mult is not None and not 0.1 <= args.width_mult <= 4:
        raise UsageError(f"width_mult is {args.width_mult}; it has to be at least 0.1 and at most 4")
    return args


def recognised(state: dict[str, np.ndarray], source: Path) -> str:
    """The model that the keys belong to."""
    if FIRST_KEY in state:
        return MOBILENETV2
    if segformer_names.is_segformer(state):
        return SEGFORMER
    raise ZooError(
        f"{source} holds {len(state)} arrays, {', '.join(list(state)[:NAMED])} first, which are of no model here; "
        f"{MOBILENETV2} with torchvision's names and {SEGFORMER} with the authors', Hugging Face's or mmsegmentation's "
        "are converted"
    )


def read_classes(file: str) -> dict[str, int]:
    """Class names of a text file, one per line, with their index."""
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ZooError(f"cannot read {file}: {reason}; give a text file with one class name per line") from error
    index = {}
    for number, name in enumerate(line.strip() for line in lines):
        if not name or name in index:
            what = f"repeats '{name}'" if name else "is empty"
            raise ZooError(f"{file}: line {number + 1} {what}; give one class name per line, each once")
        index[name] = number
    return index


def count_classes(
    state: dict[str, np.ndarray], class_to_index: dict[str, int] | None, named_by: str, source: Path
) -> int:
    """Outputs of the classifier; 1 where there is none, so that it is reported with the other missing keys."""
    weight = state.get("classifier.1.weight")
    if weight is None or weight.ndim != 2 or not len(weight):
        return 1
    if class_to_index is not None and len(class_to_index) != len(weight):
        raise ZooError(
            f"{source} has {len(weight)} classes and {named_by} names {len(class_to_index)}; "
            "name each one with --classes TXT"
        )
    return len(weight)


def translate(state: dict[str, np.ndarray], wanted: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays under our names, and the keys that have no place in the network."""
    arrays, unused = {}, []
    for key, array in state.items():
        name = from_torchvision(key)
        if name in wanted and name not in arrays:
            arrays[name] = array
        elif not key.endswith(f".{COUNTER}"):
            unused.append(key)
    return arrays, unused


def torch_name(name: str) -> str:
    """torchvision's name of one of our parameters, for messages."""
    owner, _, leaf = name.rpartition(".")
    owner = "classifier.1" if owner == "head.dense" else owner[len("backbone.") :]
    return f"{owner}.{TORCH_LEAF.get(leaf, leaf)}"


def shortened(keys: list[str]) -> str:
    """The first keys and how many there are besides."""
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def require_complete(arrays: dict[str, np.ndarray], unused: list[str], wanted: list[str], source: Path) -> None:
    """Every parameter needs an array of real numbers."""
    missing = [torch_name(name) for name in wanted if name not in arrays]
    if missing:
        instead = f" and has {len(unused)} that are not of {MOBILENETV2}: {shortened(unused)}" if unused else ""
        raise ZooError(
            f"{source} lacks {len(missing)} of {len(wanted)} keys: {shortened(missing)}{instead}; "
            f"give a whole {MOBILENETV2} with torchvision's names"
        )
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ZooError(f"{source} has {torch_name(name)} as {array.dtype}; weights have to be floating point")


def find_width(state: dict[str, np.ndarray], source: Path) -> float:
    """The width multiplier whose channel counts are those of the file."""
    from src.mobilenetv2 import network  # MindSpore, so only once the file is known to be good

    found = {key: array.shape[0] for key, array in state.items() if array.ndim == 4}
    for width in WIDTHS:
        expected = {FIRST_KEY: network.scaled_channels(network.STEM_CHANNELS, width)}
        block = 0
        for expansion, channels, repeats, _ in network.INVERTED_RESIDUALS:
            projection = 1 if expansion == 1 else 2
            for _ in range(repeats):
                block += 1
                key = f"features.{block}.conv.{projection}.weight"
                expected[key] = network.scaled_channels(channels, width)
        if all(found.get(key, channels) == channels for key, channels in expected.items()):
            return width
    raise ZooError(f"the shapes in {source} fit none of the widths {WIDTHS}; give --width_mult")


def mobilenetv2(foreign: Foreign, args: argparse.Namespace) -> Converted:
    """A whole MobileNetV2."""
    source, state = args.pt_model_path, foreign.arrays
    class_to_index = read_classes(args.classes) if args.classes else None
    if class_to_index is None and foreign.class_names:
        class_to_index = {name: index for index, name in enumerate(foreign.class_names)}
    named_by = "--classes" if args.classes else "id2label of its config.json"
    classes = count_classes(state, class_to_index, named_by, source)

    from src.engine.io import checkpoint
    from src.mobilenetv2 import network

    width = find_width(state, source) if args.width_mult is None else args.width_mult
    parameters = list(network.build(classes, width, seed=0).get_parameters())
    wanted = [p.name for p in parameters]
    arrays, unused = translate(state, wanted)
    require_complete(arrays, unused, wanted, source)
    checkpoint.assign(parameters, arrays, str(source))
    meta = {"model": MOBILENETV2, "width_mult": width}
    if class_to_index is not None:
        meta["class_to_index"] = class_to_index
    text = f"{MOBILENETV2}, {len(parameters)} arrays, {classes} classes, width_mult {width}"
    return Converted(checkpoint.arrays_of(parameters), meta, unused, text)


def segformer(foreign: Foreign, args: argparse.Namespace) -> Converted:
    """A complete encoder, and the decode head if the file holds a complete one."""
    source, state = args.pt_model_path, foreign.arrays
    arrays, unused = segformer_names.translate(state)
    backbone = segformer_names.variant_of(arrays)
    if backbone is None:
        raise ZooError(
            f"{source} holds no encoder of the sizes {', '.join(VARIANTS)} ({len(arrays)} of {len(state)} keys known); "
            "give a whole encoder"
        )
    wanted, head = segformer_names.encoder_names(backbone), segformer_names.head_names()
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ZooError(
            f"{source} lacks {len(missing)} of {len(wanted)} arrays of {backbone}: {shortened(missing)}; "
            "give a whole encoder"
        )
    wanted += head if all(name in arrays for name in head) else []
    unused += [name for name in arrays if name not in wanted]
    whole_numbers = [name for name in wanted if arrays[name].dtype.kind != "f"]
    if whole_numbers:
        raise ZooError(f"{source} has whole numbers in {shortened(whole_numbers)}; weights have to be floating point")

    from src.engine.io import checkpoint
    from src.segformer import network

    has_head = head[0] in wanted
    classes, width = 2, 0  # of a head that is thrown away
    if has_head:
        classes, width = (len(arrays[name]) for name in (segformer_names.PREDICTION, "decode_head.linear_fuse.weight"))
    net = network.build(backbone, classes, width, seed=0)
    parameters = [p for p in net.get_parameters() if p.name in wanted]
    checkpoint.assign(parameters, arrays, str(source))
    text = f"decode head {width} wide, {classes} classes" if has_head else "encoder alone"
    if any(key.startswith(segformer_names.MMSEG_HEAD) for key in state):
        text += " (mmsegmentation's decode head is another network: its projections end in normalisation and ReLU)"
    meta = {"model": SEGFORMER, "backbone": backbone}
    if has_head and foreign.class_names:
        meta["classes"] = class_table(foreign.class_names, classes, source)
    return Converted(
        checkpoint.arrays_of(parameters), meta, unused, f"{SEGFORMER} {backbone}, {len(parameters)} arrays, {text}"
    )


def class_table(names: tuple[str, ...], classes: int, source: Path) -> dict:
    """What a checkpoint says about its classes: Cityscapes' colours for Cityscapes' names, else new ones."""
    from src.segformer import checkpoints

    if len(names) != classes:
        raise ZooError(f"{source} names {len(names)} classes and its decode head has {classes}; correct its id2label")
    known = CITYSCAPES if names == CITYSCAPES.names else class_list.of_names(names, str(source))
    return checkpoints.class_table(known)


def convert(args: argparse.Namespace) -> None:
    """Read, check, write and report."""
    foreign = foreign_weights.read(args.pt_model_path)
    state = foreign.arrays
    model = args.model or recognised(state, args.pt_model_path)
    if model == SEGFORMER and (args.classes or args.width_mult is not None):
        raise UsageError(f"--classes and --width_mult belong to {MOBILENETV2}; leave them out for {SEGFORMER}")
    environment.prepare()
    converted = {MOBILENETV2: mobilenetv2, SEGFORMER: segformer}[model](foreign, args)

    from src.engine.io import checkpoint

    checkpoint.save(args.ms_model_path, converted.arrays, converted.meta)
    if converted.unused:
        print(f"{len(converted.unused)} keys were not used: {', '.join(converted.unused)}", file=sys.stderr)
    counters = sum(key.endswith(f".{COUNTER}") and key not in converted.unused for key in state)
    left_out = f"; {counters} step counters ({COUNTER}) have no use here and were left out" if counters else ""
    print(f"wrote {args.ms_model_path}: {converted.text}{left_out}")


@reports_errors
def main(argv: list[str]) -> int:
    try:
        convert(arguments(argv))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
