"""Any configuration file, flag, class list or annotation is a right answer or one sentence, and never a hang.

Rank tables, images, PyTorch files and zip files have such tests beside their other tests.
"""

from __future__ import annotations

import importlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src import zoo
from src.engine import config
from src.engine.data.images import BadImage
from src.engine.data.source import Files
from src.engine.errors import UsageError, ZooError
from src.engine.export.result_files import read_labels
from src.segformer.data import polygons
from src.segformer.data.class_list import read_class_list
from src.segformer.data.dataset import Pairs, read_mask
from src.segformer.data.labels import CITYSCAPES

CONFIGS = {
    "mobilenetv2": zoo.ROOT / "default_config_cpu.yaml",
    "mobilenetv2_quant": zoo.ROOT / "configs" / "mobilenetv2_quant" / "cpu.yaml",
    "segformer": zoo.ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml",
}
NESTED = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefghi", "bcdefghij")
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=8),
    st.dates(), st.datetimes(), st.integers(10**4000, 10**4001), st.just("9" * 5000),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner)),
    max_leaves=6,
)


def keys_of(model: str) -> list[str]:
    config_class = importlib.import_module(f"src.{model}.config").Config
    return [name for field, rule in config.options_of(config_class).items() for name in (field, *rule.aliases)]


def is_one_sentence(error: Exception) -> bool:
    return "\n" not in str(error) and 0 < len(str(error)) < 2000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file.yaml"


class TestYaml:
    @pytest.mark.parametrize("model", CONFIGS)
    @given(data=st.data())
    def test_any_values_for_known_keys(self, file, model, data):
        config_class = importlib.import_module(f"src.{model}.config").Config
        drawn = data.draw(st.dictionaries(st.sampled_from(keys_of(model)), values, max_size=3))
        raw = {**config.canonical(config_class, config.read_yaml(CONFIGS[model]))}
        raw.update({key: config.Value(value, "fuzz.yaml") for key, value in drawn.items()})
        try:
            built = config.build(config_class, raw)
        except UsageError as error:
            assert is_one_sentence(error)
            return
        for name, wanted in config.types_of(config_class).items():
            assert isinstance(getattr(built, name), getattr(wanted, "__origin__", wanted)), name

    @given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
    def test_any_text(self, file, content):
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        file.write_bytes(content)
        try:
            assert isinstance(config.read_yaml(file), dict)
        except UsageError as error:
            assert is_one_sentence(error)

    def test_aliases_that_multiply_are_one_short_sentence(self, file):
        """Ten lists of ten: ten billion entries if anybody wrote them out."""
        file.write_text(f"__BASE__: {CONFIGS['mobilenetv2']}\n{NESTED}seed: *j\n")
        with pytest.raises(UsageError) as caught:
            zoo.configure("train", ["--config_path", str(file)])
        assert is_one_sentence(caught.value)
        file.write_text(f"__BASE__: {CONFIGS['segformer']}\nbase_size: &x [*x]\nclass_num: *x\n")
        with pytest.raises(UsageError) as caught:
            zoo.configure("train", ["--config_path", str(file)])
        assert is_one_sentence(caught.value)

    @pytest.mark.parametrize(
        "text",
        ["!!python/object/apply:os.system ['touch {place}']", "seed: !!python/name:os.system", "seed: !!timestamp x"],
    )
    def test_objects_are_not_made(self, file, tmp_path, text):
        file.write_text(text.format(place=tmp_path / "made"))
        with pytest.raises(UsageError, match="is not valid YAML"):
            config.read_yaml(file)
        assert not (tmp_path / "made").exists()


class TestFlags:
    @pytest.mark.parametrize("model", CONFIGS)
    @pytest.mark.parametrize("command", ["train", "eval", "export"])
    @settings(max_examples=40)
    @given(data=st.data())
    def test_any_command_line(self, model, command, data):
        flag = st.sampled_from([f"--{key}" for key in keys_of(model)]) | st.text(max_size=10).map("--{}".format)
        word = st.text(max_size=10) | st.integers().map(str) | st.floats().map(str) | st.just("True")
        argv = data.draw(st.lists(st.one_of(flag, word, st.tuples(flag, word).map("=".join)), max_size=5))
        if any(text in ("-h", "--help") or text.startswith("--enable_modelarts") for text in argv):
            return
        try:
            zoo.configure(command, ["--config_path", str(CONFIGS[model]), *argv])
        except ZooError as error:
            assert is_one_sentence(error)


class TestClassLists:
    cell = st.one_of(
        st.text(max_size=6),
        st.integers(-2, 300).map(str),
        st.sampled_from(["ignore", "²", "٣", "9" * 5000, '"', "1e3"]),
    )

    @given(st.lists(st.lists(cell, max_size=7), max_size=5))
    def test_any_rows(self, file, rows):
        lines = ["index,name,red,green,blue,weight", *(",".join(row) for row in rows)]
        file.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        self.check(file)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, file, content):
        file.write_bytes(content)
        self.check(file)
        file.write_bytes(b"index,name,red,green,blue\n" + content)
        self.check(file)

    def test_a_cell_of_a_megabyte(self, file):
        file.write_text("index,name,red,green,blue\n0," + "x" * 2**20 + ",1,2,3\n")
        self.check(file)

    def check(self, file):
        try:
            found = read_class_list(file)
        except UsageError as error:
            assert is_one_sentence(error)
            return
        assert 2 <= len(found) <= 255 and found.colours().shape == (256, 3) and found.valid()[found.ignore]


class TestLabelFiles:
    word = st.one_of(st.text(max_size=8), st.integers(-3, 2000).map(str), st.just("9" * 5000), st.just("a/b.jpg"))
    lines = st.lists(st.tuples(word, word).map(":".join) | word, max_size=5).map("\n".join)

    @given(st.one_of(st.binary(max_size=100), lines.map(lambda text: text.encode("utf-8", "surrogatepass"))))
    def test_any_labels_of_the_310_application(self, file, content):
        file.write_bytes(content)
        try:
            labels = read_labels(file)
        except ZooError as error:
            assert is_one_sentence(error)
            return
        assert labels and all(isinstance(label, int) and label >= 0 for label in labels.values())

    @given(st.data())
    def test_any_mask(self, file, data):
        """A PNG of indices, damaged anywhere or of another kind."""
        mode = data.draw(st.sampled_from(["L", "P", "1", "RGB", "RGBA", "LA", "I;16"]))
        picture = Image.fromarray(np.zeros((6, 8), np.uint16 if mode == "I;16" else np.uint8))
        out = io.BytesIO()
        (picture if mode == "I;16" else picture.convert(mode)).save(out, "PNG")
        whole = out.getvalue()
        position = data.draw(st.integers(0, len(whole)))
        damaged = whole[:position] + data.draw(st.binary(max_size=9)) + whole[position + data.draw(st.integers(0, 9)) :]
        file.write_bytes(damaged)
        files = Files(file.parent, (file.name,))
        try:
            mask = read_mask(Pairs(files, files, CITYSCAPES), 0, (6, 8))
        except (ZooError, BadImage) as error:
            assert is_one_sentence(error)
            return
        assert mask.shape == (6, 8) and mask.dtype == np.uint8 and CITYSCAPES.valid()[mask].all()


class TestPolygons:
    number = st.one_of(
        st.integers(-(10**9), 10**9), st.integers(10**300, 10**301), st.floats(), st.none(), st.text(max_size=3)
    )
    polygon = st.one_of(st.lists(st.lists(number, max_size=3), max_size=5), number)
    label = st.one_of(
        st.sampled_from(["car", "cargroup", "road", "license plate", "group"]), st.text(max_size=5), st.none()
    )
    entry = st.one_of(
        st.fixed_dictionaries({"label": label, "polygon": polygon}, optional={"deleted": number}), scalars
    )
    whole = st.one_of(
        st.fixed_dictionaries({"imgWidth": number, "imgHeight": number, "objects": st.lists(entry, max_size=3)}),
        st.fixed_dictionaries(
            {"imgWidth": st.just(20), "imgHeight": st.just(10), "objects": st.lists(entry, max_size=3)}
        ),
        values,
    )

    @given(whole)
    def test_any_annotation(self, annotation):
        try:
            mask = polygons.draw(annotation)
        except ZooError as error:
            assert is_one_sentence(error)
            return
        assert mask.dtype == np.uint8 and mask.shape == (int(annotation["imgHeight"]), int(annotation["imgWidth"]))

    @given(st.one_of(st.binary(max_size=100), whole.map(lambda value: json.dumps(value, default=str).encode())))
    def test_any_file(self, tmp_path_factory, content):
        file = tmp_path_factory.getbasetemp() / "x_gtFine_polygons.json"
        file.write_bytes(content)
        try:
            polygons.convert(file)
        except ZooError as error:
            assert is_one_sentence(error)

    def test_deep_nesting(self, tmp_path):
        file = tmp_path / "x_gtFine_polygons.json"
        file.write_text("[" * 100_000)
        with pytest.raises(ZooError):
            polygons.convert(file)
