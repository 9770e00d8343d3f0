"""Our masks and scores against Cityscapes' own scripts: the same pixels, the same IoUs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src import zoo
from src.engine.data.source import Files
from src.engine.metrics import Segmentation
from src.segformer.data import labels, polygons
from src.segformer.predicting import pictures
from street_scenes.scene import draw
from tests.conftest import ROOT

json2labelimg = pytest.importorskip("cityscapesscripts.preparation.json2labelImg")
evaluation = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
official = pytest.importorskip("cityscapesscripts.helpers.labels")
pytestmark = pytest.mark.parity


def test_the_table_of_labels():
    assert [tuple(label) for label in labels.LABELS] == [
        (row.name, row.id, row.trainId, row.category, row.hasInstances, row.ignoreInEval, row.color)
        for row in official.labels
    ]


def random_annotation(rng: np.random.Generator) -> dict:
    """Polygons of all labels and shapes: lines, self-crossing ones, points outside the image, fractions of pixels."""
    height, width = (int(side) for side in rng.integers(1, 90, 2))
    names = [label.name for label in labels.LABELS] + ["cargroup", "persongroup", "license plategroup", "polegroup"]
    objects = []
    for _ in range(rng.integers(0, 25)):
        reach = rng.choice([0.2, 1.0, 3.0, 1000.0])
        centre = rng.uniform(-0.2, 1.2, 2) * (width, height)
        points = centre + rng.uniform(-reach, reach, (rng.integers(2, 12), 2)) * (width, height)
        whole = rng.random() < 0.7
        polygon = [[int(x), int(y)] if whole else [float(x), float(y)] for x, y in points]
        entry = {"label": str(rng.choice(names)), "polygon": polygon}
        if rng.random() < 0.2:
            entry["deleted"] = int(rng.integers(0, 2))
        objects.append(entry)
    return {"imgHeight": height, "imgWidth": width, "objects": objects}


def drawn_annotation(rng: np.random.Generator) -> dict:
    return draw(rng, 96, 192)[1]


@pytest.mark.parametrize(
    ("annotation", "seed"),
    [*((random_annotation, seed) for seed in range(300)), *((drawn_annotation, seed) for seed in range(5))],
)
def test_masks_are_the_official_ones_pixel_for_pixel(tmp_path, annotation, seed):
    source = tmp_path / "x_gtFine_polygons.json"
    source.write_text(json.dumps(annotation(np.random.default_rng(seed))))
    json2labelimg.json2labelImg(str(source), str(tmp_path / "official.png"), "trainIds")
    polygons.convert(source)
    ours, theirs = Image.open(polygons.target(source)), Image.open(tmp_path / "official.png")
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    assert (np.asarray(ours) == np.asarray(theirs)).all()


def write_results(folder: Path, rng: np.random.Generator, classes: np.ndarray) -> tuple[list, list, Segmentation]:
    """Truth as ids of all labels, predictions through our picture writer; the metric has seen both as train ids."""
    metric = Segmentation(19)
    truths, predictions = [], []
    for number in range(4):
        ids = rng.integers(0, 34, (8, 16), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        label = labels.CITYSCAPES.from_ids()[ids]
        guess = np.where(label < 19, label, 0)
        wrong = rng.random(label.shape) < 0.4
        guess[wrong] = rng.choice(classes, int(wrong.sum()))
        truth = folder / f"ulm_{number:06d}_000019_gtFine_labelIds.png"
        cv2.imwrite(str(truth), ids)
        item = pictures.Input(Files(truth.parent, (truth.name,)), 0, f"ulm_{number:06d}_000019_leftImg8bit")
        wanted = pictures.Wanted(label_ids=True)
        image = np.zeros((*ids.shape, 3), np.uint8)
        predictions.append(pictures.write(item, image, guess, folder / "results", labels.CITYSCAPES, wanted)[-1])
        truths.append(truth)
        metric.update(guess, label)
    return truths, predictions, metric


@pytest.mark.parametrize("missing", [(), (16, 17)])
def test_the_official_evaluation_of_our_label_files_gives_our_scores(tmp_path, missing, monkeypatch):
    for name, value in {"evalInstLevelScore": False, "JSONOutput": False, "quiet": True}.items():
        monkeypatch.setattr(evaluation.args, name, value)
    classes = np.array([index for index in range(19) if index not in missing])
    truths, predictions, metric = write_results(tmp_path, np.random.default_rng(len(missing)), classes)
    monkeypatch.setattr(evaluation.args, "predictionPath", str(tmp_path / "results" / pictures.LABEL_ID_FOLDER))
    monkeypatch.setattr(evaluation.args, "predictionWalk", None)
    assert [evaluation.getPrediction(evaluation.args, str(truth)) for truth in truths] == [str(p) for p in predictions]
    scores = evaluation.evaluateImgLists([str(p) for p in predictions], [str(t) for t in truths], evaluation.args)
    theirs = [scores["classScores"][name] for name in labels.CITYSCAPES.names]
    np.testing.assert_allclose(metric.iou, theirs, atol=1e-6)
    assert metric.miou == pytest.approx(scores["averageScoreClasses"], abs=1e-6)


@pytest.fixture
def drawn_city(tmp_path) -> Path:
    """A Cityscapes tree of three drawn scenes with our masks and the official converter's label ids."""
    for number in range(3):
        picture, annotation = draw(np.random.default_rng(number), 96, 192)
        stem = f"ulm_{number:06d}_000019"
        image = tmp_path / "city" / "leftImg8bit" / "val" / "ulm" / f"{stem}_leftImg8bit.png"
        polygon_file = tmp_path / "city" / "gtFine" / "val" / "ulm" / f"{stem}_gtFine{polygons.POLYGONS}"
        for path in (image, polygon_file):
            path.parent.mkdir(parents=True, exist_ok=True)
        pictures.save_png(image, picture)
        polygon_file.write_text(json.dumps(annotation))
        polygons.convert(polygon_file)
        json2labelimg.json2labelImg(
            str(polygon_file), str(polygon_file.with_name(f"{stem}_gtFine_labelIds.png")), "ids"
        )
    return tmp_path / "city"


def scattered_network(path: Path) -> None:
    """Write a B0 that was not trained and finds many classes: its last layer tells the random features apart."""
    import mindspore as ms

    from src.engine.io import checkpoint
    from src.segformer import network

    net = network.build("mit_b0", 19, 0, seed=1)
    rng = np.random.default_rng(0)
    weight = net.decode_head.linear_pred.weight
    weight.set_data(ms.Tensor(rng.standard_normal(weight.shape).astype(np.float32)))
    checkpoint.save(path, checkpoint.arrays_of(net.get_parameters()), {"model": "segformer", "backbone": "mit_b0"})


def test_the_official_evaluation_of_what_infer_writes_gives_the_scores_of_eval(tmp_path, drawn_city, monkeypatch):
    pytest.importorskip("mindspore")
    from src.segformer import recipe

    scattered_network(tmp_path / "x.ckpt")
    shared = ["--config_path", str(ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml"), "--base_size", "64,128"]
    shared += ["--data_path", str(drawn_city)]
    flags = ["--eval_ckpt_path", str(tmp_path / "x.ckpt"), "--eval_json", str(tmp_path / "scores.json")]
    assert recipe.evaluate(zoo.configure("eval", [*shared, *flags])) == 0
    flags = ["--infer_ckpt_path", str(tmp_path / "x.ckpt"), "--infer_output_path", str(tmp_path / "out")]
    assert recipe.infer(zoo.configure("infer", [*shared, *flags, "--infer_save_label_ids", "True"])) == 0

    for name, value in {
        "evalInstLevelScore": False,
        "JSONOutput": False,
        "quiet": True,
        "predictionWalk": None,
    }.items():
        monkeypatch.setattr(evaluation.args, name, value)
    monkeypatch.setattr(evaluation.args, "predictionPath", str(tmp_path / "out" / pictures.LABEL_ID_FOLDER))
    truths = sorted(str(path) for path in drawn_city.rglob("*_gtFine_labelIds.png"))
    predictions = [evaluation.getPrediction(evaluation.args, truth) for truth in truths]
    assert len(set(predictions)) == len(truths) == 3
    theirs = evaluation.evaluateImgLists(predictions, truths, evaluation.args)
    ours = json.loads((tmp_path / "scores.json").read_text())
    iou = np.array([row["iou"] for row in ours["classes"].values()], np.float64)
    assert (iou > 0).sum() >= 3
    np.testing.assert_allclose(iou, [theirs["classScores"][name] for name in ours["classes"]], atol=1e-6)
    assert ours["miou"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-6)


def test_classes_that_are_absent_do_not_count_in_either(tmp_path, monkeypatch):
    for name, value in {"evalInstLevelScore": False, "JSONOutput": False, "quiet": True}.items():
        monkeypatch.setattr(evaluation.args, name, value)
    ids = np.array([[7, 7, 8, 11], [0, 3, 8, 23]], np.uint8)
    guess = np.array([[7, 8, 8, 11], [7, 23, 7, 24]], np.uint8)
    for name, values in (("truth.png", ids), ("guess.png", guess)):
        cv2.imwrite(str(tmp_path / name), values)
    paths = [[str(tmp_path / name)] for name in ("guess.png", "truth.png")]
    scores = evaluation.evaluateImgLists(*paths, evaluation.args)
    metric = Segmentation(19)
    metric.update(labels.CITYSCAPES.from_ids()[guess], labels.CITYSCAPES.from_ids()[ids])
    np.testing.assert_allclose(metric.iou, [scores["classScores"][name] for name in labels.CITYSCAPES.names])
    assert np.isnan(metric.iou).sum() == 14
    assert metric.miou == pytest.approx(scores["averageScoreClasses"], abs=1e-12)
