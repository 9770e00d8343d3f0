"""benchmarks.cpu: its rows exist, its ratios are to the best peer, and a failing contender does not stop the rest."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks import cpu, cpu_report, segformer, workers
from benchmarks.cpu_plan import MOBILENET, SECTIONS, SEGFORMER

ALL = [(name, row) for name, section in SECTIONS.items() for row in section.rows]


@pytest.mark.parametrize(("section", "row"), ALL, ids=[f"{name}-{row.label}" for name, row in ALL])
def test_every_row_has_a_worker(section, row):
    assert row.worker in {MOBILENET: workers.WORKERS, SEGFORMER: segformer.WORKERS}[row.module]


def test_every_group_has_ours_and_labels_are_unique():
    for name, section in SECTIONS.items():
        labels = [row.label for row in section.rows]
        assert len(labels) == len(set(labels)), name
        for group in {row.group for row in section.rows if row.peer}:
            assert any(not row.peer and row.group == group for row in section.rows), (name, group)


def found(section: str, values: dict[str, list[float]]) -> dict[str, dict]:
    field, rows = SECTIONS[section].field, SECTIONS[section].rows
    answers = {row.label: [{field: value} for value in values.get(row.label, ())] for row in rows}
    return {row["label"]: row for row in cpu_report.rows(section, rows, lambda row: answers[row.label])}


def test_ratios_are_to_the_best_peer_and_above_one_is_better():
    rates = {"ours": [30, 10, 20], "PyTorch eager": [4], "torch.compile": [16]}
    assert found("train", rates)["ours"]["ratio"] == pytest.approx(20 / 16)
    assert found("train", rates)["PyTorch eager"]["ratio"] == pytest.approx(4 / 16)
    seconds = {"ours": [2.0], "PyTorch eager": [5.0], "torch.compile": [3.0]}
    assert found("segformer_train", seconds)["ours"]["ratio"] == pytest.approx(1.5)
    assert found("train", {"ours": [1]})["ours"]["ratio"] is None


def test_a_failing_contender_is_named_and_the_files_hold_the_rest(monkeypatch, tmp_path, capsys):
    def call(module, worker, flags, scratch, cores, environment):
        if worker == "train_stock":
            raise cpu.Failed("status 1, out of memory")
        return {"seconds": 1.0 if worker == "train_kernels" else 2.0}

    monkeypatch.setattr(cpu, "call", call)
    monkeypatch.setattr(cpu, "missing_packages", lambda rows: {})
    args = argparse.Namespace(only=["segformer_train"], rounds=2, steps=1, images=None, int8=None, out=tmp_path)
    assert cpu.measure(args) == 1
    printed = capsys.readouterr().out
    assert "segformer_train, MindSpore, stock operators: failed, status 1, out of memory" in printed
    stored = {row["label"]: row for row in json.loads((tmp_path / "cpu.json").read_text())["results"]}
    assert stored["ours"]["values"] == [1.0, 1.0] and stored["ours"]["ratio"] == 2.0
    assert "MindSpore, stock operators" not in stored
    assert "| ours " in (tmp_path / "cpu.md").read_text() and (tmp_path / "cpu.png").stat().st_size > 5000


@pytest.mark.parametrize("argv", [["--only", "nothing"], ["--rounds", "0"], ["--int8", "missing.onnx"]])
def test_wrong_command_lines_end_with_status_two(argv, capsys):
    assert cpu.main(argv) == 2
    assert "error: " in capsys.readouterr().err
