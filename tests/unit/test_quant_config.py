"""MobileNetV2-quant without MindSpore: its keys, the seed's values, phases, learning rate, graph and report."""

from __future__ import annotations

import csv

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from src import zoo
from src.engine import config
from src.engine.errors import UsageError
from src.mobilenetv2.lr_generator import Rates, get_lr
from src.mobilenetv2_quant.config import Config
from src.quantisation import layer_report, onnx_graph
from src.quantisation.onnx_graph import Graph
from src.quantisation.phases import Phase, Phases
from tests.conftest import ROOT

CONFIGS = ROOT / "configs" / "mobilenetv2_quant"
SEED_VALUES = {
    "batch_size": 134, "epoch_size": 60, "start_epoch": 200, "warmup_epochs": 0, "lr_max": 0.3, "momentum": 0.9,
    "weight_decay": 0.00004, "loss_scale": 1024, "label_smooth": 0.1, "save_checkpoint": True,
    "save_checkpoint_epochs": 1, "keep_checkpoint_max": 300, "save_checkpoint_path": "./checkpoint",
}  # fmt: skip


def configure(tmp_path, *flags: str, command: str = "train") -> Config:
    return zoo.configure(command, ["--config_path", str(CONFIGS / "cpu.yaml"), "--dataset_path", str(tmp_path), *flags])


@pytest.mark.parametrize("platform", ["ascend", "gpu"])
def test_values_are_the_seeds(platform):
    cfg = config.build(Config, config.read_yaml(CONFIGS / f"{platform}.yaml"))
    assert {key: getattr(cfg, key) for key in SEED_VALUES} == SEED_VALUES


def test_the_seeds_lr_is_a_flag_and_no_freeze_layer_is_asked_for(tmp_path):
    (tmp_path / "x.ckpt").write_text("")
    cfg = configure(tmp_path, "--lr", "0.05", "--pretrain_ckpt", str(tmp_path / "x.ckpt"))
    assert (cfg.lr_max, cfg.model) == (0.05, "mobilenetv2_quant")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--weight_symmetric", "False"], "which no integer kernel runs"),
        (["--quant_method", "lsq", "--weight_per_channel", "False", "--weight_symmetric", "False"], "symmetric weight"),
        (["--quant_method", "lsq", "--optimizer", "adamw"], "use --optimizer momentum"),
        (["--calibrate_only", "2"], "name the checkpoint with --pretrain_ckpt"),
        (["--calibrate_only", "2", "--resume", "auto"], "nothing to resume"),
        (["--pretrain_ckpt", "missing.ckpt"], "is not a file"),
        (["--weight_bits", "9"], "has to be at most 8"),
        (["--quant_method", "dorefa"], "has to be one of 'qat', 'lsq'"),
        (
            ["--amp_level", "O2"],
            "amp_level is O2, and float16 .* too coarse for grids of 8 bits: .*; leave it at O0",
        ),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path, flags, words):
    with pytest.raises(UsageError, match=words) as caught:
        configure(tmp_path, *flags)
    assert "\n" not in str(caught.value)


def test_onnx_refuses_grids_that_it_cannot_say(tmp_path):
    (tmp_path / "x.ckpt").write_text("")
    flags = ("--ckpt_file", str(tmp_path / "x.ckpt"), "--file_format", "ONNX")
    assert configure(tmp_path, *flags, "--weight_bits", "4", command="export").weight_bits == 4
    for more in (("--activation_bits", "4"), ("--activation_narrow_range", "True")):
        with pytest.raises(UsageError, match="use --file_format MINDIR"):
            configure(tmp_path, *flags, *more, command="export")
        assert not configure(tmp_path, *flags[:2], *more, command="export").writes_integers()
    assert configure(tmp_path, *flags[:2], command="export").writes_integers()


def test_learning_rate_goes_on_where_float_training_stopped():
    lr = get_lr(Rates(0.0, 0.0, 0.3), 0, 260, 10, start_epoch=200)
    assert len(lr) == 600
    assert lr[0] == pytest.approx(0.3 * 0.5 * (1 + np.cos(np.pi * 200 / 260)))  # 0.0377, as in the original
    assert (lr == get_lr(Rates(0.0, 0.0, 0.3), 0, 260, 10)[2000:]).all()


@pytest.mark.parametrize("done", [0, 2, 4, 7])
def test_phases_switch_at_their_steps_and_after_a_resume(done):
    entered, ran = [], []

    def make():
        phase = entered[-1]
        return lambda lr, *inputs: ran.append(phase)

    began = {}

    def enter(phase, at):
        entered.append(phase)
        began[phase] = at

    phases = Phases(make, enter, quant_delay=3, freeze_bn=5)
    phases.begin(done)
    for _ in range(done, 8):
        phases.run(0.1)
    expected = [Phase(index >= 3, index >= 5) for index in range(done, 8)]
    assert ran == expected
    assert entered == list(dict.fromkeys(expected))  # each is compiled once
    assert began == {phase: done + expected.index(phase) for phase in expected}


def test_one_phase_unless_asked():
    entered = []
    phases = Phases(lambda: lambda lr: None, lambda phase, _: entered.append(phase), 0, 10_000_000)
    for _ in range(3):
        phases.run(0.1)
    assert entered == [Phase(True, False)]


def small_graph(weight_bits: int = 8) -> tuple[Graph, onnx.ModelProto]:
    graph = Graph(weight_bits=weight_bits)
    x = graph.on_grid("image", "image_grid", np.float32([0.5]), np.float32([-3]))
    weight = graph.dequantised("w", np.int8([[1, 2], [3, -4]]), np.float32([0.1, 0.2]), np.zeros(2), axis=1)
    flat = graph.node("Flatten", [x], "flat")
    graph.node("MatMul", [flat, weight], "scores")
    output = "scores", ["batch", 2]
    return graph, graph.checked("small", ["batch", 2, 1, 1], output, {"activation": "None"}, graph.opset)


@pytest.mark.parametrize("weight_bits", [8, 4, 3])
def test_graph_quantises_with_the_given_numbers(weight_bits):
    if weight_bits < 8 and not onnx_graph.READS_INT4:
        pytest.skip("this onnxruntime reads no INT4")
    graph, model = small_graph(weight_bits)
    session = layer_report.with_outputs(model, [])  # without optimisations
    image = np.float32([[1.3, -70.0], [100.0, 0.24]]).reshape(2, 2, 1, 1)
    on_grid = (np.clip(np.rint(image / np.float32(0.5)) - 3, -128, 127) + 3) * 0.5
    expected = on_grid.reshape(2, 2) @ (np.array([[1, 2], [3, -4]]) * [0.1, 0.2])
    np.testing.assert_allclose(session.run(None, {"image": image})[0], expected, rtol=1e-6)
    types = [constant.data_type for constant in model.graph.initializer]
    assert (onnx.TensorProto.INT4 in types) == (weight_bits < 8)


def test_four_bits_are_for_runtimes_that_read_them(monkeypatch):
    assert not Graph("tensorrt", 4).stores_int4
    assert not Graph(weight_bits=5).stores_int4
    monkeypatch.setattr(onnx_graph, "READS_INT4", False)
    assert not Graph(weight_bits=4).stores_int4


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=9), st.sampled_from([(-1,), (1, -1)]))
def test_two_numbers_of_four_bits_share_a_byte(values, shape):
    graph, whole = Graph(), np.int8(values).reshape(shape)
    graph.in_four_bits("w", whole)
    packed = graph.constants[0]
    assert len(packed.raw_data) == (len(values) + 1) // 2
    np.testing.assert_array_equal(numpy_helper.to_array(packed).astype(np.int8), whole)


def test_report_has_a_row_per_tensor_and_a_picture(tmp_path):
    rows = [
        layer_report.Row("a", "activation", 1, -1.0, 1.55, -0.9, 2.0, 0.01, 0.01, -28, 40.5),
        layer_report.Row("a.weight", "weight", 8, -0.5, 0.4, -0.5, 0.4, 0.001, 0.004, 0, float("inf")),
    ]
    table, plot = layer_report.write(rows, tmp_path / "r")
    read = list(csv.DictReader(table.open()))
    assert [(row["name"], float(row["scale_max"]), int(row["zero_point"])) for row in read] == [
        ("a", 0.01, -28),
        ("a.weight", 0.004, 0),
    ]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_noise_ratio():
    assert layer_report.sqnr_db(100.0, 1.0) == pytest.approx(20)
    assert layer_report.sqnr_db(1.0, 0.0) == float("inf")


def test_ranges_have_a_phase_of_their_own():
    entered = []
    phases = Phases(lambda: lambda lr: None, lambda phase, _: entered.append(phase), 0, 4, 2)
    for _ in range(6):
        phases.run(0.1)
    assert entered == [Phase(True, False, False), Phase(True, False, True), Phase(True, True, True)]
