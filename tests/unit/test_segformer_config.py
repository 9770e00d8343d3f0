"""SegFormer's configuration: the documented values, every original key, and sentences about wrong ones."""

from pathlib import Path

import pytest

from src import zoo
from src.engine import config
from src.engine.errors import UsageError
from src.segformer.config import MOST_ENLARGED, Config
from src.segformer.data import transforms
from src.segformer.variants import VARIANTS
from tests.conftest import ROOT

FOLDER = ROOT / "configs" / "segformer"
SMALL = FOLDER / "segformer.b0.cpu.yaml"
PART = "segformer.paper.yaml"  # named by others under __BASE__
ORIGINAL_KEYS = """
run_distribute device_target mode_name dataset_name device_num rank_id rank_size data_path load_ckpt
pretrained_ckpt_path save_checkpoint save_checkpoint_epoch_interval save_best_ckpt checkpoint_path train_log_interval
epoch_size batch_size total_batch_size backbone dataset_ignore_label dataset_ignore_image optimizer class_num
dataset_num_parallel_workers dataset_max_rowsize momentum lr weight_decay warmup_steps base_size crop_size
img_norm_mean img_norm_std run_eval eval_start_epoch eval_interval eval_ckpt_path eval_log_interval
dataset_eval_num_parallel_workers infer_copy_original_img infer_save_gray_img infer_save_color_img
infer_save_overlap_img infer_log_interval infer_ckpt_path infer_output_path enable_modelarts data_url train_url
data_dir export_ckpt_path export_format
"""


def shipped(name: str) -> Config:
    return config.build(Config, config.read_yaml(FOLDER / name))


def configure(command: str, tmp_path: Path, *flags: str, path: Path = SMALL) -> Config:
    return zoo.configure(command, ["--config_path", str(path), "--data_path", str(tmp_path), *flags])


ORIGINAL_FILE = """
run_distribute: False
data_path: "./data/cityscapes/"
load_ckpt: True
pretrained_ckpt_path: "./pretrained/ms_pretrained_b0.ckpt"
save_checkpoint: True
save_checkpoint_epoch_interval: 1
save_best_ckpt: True
checkpoint_path: "./checkpoint/"
train_log_interval: 100
epoch_size: 200
batch_size: 2
backbone: "mit_b0"
class_num: 19
dataset_num_parallel_workers: 4
momentum: 0.9
lr: 0.0001
weight_decay: 0.01
base_size: [512, 1024]
crop_size: [512, 1024]
img_norm_mean: [123.675, 116.28, 103.53]
img_norm_std: [58.395, 57.12, 57.375]
run_eval: True
eval_start_epoch: 0
eval_interval: 1
eval_ckpt_path: ""
eval_log_interval: 100
infer_copy_original_img: True
infer_save_gray_img: True
infer_save_color_img: True
infer_save_overlap_img: True
infer_log_interval: 100
infer_ckpt_path: ""
infer_output_path: "./infer_result/"
"""


def test_a_file_of_the_original_repository_is_enough(tmp_path):
    (tmp_path / "mine.yaml").write_text(ORIGINAL_FILE)
    cfg = configure("train", tmp_path, "--load_ckpt", "False", path=tmp_path / "mine.yaml")
    assert (cfg.backbone, cfg.dataset_ignore_image, cfg.recipe) == ("mit_b0", 255, "original")


def test_a_run_goes_on_without_the_weights_it_started_from(tmp_path):
    (tmp_path / "run").mkdir()
    flags = ["--load_ckpt", "True", "--pretrained_ckpt_path", "gone.ckpt", "--resume", "auto"]
    flags += ["--checkpoint_path", str(tmp_path / "run")]
    with pytest.raises(UsageError, match="gone.ckpt is not a file"):
        configure("train", tmp_path, *flags)
    (tmp_path / "run" / "segformer_mit_b0_1.ckpt").touch()
    assert configure("train", tmp_path, *flags).has_checkpoints


@pytest.mark.parametrize("key", ORIGINAL_KEYS.split())
def test_every_original_key_is_a_flag(key):
    parser = config.flag_parser(Config, {}, "train.py", "")
    assert f"--{key}" in {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("number", range(6))
def test_each_encoder_has_its_files_and_its_own_weights(number):
    cfg = shipped(f"segformer.b{number}.1024x1024.city.yaml")
    assert (cfg.backbone, cfg.pretrained_ckpt_path) == (f"mit_b{number}", f"./pretrained/ms_pretrained_b{number}.ckpt")
    assert (cfg.base_size, cfg.crop_size) == ((1024, 2048), (1024, 1024))
    paper = shipped(f"segformer.b{number}.1024x1024.city.paper.yaml")
    assert paper.decoder_dim == VARIANTS[paper.backbone].paper_decoder_dim
    assert (paper.backbone, paper.recipe, paper.warmup_steps, paper.warmup_ratio) == (cfg.backbone, "paper", 1500, 1e-6)
    assert paper.window == ((1024, 1024), (768, 768))


def test_the_original_values():
    cfg = shipped("segformer.b0.512x1024.city.yaml")
    assert (cfg.lr, cfg.weight_decay, cfg.epoch_size, cfg.batch_size, cfg.class_num) == (0.0001, 0.01, 200, 2, 19)
    assert (cfg.base_size, cfg.crop_size, cfg.dataset_ignore_image) == ((512, 1024), (512, 1024), 255)
    assert (cfg.recipe, cfg.decoder_dim, cfg.export_format, cfg.dataset_num_parallel_workers) == (
        "original",
        0,
        "AIR",
        4,
    )


def test_the_values_of_the_paper_at_512x1024():
    cfg = shipped("segformer.b0.512x1024.city.paper.yaml")
    assert (cfg.recipe, cfg.class_weights, cfg.lr, cfg.batch_size, cfg.epoch_size) == ("paper", False, 0.00006, 8, 431)
    assert (cfg.warmup_steps, cfg.weight_decay, cfg.dataset_ignore_image, cfg.eval_mode) == (1500, 0.01, 0, "whole")
    assert (cfg.backbone, cfg.decoder_dim, cfg.base_size, cfg.crop_size) == ("mit_b0", 256, (512, 1024), (512, 1024))
    assert cfg.epoch_size * (2975 // cfg.batch_size) == 159901  # steps, as the model card says


@pytest.mark.parametrize("name", sorted({path.name for path in FOLDER.glob("*.yaml")} - {PART}))
def test_every_file_loads(name):
    cfg = shipped(name)
    assert (cfg.model, cfg.class_num) == ("segformer", 150 if "ade20k" in name else 19)
    if ".city." in name:
        is_paper = ".paper." in name
        assert (cfg.recipe, cfg.class_weights) == (("paper", False) if is_paper else ("original", True))
        assert (cfg.lr, cfg.batch_size) == ((0.00006, 8) if is_paper else (0.0001, 2))


def test_the_part_that_holds_the_papers_values_is_no_configuration():
    with pytest.raises(UsageError, match="the configuration has no 'class_num'"):
        shipped(PART)


def test_the_old_spelling_of_the_original_recipe_is_taken(tmp_path):
    assert configure("train", tmp_path, "--recipe", "seed").recipe == "original"
    (tmp_path / "old.yaml").write_text(f"__BASE__: {SMALL}\nrecipe: seed\n")
    assert configure("train", tmp_path, path=tmp_path / "old.yaml").recipe == "original"
    with pytest.raises(UsageError, match="has to be one of 'original', 'paper'"):
        configure("train", tmp_path, "--recipe", "sead")


def test_the_data_have_the_name_of_the_other_models_too(tmp_path):
    cfg = zoo.configure("train", ["--config_path", str(SMALL), "--dataset_path", str(tmp_path)])
    assert cfg.data_path == str(tmp_path)


def test_every_checkpoint_is_kept_unless_a_number_is_given(tmp_path):
    assert configure("train", tmp_path).keep_checkpoint_max == 0
    assert configure("train", tmp_path, "--keep_checkpoint_max", "3").keep_checkpoint_max == 3


def test_the_largest_crop_is_that_of_the_transform():
    assert transforms.RATIO[1] == MOST_ENLARGED


def test_the_exported_file_is_named_after_the_yaml(tmp_path):
    (tmp_path / "x.ckpt").touch()
    flags = ["--export_ckpt_path", str(tmp_path / "x.ckpt"), "--export_format", "ONNX"]
    assert configure("export", tmp_path, *flags).export_name == "segformer.b0.cpu"
    assert configure("export", tmp_path, *flags, "--export_name", "out/a").export_name == "out/a"


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("train", ["--crop_size", "512,512"], "no image fills the crop"),
        ("train", ["--crop_size", "128"], "has to have 2 numbers"),
        ("train", ["--base_size", "16,16"], "at least 32"),
        ("train", ["--load_ckpt", "True", "--pretrained_ckpt_path", "no.ckpt"], "no.ckpt is not a file.*starts anew"),
        ("train", ["--backbone", "mit_b6"], "has to be one of 'mit_b0'"),
        ("train", ["--data_path", "/nowhere"], "is not a folder"),
        ("train", ["--slide_stride", "200,200"], "pixels between windows would be missed"),
        ("train", ["--slide_crop", "64"], "has to have 0 or 2 numbers"),
        ("train", ["--multi_scale", "[]"], "multi_scale is empty"),
        ("train", ["--amp_level", "O2"], "a CPU needs --amp_level O0"),
        (
            "train",
            ["--amp_level", "O2", "--amp_dtype", "bfloat16"],
            "kernels know no bfloat16 for this model; a CPU needs",
        ),
        ("train", ["--resume", "no.ckpt"], "resume no.ckpt is not a file"),
        ("eval", [], "eval_ckpt_path is not set"),
        ("infer", [], "infer_ckpt_path is not set"),
        ("infer", ["--data_path", "/nowhere"], "does not exist"),
        ("export", [], "export_ckpt_path is not set"),
    ],
)
def test_wrong_values_are_one_sentence(tmp_path, command, flags, words):
    with pytest.raises(UsageError, match=words) as caught:
        configure(command, tmp_path, *flags)
    assert "\n" not in str(caught.value)


def test_air_is_refused_away_from_ascend_and_the_other_formats_named(tmp_path):
    (tmp_path / "x.ckpt").touch()
    with pytest.raises(UsageError, match="AIR needs an Ascend machine.* MINDIR or ONNX"):
        configure("export", tmp_path, "--export_ckpt_path", str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize("model", [[], ["--config_path", "configs/mobilenetv2_quant/cpu.yaml"]])
def test_infer_of_a_classifier_asks_for_images_and_a_model(tmp_path, model):
    flags = ["--platform", "CPU", *model, "--data_path"]
    with pytest.raises(UsageError, match="data_path .*nowhere does not exist; give --data_path IMAGE or FOLDER"):
        zoo.configure("infer", [*flags, str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="pretrain_ckpt is not set; give --pretrain_ckpt FILE"):
        zoo.configure("infer", [*flags, str(tmp_path)])


def test_only_onnx_holds_any_size(tmp_path):
    (tmp_path / "x.ckpt").touch()
    flags = ["--export_ckpt_path", str(tmp_path / "x.ckpt"), "--dynamic_size", "True", "--export_format"]
    assert configure("export", tmp_path, *flags, "ONNX").dynamic_size
    with pytest.raises(
        UsageError, match="dynamic_size is True and a SegFormer's MINDIR holds the one size it is written for"
    ):
        configure("export", tmp_path, *flags, "MINDIR")


class TestQuantisation:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--resume", "auto", "--calibrate_only", "2"), "there is nothing to resume; leave one of the two out"),
            (("--calibrate_only", "2"), "calibrate_only needs trained weights; give --load_ckpt True"),
            (("--platform", "Ascend"), "computes in float16, which is too coarse .* give --amp_level O0"),
            (("--calibration_method", "best"), "it has to be one of 'minmax', 'percentile', 'mse', 'entropy'"),
        ],
    )
    def test_what_does_not_go_together(self, tmp_path, flags, message):
        with pytest.raises(UsageError, match=message):
            configure("train", tmp_path, "--quant", "True", *flags)

    def test_keys_without_effect_are_named(self, tmp_path, capsys):
        configure("train", tmp_path, "--calibration_method", "mse", "--calibrate_only", "2")
        assert "--calibration_method, --calibrate_only have no effect: quant is False" in capsys.readouterr().err

    def test_a_checkpoint_says_itself_how_it_was_quantised(self, tmp_path, capsys):
        (tmp_path / "x.ckpt").write_bytes(b"")
        configure("eval", tmp_path, "--eval_ckpt_path", str(tmp_path / "x.ckpt"), "--quant", "True")
        assert "--quant has no effect: read by train.py only" in capsys.readouterr().err
