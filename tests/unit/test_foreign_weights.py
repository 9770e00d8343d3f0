"""Weights of other libraries: .safetensors files, Hugging Face's folders, and mmsegmentation's names."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from src.engine.errors import UsageError, ZooError
from src.engine.io import foreign_weights, safetensors_file
from src.segformer import names
from src.segformer.data.class_list import of_names
from src.segformer.variants import VARIANTS

save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
KINDS = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_]
ANY_ARRAY = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


class TestSafetensors:
    @SHARED_FOLDER
    @given(st.dictionaries(st.text(max_size=8), ANY_ARRAY, max_size=4))
    def test_what_its_library_wrote_is_read(self, tmp_path, content):
        content = {name: array for name, array in content.items() if name != "__metadata__"}
        save_file(content, tmp_path / "w.safetensors")
        found = safetensors_file.read_state_dict(tmp_path / "w.safetensors")
        assert found.keys() == content.keys()
        for name, array in content.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()
            assert found[name].flags.owndata and found[name].flags.writeable

    def test_bfloat16_is_widened(self, tmp_path):
        """1, -2.5 and 3.140625, whose last 16 bits of a float32 are zero."""
        values = np.float32([1, -2.5, 3.140625])
        halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        header = json.dumps({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
        (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + halves)
        found = safetensors_file.read_state_dict(tmp_path / "w.safetensors")["w"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values)

    @SHARED_FOLDER
    @given(st.data())
    def test_damage_is_one_sentence_or_no_damage(self, tmp_path, data):
        save_file({"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2))}, tmp_path / "w.safetensors")
        whole = (tmp_path / "w.safetensors").read_bytes()
        place, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
        broken = data.draw(st.sampled_from([whole[:place], whole[:place] + bytes([byte]) + whole[place + 1 :]]))
        (tmp_path / "x.safetensors").write_bytes(broken)
        try:
            safetensors_file.read_state_dict(tmp_path / "x.safetensors")
        except ZooError as error:
            assert "x.safetensors" in str(error) and "\n" not in str(error)

    def test_a_cut_file_and_an_unknown_type(self, tmp_path):
        (tmp_path / "x.safetensors").write_bytes(b"\xff" * 20)
        with pytest.raises(ZooError, match="is damaged or no safetensors file"):
            foreign_weights.read(tmp_path / "x.safetensors")
        with pytest.raises(ZooError, match="has 'w' as F8_E4M3, which is not read; save it as float32"):
            safetensors_file.array_of("w", {"dtype": "F8_E4M3", "shape": [1], "data": b"1"}, tmp_path)

    def test_the_library_is_asked_for_by_name(self, tmp_path, monkeypatch):
        (tmp_path / "x.safetensors").touch()
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(ZooError, match="needs the library safetensors, which is not installed; run: pip install"):
            safetensors_file.read_state_dict(tmp_path / "x.safetensors")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ZooError, match="is not a file"):
            foreign_weights.read(tmp_path / "absent.safetensors")


class TestFolder:
    def write(self, folder, config, **files) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        for name, content in files.items():
            save_file(content, folder / f"{name}.safetensors")

    def test_arrays_and_names(self, tmp_path):
        self.write(tmp_path / "hf", {"id2label": {"1": "sky", "0": "road"}}, model={"w": np.ones(3)})
        found = foreign_weights.read(tmp_path / "hf")
        assert found.class_names == ("road", "sky")
        np.testing.assert_array_equal(found.arrays["w"], np.ones(3))

    def test_shards(self, tmp_path):
        self.write(tmp_path / "hf", {}, a={"x": np.zeros(1)}, b={"y": np.ones(1)})
        index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
        (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
        found = foreign_weights.read(tmp_path / "hf")
        assert sorted(found.arrays) == ["x", "y"] and found.class_names == ()

    @pytest.mark.parametrize("index", [{"weight_map": {"x": "../a.safetensors"}}, {"weight_map": {}}, [], {"x": 1}])
    def test_an_index_that_leads_elsewhere(self, tmp_path, index):
        self.write(tmp_path / "hf", {})
        (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ZooError, match="lists no weight files beside it"):
            foreign_weights.read(tmp_path / "hf")

    def test_folders_that_are_no_model(self, tmp_path):
        with pytest.raises(ZooError, match=r"holds no config.json; give a folder that save_pretrained wrote"):
            foreign_weights.read(tmp_path)
        self.write(tmp_path / "hf", {"id2label": None})
        with pytest.raises(ZooError, match="holds neither model.safetensors nor pytorch_model.bin"):
            foreign_weights.read(tmp_path / "hf")
        for config in ("{", "\udc00".encode("utf-8", "surrogatepass"), "[" * 100_000):
            (tmp_path / "hf" / "config.json").write_bytes(config if isinstance(config, bytes) else config.encode())
            with pytest.raises(ZooError, match=r"cannot read .*config.json as JSON"):
                foreign_weights.read(tmp_path / "hf")

    @given(st.lists(st.text(), min_size=1, max_size=9))
    def test_every_class_has_a_name_of_its_own(self, labels):
        found = foreign_weights.class_names({"id2label": {str(i): name for i, name in enumerate(labels)}}, "c.json")
        assert len(found) == len(labels)
        for name, label in zip(found, labels):
            assert name.startswith(label.strip())

    @given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
    def test_any_configuration(self, config):
        for given_config in (config, {"id2label": config}):
            try:
                assert isinstance(foreign_weights.class_names(given_config, "c.json"), tuple)
            except ZooError as error:
                assert "\n" not in str(error)

    def test_names_that_nobody_gave_are_none(self):
        table = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
        assert foreign_weights.class_names(table, "config.json") == ()


def mmseg_name(name: str) -> str:
    """mmsegmentation 1.2's name of an array of an encoder, from ours; MixVisionTransformer's state dict has these."""
    name = name.replace("backbone.stages.", "backbone.layers.")
    name = re.sub(r"\.(\d)\.patch_embed\.proj", r".\1.0.projection", name)
    name = re.sub(r"\.(\d)\.patch_embed\.norm", r".\1.0.norm", name)
    name = re.sub(r"layers\.(\d)\.norm\.", r"layers.\1.2.", name)
    name = re.sub(r"\.(\d)\.blocks\.(\d+)", r".\1.1.\2", name)
    for ours, theirs in (("mlp.fc1", "ffn.layers.0"), ("mlp.dwconv", "ffn.layers.1"), ("mlp.fc2", "ffn.layers.4")):
        name = name.replace(ours, theirs)
    return name.replace("attn.proj", "attn.attn.out_proj").replace("gamma", "weight").replace("beta", "bias")


@pytest.mark.parametrize("backbone", ["mit_b0", "mit_b2"])
@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_the_encoder_of_mmsegmentation(backbone, prefix):
    """Every array reaches its place; queries, keys and values lie in one matrix there, in this order."""
    rng = np.random.default_rng(1)
    expected, theirs = {}, {}
    for name in names.encoder_names(backbone):
        width = VARIANTS[backbone].channels[int(name.split(".")[2])]
        rows = 2 * width if ".attn.kv." in name else width
        array = rng.standard_normal((rows, 3) if name.endswith("weight") else rows)
        is_map = name.endswith(("mlp.fc1.weight", "mlp.fc2.weight"))
        expected[name] = array = array[:, :, None, None] if is_map else array
        if ".attn.kv." not in name and ".attn.q." not in name:
            theirs[mmseg_name(name)] = array
    for name in [name for name in expected if ".attn.q." in name]:
        joined = np.concatenate([expected[name], expected[name.replace(".q.", ".kv.")]])
        theirs[mmseg_name(name).replace("attn.q.", "attn.attn.in_proj_")] = joined
    assert "backbone.layers.0.1.0.attn.attn.in_proj_weight" in theirs
    assert "backbone.layers.3.2.bias" in theirs and "backbone.layers.1.1.1.ffn.layers.4.weight" in theirs
    state = {prefix + key[len("backbone.") :]: array for key, array in theirs.items()}
    state["decode_head.convs.0.conv.weight"] = np.zeros(1)
    assert names.is_segformer(state)
    found, unused = names.translate(state)
    assert unused == ["decode_head.convs.0.conv.weight"] and names.variant_of(found) == backbone
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)


class TestClassesByName:
    def test_colours_are_pascal_vocs(self):
        """Its first rows: background is left out, aeroplane is (128, 0, 0)."""
        table = of_names(["a", "b", "c", "d", "e", "f", "g", "h"], "x")
        assert table.palette[:4] == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
        assert table.palette[7] == (64, 0, 0) and table.weights == (1.0,) * 8 and table.ids == tuple(range(8))

    def test_colours_differ(self):
        assert len(set(of_names([str(i) for i in range(255)], "x").palette)) == 255

    @pytest.mark.parametrize("count", [0, 1, 256])
    def test_too_few_and_too_many(self, count):
        with pytest.raises(UsageError, match=f"x names {count} classes; a class list has 2 to 255"):
            of_names([str(i) for i in range(count)], "x")
