"""Reports of runs: what is read, counted and drawn, and that a browser opens them."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.engine.data.source import Files
from src.engine.errors import UsageError, ZooError
from src.engine.metrics import Segmentation
from src.inspection import page
from src.inspection.run import classes, curves, masks, run_folder, run_report
from src.inspection.run.matrix import matrix
from src.segformer.data.class_list import ClassList
from tests.browser import open_page
from tests.conftest import run_command, write_images

NAMES = ["cat", "dog", "owl"]


def write_run(folder, scores=(0.4, 0.7, 0.6), **changes):
    """A run folder of three epochs of four steps."""
    folder.mkdir(parents=True)
    config = {"model": "mobilenetv2", "lr_max": 0.1, "note": "<script>alert(1)</script>", **changes}
    (folder / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
    (folder / "versions.json").write_text(json.dumps({"python": "3.11.7", "mindspore": "2.8.0"}))
    rows = []
    for epoch, score in enumerate(scores, start=1):
        for step in range(1, 5):
            rows.append({"kind": "train", "at": 4 * (epoch - 1) + step, "loss": 3.0 / epoch, "lr": 0.1 / epoch})
        rows.append({"kind": "epoch", "at": epoch, "loss": 3.0 / epoch, "seconds": 30.0, "images_per_s": 100.0 + epoch})
        rows.append({"kind": "eval", "at": epoch, "top1": score, "top5": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


class TestRunFolder:
    def test_what_a_run_reached(self, run):
        found = run_folder.read(run)
        assert (found.model, found.score, found.steps_per_epoch) == ("mobilenetv2", "top1", 4)
        assert found.series("train", "loss")[:2] == [(0.25, 3.0), (0.5, 3.0)]
        summary = run_report.summary(found)
        assert (summary["best top-1"], summary["in epoch"], summary["last"]) == (0.7, 2, 0.6)
        assert (summary["epochs"], summary["minutes"], summary["images/s (median)"]) == (3, 1.5, 102.0)

    def test_a_resumed_run_repeats_steps_of_which_the_last_counts(self, run):
        with (run / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps({"kind": "eval", "at": 2, "top1": 0.5}) + "\n")
        assert run_folder.read(run).series("eval", "top1") == [(1, 0.4), (2, 0.5), (3, 0.6)]

    def test_a_line_that_is_being_written(self, run):
        with (run / "metrics.jsonl").open("a") as handle:
            handle.write('{"kind": "eval", "at"')
        assert len(run_folder.read(run).series("eval", "top1")) == 3

    def test_a_damaged_line(self, run):
        text = (run / "metrics.jsonl").read_text()
        (run / "metrics.jsonl").write_text(text.replace('"at": 2', '"at": two', 1))
        with pytest.raises(ZooError, match=r"metrics\.jsonl, line 2 is no measurement"):
            run_folder.read(run)

    @pytest.mark.parametrize("content", [None, "", "\n"])
    def test_an_empty_run(self, run, content):
        (run / "metrics.jsonl").unlink()
        if content is not None:
            (run / "metrics.jsonl").write_text(content)
        with pytest.raises(ZooError, match="holds no measurement yet"):
            run_folder.read(run)

    def test_another_folder_and_damaged_versions(self, run, tmp_path):
        with pytest.raises(UsageError, match="is no run folder"):
            run_folder.read(tmp_path)
        (run / "versions.json").write_text("{")
        with pytest.raises(ZooError, match=r"versions\.json is damaged"):
            run_folder.read(run)

    def test_the_best_checkpoint_or_the_newest(self, run):
        found = run_folder.read(run)
        with pytest.raises(ZooError, match="holds no checkpoint"):
            found.checkpoint()
        for name in ("mobilenetv2-9_4.ckpt", "mobilenetv2-10_4.ckpt"):
            (run / name).touch()
        assert found.checkpoint().name == "mobilenetv2-10_4.ckpt"
        (run / "mobilenetv2_quant-11_4.ckpt").touch()  # of another model, which used the same folder
        (run / "mobilenetv2_quant-best.ckpt").touch()
        assert found.checkpoint().name == "mobilenetv2-10_4.ckpt"
        (run / "mobilenetv2_head_60.ckpt").touch()  # of a training of the head alone
        assert found.checkpoint().name == "mobilenetv2-10_4.ckpt"
        found.config["freeze_layer"] = "backbone"
        assert found.checkpoint().name == "mobilenetv2_head_60.ckpt"
        (run / "mobilenetv2-best.ckpt").touch()
        assert found.checkpoint().name == "mobilenetv2-best.ckpt"

    def test_differences(self):
        found = run_folder.differences([{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3}])
        assert found == [("b", [2, 3]), ("c", [3, ""])]


class TestCurves:
    @given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(1, 20))
    def test_long_lines_are_averaged(self, values, most):
        before, curves.MOST_POINTS = curves.MOST_POINTS, most
        try:
            found = curves.thinned(list(enumerate(values)))
        finally:
            curves.MOST_POINTS = before
        assert len(found) <= most
        if len(values) <= most:
            assert found == list(enumerate(values))
        if values:
            assert min(values) - 1e-6 <= min(y for _, y in found) <= max(y for _, y in found) <= max(values) + 1e-6

    def test_what_is_not_finite_is_left_out(self):
        assert curves.thinned([(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]) == [(0, 1.0), (3, 2.0)]
        assert curves.chart("x", "epoch", [curves.Line("a", [(0, math.nan)])]) == ""

    def test_text_cannot_leave_its_script(self):
        assert "</script><b>" not in curves.chart("x", "epoch", [curves.Line("</script><b>", [(0, 1.0)])])


@pytest.fixture
def predictions(tmp_path):
    """Nine pictures: cats are right, the dogs once taken for owls, the owls always for cats."""
    root = write_images(tmp_path / "data", 3)
    files = [f"{name}/{number:03d}.jpg" for name in NAMES for number in range(3)]
    predicted = np.array([0, 0, 0, 1, 1, 2, 0, 0, 0])
    confidence = np.array([0.9, 0.8, 0.7, 0.95, 0.6, 0.55, 0.35, 0.99, 0.65])
    source = Files(root, tuple(files))
    return classes.Predictions(
        source, NAMES, np.arange(9), np.repeat([0, 1, 2], 3), predicted, confidence, np.ones(9, bool)
    )


class TestClasses:
    def test_precision_recall_and_f1(self, predictions):
        confusion = predictions.confusion
        assert confusion.tolist() == [[3, 0, 0], [0, 2, 1], [3, 0, 0]]
        rows = classes.per_class(confusion, NAMES)
        assert rows[0] == ["cat", 0.5, 1.0, pytest.approx(2 / 3), 3]
        assert rows[1] == ["dog", 1.0, pytest.approx(2 / 3), pytest.approx(0.8), 3]
        assert rows[2] == ["owl", 0.0, 0.0, 0.0, 3]
        assert math.isnan(classes.per_class(np.array([[1, 0], [0, 0]]), ["a", "b"])[1][1])

    def test_calibration(self, predictions):
        found = classes.bins(predictions)
        assert sum(count for *_, count in found) == 9
        last = next(row for row in found if row[0] > 0.9)
        assert last == (pytest.approx((0.9 + 0.95 + 0.99) / 3), pytest.approx(2 / 3), 3)
        by_hand = sum(abs(sure - right) * count for sure, right, count in found) / 9
        assert classes.calibration_error(predictions) == pytest.approx(by_hand)

    def test_mistakes_are_shown_first(self, predictions, monkeypatch):
        monkeypatch.setattr(classes, "MOST_PICTURES", 4)
        pictures, cells = classes.chosen_pictures(predictions)
        assert [picture.caption.split(":")[0] for picture in pictures] == [
            "owl/001.jpg", "owl/002.jpg", "dog/002.jpg", "owl/000.jpg",
        ]  # fmt: skip
        assert cells == {(2, 0): [0, 1, 3], (1, 2): [2]}

    def test_a_picture_that_is_gone_is_left_out(self, predictions):
        (predictions.source.where / "owl" / "001.jpg").unlink()
        assert all("owl/001.jpg" not in picture.caption for picture in classes.chosen_pictures(predictions)[0])

    def test_many_classes_are_listed(self):
        names = [f"class {number}" for number in range(100)]
        confusion = np.diag(np.arange(1, 101))
        confusion[3, 7], confusion[9, 2] = 5, 8
        text = matrix(confusion, names, [], {}, "pictures")
        assert re.findall(r'data-cell="(\d+,\d+)"', text) == ["9,2", "3,7"]


class TestMasks:
    CLASSES = ClassList(("sky", "road"), ((0, 0, 255), (128, 64, 128)), (1.0, 1.0), (0, 1))

    def pair(self, name, wrong):
        """A picture of which `wrong` of 64 pixels are predicted as the other class; a row is ignored."""
        mask = np.zeros((9, 8), np.uint8)
        mask[4:8], mask[8] = 1, 255
        predicted = np.where(mask == 255, 0, mask).astype(np.uint8)
        predicted.reshape(-1)[:wrong] = 1
        return masks.Pair(name, np.full((9, 8, 3), 90, np.uint8), mask, predicted)

    def test_counts_are_those_of_the_evaluation(self):
        pairs = [self.pair("a", 0), self.pair("b", 20), self.pair("c", 4)]
        found, expected = masks.collect(pairs, self.CLASSES), Segmentation(2)
        for pair in pairs:
            expected.update(pair.predicted, pair.mask)
        assert (found.metric.confusion == expected.confusion).all()
        assert [seen.file for seen in found.pictures] == ["b", "c", "a"]
        assert masks.cells_of(found)[0, 1] == [0, 1]
        row = masks.per_class(found)[1]
        assert row[:2] == ["road", pytest.approx(96 / 120)]

    def test_memory_does_not_grow(self, monkeypatch):
        monkeypatch.setattr(masks, "MOST_PICTURES", 8)
        found = masks.collect([self.pair(str(wrong), wrong) for wrong in range(32)], self.CLASSES)
        assert [seen.file for seen in found.pictures] == ["31", "30", "29", "28", "3", "2", "1", "0"]
        assert found.metric.images == 32

    def test_ignored_pixels_are_black_in_both(self):
        triple = masks.triple(self.pair("a", 0), self.CLASSES)
        last = triple[-1]
        assert (last[len(last) // 3 + 1 :] == 0).all()
        assert (triple[0, -1] == (0, 0, 255)).all()


class TestPage:
    def test_curves_tables_and_no_console_error(self, run, tmp_path):
        other = write_run(tmp_path / "other", (0.2, 0.3, 0.5), lr_max=0.2)
        report = tmp_path / "r.html"
        report.write_text(run_report.report([run, other], ""), encoding="utf-8")
        opened = open_page(report, ZOOM, tmp_path / "browser")
        assert opened.console == []
        assert opened.found["charts"] == ["training loss", "held-out top-1", "learning rate", "images/s"]
        assert opened.found["lines"] == 4
        assert opened.found["hidden"] == 3
        assert opened.found["zoomed"] < opened.found["all"] - 1
        assert opened.found["again"] == opened.found["all"] == opened.found["cancelled"]
        assert (opened.found["wide"], opened.found["left"]) == (540, 0) and 200 < opened.found["narrow"] <= 300
        assert opened.found["zoomedNarrow"] == opened.found["zoomed"]
        assert opened.found["differences"] == [["lr_max", "0.1", "0.2"]]

    def test_classes_of_several_runs_in_one_table(self, run, predictions, tmp_path):
        runs = [run_folder.read(run), run_folder.read(write_run(tmp_path / "other"))]
        found = [dict(zip(NAMES, classes.score_of_classes(predictions))), {"cat": 0.5, "yak": 0.25}]
        text = run_report.side_by_side(runs, found, "recall")
        assert "Classes side by side: recall" in text and "<th>run</th><th>other</th>" in text
        rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr><td>.*?</tr>", text)]
        assert rows == [["cat", "1", "0.5"], ["dog", "0.6667", "-"], ["owl", "0", "-"], ["yak", "-", "0.25"]]

    def test_nothing_is_confused(self):
        names = [str(number) for number in range(61)]
        text = matrix(np.eye(61, dtype=np.int64), names, [], {}, "pictures")
        assert "No class is taken for another." in text and "A click" not in text

    @pytest.mark.parametrize("values", [(0.73239, 0.73241), (0.0, 0.00003), (5.0, 5.0), (-2.0, 3.0), (9e5, 2e6)])
    def test_no_two_marks_of_an_axis_read_the_same(self, values, tmp_path):
        line = curves.Line("", list(enumerate(values)))
        report = tmp_path / "r.html"
        report.write_text(page.document("x", [curves.chart("y", "x", [line])], run_report.SCRIPTS), encoding="utf-8")
        script = (
            """return [...document.querySelectorAll('svg text[text-anchor="end"]')].map((mark) => mark.textContent);"""
        )
        opened = open_page(report, script, tmp_path / "browser")
        marks = [float(text) for text in opened.found]
        assert opened.console == [] and len(marks) >= 2 and sorted(set(marks)) == marks
        room = 0.05 * (max(values) - min(values) or max(values))
        assert min(values) - room <= marks[0] and marks[-1] <= max(values) + room

    def test_pictures_of_a_cell(self, predictions, tmp_path):
        report = tmp_path / "r.html"
        parts = list(classes.sections(predictions, ""))
        report.write_text(page.document("x", parts, run_report.SCRIPTS), encoding="utf-8")
        opened = open_page(report, CELL, tmp_path / "browser")
        assert opened.console == []
        assert opened.found["title"] == "owl taken for cat: 3 pictures (3 of the pictures shown)"
        assert [text.split(":")[0] for text in opened.found["captions"]] == [
            "owl/001.jpg",
            "owl/002.jpg",
            "owl/000.jpg",
        ]
        assert opened.found["sources"] == 3
        assert opened.found["sorted"] == ["owl", "cat", "dog"]

    def test_masks(self, tmp_path):
        found = masks.collect([TestMasks().pair(str(wrong), wrong) for wrong in (0, 9)], TestMasks.CLASSES)
        report = tmp_path / "r.html"
        report.write_text(page.document("x", masks.sections(found, ""), run_report.SCRIPTS), encoding="utf-8")
        script = """
          document.querySelector('[data-cell="0,1"]').click();
          return [...document.querySelectorAll(".pictures figcaption")].map((caption) => caption.textContent);
        """
        opened = open_page(report, script, tmp_path / "browser")
        assert (opened.console, opened.found) == ([], ["9: mIoU 0.750"])

    def test_what_a_configuration_holds_is_text(self, run):
        text = run_report.report([run], "")
        assert "<script>alert(1)" not in text
        assert "&lt;script&gt;alert(1)" in text
        assert not re.search(r"""https?://(?!www\.w3\.org/2000/svg)""", text)


ZOOM = """
  const figures = [...document.querySelectorAll("figure.chart")], figure = figures[0];
  const lines = () => figure.querySelectorAll("polyline").length;
  const last = () => {
    const labels = [...figure.querySelectorAll('text[text-anchor="middle"]')].map((label) => Number(label.textContent));
    return Math.max(...labels.filter((value) => !Number.isNaN(value)));
  };
  const found = { charts: figures.map((f) => f.querySelector("figcaption").textContent), lines: lines(), all: last() };
  const name = figure.querySelector(".legend button");
  name.click(); found.hidden = lines(); name.click();
  const drag = (end) => {
    const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect(), scale = box.width / 540;
    for (const [kind, x] of [["pointerdown", 80], ["pointermove", 150], [end, 200]]) {
      const at = { clientX: box.left + x * scale, clientY: box.top + 50 * scale };
      svg.dispatchEvent(new PointerEvent(kind, { ...at, bubbles: true }));
    }
    return [last(), Math.round(box.width)];
  };
  const forget = () => figure.querySelector("svg").dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
  [found.zoomed, found.wide] = drag("pointerup");
  forget(); found.again = last();
  document.body.style.width = "300px";
  [found.zoomedNarrow, found.narrow] = drag("pointerup");
  forget(); found.cancelled = drag("pointercancel")[0];
  found.left = figure.querySelectorAll("rect.zoom").length;
  document.body.style.width = "";
  const sections = [...document.querySelectorAll("section")];
  const differences = sections.find((s) => s.querySelector("h2").textContent === "Differences: configuration");
  found.differences = [...differences.querySelectorAll("tbody tr")].map((r) => [...r.cells].map((c) => c.textContent));
  return found;
"""
CELL = """
  const heads = [...document.querySelectorAll("th")];
  const recall = heads.find((head) => head.textContent === "F1");
  recall.click();
  const rows = [...recall.closest("table").querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent);
  document.querySelector('[data-cell="2,0"]').click();
  const pictures = document.querySelector(".pictures");
  return { sorted: rows, title: pictures.querySelector("p").textContent,
    captions: [...pictures.querySelectorAll("figcaption")].map((caption) => caption.textContent),
    sources: [...pictures.querySelectorAll("img")].filter((image) => image.src.startsWith("data:image")).length };
"""


class TestCommand:
    def test_a_run_without_pictures(self, run):
        found = run_command("tools/report.py", str(run))
        assert (found.returncode, found.stderr) == (0, "")
        assert f"report in {run / 'report.html'}" in found.stdout

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (["nowhere"], 2, "is not a folder"),
            (["."], 2, "is no run folder"),
            (["run", "other"], 2, "have no common measure"),
            (["run", "--report", "r.pdf"], 2, "--report FILE.html"),
            (["run", "--data_path", "nowhere"], 2, "is not a folder"),
            (["empty"], 1, "holds no measurement yet"),
            (["run", "--report", "run/config.yaml/r.html"], 1, "cannot write"),
        ],
    )
    def test_bad_input_writes_nothing(self, tmp_path, arguments, status, message):
        write_run(tmp_path / "run")
        write_run(tmp_path / "other", model="segformer")
        (write_run(tmp_path / "empty") / "metrics.jsonl").write_text("")
        found = run_command(
            run_report.__file__.replace("src/inspection/run/run_report", "tools/report"), *arguments, cwd=tmp_path
        )
        assert (found.returncode, found.stdout, found.stderr.count("\n")) == (status, "", 1)
        assert message in found.stderr
        assert not list(tmp_path.rglob("*.html")) and not list(tmp_path.rglob("*.pdf"))
