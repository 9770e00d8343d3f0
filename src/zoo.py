"""From a command line to a model's recipe: `run("train", argv)` is all that train.py and its siblings do.

The models are imported by name and only after the configuration has been checked, so that --help and every
configuration error answer without MindSpore.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from src.engine import config as configs
from src.engine import environment
from src.engine.errors import UsageError, ZooError, first_line

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "mobilenetv2"
# A model is a package src/NAME: config.py has its Config, recipe.py the functions of its commands.
MODELS = {
    "mobilenetv2": "MobileNetV2 image classification",
    "mobilenetv2_quant": "MobileNetV2 quantisation-aware training",
    "segformer": "SegFormer semantic segmentation",
}
FUNCTIONS = {"train": "train", "eval": "evaluate", "infer": "infer", "export": "export"}  # of the recipe, by command
PLATFORM_CONFIGS = {
    "Ascend": "default_config.yaml",
    "GPU": "default_config_gpu.yaml",
    "CPU": "default_config_cpu.yaml",
}
ORIGINAL_CONFIGS = "config"  # folder of the original SegFormer's files


def config_file(argv: list[str]) -> Path:
    """The YAML file to start from: --config_path, or the default of --platform, or of the platform in this machine."""
    parser = configs.Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config_path", type=configs.unquoted)
    parser.add_argument("--platform", "--device_target", type=configs.unquoted)
    given, _ = parser.parse_known_args(argv)
    if given.config_path:
        return find_config(given.config_path)
    platform = given.platform or environment.usable_platform()
    if platform not in PLATFORM_CONFIGS:
        raise UsageError(f"platform is {platform!r} (from --platform); it has to be one of 'Ascend', 'GPU', 'CPU'")
    return ROOT / PLATFORM_CONFIGS[platform]


def find_config(given: str) -> Path:
    """The file that --config_path names: there, in this repository, or, by its name alone, among the shipped files.

    Only bare names and those in a folder of the originals' name are looked for among the shipped files, so that no
    mistyped path is answered with another file. scripts/common.sh looks in the same places.
    """
    path = configs.expanded(given)
    shipped = (ROOT / "configs").glob("*/*.yaml") if path.parent.name in ("", ORIGINAL_CONFIGS) else ()
    by_name = [candidate for candidate in shipped if candidate.name == path.name]
    found = configs.first_file([path, ROOT / path, *by_name])
    if found and found != path:
        say([f"config_path is {found}, for there is no {path}"])
    return found or path


def is_shipped(source: str) -> bool:
    """Whether a value comes from one of this repository's files."""
    path = Path(source).resolve()
    return ROOT / "configs" in path.parents or (path.parent == ROOT and path.name.startswith("default_config"))


def model_of(values: dict[str, configs.Value]) -> Any:
    """`model`, or what the original files, which do not name it, are recognised by."""
    if "model" in values:
        return configs.unquoted(values["model"].raw)
    return "segformer" if "backbone" in values else DEFAULT_MODEL


def config_of(path: Path, values: dict[str, configs.Value], command: str) -> type[Any]:
    """The Config of the model that a YAML file is for. Raises UsageError where that has no such command."""
    model = model_of(values)
    if not isinstance(model, str) or model not in MODELS:
        raise UsageError(f"model is {configs.shown(model)} (from {path}); it has to be one of {', '.join(MODELS)}")
    config_class = importlib.import_module(f"src.{model}.config").Config
    if command not in config_class.commands:
        scripts = ", ".join(f"{name}.py" for name in config_class.commands)
        raise UsageError(
            f"{path} is a configuration of {model}, which has {scripts} and no {command}.py; "
            "name another model's file with --config_path"
        )
    return config_class


def configure(command: str, argv: list[str]) -> Any:
    """Turn argv into the frozen configuration of the model that the YAML file names, and say what has no effect."""
    path = config_file(argv)
    values = configs.read_yaml(path)
    config_class = config_of(path, values, command)
    values = configs.canonical(config_class, values)
    for key, name in config_class.named_after(path).items():
        values.setdefault(key, configs.Value(name, str(path)))
    parser = configs.flag_parser(
        config_class,
        values,
        prog=f"python {command}.py",
        description=f"{MODELS[model_of(values)]}: {command}. Values come from {path.name}; flags win over the file.",
    )
    flags, unknown = configs.parse_flags(parser, argv)
    cfg = configs.build(config_class, {**values, **flags})
    if cfg.enable_modelarts:
        ignore(unknown)
    else:
        configs.refuse_unknown(parser, unknown)
        beside = configs.look_beside(config_class, {**values, **flags}, ROOT)
        cfg = dataclasses.replace(cfg, **beside)
        cfg.check_for(command)
        say(f"{key} is {path}, for the working folder has none" for key, path in beside.items())
    written = {key: value for key, value in values.items() if not is_shipped(value.source)}
    say(configs.notes(command, cfg, flags, written))
    return cfg


def say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def ignore(unknown: list[str]) -> None:
    """Say which parameters a platform has added to a job; their values may be secret."""
    names = [word.split("=")[0] for word in unknown if word.startswith("--")]
    if names:
        print(f"job parameters that this model does not have: {', '.join(names)}", file=sys.stderr)


@contextlib.contextmanager
def in_place(command: str, cfg: Any) -> Iterator[Any]:
    """The configuration to run with: of a ModelArts job once its data are here, else as it is."""
    if not cfg.enable_modelarts:
        yield cfg
        return
    from src.cloud import job

    with job.opened(command, cfg) as local:
        local.check_for(command)
        yield local


def redacted(text: str) -> str:
    """`text` without the credentials of object storage: other libraries' errors and tracebacks may hold them."""
    from src.cloud import job_environment

    return job_environment.redacted(text)


def run(command: str, argv: list[str]) -> int:
    """Run one command ("train", "eval", "infer", "export") and return its exit status."""
    debug = "--debug" in argv
    environment.prepare()
    try:
        cfg = configure(command, argv)
        with in_place(command, cfg) as cfg:
            recipe = importlib.import_module(f"src.{cfg.model}.recipe")
            return getattr(recipe, FUNCTIONS[command])(cfg) or 0
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        if debug:
            print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return error.status
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed; run: pip install -r requirements.txt", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        text = redacted(first_line(error))
        print(f"error: {type(error).__name__}: {text} (--debug shows the traceback)", file=sys.stderr)
        return 1
