"""Configuration files as users have them: the originals' documents, quotes, places beside the scripts, earlier runs."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from src import zoo
from src.engine import config
from src.engine.config import paths
from src.engine.errors import UsageError
from src.mobilenetv2.config import Config
from tests.conftest import ROOT

CPU = ROOT / "default_config_cpu.yaml"
THREE_DOCUMENTS = """
enable_modelarts: False
num_classes: 26
image_height: 224
image_width: 224
num_workers: 8
batch_size: 150
epoch_size: 15
warmup_epochs: 0
lr_init: 0.0
lr_end: 0.03
lr_max: 0.03
momentum: 0.9
weight_decay: 0.00004
label_smooth: 0.1
loss_scale: 1024
platform: 'CPU'
rank_id: 0
is_training_eval: False
dataset_path: "{data}"
---
# Help description for each configuration
enable_modelarts: "Whether training on modelarts, default: False"
platform: "target platform"
---
platform: ['Ascend', 'GPU', 'CPU']
file_format: ['AIR', 'ONNX', 'MINDIR']
"""
MODELARTS_STEPS = {  # what the model cards say to set in the YAML file, by the names they print
    "mobilenetv2": "enable_modelarts distribute need_modelarts_dataset_unzip modelarts_dataset_unzip_name dataset_path "
    "epoch_size checkpoint_url checkpoint file_name file_format ckpt_file data_url train_url",
    "mobilenetv2_quant": "enable_modelarts distribute checkpoint_url checkpoint file_format ckpt_file train_url",
    "segformer": "enable_modelarts data_url train_url keep_checkpoint_max",
}
SHIPPED = {
    "mobilenetv2": "default_config.yaml",
    "mobilenetv2_quant": "configs/mobilenetv2_quant/ascend.yaml",
    "segformer": "configs/segformer/segformer.base.yaml",
}


class TestDocuments:
    def test_those_of_the_original_files_load(self, tmp_path, capsys):
        path = tmp_path / "original.yaml"
        path.write_text(THREE_DOCUMENTS.format(data=tmp_path))
        cfg = zoo.configure("train", ["--config_path", str(path)])
        assert (cfg.num_classes, cfg.platform, cfg.dataset_path) == (26, "CPU", str(tmp_path))
        said = capsys.readouterr().err
        assert said == f"note: rank_id, is_training_eval of {path} have no effect; --help KEY says why\n"

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ("---\na: 1\n---\nb: 2\n---\nc: 3\n", "holds more than 3 documents"),
            ("---\n- a list\n", "document 2 of .* is list; documents after the first have to hold 'key: value' lines"),
            ("---\na: 1\n---\nwords\n", "document 3 of .* is str"),
        ],
    )
    def test_others_are_one_sentence(self, tmp_path, more, words):
        path = tmp_path / "x.yaml"
        path.write_text(f"seed: 1\n{more}")
        with pytest.raises(UsageError, match=words) as caught:
            config.read_yaml(path)
        assert "\n" not in str(caught.value)

    @given(st.lists(st.one_of(st.none(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))))
    def test_any_number_of_any_kind(self, tmp_path_factory, more):
        path = tmp_path_factory.getbasetemp() / "documents.yaml"
        path.write_text(yaml.safe_dump_all([{"seed": 3}, *more]), encoding="utf-8")
        is_right = len(more) <= 2 and all(item is None or isinstance(item, dict) for item in more)
        try:
            assert config.read_yaml(path)["seed"].raw == 3
            assert is_right
        except UsageError as error:
            assert not is_right and "\n" not in str(error)


class TestQuotes:
    @given(st.text(), st.sampled_from(["'", '"']), st.integers(1, 3))
    def test_around_a_text_do_not_count(self, text, mark, times):
        read = config.convert(mark * times + text + mark * times, str, "key", "here")
        assert read == config.convert(text, str, "key", "here")
        assert config.convert(read, str, "key", "here") == read  # what is written into config.yaml is read as it is

    @pytest.mark.parametrize(("given", "read"), [("'Pets", "'Pets"), ("'", "'"), ("''", ""), ("it's", "it's")])
    def test_single_ones_stay(self, given, read):
        assert config.convert(given, str, "key", "here") == read

    def test_around_any_other_value_neither(self):
        assert config.convert("'True'", bool, "key", "here") is True
        assert config.convert('"200"', int, "key", "here") == 200
        assert config.convert("'[64, 96]'", tuple[int, ...], "key", "here") == (64, 96)

    def test_on_every_flag_that_a_job_has(self, tmp_path):
        flags = ["--platform='CPU'", "--file_format='ONNX'", '--train_url="s3://bucket/out/"', "--epoch_size='3'"]
        flags += ["--data_url='s3://bucket/data/'", "--enable_modelarts='True'", "--checkpoint='./a/b.ckpt'"]
        cfg = zoo.configure("train", flags)
        assert (cfg.platform, cfg.file_format, cfg.train_url) == ("CPU", "ONNX", "s3://bucket/out/")
        assert (cfg.data_url, cfg.pretrain_ckpt, cfg.epoch_size) == ("s3://bucket/data/", "./a/b.ckpt", 3)

    def test_on_the_file_and_the_model(self, tmp_path):
        path = tmp_path / "q.yaml"
        path.write_text(f"__BASE__: {ROOT}/configs/segformer/segformer.b0.cpu.yaml\nmodel: \"'segformer'\"\n")
        cfg = zoo.configure("train", [f"--config_path='{path}'", f"--data_path='{tmp_path}'"])
        assert (cfg.model, cfg.data_path) == ("segformer", str(tmp_path))


class TestShippedFiles:
    @pytest.mark.parametrize("model", MODELARTS_STEPS)
    def test_the_keys_of_the_modelarts_steps_stand_in_them_with_their_defaults(self, model):
        written = yaml.safe_load((ROOT / SHIPPED[model]).read_text())
        assert set(MODELARTS_STEPS[model].split()) <= set(written)
        config_class = importlib.import_module(f"src.{model}.config").Config
        cfg = config.build(config_class, config.read_yaml(ROOT / SHIPPED[model]))
        in_a_job = [field for field in config.fields_of(config_class) if field.name in written]
        in_a_job = [
            field for field in in_a_job if field.name.startswith(("enable_", "data_", "train_u", "checkpoint_u"))
        ]
        assert len(in_a_job) >= 4
        assert all(getattr(cfg, field.name) == field.default for field in in_a_job)

    def test_boost_is_at_the_root(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        cfg = zoo.configure("train", ["--config_path", "default_config_boost.yaml", "--dataset_path", str(tmp_path)])
        assert (cfg.boost_mode, cfg.run_eval, cfg.platform) == ("O1", True, "Ascend")

    def test_segformer_keeps_every_checkpoint_and_mobilenetv2_a_number(self):
        def kept(name):
            return config.read_yaml(ROOT / name)["keep_checkpoint_max"].raw

        assert [kept(SHIPPED[model]) for model in SHIPPED] == [200, 300, 0]


class TestBesideTheScripts:
    @pytest.mark.parametrize(
        "given",
        ["/segformer/config/segformer.b0.cpu.yaml", "config/segformer.b0.cpu.yaml", "segformer.b0.cpu.yaml"],
    )
    def test_a_shipped_configuration_by_its_name(self, monkeypatch, tmp_path, capsys, given):
        monkeypatch.chdir(tmp_path)
        assert zoo.find_config(given) == ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml"
        assert "note: config_path is " in capsys.readouterr().err

    def test_a_file_of_the_working_folder_wins(self, monkeypatch, tmp_path, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "segformer.b0.cpu.yaml").touch()
        assert zoo.find_config("segformer.b0.cpu.yaml") == Path("segformer.b0.cpu.yaml")
        assert not capsys.readouterr().err

    @pytest.mark.parametrize(
        "given", ["/home/me/segformer.b0.cpu.yaml", "*.yaml", "config/", "..", "a" * 300 + ".yaml"]
    )
    def test_no_other_path_is_answered_with_another_file(self, given):
        with pytest.raises(UsageError, match="cannot read config_path"):
            zoo.configure("train", ["--config_path", given])

    @pytest.fixture
    def repository(self, tmp_path, monkeypatch):
        """A repository with data and weights beside its scripts; the working folder is another, empty one."""
        root = tmp_path / "repository"
        (root / "data" / "cityscapes").mkdir(parents=True)
        (root / "pretrained").mkdir()
        (root / "pretrained" / "ms_pretrained_b0.ckpt").touch()
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.setattr(zoo, "ROOT", root)
        return root

    FLAGS = (
        "--config_path",
        str(ROOT / "configs" / "segformer" / "segformer.b0.512x1024.city.yaml"),
        "--platform",
        "CPU",
    )

    def test_default_data_and_weights(self, repository, capsys):
        cfg = zoo.configure("train", [*self.FLAGS])
        assert Path(cfg.data_path) == repository / "data" / "cityscapes"
        assert Path(cfg.pretrained_ckpt_path) == repository / "pretrained" / "ms_pretrained_b0.ckpt"
        assert f"note: data_path is {repository / 'data/cityscapes'}" in capsys.readouterr().err

    def test_those_of_the_working_folder_win(self, repository):
        Path("data/cityscapes").mkdir(parents=True)
        assert zoo.configure("train", [*self.FLAGS]).data_path == "./data/cityscapes/"

    def test_a_path_on_the_command_line_is_meant_as_it_is(self, repository):
        with pytest.raises(UsageError, match=r"data_path data/cityscapes is not a folder"):
            zoo.configure("train", [*self.FLAGS, "--data_path", "data/cityscapes"])

    @given(st.one_of(st.text(), st.just("~nobody"), st.just("~0/x")))
    def test_any_text(self, text):
        values = {"dataset_path": config.Value(text, "x.yaml")}
        found = paths.look_beside(Config, values, ROOT / "tests")
        assert all(Path(path).exists() for path in found.values())
        for require in (config.require_file, config.require_folder):
            with contextlib.suppress(UsageError):
                require("dataset_path", text)


class TestEarlierRuns:
    @pytest.mark.parametrize("model", SHIPPED)
    def test_a_written_configuration_is_the_same_again_and_silent(self, model, tmp_path, capsys):
        """Of keys without effect there are none in it."""
        config_class = importlib.import_module(f"src.{model}.config").Config
        cfg = config.build(config_class, config.read_yaml(ROOT / SHIPPED[model]))
        path = tmp_path / "config.yaml"
        path.write_text(config.to_yaml(cfg))
        data = config_class.job_keys().data
        again = zoo.configure("train", ["--config_path", str(path), f"--{data}", str(tmp_path), *self.anew(model)])
        assert again.epoch_size == cfg.epoch_size and "rank_id" not in path.read_text()
        assert not capsys.readouterr().err

    def anew(self, model):
        return ["--load_ckpt", "False", "--platform", "CPU"] if model == "segformer" else []

    @pytest.mark.parametrize("model", SHIPPED)
    def test_one_that_holds_every_key_is_read_with_one_line(self, model, tmp_path, capsys):
        """As they were written before: with the keys that have no effect."""
        config_class = importlib.import_module(f"src.{model}.config").Config
        cfg = config.build(config_class, config.read_yaml(ROOT / SHIPPED[model]))
        every = {field.name: getattr(cfg, field.name) for field in config.fields_of(config_class)}
        every |= {"recipe": "seed"} if model == "segformer" else {}
        every = {key: list(value) if isinstance(value, tuple) else value for key, value in every.items()}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(every, sort_keys=False))
        data = config_class.job_keys().data
        again = zoo.configure("train", ["--config_path", str(path), f"--{data}", str(tmp_path), *self.anew(model)])
        assert (again.epoch_size, getattr(again, "recipe", "original")) == (cfg.epoch_size, "original")
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "rank_id, rank_size" in said
