"""--help in groups and about a word, and how a model is found: one line of registration, the rest by its place."""

from __future__ import annotations

import importlib
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

import src
from src import zoo
from src.engine import config
from src.engine.config.flags import matching_help
from src.engine.errors import UsageError
from tests.conftest import ROOT

PAPER = ["--config_path", str(ROOT / "configs" / "segformer" / "segformer.b0.512x1024.city.paper.yaml")]


def shown(capsys, command: str, *flags: str) -> str:
    with pytest.raises(SystemExit) as ended:
        zoo.configure(command, list(flags))
    assert ended.value.code == 0
    return capsys.readouterr().out


def headings(text: str) -> list[str]:
    return [line[:-1] for line in text.splitlines() if line and line[0] != " " and line.endswith(":")]


class TestHelp:
    def test_has_groups_and_a_short_usage(self, capsys):
        text = shown(capsys, "train", "--platform", "CPU", "--help")
        assert text.startswith("usage: python train.py [--config_path FILE] [--KEY VALUE ...] [--help [WORD]]\n\n")
        groups = "data, augmentation (train.py), network, training (train.py), distillation (train.py), "
        groups += "checkpoints (train.py), evaluation, inference (infer.py), export (export.py), device, cloud, "
        groups += "keys of the original files that have no effect"
        assert ", ".join(headings(text)) == f"every command, {groups}"

    def test_quantisation_comes_after_training(self, capsys):
        path = str(ROOT / "configs" / "mobilenetv2_quant" / "cpu.yaml")
        found = headings(shown(capsys, "train", "--config_path", path, "-h"))
        assert found[found.index("quantisation") - 1] == "training (train.py)"

    def test_of_one_key(self, capsys):
        text = shown(capsys, "train", *PAPER, "--help", "recipe")
        assert headings(text) == ["training (train.py)"] and text.count("--") == 1
        assert "[str, default 'paper', one of original, paper] original: constant learning rate" in " ".join(
            text.split()
        )

    @pytest.mark.parametrize("name", ["ckpt_file", "export_ckpt_path"])
    def test_of_a_key_by_either_name(self, capsys, name):
        assert "checkpoint to export" in shown(capsys, "train", *PAPER, "--help", name)

    def test_about_a_word(self, capsys):
        text = shown(capsys, "train", *PAPER, "--help", "Warm-up")
        assert [line.split()[0] for line in text.splitlines() if line.startswith("  --")] == [
            "--lr", "--warmup_steps", "--warmup_ratio",
        ]  # fmt: skip

    def test_why_a_key_has_no_effect(self, capsys):
        assert "no effect: AdamW has no momentum" in shown(capsys, "train", *PAPER, "--help", "momentum")

    def test_of_nothing_that_is_there(self):
        with pytest.raises(UsageError, match="no key of this command is about 'momentumm'; did you mean 'momentum'"):
            zoo.configure("train", [*PAPER, "--help", "momentumm"])

    @given(st.text(min_size=1))
    def test_any_word(self, word):
        config_class = importlib.import_module("src.mobilenetv2.config").Config
        parser = config.flag_parser(config_class, {}, "x.py", "")
        try:
            assert "--" in matching_help(parser, word)
        except UsageError as error:
            assert "\n" not in str(error)


TOY_CONFIG = """
    from dataclasses import dataclass
    from typing import ClassVar

    from src.classification import config
    from src.engine.config import option

    @dataclass(frozen=True)
    class Config(config.Config):
        commands: ClassVar = ("train", "eval", "export")
        model: str = option("which model", "toy", choices=("toy",))
        layers: int = option("layers of the network", 2, low=1)
"""
TOY_RECIPE = """
    def train(cfg):
        print(cfg.model, cfg.layers, cfg.batch_size)

    def evaluate(cfg):
        return 7

    def export(cfg):
        return 0
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A model of somebody else's: two files below a folder src, one line of registration, and a YAML file."""
    package = tmp_path / "src" / "toy"
    package.mkdir(parents=True)
    (package / "config.py").write_text(textwrap.dedent(TOY_CONFIG))
    (package / "recipe.py").write_text(textwrap.dedent(TOY_RECIPE))
    monkeypatch.setattr(src, "__path__", [*src.__path__, str(tmp_path / "src")])
    monkeypatch.setitem(zoo.MODELS, "toy", "a toy")
    path = tmp_path / "toy.yaml"
    path.write_text(f"__BASE__: {ROOT / 'default_config_cpu.yaml'}\nmodel: toy\nbatch_size: 3\n")
    yield ["--config_path", str(path), "--dataset_path", str(tmp_path)]
    for name in [name for name in sys.modules if name.startswith("src.toy")]:
        del sys.modules[name]


class TestOneLineOfRegistration:
    def test_its_commands_run(self, toy, capsys):
        assert zoo.run("train", [*toy, "--layers", "5"]) == 0
        assert capsys.readouterr().out == "toy 5 3\n"
        assert zoo.run("train", [*toy, "--layers", "0"]) == 2
        assert "layers is 0 (from --layers); it has to be at least 1" in capsys.readouterr().err

    def test_its_status_is_returned_and_its_checks_are_the_tasks(self, toy, tmp_path, capsys):
        (tmp_path / "x.ckpt").touch()
        assert zoo.run("eval", [*toy, "--pretrain_ckpt", str(tmp_path / "x.ckpt")]) == 7
        assert zoo.run("eval", toy) == 2
        assert "pretrain_ckpt is not set" in capsys.readouterr().err

    def test_a_command_that_it_does_not_have(self, toy, capsys):
        assert zoo.run("infer", toy) == 2
        assert "toy, which has train.py, eval.py, export.py and no infer.py" in capsys.readouterr().err

    def test_its_keys_are_in_the_help(self, toy, capsys):
        text = shown(capsys, "train", *toy, "--help", "layers")
        assert headings(text) == ["network"] and "[int, default 2] layers of the network" in text
