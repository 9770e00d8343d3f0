"""Checking a data set: it refuses what training refuses, finds damage and leaks, and writes a page for a browser."""

import io
import os
import re
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.engine.errors import UsageError
from src.inspection import page
from src.inspection.data import classification, duplicates, findings, pictures, segmentation
from src.inspection.data.findings import FAILS, LEAK, NOTE, WARNING
from tests.browser import open_page
from tests.conftest import run_command
from tests.segmentation_data import write_city, write_generic
from tools import check_data, pack_data


def photo(seed, size=48):
    """A picture with structure, so that its perceptual hash means something."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), 128, np.float32)
    for cells, height in ((2, 160), (4, 80), (8, 40), (16, 20)):  # of ever less height, as in photographs
        coarse = rng.uniform(-0.5, 0.5, (cells, cells, 3)).astype(np.float32)
        image += height * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return image.clip(0, 255).astype(np.uint8)


def save(path, image, quality=95):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])


@pytest.fixture
def photos(tmp_path):
    """train/ (3 x 6) and val/ (3 x 2) of different pictures."""
    root = tmp_path / "photos"
    for index, name in enumerate(("cat", "dog", "owl")):
        for number in range(8):
            split = "train" if number < 6 else "val"
            save(root / split / name / f"{number}.jpg", photo(10 * index + number))
    return root


def said(checked, kind):
    return [finding.text for finding in checked.findings if finding.kind == kind]


def check(root, on_bad_image="skip"):
    return classification.check(str(root), on_bad_image)


class TestClassification:
    def test_nothing_is_wrong(self, photos):
        checked = check(photos)
        assert (checked.status, said(checked, FAILS), said(checked, LEAK), said(checked, WARNING)) == (0, [], [], [])
        tables = {table.title: list(map(list, table.rows)) for table in checked.tables}
        assert tables["images"] == [["all", 18, 6], ["unreadable", 0, 0]]
        assert tables["class"] == [["cat", 6, 2], ["dog", 6, 2], ["owl", 6, 2]]
        assert ["48 x 48", 18, 6] in tables["width x height, pixels"]
        assert tables["format and mode"] == [["JPEG RGB", 18, 6]]
        assert "every class has 6 images of training" in said(checked, NOTE)

    def test_an_archive_is_checked_as_its_folder(self, photos, tmp_path):
        names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
        pack_data.write(photos, names, tmp_path / "photos.tar")
        one, other = check(photos), check(tmp_path / "photos.tar")
        assert [list(map(list, table.rows)) for table in one.tables] == [
            list(map(list, table.rows)) for table in other.tables
        ]
        assert [finding.text for finding in one.findings] == [finding.text for finding in other.findings]

    def test_the_same_picture_in_train_and_val(self, photos):
        shutil.copy(photos / "train/cat/0.jpg", photos / "val/dog/other name.jpg")
        checked = check(photos)
        assert checked.status == 1
        assert said(checked, LEAK) == [
            "1 picture of val with pixels that are in train too: dog/other name.jpg = cat/0.jpg"
        ]

    def test_pixels_count_not_bytes(self, photos):
        pixels = cv2.imread(str(photos / "train/cat/0.jpg"))
        cv2.imwrite(str(photos / "val/cat/lossless.png"), pixels)
        assert len(said(check(photos), LEAK)) == 1

    @pytest.mark.parametrize("change", ["compressed", "half", "double", "bright", "grey"])
    def test_nearly_the_same_picture(self, photos, change):
        image = Image.open(photos / "train/owl/3.jpg")
        changed = {
            "compressed": lambda: image,
            "half": lambda: image.resize((24, 24)),
            "double": lambda: image.resize((96, 96)),
            "bright": lambda: image.point(lambda value: value * 0.8),
            "grey": lambda: image.convert("L"),
        }[change]()
        changed.save(photos / "val/owl/again.jpg", quality=40 if change == "compressed" else 90)
        checked = check(photos)
        assert said(checked, LEAK) == ["1 picture of val nearly as one of train: owl/again.jpg = owl/3.jpg"]
        assert checked.status == 1

    def test_flat_pictures_are_not_compared(self, photos):
        for split, value in (("train", 90), ("val", 91)):
            for number in range(3):
                flat = np.full((40, 40, 3), value + 3 * number, np.uint8)
                cv2.imwrite(str(photos / split / "cat" / f"flat{number}.png"), flat)
        assert check(photos).status == 0

    def test_pictures_that_are_there_twice(self, photos):
        shutil.copy(photos / "train/cat/0.jpg", photos / "train/cat/again.jpg")
        shutil.copy(photos / "train/cat/1.jpg", photos / "train/dog/wrong.jpg")
        checked = check(photos)
        assert "train: 2 pictures there more than once" in " ".join(said(checked, NOTE))
        assert said(checked, WARNING) == ["train: 1 picture in more than one class: cat/1.jpg = dog/wrong.jpg"]
        assert checked.status == 0

    def test_damaged_and_empty_files(self, photos):
        (photos / "train/cat/0.jpg").write_bytes((photos / "train/cat/0.jpg").read_bytes()[:300])
        (photos / "val/dog/6.jpg").write_bytes(b"")
        (photos / "train/dog/notes.txt").write_text("x")
        checked = check(photos)
        assert checked.status == 0
        told = said(checked, WARNING)
        assert re.match(r"train: 1 file cannot be used and will be skipped: cat/0\.jpg \(", told[0])
        assert "val: 1 file cannot be used and will be skipped: dog/6.jpg (empty file)" in told
        assert "train: 1 file in class folders that is no image by its name: dog/notes.txt" in said(checked, NOTE)
        checked = check(photos, "error")
        assert (checked.status, len(said(checked, FAILS))) == (1, 3)

    def test_only_damaged_files(self, photos):
        for path in (photos / "train").rglob("*.jpg"):
            path.write_bytes(b"no picture")
        checked = check(photos)
        assert checked.status == 1
        assert "train: none of the 18 files is a usable image" in said(checked, FAILS)[0]

    @pytest.mark.parametrize(
        ("bad", "count", "longest"),
        [
            ([], 4, 0),
            ([1], 4, 1),
            ([0, 3], 4, 2),
            ([0, 1, 3], 5, 2),
            ([0, 1, 4], 5, 3),
            ([1, 2, 3], 8, 3),
            ([0, 1, 2], 3, 3),
        ],
    )
    def test_bad_files_in_a_row_go_round_the_end(self, bad, count, longest):
        assert pictures.longest_row(bad, count) == longest

    def test_classes_that_differ(self, photos):
        shutil.rmtree(photos / "val" / "owl")
        checked = check(photos)
        assert (checked.status, said(checked, WARNING)) == (0, ["val has no images of 1 class: owl"])
        (photos / "val" / "Owl").mkdir()
        shutil.copy(photos / "val/cat/6.jpg", photos / "val/Owl/1.jpg")
        checked = check(photos)
        assert checked.status == 1
        assert "holds the class folder 'Owl'" in said(checked, FAILS)[0]
        rows = {row[0]: list(row[1:]) for table in checked.tables if table.title == "class" for row in table.rows}
        assert (rows["Owl"], rows["owl"]) == ([0, 1], [6, 0])

    def test_an_empty_class_and_a_lone_one(self, photos):
        (photos / "train" / "empty").mkdir()
        checked = check(photos)
        assert "train/empty holds no images" in said(checked, FAILS)[0]
        assert checked.tables[0].rows[0] == ["all", 18, 6]
        for name in ("empty", "dog", "owl"):
            shutil.rmtree(photos / "train" / name)
        assert any("one class folder only" in text for text in said(check(photos), FAILS))

    def test_imbalance(self, photos):
        for number in range(1, 6):
            (photos / "train/owl" / f"{number}.jpg").unlink()
        for number in range(20, 26):
            save(photos / "train/cat" / f"{number}.jpg", photo(100 + number))
        text = "the largest class, cat, has 12 images of training and the smallest, owl, 1: 12 times as many"
        assert text in said(check(photos), WARNING)

    def test_without_validation_data(self, photos):
        shutil.rmtree(photos / "val")
        checked = check(photos)
        assert checked.status == 0
        assert "there is no val/ beside" in said(checked, WARNING)[0]

    def test_no_class_folders(self, tmp_path):
        with pytest.raises(UsageError, match="holds no class folders"):
            check(tmp_path)


class TestSegmentation:
    def check(self, root, class_list="", missing="error", bad="skip"):
        return segmentation.check(str(root), class_list, missing, bad)

    def test_shares_of_the_classes(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 3, "val": 2})
        checked = self.check(root)
        assert (checked.status, said(checked, FAILS)) == (0, [])
        masks = np.stack([cv2.imread(str(path), 0) for path in sorted((root / "masks/train").rglob("*.png"))])
        rows = next(table for table in checked.tables if table.title == "class").rows
        for value, row in zip((0, 1, 2, 255), rows):
            assert row[1] == pytest.approx(100 * (masks == value).mean())
            assert row[2] == sum((mask == value).any() for mask in masks)
        assert [row[0] for row in rows] == ["0 street", "1 house", "2 tree", "255 (ignored)"]

    def test_an_archive_of_a_folder(self, tmp_path):
        root = write_generic(tmp_path / "top" / "data", {"train": 3, "val": 2})
        names = sorted(path.relative_to(root.parent).as_posix() for path in root.rglob("*") if path.is_file())
        pack_data.write(root.parent, names, tmp_path / "data.tar")
        one, other = self.check(root), self.check(tmp_path / "data.tar")
        assert [table.rows for table in one.tables] == [table.rows for table in other.tables]
        assert [finding.text for finding in one.findings] == [finding.text for finding in other.findings]

    def test_values_that_are_no_class(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 3, "val": 2})
        mask = sorted((root / "masks/train").rglob("*.png"))[1]
        cv2.imwrite(str(mask), np.full((40, 80), 7, np.uint8))
        checked = self.check(root)
        assert checked.status == 1
        assert "holds the values 7" in said(checked, FAILS)[0]
        assert next(row for row in checked.tables[0].rows if row[0] == "masks refused") == ["masks refused", 1, 0]

    def test_a_picture_among_the_masks_and_another_size(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 3, "val": 2})
        masks = sorted((root / "masks/train").rglob("*.png"))
        cv2.imwrite(str(masks[0]), photo(1))
        cv2.imwrite(str(masks[2]), np.zeros((20, 40), np.uint8))
        text = said(self.check(root), FAILS)[0]
        assert "has mode RGB" in text
        assert "(1 more mask refused)" in text

    def test_missing_and_spare_masks(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 3, "val": 2})
        mask = sorted((root / "masks/train").rglob("*.png"))[0]
        mask.rename(mask.with_name("other.png"))
        checked = self.check(root)
        assert checked.status == 1
        assert "1 of 3 images have no label" in said(checked, FAILS)[0]
        assert "train: 1 mask without an image: masks/train/sub dir/other.png" in said(checked, NOTE)
        checked = self.check(root, missing="skip")
        assert checked.status == 0
        assert "train: 1 image without a mask: images/train/sub dir/00.jpg" in said(checked, WARNING)

    def test_a_leak_a_damaged_mask_and_no_pixels_of_a_class(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 3, "val": 2})
        shutil.copy(root / "images/train/sub dir/01.jpg", root / "images/val/sub dir/01.jpg")
        mask = root / "masks/train/sub dir/02.png"
        mask.write_bytes(mask.read_bytes()[:40])
        for path in (root / "masks/val").rglob("*.png"):
            cv2.imwrite(str(path), np.zeros((40, 80), np.uint8))
        checked = self.check(root)
        pair = "images/val/sub dir/01.jpg = images/train/sub dir/01.jpg"
        assert said(checked, LEAK) == [f"1 picture of val with pixels that are in train too: {pair}"]
        told = " ".join(said(checked, WARNING))
        assert "train: 1 file cannot be used and will be skipped: images/train/sub dir/02.jpg (its label" in told
        assert "val: no pixel of 2 classes: house, tree" in told

    def test_cityscapes_that_is_not_converted(self, tmp_path):
        checked = self.check(write_city(tmp_path / "city", 2))
        assert checked.status == 1
        assert "run: python tools/convert_dataset.py" in said(checked, FAILS)[0]

    def test_without_a_class_list(self, tmp_path):
        root = write_generic(tmp_path / "data", {"train": 1})
        (root / "classes.csv").unlink()
        with pytest.raises(UsageError, match=r"has no classes\.csv"):
            self.check(root)


class TestDuplicates:
    @given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 2**32), st.integers(1, 6))
    def test_all_pairs_of_few_different_bits_are_found(self, values, seed, at_once):
        rng = np.random.default_rng(seed)
        left = np.array(values, np.uint64)
        flips = [sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 8), replace=False)) for _ in values]
        right = np.array([value ^ flip for value, flip in zip(values, flips)], np.uint64)
        wanted = {
            (i, j, bits)
            for i, one in enumerate(left.tolist())
            for j, other in enumerate(right.tolist())
            if (bits := bin(one ^ other).count("1")) <= duplicates.FEW_BITS
        }
        before, duplicates.MOST_AT_ONCE = duplicates.MOST_AT_ONCE, at_once
        try:
            assert set(duplicates.near_pairs(left, right)) == wanted
        finally:
            duplicates.MOST_AT_ONCE = before

    def test_size_belongs_to_a_picture(self):
        flat = np.zeros((4, 6, 3), np.uint8)
        assert duplicates.digest(flat) != duplicates.digest(flat.reshape(6, 4, 3))
        assert duplicates.digest(flat) == duplicates.digest(flat.copy())

    def test_different_pictures_are_not_the_same(self):
        shown = [duplicates.grey(photo(seed)) for seed in range(40)]
        most = max(duplicates.correlation(a, b) for i, a in enumerate(shown) for b in shown[:i])
        assert most < duplicates.SAME
        assert duplicates.correlation(shown[0], 0.5 * shown[0] + 9) == pytest.approx(1)
        assert duplicates.correlation(shown[0], np.ones((16, 16), np.float32)) == 0


class TestCommand:
    def test_tables_status_and_report(self, photos, tmp_path):
        shutil.copy(photos / "train/cat/0.jpg", photos / "val/cat/leak.jpg")
        found = run_command("tools/check_data.py", str(photos), "--report", str(tmp_path / "out" / "r.html"))
        assert (found.returncode, found.stderr) == (1, "")
        assert "class  train  val\ncat        6    3\n" in found.stdout
        assert "leak: 1 picture of val with pixels that are in train too: cat/leak.jpg = cat/0.jpg\n" in found.stdout
        assert "result: leak: 1\n" in found.stdout
        text = (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
        assert "data:image/jpeg;base64," in text
        assert not re.search(r"""(src|href)=(?!"data:)|https?:|@import|url\(""", text)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nowhere",), "is not a folder"),
            (("photos", "--task", "detection"), "task"),
            (("photos", "--report", "r.pdf"), "--report FILE.html"),
            (("photos/train/cat",), "holds no class folders"),
            (("photos", "--task", "segmentation"), "holds neither leftImg8bit/"),
            (("photos", "--bad"), "--bad"),
            (("photos", "--class_list", "x.csv"), "--class_list is about masks and photos is checked for classif"),
            (("photos", "--reduce_zero_label"), "--reduce_zero_label is about masks"),
            (("photos", "--on_missing_label", "skip"), "--on_missing_label is about masks"),
        ],
    )
    def test_bad_input(self, photos, tmp_path, arguments, message):
        found = run_command(str(check_data.__file__), *arguments, cwd=tmp_path)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.count("\n") == 1
        assert message in found.stderr
        assert not list(tmp_path.glob("*.pdf"))

    def test_the_task_is_what_the_folders_look_like(self, photos, tmp_path):
        assert check_data.task_of(str(photos)) == "classification"
        assert check_data.task_of(str(write_generic(tmp_path / "a", {"train": 1}))) == "segmentation"
        assert check_data.task_of(str(write_city(tmp_path / "b", 1))) == "segmentation"
        save(tmp_path / "c" / "images" / "1.jpg", photo(1))  # a class of that name
        assert check_data.task_of(str(tmp_path / "c")) == "classification"

    def test_names_that_no_terminal_takes(self, photos, tmp_path):
        name = os.fsdecode(b"line\nend <b>&\xff.jpg")
        shutil.copy(photos / "train/cat/0.jpg", photos / "val/cat" / name)
        report = tmp_path / "r.html"
        environment = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
        found = run_command("tools/check_data.py", str(photos), "--report", str(report), **environment)
        assert (found.returncode, found.stderr) == (1, "")
        assert "cat/line\\nend <b>&\\udcff.jpg = cat/0.jpg" in found.stdout
        text = report.read_text(encoding="utf-8")
        assert "line\\nend &lt;b&gt;&amp;\\udcff.jpg" in text
        assert "<b>" not in text

    def test_many_classes_are_cut_on_a_terminal_only(self):
        rows = [[f"class {number}", number] for number in range(100)]
        checked = findings.Checked("x", [findings.Table("class", ["class", "train"], rows)])
        text = findings.as_text(checked)
        assert "class 29" in text and "class 30" not in text and "... 70 more in --report FILE.html" in text
        assert "class 99" in findings.as_page(checked)


class TestPage:
    """In a real browser."""

    def test_it_opens_sorts_filters_and_shows_pictures(self, photos, tmp_path):
        shutil.copy(photos / "train/cat/0.jpg", photos / "val/cat/leak.jpg")
        (photos / "val/dog/6.jpg").unlink()
        (photos / "train/owl/1.jpg").unlink()
        report = tmp_path / "r.html"
        report.write_text(findings.as_page(check(photos)), encoding="utf-8")
        opened = open_page(report, CLICKS, tmp_path / "browser")
        assert opened.console == []
        assert opened.found["up"] == ["1", "2", "3"]
        assert opened.found["down"] == ["3", "2", "1"]
        assert opened.found["names"] == ["cat", "dog", "owl"]
        assert opened.found["loaded"] == opened.found["pictures"] > 10
        assert opened.found["dialog"] == ["train: cat/0.jpg", 0]

    def test_a_filter_hides_rows(self, tmp_path):
        rows = [[name, float(number)] for number, name in enumerate(("cat", "dog", "caterpillar"))]
        table = page.table(["name", "value"], [*rows, ["none", float("nan")]], filtered=True)
        report = tmp_path / "r.html"
        report.write_text(page.document("x", [table]), encoding="utf-8")
        script = """
          const field = document.querySelector("input.filter"), head = document.querySelectorAll("th")[1];
          field.value = "CAT"; field.dispatchEvent(new Event("input", { bubbles: true }));
          const rows = [...document.querySelectorAll("tbody tr")];
          const shown = rows.filter((row) => row.offsetHeight > 0).map((row) => row.cells[0].textContent);
          head.click(); head.click();
          return [shown, [...document.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent)];
        """
        opened = open_page(report, script, tmp_path / "browser")
        assert opened.found == [["cat", "caterpillar"], ["none", "caterpillar", "dog", "cat"]]

    def test_the_browser_is_told_to_fetch_nothing(self, tmp_path):
        report = tmp_path / "r.html"
        outside = page.Raw('<img id="far" src="file:///etc/hostname"><script src="file:///nothing.js"></script>')
        report.write_text(page.document("x", [outside]), encoding="utf-8")
        opened = open_page(report, "return 1;", tmp_path / "browser")
        assert sum("Content Security Policy" in line for line in opened.console) == 2


CLICKS = """
  const table = [...document.querySelectorAll("section")].find((s) => s.querySelector("h2").textContent === "class");
  const heads = table.querySelectorAll("th");
  const column = (index) => [...table.querySelectorAll("tbody tr")].map((row) => row.cells[index].textContent);
  heads[2].click(); const up = column(2);
  heads[2].click(); const down = column(2);
  heads[0].click(); const names = column(0);
  const images = [...document.querySelectorAll("figure img")];
  images[0].click();
  const dialog = document.querySelector("dialog"), caption = dialog.textContent;
  dialog.click();
  return { up, down, names, pictures: images.length,
    dialog: [caption, document.querySelectorAll("dialog[open]").length],
    loaded: images.filter((image) => image.complete && image.naturalWidth > 0).length };
"""


def test_thumbnails_keep_the_pixels_of_small_pictures():
    small = photo(3, 32)
    assert (page.thumbnail(small)[::3, ::3] == small).all()
    assert page.thumbnail(photo(3, 300)).shape == (96, 96, 3)
    assert page.thumbnail(np.zeros((1, 5000, 3), np.uint8)).shape[1] == 96
    decoded = Image.open(io.BytesIO(page.base64.b64decode(page.image_source(photo(3)).partition(",")[2])))
    assert np.abs(np.asarray(decoded).astype(int) - photo(3)).mean() < 4
