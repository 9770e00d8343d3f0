"""How the quick starts of the digits end."""

from __future__ import annotations

import pytest

import quickstart
import quickstart_quant


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


@pytest.mark.parametrize("status", [0, 1])
def test_integers_that_score_too_little_end_it_with_status_1(status, monkeypatch, capfd):
    comparison = quickstart_quant.COMPARISON
    assert comparison[comparison.index("--least_top1") + 1] == str(quickstart.LEAST_TOP1)
    monkeypatch.setattr(quickstart_quant, "COMMANDS", ())
    monkeypatch.setattr(quickstart_quant, "COMPARISON", ("-c", f"raise SystemExit({status})"))
    monkeypatch.setattr(quickstart_quant, "FLOAT", quickstart.ROOT / "README.md")  # what is there is used again
    monkeypatch.setattr(quickstart, "ONNX", quickstart.ROOT / "README.md")
    monkeypatch.setattr(quickstart_quant, "size", lambda file: "2.6 MB")
    monkeypatch.chdir(quickstart.ROOT)
    if status:
        with pytest.raises(SystemExit) as ended:
            quickstart_quant.main([])
        assert ended.value.code == 1
        assert capfd.readouterr().err.endswith("remove quickstart and run the quick start again\n")
    else:
        assert quickstart_quant.main([]) == 0
