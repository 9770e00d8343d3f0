"""Whether a data set fits into the dataset cache."""

from __future__ import annotations

import pytest

from src.engine.errors import UsageError, ZooError
from src.launch import cache_memory
from tests.conftest import write_images

GB = 10**9


def test_need_is_the_size_of_the_files_and_a_little_more(images):
    files, need = cache_memory.needed(str(images))
    sizes = [path.stat().st_size for path in (images / "train").rglob("*.jpg")]
    assert files == len(sizes) == 24
    assert need == sum(sizes) + 24 * cache_memory.OVERHEAD


def test_refused_with_both_numbers_and_the_way_out(tmp_path):
    with pytest.raises(ZooError, match=r"needs 120.0 GB .* memory for 18.0 GB; set CACHE_SPILL_DIR") as caught:
        cache_memory.require(120 * GB, 18 * GB, "")
    assert caught.value.status == 1
    cache_memory.require(18 * GB, 18 * GB, "")


def test_a_spill_folder_counts_what_its_disk_has_free(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_memory.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100 * GB}))
    cache_memory.require(110 * GB, 18 * GB, str(tmp_path))
    with pytest.raises(ZooError, match=r"18.0 GB and 100.0 GB in .*; train without the cache"):
        cache_memory.require(120 * GB, 18 * GB, str(tmp_path))
    with pytest.raises(UsageError, match="is not a folder"):
        cache_memory.require(1, 18 * GB, str(tmp_path / "absent"))


def test_command_line(tmp_path, capsys, monkeypatch):
    write_images(tmp_path / "data", 2)
    assert cache_memory.main([str(tmp_path / "data")]) == 0
    assert capsys.readouterr().out.startswith("dataset cache: 6 files need 0.00 GB, there is memory for ")
    monkeypatch.setattr(cache_memory, "available", lambda: 10)
    assert cache_memory.main([str(tmp_path / "data")]) == 1
    assert "there is memory for 0.0 GB" in capsys.readouterr().err
    assert cache_memory.main([str(tmp_path / "nothing")]) == 1
    assert cache_memory.main([]) == 2
