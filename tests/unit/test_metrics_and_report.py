"""Numbers and lines that users read."""

import numpy as np
import pytest

from src.engine import report
from src.engine.io import journal
from src.engine.metrics import Classification
from src.engine.report import StepReport


def test_step_and_epoch_lines_are_the_documented_ones():
    line = report.step_line(StepReport(0, 200, 624, 625, 5.258, 5.258, 140412.236, 0.0, 0.09984))
    assert line == "epoch: [  0/200], step:[  624/  625], loss:[5.258/5.258], time:[140412.236], lr:[0.100]"
    line = report.step_line(StepReport(1, 200, 624, 625, 3.917, 3.917, 138221.25, 0.0, 0.19984))
    assert line == "epoch: [  1/200], step:[  624/  625], loss:[3.917/3.917], time:[138221.250], lr:[0.200]"
    assert report.epoch_line(140522.5, 625, 5.258) == "epoch time: 140522.500, per step time: 224.836, avg loss: 5.258"
    assert report.epoch_line(138331.25, 625, 3.917) == "epoch time: 138331.250, per step time: 221.330, avg loss: 3.917"


def test_result_line_is_the_documented_one():
    line = report.result_line(0.71976314102564111, "./ckpt_0/mobilenet-200_625.ckpt")
    assert line == "result: {'acc': 0.7197631410256411} ckpt=./ckpt_0/mobilenet-200_625.ckpt"
    assert report.result_line(1.0, "x") == "result: {'acc': 1.0} ckpt=x"


def test_confusion_top1_top5_and_uncounted_labels():
    metric = Classification(3)
    scores = np.array([[3, 2, 1], [1, 3, 2], [1, 2, 3], [9, 0, 0], [0, 9, 0]], np.float32)
    metric.update(scores, np.array([0, 1, 0, -1, 2]))
    assert metric.samples == 4
    assert metric.top1 == 0.5
    assert metric.top5 == 1.0
    assert metric.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert metric.per_class_csv(["a", "b", "c"]).splitlines() == [
        "class,samples,correct,accuracy",
        "a,2,1,0.500000",
        "b,1,1,1.000000",
        "c,1,0,0.000000",
    ]


def test_top5_against_sorting():
    rng = np.random.default_rng(0)
    scores, label = rng.standard_normal((50, 12)), rng.integers(0, 12, 50)
    metric = Classification(12)
    for start in range(0, 50, 16):
        metric.update(scores[start : start + 16], label[start : start + 16])
    expected = np.mean([label[i] in np.argsort(-scores[i])[:5] for i in range(50)])
    assert metric.samples == 50
    assert abs(metric.top5 - expected) < 1e-12


def test_nothing_seen_is_zero_not_nan():
    metric = Classification(2)
    metric.update(np.zeros((3, 2)), np.array([-1, -1, -1]))
    assert (metric.samples, metric.top1, metric.top5) == (0, 0.0, 0.0)


@pytest.mark.parametrize(("text", "kept"), [("", ""), ('{"a": 1}\n{"b', '{"a": 1}\n'), ("{", ""), ("{}\n", "{}\n")])
def test_a_line_that_a_full_disk_cut_is_taken_off(tmp_path, text, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    journal.end_with_a_line(path)
    assert path.read_text() == kept
    journal.end_with_a_line(tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()
