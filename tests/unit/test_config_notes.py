"""Keys that change nothing say so, contradictions are refused, and every other key is read by somebody."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from src import zoo
from src.engine import config
from src.engine.config.options import GROUPS, group_of, readers_of
from src.engine.errors import UsageError
from tests.conftest import ROOT

FILES = {
    "mobilenetv2": ROOT / "default_config_cpu.yaml",
    "mobilenetv2_quant": ROOT / "configs" / "mobilenetv2_quant" / "cpu.yaml",
    "segformer": ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml",
}
SOURCES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "src").rglob("*.py")
    if path.parent != ROOT / "src" / "engine" / "config"
}


def config_class_of(model: str) -> type:
    return importlib.import_module(f"src.{model}.config").Config


@pytest.fixture
def notes(tmp_path, capsys):
    """notes(model, command, flag, ..., text=YAML) -> what is said; the data and a checkpoint are there."""

    def said(model: str, command: str, *flags: str, text: str = "", file: Path | None = None) -> list[str]:
        if text:
            file = tmp_path / "mine.yaml"
            file.write_text(f"__BASE__: {FILES[model]}\n{text}")
        config_class = config_class_of(model)
        (tmp_path / "x.ckpt").touch()
        inputs = [f"--{config_class.job_keys().data}", str(tmp_path)] if command != "export" else []
        key = {"eval": "eval_ckpt_path", "infer": "infer_ckpt_path", "export": "ckpt_file"}.get(command, "")
        if model != "segformer" and command in ("eval", "infer"):
            key = "pretrain_ckpt"
        inputs += [f"--{key}", str(tmp_path / "x.ckpt")] if key else []
        zoo.configure(command, ["--config_path", str(file or FILES[model]), *inputs, *flags])
        lines = capsys.readouterr().err.splitlines()
        assert all(line.startswith("note: ") for line in lines)
        return [line[len("note: ") :].replace(str(tmp_path), "HERE") for line in lines]

    return said


@pytest.mark.parametrize(
    ("model", "command", "flags", "expected"),
    [
        ("segformer", "train", ["--momentum", "0.5"], ["--momentum has no effect: AdamW has no momentum"]),
        (
            "segformer",
            "train",
            ["--device_num", "8"],
            ["--device_num has no effect: scripts/segformer/run_distribute_train.sh says how many cards there are"],
        ),
        (
            "segformer",
            "train",
            ["--pretrained_ckpt_path", "x.ckpt"],
            ["--pretrained_ckpt_path has no effect: load_ckpt is False"],
        ),
        (
            "segformer",
            "eval",
            ["--slide_crop", "64,64", "--slide_stride", "32,32", "--lr", "1"],
            [
                "--slide_crop, --slide_stride have no effect: eval_mode is whole",
                "--lr has no effect: read by train.py only",
            ],
        ),
        ("segformer", "eval", ["--eval_mode", "slide", "--slide_crop", "64,64"], []),
        (
            "segformer",
            "infer",
            ["--flip", "True", "--infer_batch_size", "4", "--eval_json", "x.json"],
            [
                "--infer_batch_size has no effect: flip and multi_scale compute one image at a time",
                "--eval_json has no effect: read by eval.py only",
            ],
        ),
        (
            "mobilenetv2",
            "train",
            ["--data_path", "/data"],
            ["--data_path has no effect: enable_modelarts is False"],
        ),
        (
            "mobilenetv2",
            "infer",
            ["--data_path", "{here}", "--dataset_path", "/data", "--top_k", "3"],
            ["--dataset_path has no effect: data_path names the images to predict"],
        ),
        (
            "mobilenetv2",
            "train",
            ["--pretrain_ckpt", "{here}/x.ckpt", "--freeze_layer", "backbone", "--color_jitter", "0.1"],
            ["--color_jitter has no effect: freeze_layer backbone reads every image once, without augmentation"],
        ),
        ("mobilenetv2", "train", ["--color_jitter", "0.1", "--run_eval", "True", "--eval_dataset_path", "{here}"], []),
        (
            "mobilenetv2",
            "train",
            ["--eval_dataset_path", "{here}"],
            ["--eval_dataset_path has no effect: run_eval is False"],
        ),
        ("mobilenetv2", "train", ["--device_id", "1"], ["--device_id has no effect: a CPU has no cards"]),
        (
            "mobilenetv2",
            "train",
            ["--platform", "GPU", "--cpu_kernels", "off"],
            ["--cpu_kernels has no effect: platform is GPU"],
        ),
        (
            "mobilenetv2",
            "train",
            ["--save_checkpoint", "False", "--keep_checkpoint_max", "3", "--save_checkpoint_epochs", "2"],
            ["--keep_checkpoint_max, --save_checkpoint_epochs have no effect: save_checkpoint is False"],
        ),
        (
            "mobilenetv2",
            "train",
            ["--optimizer", "adamw", "--momentum", "0.8"],
            ["--momentum has no effect: optimizer is adamw"],
        ),
        (
            "mobilenetv2_quant",
            "train",
            ["--calibrate_only", "8", "--optimizer", "adamw", "--pretrain_ckpt", "{here}/x.ckpt"],
            ["--optimizer has no effect: calibrate_only trains nothing"],
        ),
        ("mobilenetv2", "eval", ["--file_format", "ONNX"], ["--file_format has no effect: read by export.py only"]),
        (
            "mobilenetv2_quant",
            "export",
            ["--report_images", "3", "--activation_bits", "4"],
            ["--report_images has no effect: file_format is MINDIR, and ONNX has a report"],
        ),
        ("mobilenetv2_quant", "export", ["--report_images", "3", "--file_format", "ONNX"], []),
    ],
)
def test_a_flag_without_effect_says_so(notes, tmp_path, model, command, flags, expected):
    assert notes(model, command, *[flag.format(here=tmp_path) for flag in flags]) == expected


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*/*.yaml")), ids=lambda path: path.name)
def test_shipped_files_are_silent(notes, file):
    values = config.read_yaml(file)
    if "model" not in values:
        pytest.skip("a part that others name under __BASE__")
    model = values["model"].raw
    anew = ["--load_ckpt", "False"] if model == "segformer" else []
    if "freeze_layer" in values:  # such a file is for pretrained weights
        anew += ["--pretrain_ckpt", str(file)]
    assert notes(model, "train", *anew, file=file) == []


def test_the_keys_of_a_users_file_that_the_model_does_not_have_are_one_line(notes):
    text = "slide_crop: [64, 64]\nload_ckpt: False\nmode_name: GRAPH\nmomentum: 0.9\n"
    expected = "mode_name, momentum of HERE/mine.yaml have no effect; --help KEY says why"
    assert notes("segformer", "train", text=text) == [expected]
    assert notes("segformer", "train", "--momentum", "0.9", text=text) == [
        "--momentum has no effect: AdamW has no momentum",
        "mode_name of HERE/mine.yaml has no effect; --help KEY says why",
    ]


def test_a_file_for_several_commands_is_not_blamed_for_the_others(notes):
    assert notes("segformer", "eval", text="lr: 0.1\nexport_format: ONNX\ninfer_batch_size: 4\n") == []


def test_the_checkpoint_of_a_job_has_one_name_for_all_commands(capsys):
    flags = ["--config_path", str(FILES["segformer"]), "--enable_modelarts=True", "--checkpoint=x.ckpt"]
    zoo.configure("eval", flags)
    assert not capsys.readouterr().err
    zoo.configure("train", [*flags, "--data_url=s3://b/d", "--train_url=s3://b/o", "--load_ckpt=True"])
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--freeze_layer", "backbone", "--enable_cache", "True", "--cache_session_id", "1"], "leave enable_cache out"),
        (
            ["--freeze_layer", "none", "--platform", "Ascend", "--boost_mode", "O1", "--enable_profiling", "True"],
            "enable_profiling and boost_mode O1 do not go together",
        ),
        (
            ["--freeze_layer", "none", "--platform", "Ascend", "--boost_mode", "O1", "--optimizer", "adamw"],
            "use --optimizer momentum or --boost_mode O0",
        ),
        (
            ["--freeze_layer", "none", "--platform", "Ascend", "--boost_mode", "O1", "--amp_level", "O0"],
            "boost_mode O1 leaves normalisations out of training",
        ),
    ],
)
def test_contradictions_are_one_sentence(tmp_path, flags, words):
    (tmp_path / "x.ckpt").touch()
    data = ["--dataset_path", str(tmp_path), "--pretrain_ckpt", str(tmp_path / "x.ckpt")]
    with pytest.raises(UsageError, match=words) as caught:
        zoo.configure("train", ["--config_path", str(FILES["mobilenetv2"]), *data, *flags])
    assert "\n" not in str(caught.value)


class TestTheTruthOfIt:
    """What is said about keys follows from declarations; these are compared with the sources."""

    @pytest.mark.parametrize("model", FILES)
    def test_every_key_is_read_unless_it_is_declared_as_unused(self, model):
        read = {name for text in SOURCES.values() for name in re.findall(r"\.(\w+)", text)}
        read |= {name for text in SOURCES.values() for name in re.findall(r'"(\w+)"', text)}  # getattr(cfg, key)
        for key, rule in config.options_of(config_class_of(model)).items():
            if not rule.unused:
                assert key in read or (model, key) == ("segformer", "optimizer"), key  # which has one value there

    @pytest.mark.parametrize("model", FILES)
    def test_what_is_unused_is_not_read(self, model):
        rooms = {model, "engine"} | ({"classification"} if model != "segformer" else set())
        texts = [text for path, text in SOURCES.items() if rooms & set(path.relative_to(ROOT).parts)]
        used = {name for text in texts for name in re.findall(r"\bcfg\.(\w+)", text)}
        for key, rule in config.options_of(config_class_of(model)).items():
            assert not (rule.unused and key in used), key

    @pytest.mark.parametrize("model", FILES)
    def test_what_switches_off_and_what_is_read_name_keys_and_commands(self, model):
        config_class = config_class_of(model)
        cfg = config.build(config_class, config.read_yaml(FILES[model]))
        rules = config.options_of(config_class)
        for command in config_class.commands:
            assert {key for _, keys, _ in cfg.switched_off(command) for key in keys} <= set(rules)
        for key, rule in rules.items():
            assert set(readers_of(config_class, key, rule)) <= set(zoo.FUNCTIONS)
            assert group_of(config_class, key) in {*GROUPS, "Quantisation"}, key

    @pytest.mark.parametrize("model", zoo.MODELS)
    def test_a_recipe_has_the_functions_of_its_commands(self, model):
        tree = ast.parse((ROOT / "src" / model / "recipe.py").read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        functions |= {name.id for target in assigned for name in ast.walk(target) if isinstance(name, ast.Name)}
        wanted = {zoo.FUNCTIONS[command] for command in config_class_of(model).commands}
        assert {name for name in zoo.FUNCTIONS.values() if name in functions} == wanted

    def test_what_models_share_is_declared_once(self):
        """A key of two models comes from one class, or means something else in the other."""
        one, two = config_class_of("mobilenetv2"), config_class_of("segformer")
        rules = config.options_of(one), config.options_of(two)
        shared = set(rules[0]) & set(rules[1])
        assert len(shared) > 25
        for key in shared - {"model"}:
            is_declared_once = first_owner(one, key) is first_owner(two, key)
            assert is_declared_once or rules[0][key].help != rules[1][key].help, key


def first_owner(config_class: type, key: str) -> type:
    return [owner for owner in config_class.__mro__ if key in vars(owner).get("__annotations__", {})][-1]
