"""Cityscapes' table, class list files, and polygon annotations turned into masks."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from src.engine.errors import UsageError, ZooError
from src.segformer.data import labels, polygons
from src.segformer.data.class_list import read_class_list
from src.segformer.data.dataset import find_pairs
from tests.conftest import ROOT, run_command
from tests.segmentation_data import CLASS_FILE, write_city
from tests.waiting import wait_until
from tools import convert_dataset


class TestCityscapes:
    def test_the_nineteen_classes(self):
        classes = labels.CITYSCAPES
        assert len(classes) == len(classes.weights) == 19
        assert (classes.names[0], classes.palette[0], classes.ids[0]) == ("road", (128, 64, 128), 7)
        assert (classes.names[18], classes.palette[18], classes.ids[18]) == ("bicycle", (119, 11, 32), 33)
        assert classes.names[6:8] == ("traffic light", "traffic sign")

    def test_the_whole_table(self):
        assert len(labels.LABELS) == 35
        by_name = labels.BY_NAME
        assert by_name["caravan"] == labels.Label("caravan", 29, 255, "vehicle", True, True, (0, 0, 90))
        assert by_name["license plate"] == labels.Label("license plate", -1, -1, "vehicle", False, True, (0, 0, 142))
        assert [label.id for label in labels.LABELS[:-1]] == list(range(34))

    def test_ids_and_train_ids_are_inverse(self):
        classes = labels.CITYSCAPES
        values = np.arange(19)
        assert (classes.from_ids()[classes.to_ids()[values]] == values).all()
        assert classes.to_ids()[255] == 0
        assert classes.from_ids()[0] == 255
        assert classes.colours()[255].tolist() == [0, 0, 0]

    def test_the_configuration_has_to_fit(self):
        labels.CITYSCAPES.require(19, 255)
        with pytest.raises(UsageError, match="class_num is 3 but Cityscapes names 19 classes"):
            labels.CITYSCAPES.require(3, 255)
        with pytest.raises(UsageError, match="dataset_ignore_label is 0 but Cityscapes ignores 255"):
            labels.CITYSCAPES.require(19, 0)


class TestClassList:
    def read(self, tmp_path, text):
        path = tmp_path / "classes.csv"
        path.write_text(text, encoding="utf-8")
        return read_class_list(path)

    def test_a_file_in_any_order_with_an_ignored_value(self, tmp_path):
        text = "index,name,red,green,blue\n1,house,1,2,3\n\n0,Straße,4,5,6\n9,ignore,0,0,0\n"
        classes = self.read(tmp_path, text)
        assert classes.names == ("Straße", "house")
        assert classes.palette == ((4, 5, 6), (1, 2, 3))
        assert classes.ignore == 9
        assert np.flatnonzero(classes.valid()).tolist() == [0, 1, 9]
        assert classes.to_ids()[:2].tolist() == [0, 1]

    def test_weights(self, tmp_path):
        assert self.read(tmp_path, CLASS_FILE).weights == (1.5, 1.0, 0.5)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("index,", "number,", "no column 'index'"),
            ("2,tree", "3,tree", "number two or more from 0 on"),
            ("2,tree", "1,tree", "index 1 in .*line 4 is there twice"),
            ("tree", "house", "'house' in .*line 4 is empty or a second one"),
            ("tree", "", "'' in .*line 4 is empty"),
            ("0,200", "0,256", "green is '256' in .*line 4"),
            ("0.5", "-1", "weight is '-1'"),
            ("0.5", "inf", "weight is 'inf'"),
            ("0.5\n", "0.5\n1,ignore,0,0,0,\n", "ignores index 1, which is a class"),
            ("2,tree,0,200,0,0.5\n", "2,tree\n", "red is ''"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path, old, new, message):
        with pytest.raises(UsageError, match=message):
            self.read(tmp_path, CLASS_FILE.replace(old, new))

    def test_unreadable(self, tmp_path):
        with pytest.raises(UsageError, match="cannot read the class list"):
            read_class_list(tmp_path / "none.csv")


def annotation(*objects, width=20, height=10, **extra):
    return {"imgWidth": width, "imgHeight": height, "objects": list(objects), **extra}


def box(label, left, top, right, bottom, **extra):
    return {"label": label, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]], **extra}


class TestPolygons:
    def test_later_objects_cover_earlier_ones_and_the_rest_is_ignored(self):
        mask = polygons.draw(annotation(box("road", 0, 5, 19, 9), box("car", 2, 4, 6, 7)))
        assert (mask[9] == 0).all() and mask[4, 3] == 13 and mask[6, 6] == 13 and mask[0, 0] == 255

    def test_groups_deleted_objects_and_what_is_not_drawn(self):
        mask = polygons.draw(
            annotation(
                box("cargroup", 0, 0, 4, 9),
                box("car", 5, 0, 9, 9, deleted=1),
                box("license plate", 0, 0, 2, 2),
                box("parking", 3, 0, 4, 9),
            )
        )
        assert set(np.unique(mask)) == {13, 255}
        assert (mask[:, :3] == 13).all() and (mask[:, 3:] == 255).all()

    def test_points_outside_the_image(self):
        assert (polygons.draw(annotation(box("sky", -50, -50, 500, 500))) == 10).all()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (annotation({"label": "car", "polygon": [[1, 1]]}), "'car' is no list of two or more points"),
            (annotation({"label": "car", "polygon": [[1, 1], [2, None], [3, 3]]}), "'car' is no list"),
            (annotation({"label": "car", "polygon": [[1, 1], [2, float("nan")], [3, 3]]}), "'car' is no list"),
            (annotation({"label": "car", "polygon": 7}), "'car' is no list"),
            (annotation({"label": "house", "polygon": []}), "label 'house' is none of Cityscapes'"),
            (annotation({"polygon": []}), "KeyError"),
            (annotation(width=0), "the size is 0x10"),
            (annotation(width=10**9), "the size is"),
            ({"imgWidth": 3}, "imgWidth, imgHeight or"),
        ],
    )
    def test_wrong_annotations_are_refused(self, content, message):
        with pytest.raises(ZooError, match=message):
            polygons.draw(content)


def convert(root, *flags):
    return run_command("tools/convert_dataset.py", str(root), *flags)


class TestConvertDataset:
    def test_goes_past_a_broken_file_resumes_and_forces(self, tmp_path):
        root = write_city(tmp_path / "with space", 4)
        folder = root / "gtFine" / "train" / "ulm"
        (folder / "ulm_000001_000019_gtFine_polygons.json").write_text('{"imgHeight": 3')
        (folder / ".writing-left").mkdir()
        first = convert(root, "--nproc", "2")
        assert first.returncode == 1
        assert "3 masks written, 0 were up to date, 1 failed" in first.stdout
        last = first.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ") and "ulm_000001_000019_gtFine_polygons.json: cannot be read as JSON" in last
        masks = sorted(folder.glob("*_labelTrainIds.png"))
        assert len(masks) == 3
        assert sorted(path.suffix for path in folder.iterdir()) == [".json"] * 4 + [".png"] * 3
        mask = np.asarray(Image.open(masks[0]))
        assert (mask.dtype, mask.shape) == (np.uint8, (32, 64))
        assert set(np.unique(mask)) == {0, 10, 13, 255}

        os.utime(folder / "ulm_000003_000019_gtFine_polygons.json", (2**31, 2**31))  # changed after its mask
        content = json.loads((folder / "ulm_000000_000019_gtFine_polygons.json").read_text())
        (folder / "ulm_000001_000019_gtFine_polygons.json").write_text(json.dumps(content))
        again = convert(root, "--nproc", "1")
        assert (again.returncode, "2 masks written, 2 were up to date, 0 failed" in again.stdout) == (0, True)
        forced = convert(root, "--nproc", "1", "--force")
        assert "4 masks written, 0 were up to date" in forced.stdout

    def test_the_mask_of_an_annotation_that_broke_is_removed(self, tmp_path):
        root = write_city(tmp_path, 2)
        assert convert(root, "--nproc", "1").returncode == 0
        broken, whole = sorted((root / "gtFine" / "train" / "ulm").glob("*.json"))
        broken.write_text('{"imgHeight": 3')
        os.utime(broken, (2**31, 2**31))
        result = convert(root, "--nproc", "1")
        assert result.returncode == 1
        mask = polygons.target(broken).name
        assert result.stderr.strip().endswith(f"download or export it again; its old mask {mask} was removed")
        assert not polygons.target(broken).exists()
        assert polygons.target(whole).is_file()
        with pytest.raises(ZooError, match="1 of 2 images have no label"):
            find_pairs(str(root), "train")
        assert "was removed" not in convert(root, "--nproc", "1").stderr

    @pytest.mark.parametrize(("is_current", "is_kept"), [(True, True), (False, False)])
    def test_a_full_disk_costs_no_current_mask(self, tmp_path, monkeypatch, is_current, is_kept):
        annotation = next(write_city(tmp_path, 1).glob("gtFine/*/*/*.json"))
        assert convert_dataset.convert(annotation) == (annotation, "")
        os.utime(annotation, (0, 0) if is_current else (2**31, 2**31))

        def fail(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", fail)
        reason = convert_dataset.convert(annotation)[1]
        assert "No space left on device" in reason
        assert ("was removed" in reason) == (not is_kept)
        assert polygons.target(annotation).is_file() == is_kept

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_a_killed_conversion_leaves_no_process_and_goes_on(self, tmp_path, number):
        root = write_city(tmp_path, 40, size=(2000, 4000), with_images=False)
        masks = "gtFine/*/*/*_labelTrainIds.png"
        command = [sys.executable, ROOT / "tools" / "convert_dataset.py", root, "--nproc", "2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            wait_until(lambda: any(root.glob(masks)), "a mask", process=process)
            process.send_signal(number)
            process.communicate(timeout=180)  # ends when nobody holds the pipe any more
        assert process.returncode == -number
        done = len(list(root.glob(masks)))
        assert 0 < done < 40
        assert f", {done} were up to date, 0 failed" in convert(root, "--nproc", "2").stdout

    @pytest.mark.parametrize("flags", [("--nproc", "0"), ("--nprocs", "2"), ("--nproc", "x")])
    def test_wrong_usage(self, tmp_path, flags):
        result = convert(write_city(tmp_path, 1), *flags)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1

    def test_folders_without_data(self, tmp_path):
        assert convert(tmp_path).returncode == 2
        (tmp_path / "gtFine").mkdir()
        result = convert(tmp_path)
        assert (result.returncode, "unpack gtFine" in result.stderr) == (1, True)
