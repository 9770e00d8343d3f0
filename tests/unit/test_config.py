"""Configuration: precedence, types, checks, every shipped YAML, and speed of the answers that need no MindSpore."""

import contextlib
import dataclasses
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from src import zoo
from src.engine import config
from src.engine.errors import UsageError
from src.mobilenetv2.config import Config
from src.mobilenetv2_quant.config import Config as QuantConfig
from src.segformer.config import Config as SegFormerConfig
from tests.conftest import ROOT, run_command

PARTS = ("segformer.paper.yaml",)  # named by others under __BASE__, no configurations of their own
SHIPPED = sorted(
    path for path in (*ROOT.glob("default_config*.yaml"), *ROOT.glob("configs/*/*.yaml")) if path.name not in PARTS
)
CONFIGS = {"mobilenetv2": Config, "mobilenetv2_quant": QuantConfig, "segformer": SegFormerConfig}
# Keys of the original YAML files (all platforms), which have to stay valid as flags.
ORIGINAL_KEYS = """
enable_modelarts data_url train_url checkpoint_url data_path output_path load_path checkpoint_path device_target
enable_profiling modelarts_dataset_unzip_name need_modelarts_dataset_unzip num_classes image_height image_width
num_workers boost_mode batch_size epoch_size warmup_epochs lr_init lr_end lr_max momentum weight_decay label_smooth
loss_scale save_checkpoint save_checkpoint_epochs keep_checkpoint_max save_checkpoint_path platform device_id
rank_id rank_size run_distribute run_eval activation dataset_path pretrain_ckpt freeze_layer filter_head
enable_cache cache_session_id is_training is_training_eval is_training_export run_distribute_eval
run_distribute_export device_id_export batch_size_export batch_size_postprocess ckpt_file file_name file_format
result_path label_path distribute checkpoint
"""


def configure(tmp_path: Path, *flags: str, yaml_text: str = "", command: str = "train") -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(f"__BASE__: {ROOT / 'default_config_cpu.yaml'}\n{yaml_text}")
    return zoo.configure(command, ["--config_path", str(path), "--dataset_path", str(tmp_path), *flags])


def test_precedence_is_dataclass_base_yaml_flag(tmp_path):
    cfg = configure(tmp_path, "--lr_max", "0.5", yaml_text="lr_max: 0.2\nbatch_size: 7\nseed: 3")
    assert (cfg.lr_max, cfg.batch_size, cfg.seed, cfg.epoch_size, cfg.dropout) == (0.5, 7, 3, 15, 0.0)


def test_flags_win_over_aliases_in_the_file(tmp_path):
    text = "device_target: GPU\nsave_checkpoint_path: a\ncheckpoint_path: b"
    assert configure(tmp_path, yaml_text=text).platform == "GPU"
    cfg = configure(tmp_path, "--platform", "CPU", "--save_checkpoint_path", "c", yaml_text=text)
    assert (cfg.platform, cfg.save_checkpoint_path) == ("CPU", "c")


def test_yaml_on_and_off_are_words_where_words_are_wanted(tmp_path):
    assert configure(tmp_path, yaml_text="cpu_kernels: off").cpu_kernels == "off"
    assert configure(tmp_path, yaml_text="cpu_kernels: on").cpu_kernels == "on"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_yaml_builds_and_its_saved_form_is_equal(path, tmp_path):
    values = config.read_yaml(path)
    config_class = CONFIGS[values["model"].raw if "model" in values else "mobilenetv2"]
    cfg = config.build(config_class, values)
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml(cfg))
    assert config.build(config_class, config.read_yaml(again)) == cfg


def test_shipped_values_are_the_documented_ones():
    def values(name):
        cfg = config.build(Config, config.read_yaml(ROOT / name))
        return cfg.batch_size, cfg.epoch_size, cfg.warmup_epochs, cfg.lr_init, cfg.lr_max, cfg.lr_end, cfg.platform

    assert values("default_config.yaml") == (256, 200, 4, 0.0, 0.4, 0.0, "Ascend")
    assert values("default_config_gpu.yaml") == (150, 200, 0, 0.0, 0.8, 0.0, "GPU")
    assert values("default_config_cpu.yaml") == (150, 15, 0, 0.0, 0.03, 0.03, "CPU")
    assert values("default_config_boost.yaml") == (256, 200, 4, 0.0, 0.4, 0.0, "Ascend")


@pytest.mark.parametrize("key", ORIGINAL_KEYS.split())
def test_every_original_key_is_a_flag(key):
    parser = config.flag_parser(Config, {}, "train.py", "")
    assert f"--{key}" in {flag for action in parser._actions for flag in action.option_strings}


def test_platform_chooses_the_yaml(tmp_path):
    cfg = zoo.configure("train", ["--platform", "GPU", "--dataset_path", str(tmp_path)])
    assert (cfg.platform, cfg.lr_max) == ("GPU", 0.8)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--lr_maks", "1"], "did you mean '--lr_max'"),
        (["--lr_max", "fast"], "has to be a finite number"),
        (["--lr_max", "nan"], "has to be a finite number"),
        (["--lr_max", "-1"], "has to be above 0"),
        (["--batch_size", "0"], "has to be at least 1"),
        (["--batch_size", "2.5"], "has to be a whole number"),
        (["--filter_head", "perhaps"], "has to be True or False"),
        (["--freeze_layer", "all"], "has to be one of '', 'none', 'backbone'"),
        (["--freeze_layer", "backbone"], "without pretrain_ckpt"),
        (["--filter_head", "True"], "without pretrain_ckpt"),
        (["--pretrain_ckpt", "missing.ckpt"], "is not a file"),
        (["--warmup_epochs", "99"], "warm-up is part of the epochs"),
        (["--lr_end", "1"], "the cosine falls"),
        (["--resume", "missing.ckpt"], "is not a file"),
        (["--dataset_path", "/nowhere"], "is not a folder"),
        (["--dataset_path", ""], "is not set"),
        (["stray"], "unexpected argument 'stray'"),
        (["--model", "resnet"], "has to be one of 'mobilenetv2'"),
        (["--amp_level", "O2"], "computes float16 no faster; use --amp_dtype bfloat16 or --amp_level O0"),
        (["--amp_level", "O2", "--amp_dtype", "bfloat16", "--cpu_kernels", "off"], "cpu_kernels is off; leave"),
        (["--amp_dtype", "float8"], "has to be one of 'float16', 'bfloat16'"),
        (["--boost_mode", "O1"], "needs an Ascend machine"),
        (["--batch_size"], "expected one argument"),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path, flags, words):
    with pytest.raises(UsageError, match=words) as caught:
        configure(tmp_path, *flags)
    assert "\n" not in str(caught.value)


def test_what_half_precision_a_cpu_evaluates_in(tmp_path):
    """In float32 what a card has trained in float16, or its own kernels in bfloat16."""
    (tmp_path / "x.ckpt").touch()
    flags = ("--pretrain_ckpt", str(tmp_path / "x.ckpt"), "--amp_level", "O2")
    assert configure(tmp_path, *flags, command="eval").dtype == "float32"
    assert configure(tmp_path, *flags, "--amp_dtype", "bfloat16", command="eval").dtype == "float32"
    assert configure(tmp_path, *flags, "--platform", "Ascend", command="eval").dtype == "float16"


def test_what_a_cpu_trains_in(tmp_path):
    half = ("--amp_level", "O2", "--amp_dtype", "bfloat16")
    assert configure(tmp_path).kernel_dtype == "float32"
    assert configure(tmp_path, *half).kernel_dtype == "bfloat16"
    on_a_card = configure(tmp_path, *half, "--platform", "Ascend")
    assert (on_a_card.dtype, on_a_card.kernel_dtype) == ("bfloat16", "float32")


def test_pretrained_without_freeze_layer_names_both_choices(tmp_path):
    (tmp_path / "x.ckpt").touch()
    with pytest.raises(UsageError, match="--freeze_layer none .* --freeze_layer backbone"):
        configure(tmp_path, "--pretrain_ckpt", str(tmp_path / "x.ckpt"))


def test_a_run_goes_on_without_the_weights_it_started_from(tmp_path):
    gone, run = str(tmp_path / "gone.ckpt"), tmp_path / "run"
    run.mkdir()
    flags = ("--pretrain_ckpt", gone, "--resume", "auto", "--save_checkpoint_path", str(run), "--freeze_layer")
    (run / "mobilenetv2-best.ckpt").touch()  # nothing to go on from
    with pytest.raises(UsageError, match="gone.ckpt is not a file"):
        configure(tmp_path, *flags, "none")
    (run / "mobilenetv2-1_4.ckpt").touch()
    assert configure(tmp_path, *flags, "none").first_weights == ""
    with pytest.raises(UsageError, match="gone.ckpt is not a file"):
        configure(tmp_path, *flags, "backbone")  # the head's checkpoints hold no backbone
    Path(gone).touch()
    assert configure(tmp_path, *flags, "none").first_weights == gone


def test_yaml_errors_name_the_file(tmp_path):
    for text, words in [
        ("lr_maks: 1", "did you mean 'lr_max'"),
        ("[1", "not valid YAML"),
        ("batch_size: [1]", "whole number"),
    ]:
        with pytest.raises(UsageError, match=words) as caught:
            configure(tmp_path, yaml_text=text)
        assert "c.yaml" in str(caught.value)


def test_a_file_that_includes_itself_is_refused(tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text("__BASE__: loop.yaml")
    with pytest.raises(UsageError, match="includes itself"):
        config.read_yaml(path)


def test_missing_hyper_parameter_is_named(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text("platform: CPU")
    with pytest.raises(UsageError, match="has no 'image_height'"):
        config.build(Config, config.read_yaml(path))


def test_configuration_is_frozen(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        configure(tmp_path).seed = 2


def test_yaml_reads_4e_minus_5_as_a_number(tmp_path):
    assert configure(tmp_path, yaml_text="weight_decay: 4e-5").weight_decay == 4e-5


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_any_raw_value_converts_or_is_refused(raw):
    for wanted in (bool, int, float, str):
        with contextlib.suppress(UsageError):
            assert type(config.convert(raw, wanted, "key", "here")) is wanted


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Config)]), st.text(max_size=8), max_size=4))
def test_any_yaml_text_is_a_config_or_a_usage_error(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.safe_dump({"__BASE__": str(ROOT / "default_config_cpu.yaml"), **values}), encoding="utf-8")
    try:
        config.build(Config, config.read_yaml(path))
    except UsageError as error:
        assert "\n" not in str(error)


def test_help_and_usage_errors_need_no_mindspore(tmp_path):
    block = "import sys; sys.modules['mindspore'] = None; from src import zoo; sys.exit(zoo.run({!r}, sys.argv[1:]))"
    for command in ("train", "eval", "export"):
        shown = run_command("-c", block.format(command), "--help")
        assert shown.returncode == 0
        assert "[float, default 0.03] learning rate after warm-up" in " ".join(shown.stdout.split())
    wrong = run_command("-c", block.format("train"), "--lr_maks", "1", "--platform", "CPU")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: unknown flag '--lr_maks'")
    missing = run_command("-c", block.format("train"), "--platform", "CPU", "--dataset_path", tmp_path)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "mindspore is not installed; run: pip install -r requirements.txt" in missing.stderr


def test_importing_the_configuration_reads_no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "--nonsense"])
    import importlib

    importlib.reload(importlib.import_module("src.mobilenetv2.config"))


@dataclasses.dataclass(frozen=True)
class Lists:
    size: tuple[int, ...] = config.option("height and width", (512, 1024), low=32, lengths=(2,))
    mean: tuple[float, ...] = config.option("any number of them", ())


def lists(size=None, mean=None, source="x.yaml"):
    raw = {"size": size, "mean": mean}
    return config.build(Lists, {key: config.Value(value, source) for key, value in raw.items() if value is not None})


@pytest.mark.parametrize("raw", [[64, 96], "64,96", "[64, 96]", " [64,96.0] ", (64, "96")])
def test_a_list_is_a_yaml_list_or_text_with_commas(raw):
    assert lists(size=raw).size == (64, 96)


def test_lists_of_numbers_have_types_and_may_be_empty():
    assert lists(mean=[1, "2e-1", 3.5]).mean == (1.0, 0.2, 3.5)
    assert lists(mean="").mean == lists(mean=[]).mean == lists(mean="[]").mean == ()
    assert lists(mean=0.5).mean == (0.5,)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([64], "has to have 2 numbers"),
        ([64, 16], "size is 16 .*at least 32"),
        ("64,wide", "'wide' .*whole number"),
        ("64,,96", "'' .*whole number"),
        ([64, [96]], "whole number"),
        ("[64, 96", r"'\[64' .*whole number"),
        (None, "has to have 2 numbers|whole number"),
    ],
)
def test_wrong_lists_are_one_sentence(raw, words):
    with pytest.raises(UsageError, match=words):
        config.build(Lists, {"size": config.Value(raw, "x.yaml")})


def test_a_saved_list_reads_as_the_same_list(tmp_path):
    values = lists(size=[64, 96], mean=[0.5])
    path = tmp_path / "saved.yaml"
    path.write_text(config.to_yaml(values))
    assert config.build(Lists, config.read_yaml(path)) == values
    parser = config.flag_parser(Lists, {}, "x.py", "")
    assert "[int,..., default (512, 1024)]" in " ".join(parser.format_help().split())


def test_export_refuses_air_away_from_ascend(tmp_path):
    (tmp_path / "x.ckpt").touch()
    with pytest.raises(UsageError, match="AIR needs an Ascend machine"):
        configure(tmp_path, "--ckpt_file", str(tmp_path / "x.ckpt"), "--file_format", "AIR", command="export")
    with pytest.raises(UsageError, match="ckpt_file is not set"):
        configure(tmp_path, command="export")
