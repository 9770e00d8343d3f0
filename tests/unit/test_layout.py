"""The rules of the source tree: who may import whom, what importing does, and what the README says is there."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from src.zoo import MODELS
from tests.conftest import ROOT
from tools import documents

SOURCES = sorted((ROOT / "src").rglob("*.py"))
SCRIPTS = sorted(path for folder in ("tools", "examples") for path in (ROOT / folder).rglob("*.py"))
WITHOUT_MINDSPORE = """
src.classification.classifier src.classification.config src.classification.dataset src.classification.targets
src.cloud.copies src.cloud.inputs src.cloud.job src.cloud.job_environment src.cloud.once src.cloud.storage
src.cloud.stores src.cloud.uploads src.cloud.zips src.cpu_kernels.build src.cpu_kernels.checking
src.cpu_kernels.declaration src.cpu_kernels.expressions src.cpu_kernels.gradients src.cpu_kernels.header
src.cpu_kernels.operators src.engine.config src.engine.config.flags src.engine.config.notes src.engine.config.options
src.engine.config.paths src.engine.config.shared src.engine.config.values src.engine.config.yaml_files
src.engine.data.archive src.engine.data.archive_index src.engine.data.augment src.engine.data.image_folder
src.engine.data.images src.engine.data.source src.engine.data.stream src.engine.data.tree src.engine.environment
src.engine.errors src.engine.export.onnx_graph src.engine.export.onnx_model src.engine.export.result_files
src.engine.io.files
src.engine.io.journal src.engine.io.torch_file src.engine.job_keys src.engine.metrics src.engine.plots
src.engine.report src.engine.steps.profiling src.inspection.data.classification src.inspection.data.duplicates
src.inspection.data.findings src.inspection.data.pictures src.inspection.data.segmentation src.inspection.data.survey
src.inspection.page src.inspection.run.classes src.inspection.run.curves src.inspection.run.masks
src.inspection.run.matrix src.inspection.run.run_folder src.inspection.run.run_report src.launch.cache_memory
src.launch.cache_server src.launch.hccl src.launch.plan src.launch.rank src.launch.rank_table src.launch.supervise
src.mobilenetv2.config src.mobilenetv2.dataset src.mobilenetv2.lr_generator src.mobilenetv2.names
src.mobilenetv2_quant.config src.quantisation.config src.quantisation.grid src.quantisation.layer_report
src.quantisation.onnx_graph src.quantisation.ranges src.quantisation.weights
src.quantisation.phases src.segformer.config src.segformer.data.class_list src.segformer.data.dataset
src.segformer.data.labels src.segformer.data.polygons src.segformer.data.transforms src.segformer.drop_masks
src.segformer.lr_generator src.segformer.names src.segformer.predicting.pictures
src.segformer.predicting.prediction src.segformer.report
src.segformer.variants src.zoo
src.classification.predicting.contact_sheet src.engine.comparison src.engine.export.backends
src.engine.export.exported_model src.engine.export.openvino_model src.engine.io.foreign_weights
src.engine.io.safetensors_file
src.classification.imbalance
""".split()  # noqa: SIM905 (a list of words reads better)
ENVIRONMENT_READERS = {
    "src/engine/environment.py",
    "src/engine/device.py",
    "src/cpu_kernels/build.py",
    "src/cloud/job_environment.py",
    "src/launch/cache_server.py",  # what the training and the server's own tool inherit
    "src/launch/rank.py",  # what msrun and mpirun say
    "src/launch/supervise.py",  # what the ranks inherit
}
FOREIGN_CODE = {
    "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pickle.load", "pickle.loads",
    "tempfile.mktemp", "torch.load", "subprocess.getoutput",
}  # fmt: skip
MOST_FILES = 16  # of a folder, so that a newcomer finds a thing by walking; about a dozen is the aim
COMMAND_LINES = {f"src/launch/{name}.py" for name in ("__main__", "cache_memory", "cache_server", "rank")}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("src.")}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_arrows_point_down(path):
    owner = relative(path).split("/")[1]
    for name in imports_of(path):
        target = name.split(".")[1]
        if owner == "engine":
            assert target == "engine", f"{relative(path)} imports {name}; engine knows no model"
        elif owner in MODELS:
            allowed = {"engine", "cpu_kernels", "classification", "quantisation", owner}
            allowed |= {"mobilenetv2"} if owner == "mobilenetv2_quant" else set()
            assert target in allowed, f"{relative(path)} imports {name}"
        elif owner == "cpu_kernels":
            assert target in ("engine", "cpu_kernels"), f"{relative(path)} imports {name}; kernels know no model"
        elif owner == "quantisation":
            allowed = ("engine", "cpu_kernels", "quantisation")
            assert target in allowed, f"{relative(path)} imports {name}; quantisation knows no model"
        elif owner == "classification":
            allowed = ("engine", "cpu_kernels", "classification")
            assert target in allowed, f"{relative(path)} imports {name}; the task knows no model"
        elif owner == "launch":
            assert target in ("engine", "launch"), f"{relative(path)} imports {name}; the launcher knows no model"
        elif owner == "cloud":
            assert target in ("engine", "cloud"), f"{relative(path)} imports {name}; a cloud job is any model's"
        elif owner == "inspection":
            allowed = ("engine", "classification", "quantisation", *MODELS, "zoo", "inspection")
            assert target in allowed, f"{relative(path)} imports {name}"
        elif relative(path) == "src/zoo.py":
            assert target in ("engine", "cloud"), "zoo reaches the models by name only"


def test_imports_go_in_no_circle():
    """Imports within functions count too: of two modules that need each other, neither is understood alone."""
    imports = {relative(path)[: -len(".py")].replace("/", "."): imports_of(path) for path in SOURCES}
    graph = {
        name: {part for found in names for part in (found, found.rpartition(".")[0])} for name, names in imports.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=relative)
def test_rooms_stay_small(folder):
    """A package with more modules needs inner rooms, as src/engine has."""
    modules = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert len(modules) <= MOST_FILES, f"{relative(folder)} holds {len(modules)} modules; give some a room of their own"


def test_entries_only_call_zoo():
    for name in ("train.py", "eval.py", "infer.py", "export.py"):
        assert imports_of(ROOT / name) | {"src.zoo"} == {"src.zoo"}
        assert len((ROOT / name).read_text().splitlines()) < 30


def test_modules_without_mindspore_really_are():
    code = "import sys; sys.modules['mindspore'] = None; import importlib\n" + "\n".join(
        f"importlib.import_module({name!r})" for name in WITHOUT_MINDSPORE
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_few_files_read_the_environment_and_none_the_command_line(path):
    text = path.read_text(encoding="utf-8")
    if "os.environ" in text or "getenv" in text:
        assert relative(path) in ENVIRONMENT_READERS
    assert "sys.argv" not in text or relative(path) in COMMAND_LINES


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=relative)
def test_nothing_runs_foreign_code_or_makes_predictable_temporary_files(path):
    """No shell between a text and a program, no pickle, no YAML objects, no name in a shared folder (SECURITY.md)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.startswith(("/tmp", "/var/tmp", "/dev/shm")), f"{relative(path)}: {node.value}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in FOREIGN_CODE, f"{relative(path)}:{node.lineno} calls {called}"
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        assert options.get("shell", "False") == "False", f"{relative(path)}:{node.lineno}"


def test_one_module_locks_files():
    """Everybody else uses files.locked, so that every lock works on NFS and says who holds it."""
    folders = ("src", "tools", "examples", "benchmarks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    users = [relative(path) for path in paths if "import fcntl" in path.read_text(encoding="utf-8")]
    assert users == ["src/engine/io/files.py"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_stay_short(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 60, f"{relative(path)}: {node.name}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is(path):
    assert documents.of_file(path)
