"""Tests of the 310 application, with the program of an aarch64 host."""

from __future__ import annotations

import struct

import pytest

from tests.aarch64 import emulation
from tests.ascend310.test_app import (  # noqa: F401 run here with the fixtures of this folder
    test_bad_images_are_skipped_and_counted,
    test_cpu_mode,
    test_dvpp_mode,
    test_half_floats,
    test_preparing_overlaps_with_execution,
    test_segmentation_writes_label_pictures,
    test_what_dvpp_cannot_decode_is_decoded_by_the_host,
)
from tests.ascend310.test_core import (  # noqa: F401
    test_core,
    test_input_is_that_of_evaluation,
    test_truncated_files_are_refused,
    test_what_is_no_image_is_refused,
    test_whole_image_is_fitted_as_in_segmentation,
)

pytestmark = pytest.mark.slow


def test_program_is_for_aarch64(program_folder):
    header = (program_folder / "programs/infer310").read_bytes()[:20]
    assert struct.unpack_from("<H", header, 18) == (emulation.MACHINE,)
