"""Every command that the original documents print, as it stands there: accepted, or answered in our documents.

seed_commands.txt has a line per command: the document and its line, the command, and for one that cannot work as it is
printed the sentence of our documents that says so.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from src import zoo
from src.engine.errors import ZooError
from tests.conftest import ROOT, write_images
from tools import convert_dataset, convert_model, hccl_tools

LINES = [line.split("\t") for line in (Path(__file__).with_name("seed_commands.txt")).read_text("utf-8").splitlines()]
FOLDERS = {"zh": "scripts", "en": "scripts", "quant": "scripts/mobilenetv2_quant", "segformer": "scripts/segformer"}
TOOLS = {
    "tools/convert_dataset.py": convert_dataset,
    "tools/convert_model.py": convert_model,
    "hccl_tools.py": hccl_tools,
}
CITYSCAPES = {"[CONFIG_FILE]": "/segformer/config/segformer.b0.512x1024.city.yaml", "[DATASET_PATH]": "data/cityscapes"}
MEANT = {  # by what the documents write in brackets
    "[Ascend]": "Ascend",
    "[GPU]": "GPU",
    "[PLATFORM]": "CPU",
    "[CONFIG_PATH]": "default_config.yaml",
    "[DEVICE_NUM]": "8",
    "[DEVICE_ID]": "0",
    "[DEVICE_ID_LIST]": "1,2",
    "[VISIABLE_DEVICES(0,1,2,3,4,5,6,7)]": "0,1,2,3,4,5,6,7",
    "[RANK_TABLE_FILE]": "hccl.json",
    "[DATASET_PATH]": "dataset",
    "[TRAIN_DATASET_PATH]": "dataset/train",
    "[VAL_DATASET_PATH]": "dataset/val",
    "[FREEZE_LAYER]": "none",
    "[FILTER_HEAD]": "True",
    "[RUN_EVAL]": "False",
    "[EXPORT_FORMAT]": "MINDIR",
    "[DATA_PATH]": "dataset/val",
    "[LABEL_PATH]": "label.txt",
    "[MINDIR_PATH]": "x.mindir",
    "[DVPP]": "DVPP",
    "[OUTPUT_PATH]": "infer_result",
}
NO_TOOLKIT = "error: no CANN toolkit found"  # run_infer_310.sh, once its arguments are right


def meant(document: str, command: str, home: Path) -> str:
    """The command with something in place of what is in brackets, and all absolute paths below `home`."""
    command = command.replace("(optional)", "").replace("\\（可选）", "")
    places = {**MEANT, **CITYSCAPES} if document == "segformer" else MEANT
    if document == "segformer":
        places = {**places, "[CONFIG_PATH]": CITYSCAPES["[CONFIG_FILE]"]}
    for name, value in places.items():
        command = command.replace(name, value)
    command = re.sub(r"\[\w*CKPT_PATH\]|\[CHECKPOINT_PATH\]", "x.ckpt", command)
    assert not re.search(r"\[[A-Z]", command), command
    return re.sub(r"(?<= )(?:~|/home|/path|/segformer(?!/config))(?=/)", str(home), command)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with what the commands name, and no toolkit of Ascend's."""
    for split in ("dataset/train", "dataset/val", "imagenet/train", "imagenet/val", "DataSet/ImageNet_Original"):
        write_images(tmp_path / split, 1)
    for split in ("train", "val"):
        (tmp_path / "data/cityscapes/leftImg8bit" / split).mkdir(parents=True)
    polygons = tmp_path / "data/cityscapes/gtFine/val/ulm/ulm_0_gtFine_polygons.json"
    polygons.parent.mkdir(parents=True)
    polygons.write_text('{"imgHeight": 4, "imgWidth": 8, "objects": []}')
    for name in ("x.mindir", "label.txt", "pretrained/mit_b0.pth", "pretrained/ms_pretrained_b0.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, cards in {"hccl": 8, "hccl_config": 8, "hccl_8p": 8, "hccl_4p_0123_x.x.x.x": 4}.items():
        devices = [{"device_id": str(n), "device_ip": f"10.0.0.{n}", "rank_id": str(n)} for n in range(cards)]
        table = {"server_count": "1", "server_list": [{"server_id": "a", "device": devices}], "status": "completed"}
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs(document: str, command: str, place: Path) -> str:
    """Why a command is refused; empty if it is accepted."""
    try:
        interpreter, script, *words = shlex.split(meant(document, command, place))
    except ValueError as error:
        return str(error)
    for word in words:
        if word.endswith(".ckpt") and "=" not in word:
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()
    Path("x.ckpt").touch()
    if interpreter == "python":
        return parsed(script, words)
    environment = {**os.environ, "PYTHON": sys.executable, "DRY_RUN": "1", "HOME": str(place), "PLATFORM": "Ascend"}
    environment.pop("ASCEND_HOME_PATH", None)
    path = ROOT / FOLDERS[document] / script
    done = subprocess.run([interpreter, path, *words], env=environment, capture_output=True, text=True, timeout=300)
    is_last_step = script == "run_infer_310.sh" and NO_TOOLKIT in done.stderr
    return "" if done.returncode == 0 or is_last_step else f"status {done.returncode}: {done.stderr}"


def parsed(script: str, words: list[str]) -> str:
    """The same for a Python script."""
    try:
        if script in TOOLS:
            TOOLS[script].arguments(words)
        elif (ROOT / script).is_file():
            zoo.configure(Path(script).stem, words)
        else:
            return f"{script} is no script"
    except (ZooError, SystemExit) as error:
        return f"refused: {error}"
    return ""


def test_all_four_documents_are_there():
    assert {line[0].split(":")[0] for line in LINES} == set(FOLDERS)
    assert len(LINES) == 109 and len({line[0] for line in LINES}) == 109


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_command_is_accepted_or_answered(line, place):
    where, command, *answer = line
    refusal = runs(where.split(":")[0], command, place)
    if answer:
        documents = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*/*.md"))
        texts = (" ".join(document.read_text("utf-8").split()) for document in documents)
        assert refusal, "it works as it is printed, so it needs no answer"
        assert any(answer[0] in text for text in texts), f"no document says: {answer[0]}"
    else:
        assert not refusal
