"""How the digits' quick start ends."""

from __future__ import annotations

import pytest

import quickstart


@pytest.mark.parametrize(
    ("top1", "agree", "status", "says"),
    [
        (0.96, 360, 0, ""),
        (0.9599, 360, 1, "error: top-1 is 0.9599, less than 0.96; remove quickstart and run"),
        (0.99, 359, 1, "error: digits.onnx gives another answer than the network to 1 digits; remove"),
    ],
)
def test_a_number_that_is_too_low_ends_it_with_status_1(top1, agree, status, says, monkeypatch, capsys):
    network = {"top1": top1, "top5": 1.0, "samples": 360, "agree": 360}
    scores = {"checkpoint": network, "digits.onnx": {**network, "agree": agree}}
    monkeypatch.setattr(quickstart, "COMMANDS", ())
    monkeypatch.setattr(quickstart, "compare", lambda: scores)
    monkeypatch.setattr(quickstart, "summary", lambda scores, seconds: "table")
    monkeypatch.setattr(quickstart.environment, "prepare", lambda: None)
    monkeypatch.chdir(quickstart.ROOT)
    assert quickstart.main([]) == status
    output, errors = capsys.readouterr()
    assert output.endswith("table\n")
    assert errors.startswith(says) if says else not errors
