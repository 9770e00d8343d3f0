"""benchmarks.cpu: its rows, tables from stored results, resuming, and command lines. Nothing here is measured."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types

import pytest

from benchmarks import cpu, machine, ours, processes, runtimes, tables, worker
from benchmarks.jobs import Job, NotBuilt
from benchmarks.results import Results
from benchmarks.rows import FILES, OURS, ROWS, SECONDS, SPEED, Contender, Row
from src import engine, zoo
from src.engine.errors import UsageError, ZooError
from tests.conftest import ROOT

MACHINE = {"processor": "Test CPU", "cores": 2, "system": "Linux", "revision": "abc"}
ALL = [(name, contender) for name, row in ROWS.items() for contender in row.contenders]
OURS_ROW = Contender("ours", "ours.train", {}, Job(), OURS, packages=("mindspore",))
EAGER = Contender("PyTorch eager", "torch_peer.train", {}, Job(), OURS, packages=("torch",))
COMPILED = Contender("torch.compile", "torch_peer.train", {"compiled": True}, Job(), OURS, packages=("torch",))
ROW = Row("Training", SPEED, (OURS_ROW, EAGER, COMPILED))


def answer(**found) -> dict:
    return {"answer": {"peak_mb": 100.0, "versions": {"torch": "2.13.0", "mindspore": "2.8.0"}, **found}}


def stored(tmp_path, *values: tuple[Contender, list[float]], field: str = "images_per_s") -> Results:
    results = Results(tmp_path / "results.jsonl", MACHINE)
    for contender, numbers in values:
        for number, value in enumerate(numbers, start=1):
            results.add(contender.key, number, answer(**{field: value}))
    return results


def by_label(row: Row, results: Results) -> dict[str, dict]:
    return {entry["label"]: entry for entry in tables.summary(row, results)}


@pytest.mark.parametrize(("name", "contender"), ALL, ids=[f"{name}-{c.label}" for name, c in ALL])
def test_every_contender_has_a_function_and_every_file_a_writer(name, contender):
    module, function = contender.function.split(".")
    assert f"\ndef {function}(job: Job" in (ROOT / "benchmarks" / f"{module}.py").read_text()
    assert set(contender.files) <= set(FILES) and contender.packages


def test_written_files_have_a_function_and_need_files_that_are_written():
    for name, written in FILES.items():
        module, function = written.function.split(".")
        assert f"\ndef {function}(job: Job" in (ROOT / "benchmarks" / f"{module}.py").read_text(), name
        assert set(written.needs) <= set(FILES)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_labels_of_a_row_are_unique_and_one_is_ours(row):
    labels, keys = ([getattr(one, name) for one in row.contenders] for name in ("label", "key"))
    assert len(labels) == len(set(labels)) and len(keys) == len(set(keys))
    assert not row.contenders[0].peer


def test_equal_work_has_one_key_and_other_work_another():
    assert dataclasses.replace(EAGER, label="another name", job=Job(began=5.0)).key == EAGER.key
    assert len({EAGER.key, COMPILED.key, dataclasses.replace(EAGER, job=Job(batch=64)).key}) == 3


def test_the_plan_and_the_tables_need_no_framework():
    code = "import sys; sys.modules.update(dict.fromkeys(('mindspore', 'torch', 'tensorflow', 'jax')));"
    code += "from benchmarks import cpu, jobs, worker; print(len(cpu.ROWS))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == str(len(ROWS)), ended.stderr


def test_ratios_are_to_the_best_peer_and_above_one_is_better(tmp_path):
    found = by_label(ROW, stored(tmp_path, (OURS_ROW, [30, 10, 20]), (EAGER, [4]), (COMPILED, [16])))
    assert found["ours"]["ratio"] == pytest.approx(20 / 16)
    assert found["PyTorch eager"]["ratio"] == pytest.approx(4 / 16)
    assert found["torch.compile"]["is_best_peer"] and not found["PyTorch eager"]["is_best_peer"]
    assert (found["ours"]["median"], found["ours"]["lowest"], found["ours"]["highest"]) == (20, 10, 30)


def test_fewer_seconds_are_better(tmp_path):
    row = dataclasses.replace(ROW, metric=SECONDS)
    results = stored(tmp_path, (OURS_ROW, [2.0]), (EAGER, [5.0]), (COMPILED, [3.0]), field="seconds")
    assert by_label(row, results)["ours"]["ratio"] == pytest.approx(1.5)


def test_without_a_peer_there_is_no_ratio(tmp_path):
    entry = by_label(ROW, stored(tmp_path, (OURS_ROW, [1.0])))["ours"]
    assert entry["ratio"] is None and entry["median"] == 1.0


def test_tables_name_versions_rounds_and_why_there_is_no_number(tmp_path):
    results = stored(tmp_path, (EAGER, [4.0, 5.0]))
    results.add(OURS_ROW.key, 1, {"not_built": "unknown flag '--amp_dtype'"})
    results.add(COMPILED.key, 1, {"failed": "status 1, out of memory"})
    lines = tables.table(ROW, results).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[:5]}
    assert cells["Training, images/s"] == ["version", "median", "lowest", "highest", "rounds", "x best peer"]
    assert cells["PyTorch eager"] == ["torch 2.13.0", "4.5", "4.0", "5.0", "2", "1.00"]
    assert cells["ours"] == ["-", "not built", "-", "-", "0", "-"]
    assert cells["torch.compile"][1] == "failed"
    assert "- ours: not built: unknown flag '--amp_dtype'" in lines
    assert "- torch.compile: failed: status 1, out of memory" in lines
    assert len({len(line) for line in lines[:5]}) == 1


def test_a_number_replaces_an_earlier_failure(tmp_path):
    results = stored(tmp_path)
    results.add(OURS_ROW.key, 1, {"not_built": "bfloat16"})
    results.add(OURS_ROW.key, 1, answer(images_per_s=3.0))
    assert by_label(ROW, results)["ours"]["median"] == 3.0


def test_the_picture_shows_ours_next_to_the_best_peer(tmp_path):
    results = stored(tmp_path, (OURS_ROW, [8.0]), (EAGER, [4.0]), (COMPILED, [16.0]))
    lacking = dataclasses.replace(OURS_ROW, job=Job(bfloat16=True))
    results.add(lacking.key, 1, {"not_built": "bfloat16"})
    wide = dataclasses.replace(OURS_ROW, label="ours, float32")
    rows = {
        "train": ROW,
        "alone": Row("Alone", SPEED, (OURS_ROW,)),
        "bf16": Row("", SPEED, (lacking, EAGER)),
        "either": Row("", SPEED, (lacking, wide, EAGER)),
    }
    assert tables.bars(rows, results) == [
        ("train", 0.5, "0.50 x torch.compile"),
        ("bf16", None, "not built"),
        ("either", 2.0, "2.00 x PyTorch eager (ours, float32)"),
    ]
    assert tables.picture(tmp_path / "cpu.png", {name: ROW for name in ROWS}, results, "Test CPU")
    assert 5_000 < (tmp_path / "cpu.png").stat().st_size < 150_000


@pytest.mark.parametrize("rest", ['{"key": "x", "rou', '{"key": "x"}', ""])
def test_a_half_written_last_line_is_dropped_and_the_next_one_is_whole(tmp_path, rest):
    file = stored(tmp_path, (EAGER, [4.0])).file
    file.write_bytes(file.read_bytes() + rest.encode())
    again = Results(file, MACHINE)
    assert len(again.lines) == 1 and again.has(EAGER.key, 1)
    again.add(EAGER.key, 2, answer(images_per_s=6.0))
    assert Results(file, MACHINE).values(EAGER.key, "images_per_s") == [4.0, 6.0]


def test_a_broken_line_in_the_middle_is_refused(tmp_path):
    file = stored(tmp_path, (EAGER, [4.0])).file
    file.write_text("nonsense\n" + file.read_text())
    with pytest.raises(ZooError, match="line 1 is no measurement"):
        Results(file, MACHINE)


def test_results_of_another_machine_are_refused(tmp_path):
    file = stored(tmp_path, (EAGER, [4.0])).file
    with pytest.raises(UsageError, match="'Test CPU' and here it is 'Other CPU'.*--out"):
        Results(file, {**MACHINE, "processor": "Other CPU"})


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The contenders that a run of benchmarks.cpu starts, in order, with answers in place of measurements."""
    started = []

    def call(contender, folder):
        started.append(contender.label)
        if contender.label == "PyTorch eager":
            raise processes.Failed("status 1, out of memory")
        return answer(images_per_s=2.0)["answer"]

    monkeypatch.setattr(processes, "call", call)
    monkeypatch.setattr(machine, "facts", lambda: MACHINE)
    monkeypatch.setattr(cpu, "ROWS", {"train": ROW, "again": ROW})
    monkeypatch.setitem(processes.PYTHONS, "peers", tmp_path)
    return started


def test_contenders_take_turns_and_who_failed_is_not_asked_again(asked, tmp_path, capsys):
    assert cpu.main(["--only", "train", "--rounds", "2", "--out", str(tmp_path)]) == 1
    assert asked == ["ours", "PyTorch eager", "torch.compile", "ours", "torch.compile"]
    assert "- PyTorch eager: failed: status 1, out of memory" in capsys.readouterr().out
    assert "| ours" in (tmp_path / "cpu.md").read_text() and (tmp_path / "cpu.png").exists()


def test_rows_share_what_they_have_in_common(asked, tmp_path):
    assert cpu.main(["--rounds", "1", "--out", str(tmp_path)]) == 1
    assert asked == ["ours", "PyTorch eager", "torch.compile"]
    assert (tmp_path / "cpu.md").read_text().count("2.0 |") >= 4


def test_what_is_stored_is_not_measured_again(asked, tmp_path):
    stored(tmp_path, (OURS_ROW, [30.0, 20.0]), (COMPILED, [16.0]))
    assert cpu.main(["--only", "train", "--rounds", "2", "--out", str(tmp_path)]) == 1
    assert asked == ["PyTorch eager", "torch.compile"]
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = [(line["key"] == COMPILED.key, line["round"], line.get("failed")) for line in lines[3:]]
    assert found == [(False, 1, "status 1, out of memory"), (True, 2, None)]
    assert all(line["processor"] == "Test CPU" for line in lines)


def test_tables_alone_measure_nothing(asked, tmp_path, capsys):
    stored(tmp_path, (OURS_ROW, [30.0]), (COMPILED, [15.0]))
    assert cpu.main(["--only", "train", "--tables", "--out", str(tmp_path)]) == 0
    assert not asked and " 2.00 |" in capsys.readouterr().out


def test_without_the_peers_environment_ours_is_measured_and_the_rest_said(asked, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(processes.PYTHONS, "peers", tmp_path / "missing")
    peer = dataclasses.replace(COMPILED, environment="peers")
    monkeypatch.setattr(cpu, "ROWS", {"train": Row("Training", SPEED, (OURS_ROW, peer))})
    assert cpu.main(["--only", "train", "--rounds", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert asked == ["ours"] and "scripts/benchmark.sh makes it" in printed and "not measured" in printed


def test_files_are_written_once_after_what_they_need(monkeypatch, tmp_path):
    started, broken = [], {"ours.write_int8"}

    def call(work, folder):
        started.append((work.function, work.job.batch))
        if work.function in broken:
            raise processes.Failed("status 1, no space left")
        return {}

    monkeypatch.setattr(processes, "call", call)
    with pytest.raises(processes.Failed):
        processes.prepare(("int8.onnx",), tmp_path, False)
    assert started == [("ours.write_classes", 32), ("ours.write_checkpoint", 100), ("ours.write_int8", 32)]
    broken.clear()
    processes.prepare(("classes", "int8.onnx"), tmp_path, True)
    assert started[3:] == [("ours.write_int8", 2)]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_smoke_work_is_small(row):
    for contender in row.contenders:
        job = processes.smoke(contender.job)
        assert max(job.shape[0], job.images // 8, job.calls) <= 2 and job.height * job.width <= 64 * 128
        assert job.seconds == 0 and (job.bfloat16, job.network) == (contender.job.bfloat16, contender.job.network)


def test_runtimes_compute_logits_at_a_quarter_of_the_size_as_ours_do(tmp_path):
    from onnx import TensorProto, checker, helper, load_from_string, save

    nodes = [
        helper.make_node("Relu", ["image"], ["coarse"]),
        helper.make_node("Shape", ["image"], ["size"]),
        helper.make_node("Resize", ["coarse", "", "", "size"], ["logits"]),
    ]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("image", "logits")]
    opset = [helper.make_opsetid("", 17)]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:])
    save(helper.make_model(graph, opset_imports=opset), tmp_path / "net.onnx")
    cut = load_from_string(runtimes.quarter_logits(str(tmp_path / "net.onnx")))
    checker.check_model(cut)
    assert [node.op_type for node in cut.graph.node] == ["Relu"] and cut.graph.output[0].name == "coarse"


def test_a_process_that_fails_is_answered_with_its_last_line(tmp_path):
    with pytest.raises(processes.Failed, match="status 1, .*no_such_function"):
        processes.call(dataclasses.replace(OURS_ROW, function="jobs.no_such_function"), tmp_path)


def test_an_answer_comes_back_with_peak_and_versions(tmp_path):
    found = processes.call(dataclasses.replace(OURS_ROW, function="jobs.since_start"), tmp_path)
    assert 0 < found["start_s"] < 60 and found["peak_mb"] > 1 and found["versions"] == {}


@pytest.mark.parametrize(("said", "expected"), [("unknown flag '--amp_dtype'", NotBuilt), ("no folder", RuntimeError)])
def test_only_a_refused_precision_is_not_built(said, expected, monkeypatch):
    def refuse(command, flags):
        print(f"error: {said}", file=sys.stderr)
        return 2

    monkeypatch.setattr(zoo, "run", refuse)
    with pytest.raises(expected, match=said):
        ours.run("train", [], Job(bfloat16=True))
    with pytest.raises(RuntimeError, match=said):
        ours.run("train", [], Job())


@pytest.fixture
def loop(monkeypatch):
    """A module in place of src.engine.loop, which needs MindSpore."""
    module = types.ModuleType("src.engine.loop")
    monkeypatch.setitem(sys.modules, "src.engine.loop", module)
    monkeypatch.setattr(engine, "loop", module, raising=False)
    monkeypatch.setattr("src.engine.environment.prepare", lambda: None)
    return module


def test_the_clock_gets_what_the_command_gives_to_the_loop(monkeypatch, loop):
    def command(name, flags):
        try:
            loop.train("step", "batches", lines=3)
        except Exception as error:
            raise AssertionError("the command could take the end for a failure") from error

    monkeypatch.setattr(zoo, "run", command)
    assert ours.clocked("train", [], "train", lambda *given: {"given": given}, Job()) == {"given": ("step", "batches")}


def test_a_command_that_never_reaches_the_clock_is_an_error(monkeypatch, loop):
    monkeypatch.setattr(zoo, "run", lambda command, flags: 0)
    with pytest.raises(RuntimeError, match=r"eval.py ended without calling loop.evaluate"):
        ours.clocked("eval", [], "evaluate", dict, Job())


def test_a_worker_answers_what_is_not_built(monkeypatch):
    def refuse(job):
        raise NotBuilt("no bfloat16 here")

    monkeypatch.setattr(ours, "data", refuse)
    assert worker.answer({"function": "ours.data", "options": {}, "job": {}}) == {"not_built": "no bfloat16 here"}


@pytest.mark.parametrize(
    "argv", [["--only", "train,nothing"], ["--rounds", "0"], ["--rounds", "many"], ["--steps", "3"]]
)
def test_wrong_command_lines_end_with_status_two_and_one_sentence(argv, capsys):
    assert cpu.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert argv[0] != "--only" or "'nothing' is none of train, train-bf16" in said
