"""SegFormer's documented lines, and the scores behind them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.engine.metrics import Segmentation
from src.segformer import report
from src.segformer.data.labels import CITYSCAPES

IOU = [
    *(0.9660652483316745, 0.7492563854504648, 0.8866242816349342, 0.31656804931621124, 0.3411113046083727),
    *(0.5398745184914306, 0.5906606518622559, 0.6890628404136455, 0.9099730088219271, 0.5330567771230307),
    *(0.9325007178024083, 0.7382945383844727, 0.45634221493539334, 0.9014416024726345, 0.3700774842437022),
    *(0.3706747870677765, 0.34248168670673496, 0.4306732371022434, 0.7107199409993931),
]
RESULT = """\
====================== Evaluation Result ======================
===> class: road, IoU: 0.9660652483316745
===> class: sidewalk, IoU: 0.7492563854504648
===> class: building, IoU: 0.8866242816349342
===> class: wall, IoU: 0.31656804931621124
===> class: fence, IoU: 0.3411113046083727
===> class: pole, IoU: 0.5398745184914306
===> class: traffic light, IoU: 0.5906606518622559
===> class: traffic sign, IoU: 0.6890628404136455
===> class: vegetation, IoU: 0.9099730088219271
===> class: terrain, IoU: 0.5330567771230307
===> class: sky, IoU: 0.9325007178024083
===> class: person, IoU: 0.7382945383844727
===> class: rider, IoU: 0.45634221493539334
===> class: car, IoU: 0.9014416024726345
===> class: truck, IoU: 0.3700774842437022
===> class: bus, IoU: 0.3706747870677765
===> class: train, IoU: 0.34248168670673496
===> class: motorcycle, IoU: 0.4306732371022434
===> class: bicycle, IoU: 0.7107199409993931
===============================================================
===> mIoU: 0.6197610145141426, ckpt: segformer_mit_b1_22.ckpt
==============================================================="""


class TestLines:
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (
                (11, 200, 99, 1487, np.float32(0.08269882), 0.0, 0.0, 182.4, 0.0, np.bool_(False), np.float32(32768)),
                "Epoch 12/200, step:100/1487, loss:0.08269882, overflow:False, loss_scale:32768.0, step cost:182ms",
            ),
            (
                (11, 200, 799, 1487, 0.052616842, 0.0, 0.0, 184.0, 0.0, False, 65536),
                "Epoch 12/200, step:800/1487, loss:0.052616842, overflow:False, loss_scale:65536.0, step cost:184ms",
            ),
            (
                (0, 2, 2, 4, float("nan"), 0.0, 0.0, 0.2, 0.0, True, 1.0),
                "Epoch 1/2, step:3/4, loss:nan, overflow:True, loss_scale:1.0, step cost:0ms",
            ),
        ],
    )
    def test_training(self, arguments, line):
        assert report.step_line(report.StepReport(*arguments)) == line

    def test_evaluation(self):
        assert report.eval_size_line(500) == "eval dataset size:500"
        assert report.eval_progress_line(100, 500, 593.2) == "eval image 100/500 done, step cost: 593ms"
        assert report.eval_done_line(353.4) == "all eval process done, cost:353s"
        lines = report.result_lines(CITYSCAPES.names, np.array(IOU), 0.6197610145141426, "segformer_mit_b1_22.ckpt")
        assert "\n".join(lines) == RESULT

    def test_inference(self):
        line = "get image size:398, infer result will save to /segformer/infer_result"
        assert report.infer_size_line(398, "/segformer/infer_result") == line
        assert report.infer_progress_line(100, 398, 1958.0) == "infer 100/398 done, step cost:1958ms"
        assert report.infer_done_line(819.0) == "all infer process done, cost:819s"

    def test_a_class_that_is_absent(self):
        assert report.result_lines(["a"], np.array([np.nan]), math.nan, "x")[1] == "===> class: a, IoU: nan"


def naive(predicted, label, classes, ignore):
    """IoU and accuracy per class, counted pixel by pixel."""
    iou, accuracy = [], []
    for k in range(classes):
        true = [t == k for t in label.ravel() if t != ignore]
        guess = [p == k for p, t in zip(predicted.ravel(), label.ravel()) if t != ignore]
        both = sum(t and p for t, p in zip(true, guess))
        either = sum(t or p for t, p in zip(true, guess))
        iou.append(both / either if either else math.nan)
        accuracy.append(both / sum(true) if sum(true) else math.nan)
    return iou, accuracy


class TestSegmentation:
    @given(st.integers(0, 2**32), st.integers(2, 5), st.sampled_from([255, 7]))
    def test_against_counting(self, seed, classes, ignore):
        rng = np.random.default_rng(seed)
        label = rng.choice(np.array([*range(classes - 1), ignore], np.uint8), (3, 4, 5))
        predicted = rng.integers(0, classes, (3, 4, 5)).astype(rng.choice([np.uint8, np.int32, np.int64]))
        metric = Segmentation(classes, ignore)
        for one, truth in zip(predicted, label):
            metric.update(one, truth)
        iou, accuracy = naive(predicted, label, classes, ignore)
        np.testing.assert_allclose(metric.iou, iou)
        np.testing.assert_allclose(metric.accuracy, accuracy)
        present = [value for value in iou if not math.isnan(value)]
        np.testing.assert_allclose(metric.miou, np.mean(present) if present else np.nan)
        at_once = Segmentation(classes, ignore)
        at_once.update(predicted, label)
        assert (at_once.confusion == metric.confusion).all()
        assert at_once.images == metric.images == 3
        assert metric.pixels == (label != ignore).sum()

    def test_absent_classes_and_texts(self):
        metric = Segmentation(3)
        metric.update(np.array([[0, 1, 1, 0]]), np.array([[0, 1, 0, 255]]))
        assert metric.iou[:2].tolist() == [0.5, 0.5] and math.isnan(metric.iou[2])
        assert (metric.miou, metric.macc) == (0.5, 0.75)
        assert metric.pixel_accuracy == pytest.approx(2 / 3)
        assert metric.per_class_csv(["a", "b", "c"]).splitlines() == [
            "class,pixels,predicted,iou,accuracy",
            "a,2,1,0.500000,0.500000",
            "b,1,2,0.500000,1.000000",
            "c,0,0,,",
        ]
        content = json.loads(metric.json(["a", "b", "c"]))
        assert content["classes"]["c"] == {"iou": None, "accuracy": None}
        assert (content["images"], content["pixels"], content["miou"]) == (1, 3, 0.5)

    def test_nothing_seen(self):
        metric = Segmentation(2)
        assert math.isnan(metric.miou) and math.isnan(metric.pixel_accuracy)
        metric.update(np.zeros((2, 2), int), np.full((2, 2), 255))
        assert metric.pixels == 0 and math.isnan(metric.macc)

    @pytest.mark.parametrize(
        ("predicted", "label", "message"),
        [
            ([[3]], [[0]], "predicted holds 3..3"),
            ([[-1]], [[0]], "predicted holds -1..-1"),
            ([[0]], [[3]], "neither 0..2 nor the ignored 255"),
            ([[2]], [[-1]], "neither 0..2 nor"),
            ([[0, 0]], [[0]], "has shape"),
        ],
    )
    def test_values_that_are_no_classes(self, predicted, label, message):
        with pytest.raises(ValueError, match=message):
            Segmentation(3).update(np.array(predicted), np.array(label))

    def test_ranks_add_up(self):
        rng = np.random.default_rng(0)
        predicted, label = rng.integers(0, 4, (2, 6, 5, 5))
        parts = [Segmentation(4), Segmentation(4), Segmentation(4)]
        for rank in range(2):
            parts[rank].update(predicted[rank::2], label[rank::2])
        parts[2].update(predicted, label)
        totals = iter([parts[0].confusion + parts[1].confusion, np.array([parts[0].images + parts[1].images])])
        parts[0].add_up(lambda own: next(totals))
        assert (parts[0].confusion == parts[2].confusion).all() and parts[0].images == 6
