"""The contact sheet of predictions: which pictures it keeps, in which order, and what any name looks like on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from src.classification.predicting import contact_sheet
from src.classification.predicting.contact_sheet import THUMBNAIL, ContactSheet, Picture, shortened, thumbnail
from src.engine.report import printable

GREY = np.full((THUMBNAIL, THUMBNAIL, 3), 90, np.uint8)
NAMES = st.text(max_size=60).map(printable)


def picture(file: str = "x.jpg", predicted: str = "cat", truth: str = "", confidence: float = 0.5) -> Picture:
    return Picture(file, predicted, 0.5, truth, confidence, GREY)


@given(st.lists(st.tuples(st.sampled_from(["", "cat", "dog"]), st.floats(0, 1))), st.integers(1, 8))
def test_the_most_doubtful_are_kept_wrong_ones_first(found, most):
    pictures = [picture(str(i), truth=truth, confidence=share) for i, (truth, share) in enumerate(found)]
    sheet = ContactSheet(most)
    for each in pictures:
        sheet.add(each)
    wanted = sorted(pictures, key=lambda each: (each.truth != "dog", each.confidence, int(each.file)))[:most]
    assert [each.file for each in sheet.pictures()] == [each.file for each in wanted]
    assert sheet.seen == len(pictures)


@settings(max_examples=30)
@given(st.lists(st.builds(picture, NAMES, NAMES, NAMES), min_size=1, max_size=9))
def test_any_names_can_be_drawn(pictures):
    sheet = ContactSheet()
    for each in pictures:
        sheet.add(each)
    width, height = sheet.draw().size
    one_row = THUMBNAIL + 2 * contact_sheet.FRAME + 3 * contact_sheet.LINE + 2 * contact_sheet.MARGIN
    rows = -(-len(pictures) // contact_sheet.COLUMNS)
    assert height == contact_sheet.LINE + 2 * contact_sheet.MARGIN + rows * one_row
    assert width == contact_sheet.COLUMNS * (THUMBNAIL + 2 * contact_sheet.FRAME + 2 * contact_sheet.MARGIN)


@given(st.text(max_size=80), st.integers(20, 200), st.booleans())
def test_a_text_that_is_too_long_is_cut_and_says_so(text, width, from_end):
    length = ImageFont.load_default(contact_sheet.FONT_SIZE).getlength
    text = printable(text)
    found = shortened(text, length, width, from_end)
    assert length(found) <= width
    if found != text:
        assert length(text) > width
        assert text.endswith(found[3:]) and found[:3] == "..." if from_end else text.startswith(found[:-3])


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_small_picture_is_the_whole_one_on_white(height, width):
    found = thumbnail(np.zeros((height, width, 3), np.uint8))
    rows, columns = np.nonzero(found[..., 0] == 0)
    size = [rows.max() - rows.min() + 1, columns.max() - columns.min() + 1]
    expected = [max(1, round(side * THUMBNAIL / max(height, width))) for side in (height, width)]
    assert size == expected and set(np.unique(found)) <= {0, 255}


def test_wrong_ones_have_a_red_frame_right_ones_a_green_one(tmp_path):
    sheet = ContactSheet()
    for truth in ("cat", "dog", ""):
        sheet.add(picture(truth=truth))
    sheet.save(tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    cell = THUMBNAIL + 2 * (contact_sheet.FRAME + contact_sheet.MARGIN)
    top = contact_sheet.LINE + 2 * contact_sheet.MARGIN
    corners = [tuple(pixels[top, contact_sheet.MARGIN + place * cell]) for place in range(3)]
    assert corners == [contact_sheet.WRONG, contact_sheet.RIGHT, contact_sheet.GREY]


@given(st.text(st.characters()), st.text(st.characters()))
def test_names_are_printed_on_one_line_and_stay_different(one, other):
    shown = printable(one)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == one
    assert (shown == printable(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "shown"), [("a\nb", r"a\nb"), (b"\xff".decode("utf-8", "surrogateescape"), r"\udcff"), ("猫 é", "猫 é")]
)
def test_names_of_files_as_they_are_printed(name, shown):
    assert printable(name) == shown
