"""Checkpoints: whole or not at all, verified, matched by name and shape, found in the right order."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src.engine.errors import ZooError  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array([3], np.int32)}


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "a-1_2.ckpt"
    checkpoint.save(path, ARRAYS, {"model": "m", "class_to_index": {"ä b": 0}})
    return path


def test_round_trip(stored):
    found = checkpoint.read(stored)
    assert found.meta == {"model": "m", "class_to_index": {"ä b": 0}, "entries": 2}
    assert all((found.arrays[name] == array).all() for name, array in ARRAYS.items())
    assert oct(stored.stat().st_mode)[-3:] == "644"
    assert names_in(stored.parent) == [stored.name]
    checkpoint.save(stored, ARRAYS, {})  # the same name again


def test_the_framework_reads_it_too(stored):
    entries = ms.load_checkpoint(str(stored))
    assert (entries["w"].asnumpy() == ARRAYS["w"]).all()
    assert json.loads(entries[checkpoint.META_KEY].asnumpy().tobytes())["model"] == "m"


def test_truncated_flipped_and_foreign_files_are_refused(stored, tmp_path):
    data = stored.read_bytes()
    broken = tmp_path / "broken.ckpt"
    for length in range(len(data)):
        broken.write_bytes(data[:length])
        with pytest.raises(ZooError, match="broken.ckpt"):
            checkpoint.read(broken)
    for position in range(3, len(data) - 20, 17):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        broken.write_bytes(flipped)
        with pytest.raises(ZooError, match="broken.ckpt"):
            checkpoint.read(broken)
    with pytest.raises(ZooError, match="does not end in .ckpt"):
        checkpoint.read(tmp_path / "x.pth")


def test_a_failed_write_leaves_the_old_file(stored, monkeypatch):
    before = stored.read_bytes()

    def no_space(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ms, "save_checkpoint", no_space)
    with pytest.raises(ZooError, match="cannot write .* No space left on device"):
        checkpoint.save(stored, ARRAYS, {})
    assert stored.read_bytes() == before
    assert names_in(stored.parent) == [stored.name]


def test_assign_names_what_is_missing_or_misshapen():
    net = ms.nn.Dense(3, 2)
    with pytest.raises(ZooError, match="x lacks 2 of 2 arrays, 'weight' first"):
        checkpoint.assign(net.get_parameters(), {}, "x")
    with pytest.raises(ZooError, match=r"'weight' as \(9, 3\) and the network as \(2, 3\)"):
        checkpoint.assign(net.get_parameters(), {"weight": np.zeros((9, 3)), "bias": np.zeros(2)}, "x")
    assert net.bias.shape == (2,)


def test_load_skips_only_what_it_is_told_to():
    net = ms.nn.SequentialCell(ms.nn.Dense(3, 2), ms.nn.Dense(2, 2))
    names = [p.name for p in net.get_parameters()]
    arrays = {
        name: np.ones(p.shape, np.float32) for name, p in net.parameters_dict().items() if not name.startswith("1.")
    }
    assert checkpoint.load(net, arrays, "x", skip="1.") == "loaded 2 arrays from x, 2 of the 1 start anew"
    assert (net[0].weight.asnumpy() == 1).all()
    assert len(names) == 4


def test_moving_average_is_what_gets_evaluated():
    stored = checkpoint.Checkpoint("x", {"w": 1, "b": 2, "ema.w": 3}, {})
    assert checkpoint.weights(stored)["w"] == 3
    assert checkpoint.weights(stored)["b"] == 2


class TestNames:
    names = checkpoint.Names("m")
    head = checkpoint.Names("m_head", "{prefix}_{epoch}.ckpt")

    def test_of(self):
        assert self.names.of(200, 625, 625) == "m-200_625.ckpt"
        assert self.names.of(3, 7, 625) == "m-3_7.ckpt"
        assert self.head.of(15, 9, 9) == "m_head_15.ckpt"
        assert self.head.of(15, 4, 9) == "m_head-15_4.ckpt"

    def test_order_is_by_number_and_others_are_ignored(self, tmp_path):
        for name in ("m-2_9.ckpt", "m-10_9.ckpt", "m-10_3.ckpt", "m-best.ckpt", "m_head_3.ckpt", "m-1_9.ckpt.tmp"):
            (tmp_path / name).touch()
        assert [path.name for *_, path in self.names.find(tmp_path)] == ["m-2_9.ckpt", "m-10_3.ckpt", "m-10_9.ckpt"]

    def test_head_names_order(self, tmp_path):
        for name in ("m_head_9.ckpt", "m_head-10_4.ckpt", "m_head_10.ckpt", "m-1_2.ckpt"):
            (tmp_path / name).touch()
        found = [path.name for *_, path in self.head.find(tmp_path)]
        assert found == ["m_head_9.ckpt", "m_head-10_4.ckpt", "m_head_10.ckpt"]

    def test_newest_good_passes_over_damaged_files(self, tmp_path):
        checkpoint.save(tmp_path / "m-1_9.ckpt", ARRAYS, {"n": 1})
        checkpoint.save(tmp_path / "m-2_9.ckpt", ARRAYS, {"n": 2})
        (tmp_path / "m-2_9.ckpt").write_bytes((tmp_path / "m-2_9.ckpt").read_bytes()[:-30])
        said = []
        assert self.names.newest_good(tmp_path, said.append).meta["n"] == 1
        assert "m-2_9.ckpt" in said[0]
        assert checkpoint.Names("other").newest_good(tmp_path, said.append) is None

    def test_only_old_epochs_and_passed_middles_are_removed(self, tmp_path):
        for name in ("m-1_9.ckpt", "m-2_9.ckpt", "m-3_4.ckpt", "m-3_9.ckpt", "m-4_2.ckpt", "m-best.ckpt", "other.ckpt"):
            (tmp_path / name).touch()
        middles = {tmp_path / "m-3_4.ckpt", tmp_path / "m-4_2.ckpt"}
        removed = self.names.remove_old(tmp_path, keep=2, middles=middles)
        assert removed == ["m-1_9.ckpt", "m-3_4.ckpt"]
        assert names_in(tmp_path) == ["m-2_9.ckpt", "m-3_9.ckpt", "m-4_2.ckpt", "m-best.ckpt", "other.ckpt"]

    def test_with_0_all_epochs_are_kept(self, tmp_path):
        for name in ("m-1_9.ckpt", "m-2_4.ckpt", "m-2_9.ckpt"):
            (tmp_path / name).touch()
        assert self.names.remove_old(tmp_path, keep=0, middles={tmp_path / "m-2_4.ckpt"}) == ["m-2_4.ckpt"]
        assert names_in(tmp_path) == ["m-1_9.ckpt", "m-2_9.ckpt"]
