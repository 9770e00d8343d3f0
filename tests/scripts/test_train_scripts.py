"""run_train.sh, run_eval.sh and run_train_nfs_cache.sh as users call them, with stand-ins for what they start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.launch import rank_table
from tests.conftest import ROOT, default_signals, write_images
from tests.waiting import wait_until

WAIT = 180  # seconds for anything that takes less than one on an idle machine
SCRIPTS = ROOT / "scripts"
TRAIN, EVAL, NFS = "run_train.sh", "run_eval.sh", "run_train_nfs_cache.sh"
SESSION = "3159812910"

# Writes down what it is called with; LAUNCH_STATUS is its status, LAUNCH_WAIT makes it wait for a signal.
PYTHON = f"""#!{sys.executable} -S
import json, os, signal, sys, time
variables = {{name: os.environ.get(name) for name in ("PYTHONPATH", "MS_CACHE_HOST", "MS_CACHE_PORT")}}
def note(**what):
    with open(os.environ["CALLS"], "a") as out:
        print(json.dumps(what), file=out)
def stop(number, frame):
    note(signal=number)
    sys.exit(40 + number)
if sys.argv[1].endswith("cache_server.py"):  # no stand-in: it is what the tests of the cache are about
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
if "LAUNCH_WAIT" in os.environ:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
note(python=sys.argv[1:], cwd=os.getcwd(), **variables)
if "--dry_run" in sys.argv:
    sys.exit(int(os.environ.get("CHECK_STATUS", "0")))
if sys.argv[1].endswith("cache_memory.py"):
    sys.exit(int(os.environ.get("MEMORY_STATUS", "0")))
while "LAUNCH_WAIT" in os.environ:
    time.sleep(0.05)
sys.exit(int(os.environ.get("LAUNCH_STATUS", "0")))
"""

# MindSpore's dataset-cache: CACHE is new, running, broken, slow or without sessions.
CACHE_TOOL = f"""#!{sys.executable} -S
import json, os, sys, time
with open(os.environ["CALLS"], "a") as out:
    print(json.dumps({{"cache": sys.argv[1:]}}), file=out)
kind, action = os.environ.get("CACHE", "new"), sys.argv[1]
if kind == "slow" and action == "--start":
    time.sleep(5)
if kind == "running" and action == "--start":
    sys.exit(print("Duplicate key. Cache server is already up and running") or 1)
if kind == "broken" and action == "--start":
    sys.exit(print("Port is taken by somebody else.") or 1)
if kind == "sessionless" and action == "--generate_session":
    sys.exit(print("Network error. GRPC Code 14") or 1)
if action == "--generate_session":
    print("Session created for server on port 50052: {SESSION}")
"""


class Place:
    """A working directory with a space in its name: images, a checkpoint, rank tables, and the stand-ins beside it."""

    def __init__(self, root: Path):
        self.folder, self.bin, self.calls_file = root / "work here", root / "bin", root / "calls"
        self.bin.mkdir()
        for name, text in (("python", PYTHON), ("dataset-cache", CACHE_TOOL)):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        write_images(self.folder / "my data", 1)
        (self.folder / "a b.ckpt").write_text("")
        (self.folder / "my.yaml").write_text("batch_size: 8\n")
        for count in (1, 4, 8):
            made = rank_table.one_server("10.0.0.1", [(card, f"192.168.0.{card}") for card in range(count)])
            (self.folder / f"hccl {count}p.json").write_text(rank_table.as_json(made))
        self.before = self.files()

    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*"))

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**inherited, "PYTHON": str(self.bin / "python"), "CALLS": str(self.calls_file), **more}

    def run(self, script: str, *arguments: str, shell=("bash",), **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*shell, str(SCRIPTS / script), *arguments],
            cwd=self.folder,
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT,
        )

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(SCRIPTS / script), *arguments],
            cwd=self.folder,
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,
        )

    def plan(self, script: str, *arguments: str, **environment: str) -> list[dict]:
        """What DRY_RUN=1 prints, from the real launcher."""
        result = self.run(script, *arguments, DRY_RUN="1", PYTHON=sys.executable, **environment)
        assert (result.returncode, result.stderr) == (0, "")
        assert self.files() == self.before
        return [json.loads(line) for line in result.stdout.splitlines()]

    def calls(self) -> list[dict]:
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def steps(self) -> list[str]:
        """One word per call: check, memory, launch, a signal's number, or the cache tool's action."""
        words = []
        for call in self.calls():
            if "cache" in call:
                words.append(call["cache"][0])
            elif "signal" in call:
                words.append(str(call["signal"]))
            elif "--dry_run" in call["python"]:
                words.append("check")
            else:
                words.append("memory" if call["python"][0].endswith("cache_memory.py") else "launch")
        return words

    def until(self, *steps: str) -> None:
        wait_until(lambda: self.steps()[-len(steps) :] == list(steps), f"the steps {steps}")


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def refused(place: Place, result: subprocess.CompletedProcess, sentence: str) -> None:
    """Status 2, the sentence and the usage on standard error, nothing written."""
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    first, *usage = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert sentence in first
    assert usage[0].startswith("Usage: bash run_")
    assert "Traceback" not in result.stderr
    assert place.files() == place.before


FINE_TUNE = ("a b.ckpt", "none", "True")
FINE_TUNE_FLAGS = ["--pretrain_ckpt", "a b.ckpt", "--freeze_layer", "none", "--filter_head", "True"]
HEAD = ("a b.ckpt", "backbone")
HEAD_FLAGS = ["--pretrain_ckpt", "a b.ckpt", "--freeze_layer", "backbone"]
EIGHT = ("8", "0,1,2,3,4,5,6,7")
# what comes after the data set in the READMEs, and what train.py gets for it
ENDINGS = [((), []), (FINE_TUNE, FINE_TUNE_FLAGS), (HEAD, HEAD_FLAGS)]


class TestForms:
    """Every documented line, through the real launcher."""

    @pytest.mark.parametrize(("script", "config"), [(TRAIN, ()), (TRAIN, ("my.yaml",)), (NFS, ())])
    @pytest.mark.parametrize(("more", "flags"), ENDINGS)
    def test_ascend(self, place, script, config, more, flags):
        rows = place.plan(script, "Ascend", *config, *EIGHT, "hccl 8p.json", "my data", *more)
        assert [(row["rank"], row["env"]["DEVICE_ID"], row["env"]["RANK_SIZE"]) for row in rows] == [
            (rank, str(rank), "8") for rank in range(8)
        ]
        assert {row["env"]["RANK_TABLE_FILE"] for row in rows} == {str(place.folder / "hccl 8p.json")}
        assert [row["log"] for row in rows] == [str(place.folder / f"train/rank{i}/log{i}.log") for i in range(8)]
        expected = [str(ROOT / "train.py"), "--platform", "Ascend"]
        expected += ["--config_path", "my.yaml"] if config else []
        expected += ["--dataset_path", "my data", *flags]
        expected += ["--enable_cache", "True", "--cache_session_id", "SESSION"] if script == NFS else []
        assert rows[0]["argv"][1:] == [*expected, "--run_distribute", "True"]

    @pytest.mark.parametrize("cards", [(3, 4), tuple(range(16))])
    def test_newer_ascend_servers(self, place, cards):
        """Other cards than the groups of four of Ascend 910 are used with ANY_TOPOLOGY=1, and refused without."""
        made = rank_table.one_server("10.0.0.1", [(card, f"192.168.0.{card}") for card in cards])
        (place.folder / "newer.json").write_text(rank_table.as_json(made))
        place.before = place.files()
        request = ("Ascend", str(len(cards)), ",".join(map(str, cards)), "newer.json", "my data")
        rows = place.plan(TRAIN, *request, ANY_TOPOLOGY="1")
        assert [(row["rank"], row["env"]["DEVICE_ID"]) for row in rows] == [
            (rank, str(card)) for rank, card in enumerate(cards)
        ]
        for environment in ({}, {"ANY_TOPOLOGY": "0"}):
            result = place.run(TRAIN, *request, PYTHON=sys.executable, **environment)
            refused(place, result, "a newer server is used with ANY_TOPOLOGY=1")

    @pytest.mark.parametrize(("more", "flags"), ENDINGS)
    def test_gpu(self, place, more, flags):
        rows = place.plan(TRAIN, "GPU", *EIGHT, "my data", *more)
        assert {(row["engine"], row["world"], row["env"]["CUDA_VISIBLE_DEVICES"]) for row in rows} == {
            ("mpirun", 8, "0,1,2,3,4,5,6,7")
        }
        assert [Path(row["log"]).name for row in rows] == ["train.log", *(f"log{i}.log" for i in range(1, 8))]
        expected = ["--platform", "GPU", "--dataset_path", "my data", *flags, "--run_distribute", "True"]
        assert rows[0]["argv"][2:] == expected

    @pytest.mark.parametrize(("more", "flags"), ENDINGS)
    def test_cpu(self, place, more, flags):
        (row,) = place.plan(TRAIN, "CPU", "my data", *more)
        assert (row["engine"], row["log"]) == ("single", str(place.folder / "train.log"))
        assert row["argv"][2:] == ["--platform", "CPU", "--dataset_path", "my data", *flags]

    def test_one_ascend_card_without_a_rank_table(self, place):
        (row,) = place.plan(TRAIN, "Ascend", "default_config.yaml", "1", "3", "None", "my data")
        assert (row["engine"], row["env"]["DEVICE_ID"]) == ("single", "3")
        assert "RANK_TABLE_FILE" in row["unset"]
        assert row["log"] == str(place.folder / "train/rank0/log0.log")
        assert row["argv"][4:6] == ["--config_path", str(ROOT / "default_config.yaml")]

    def test_the_seeds_boost_configuration(self, place):
        rows = place.plan(TRAIN, "Ascend", "default_config_boost.yaml", *EIGHT, "hccl 8p.json", "my data")
        assert {row["argv"][5] for row in rows} == {str(ROOT / "default_config_boost.yaml")}

    def test_two_cpu_workers_and_flags_for_train(self, place):
        rows = place.plan(TRAIN, "CPU", "my data", "--", "--epoch_size", "1", DEVICE_NUM="2")
        assert {(row["engine"], row["world"]) for row in rows} == {("msrun", 2)}
        assert rows[0]["argv"][-4:] == ["--epoch_size", "1", "--run_distribute", "True"]

    def test_ascend_with_msrun_on_two_nodes(self, place):
        nodes = {"ENGINE": "msrun", "NODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "9000"}
        rows = place.plan(TRAIN, "Ascend", *EIGHT, "None", "my data", **nodes)
        assert [row["rank"] for row in rows] == list(range(8, 16))
        assert {"--master_addr=10.0.0.1", "--master_port=9000", "--node_rank=1"} < set(rows[0]["starter"])

    @pytest.mark.parametrize(
        ("platform", "environment", "env"),
        [
            ("Ascend", {}, {"DEVICE_ID": "0"}),
            ("Ascend", {"DEVICE_ID": "5"}, {"DEVICE_ID": "5"}),
            ("GPU", {"DEVICE_ID": "5"}, {"CUDA_VISIBLE_DEVICES": "5", "DEVICE_ID": "0"}),
            ("GPU", {"CUDA_VISIBLE_DEVICES": "3"}, {}),  # the user's own choice stays
            ("CPU", {}, {}),
        ],
    )
    def test_eval(self, place, platform, environment, env):
        (row,) = place.plan(EVAL, platform, "my data", "a b.ckpt", **environment)
        expected = ["--platform", platform, "--dataset_path", "my data", "--pretrain_ckpt", "a b.ckpt"]
        assert row["argv"][1:] == [str(ROOT / "eval.py"), *expected]
        assert (row["env"], row["log"]) == ({"PYTHONUNBUFFERED": "1", **env}, str(place.folder / "eval.log"))

    def test_eval_with_a_config_and_flags(self, place):
        (row,) = place.plan(EVAL, "CPU", "my data", "a b.ckpt", "my.yaml", "--", "--per_class_csv", "x y.csv")
        assert row["argv"][2:4] == ["--config_path", "my.yaml"]
        assert row["argv"][-2:] == ["--per_class_csv", "x y.csv"]


WRONG_TRAIN = [
    ([], "platform is ''; it has to be Ascend, GPU or CPU"),
    (["cpu", "my data"], "platform is 'cpu'"),
    (["TPU", "my data"], "platform is 'TPU'"),
    (["CPU"], "no DATASET_PATH"),
    (["CPU", "absent"], "DATASET_PATH 'absent' is not a folder"),
    (["CPU", "a b.ckpt"], "DATASET_PATH 'a b.ckpt' is not a folder"),
    (["CPU", "my data", "a b.ckpt"], "CKPT_PATH is given without FREEZE_LAYER"),
    (["CPU", "my data", "absent.ckpt", "none"], "CKPT_PATH 'absent.ckpt' is not a file"),
    (["CPU", "my data", "backbone", "a b.ckpt"], "CKPT_PATH 'backbone' is not a file"),
    (["CPU", "my data", "a b.ckpt", "head"], "FREEZE_LAYER is 'head'; it has to be none or backbone"),
    (["CPU", "my data", "a b.ckpt", "none", "yes"], "FILTER_HEAD is 'yes'; it has to be True or False"),
    (["CPU", "my data", "a b.ckpt", "none", "True", "more"], "too many arguments, 'more' first"),
    (["GPU", "my data"], "1 arguments after the platform; at least 3 are needed"),
    (["GPU", "eight", "0", "my data"], "DEVICE_NUM is 'eight'; it has to be a whole number"),
    (["GPU", "-1", "0", "my data"], "DEVICE_NUM is '-1'"),
    (["Ascend", "8", "0,1,2,3,4,5,6,7", "my data"], "3 arguments after the platform and CONFIG_PATH"),
    (["Ascend", "absent.yaml", *EIGHT, "hccl 8p.json", "my data"], "CONFIG_PATH 'absent.yaml' is not a file"),
    (["Ascend", "my.cfg", *EIGHT, "hccl 8p.json", "my data"], "DEVICE_NUM is 'my.cfg'"),
]
WRONG_LAUNCH = [  # what the launcher's own check finds
    (["GPU", "0", "0", "my data"], {}, "DEVICE_NUM is 0"),
    (["GPU", "2", "0,1,2", "my data"], {}, "DEVICE_NUM is 2 and the device list 0,1,2 names 3"),
    (["Ascend", *EIGHT, "absent.json", "my data"], {}, "cannot read rank table absent.json"),
    (["Ascend", *EIGHT, "my.yaml", "my data"], {}, "rank table my.yaml is not JSON"),
    (["Ascend", *EIGHT, "None", "my data"], {}, "RANK_TABLE_FILE is None and DEVICE_NUM 8"),
    (["Ascend", "4", "0,1,2,3", "hccl 8p.json", "my data"], {}, "DEVICE_NUM is 4 and rank table hccl 8p.json names 8"),
    (["Ascend", "4", "4,5,6,7", "hccl 4p.json", "my data"], {}, "the device list is 4,5,6,7 and rank table"),
    (["CPU", "my data"], {"DEVICE_NUM": "17"}, "DEVICE_NUM is 17; it has to be 1 to 16"),
    (["CPU", "my data"], {"ENGINE": "horovod"}, "argument --engine: invalid choice"),
    (["CPU", "my data"], {"NODES": "2", "NODE_RANK": "2"}, "node_rank is 2 of 2 nodes"),
]
WRONG_EVAL = [
    ([], "platform is ''"),
    (["TPU", "my data", "a b.ckpt"], "platform is 'TPU'"),
    (["CPU", "my data"], "2 arguments; 3 or 4 are needed"),
    (["CPU", "my data", "a b.ckpt", "my.yaml", "more"], "5 arguments; 3 or 4 are needed"),
    (["CPU", "absent", "a b.ckpt"], "DATASET_PATH 'absent' is not a folder"),
    (["CPU", "my data", "absent"], "CHECKPOINT_PATH 'absent' is not a file"),
    (["CPU", "my data", "a b.ckpt", "absent.yaml"], "CONFIG_PATH 'absent.yaml' is not a file"),
]


class TestWrongArguments:
    @pytest.mark.parametrize("script", [TRAIN, NFS])
    @pytest.mark.parametrize(("arguments", "sentence"), WRONG_TRAIN)
    def test_train(self, place, script, arguments, sentence):
        refused(place, place.run(script, *arguments), sentence)
        assert place.calls() == []

    @pytest.mark.parametrize(("arguments", "sentence"), WRONG_EVAL)
    def test_eval(self, place, arguments, sentence):
        refused(place, place.run(EVAL, *arguments), sentence)
        assert place.calls() == []

    @pytest.mark.parametrize(("arguments", "environment", "sentence"), WRONG_LAUNCH)
    def test_what_the_launcher_finds(self, place, arguments, environment, sentence):
        result = place.run(TRAIN, *arguments, **{"PYTHON": sys.executable, **environment})
        refused(place, result, sentence)

    @pytest.mark.parametrize(
        ("script", "variable", "value"),
        [
            (EVAL, "DEVICE_ID", "one"),
            (TRAIN, "DEVICE_NUM", "two"),
            (NFS, "CACHE_PORT", "x"),
            (NFS, "CACHE_SESSION", "x"),
            (NFS, "CACHE_SPILL_DIR", "absent"),
        ],
    )
    def test_variables(self, place, script, variable, value):
        arguments = ["CPU", "my data"] + (["a b.ckpt"] if script == EVAL else [])
        refused(place, place.run(script, *arguments, **{variable: value}), f"{variable} ")
        assert place.calls() == []


class TestRunning:
    def test_the_request_is_checked_and_then_run_where_the_user_is(self, place):
        result = place.run(TRAIN, "CPU", "my data", LAUNCH_STATUS="7", PYTHONPATH="mine")
        assert (result.returncode, result.stdout, result.stderr) == (7, "", "")
        check, run = place.calls()
        assert run["python"] == [
            str(ROOT / "src/launch/__main__.py"),
            *("--platform", "CPU", "--device_num", "1", "--first_log", "train.log"),
            *(str(ROOT / "train.py"), "--platform", "CPU", "--dataset_path", "my data"),
        ]
        assert check["python"] == [run["python"][0], "--dry_run", *run["python"][1:]]
        assert (run["cwd"], run["PYTHONPATH"]) == (str(place.folder), f"{ROOT}:mine")

    @pytest.mark.parametrize(("check", "usage"), [("1", False), ("2", True)])
    def test_a_refused_request_is_not_run(self, place, check, usage):
        result = place.run(TRAIN, "CPU", "my data", CHECK_STATUS=check)
        assert (result.returncode, place.steps()) == (int(check), ["check"])
        assert result.stderr.startswith("Usage: ") == usage

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_launcher_takes_the_scripts_place_and_gets_its_signals(self, place, number):
        process = place.start(TRAIN, "CPU", "my data", LAUNCH_WAIT="1")
        place.until("launch")
        process.send_signal(number)
        assert process.wait(WAIT) == 40 + number

    @pytest.mark.parametrize("shell", [("sh",), ("bash", "--posix"), ("dash",)])
    @pytest.mark.parametrize("script", [TRAIN, EVAL, NFS])
    def test_sh_instead_of_bash(self, place, shell, script):
        if not shutil.which(shell[0]):
            pytest.skip(f"no {shell[0]}")
        arguments = ["CPU", "my data"] + (["a b.ckpt"] if script == EVAL else [])
        result = place.run(script, *arguments, shell=shell)
        assert (result.returncode, result.stderr) == (0, "")
        assert "launch" in place.steps()

    def test_from_the_scripts_folder_and_with_cdpath(self, place):
        result = subprocess.run(
            ["bash", "scripts/run_train.sh", "CPU", str(place.folder / "my data")],
            cwd=ROOT,
            env=place.environment({"CDPATH": str(ROOT)}),
            capture_output=True,
            timeout=WAIT,
        )
        assert result.returncode == 0
        assert place.calls()[-1]["python"][0] == str(ROOT / "src/launch/__main__.py")

    def test_a_package_called_src_in_the_working_directory_is_not_taken_for_ours(self, place):
        (place.folder / "src").mkdir()
        (place.folder / "src/__init__.py").write_text("raise SystemExit('the wrong src')\n")
        place.before = place.files()
        assert len(place.plan(TRAIN, "CPU", "my data")) == 1

    @pytest.mark.parametrize(("script", "status"), [(TRAIN, "0"), (TRAIN, "3"), (EVAL, "0")])
    def test_in_the_background(self, place, script, status):
        arguments = ["CPU", "my data"] + (["a b.ckpt"] if script == EVAL else [])
        result = place.run(script, *arguments, BACKGROUND="1", LAUNCH_STATUS=status)
        place.until("check", "launch")
        assert (result.returncode, result.stderr) == (0, "")
        words = result.stdout.split()
        assert words[:5] == ["running", "in", "the", "background:", "pid"]
        assert words[5].strip(",").isdigit()
        assert result.stdout.endswith(f"logs below {place.folder}, errors in background.log\n")

    def test_the_printed_pid_is_the_launchers(self, place):
        result = place.run(TRAIN, "CPU", "my data", BACKGROUND="1", LAUNCH_WAIT="1")
        place.until("launch")
        os.kill(int(result.stdout.split()[5].strip(",")), signal.SIGTERM)
        place.until("launch", str(int(signal.SIGTERM)))

    def test_wrong_arguments_in_the_background_are_said_at_once(self, place):
        refused(place, place.run(TRAIN, "CPU", "absent", BACKGROUND="1"), "is not a folder")

    def test_errors_of_a_run_in_the_background_are_kept(self, place):
        arguments = ("GPU", "2", "0,1", "my data")
        environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "BACKGROUND": "1"}
        if shutil.which("mpirun", path=environment["PATH"] + ":" + str(Path(sys.executable).parent)):
            pytest.skip("there is an mpirun")
        assert place.run(TRAIN, *arguments, **environment).returncode == 0
        log = place.folder / "background.log"
        wait_until(lambda: log.exists() and log.read_text().endswith("--engine msrun\n"), "the error in the log")
        assert "error: mpirun is not installed" in log.read_text()


class TestCache:
    """run_train_nfs_cache.sh around a stand-in for MindSpore's server."""

    ARGUMENTS = ("CPU", "my data")
    START = ("check", "memory", "--start", "--generate_session", "launch")

    def test_the_server_is_started_used_and_stopped(self, place):
        result = place.run(NFS, *self.ARGUMENTS, CACHE_PORT="50999")
        assert (result.returncode, result.stderr) == (0, "")
        assert place.steps() == [*self.START, "--stop"]
        launch = place.calls()[4]
        assert launch["python"][-4:] == ["--enable_cache", "True", "--cache_session_id", SESSION]
        assert (launch["MS_CACHE_HOST"], launch["MS_CACHE_PORT"]) == ("127.0.0.1", "50999")
        assert all(call["cache"][-2:] == ["-p", "50999"] for call in place.calls() if "cache" in call)
        assert place.calls()[1]["python"][1:] == ["my data"]
        assert "dataset cache server started on port 50999, logs in /tmp/mindspore/cache/log" in result.stdout

    def test_the_training_fails(self, place):
        result = place.run(NFS, *self.ARGUMENTS, LAUNCH_STATUS="5")
        assert (result.returncode, place.steps()) == (5, [*self.START, "--stop"])

    def test_a_server_that_runs_already_is_used_and_stays(self, place):
        result = place.run(NFS, *self.ARGUMENTS, CACHE="running")
        assert (result.returncode, place.steps()) == (0, [*self.START, "--destroy_session"])
        assert place.calls()[-1]["cache"] == ["--destroy_session", SESSION, "-p", "50052"]

    @pytest.mark.parametrize("keep", ["0", "1"])
    def test_a_server_that_cannot_start(self, place, keep):
        result = place.run(NFS, *self.ARGUMENTS, CACHE="broken", KEEP_CACHE=keep)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            "error: the dataset cache server did not start: Port is taken by somebody else.; "
            "its logs are in /tmp/mindspore/cache/log\n"
        )
        assert place.steps() == ["check", "memory", "--start"]

    def test_a_server_without_a_session_is_stopped(self, place):
        result = place.run(NFS, *self.ARGUMENTS, CACHE="sessionless", KEEP_CACHE="1")
        assert result.returncode == 1
        assert result.stderr == "error: no dataset cache session: Network error. GRPC Code 14\n"
        assert place.steps() == [*self.START[:-1], "--stop"]

    @pytest.mark.parametrize("status", ["0", "5"])
    def test_a_cache_that_is_kept(self, place, status):
        result = place.run(NFS, *self.ARGUMENTS, KEEP_CACHE="1", LAUNCH_STATUS=status)
        assert (result.returncode, place.steps()) == (int(status), list(self.START))
        assert f"the dataset cache stays: CACHE_PORT=50052 CACHE_SESSION={SESSION}; stop it with" in result.stdout

    def test_a_session_that_was_kept_is_used_without_asking_for_memory_again(self, place):
        result = place.run(NFS, *self.ARGUMENTS, CACHE="running", CACHE_SESSION="77")
        assert (result.returncode, place.steps()) == (0, ["check", "--start", "launch"])
        assert place.calls()[-1]["python"][-1] == "77"

    def test_data_that_do_not_fit(self, place):
        result = place.run(NFS, *self.ARGUMENTS, MEMORY_STATUS="1")
        assert (result.returncode, place.steps()) == (1, ["check", "memory"])

    def test_a_folder_for_what_memory_cannot_hold(self, place):
        spill = place.folder / "spill here"
        spill.mkdir()
        assert place.run(NFS, *self.ARGUMENTS, CACHE_SPILL_DIR="spill here").returncode == 0
        calls = place.calls()
        assert calls[1]["python"][1:] == ["my data", "--spill", "spill here"]
        assert calls[2]["cache"] == ["--start", "-s", "spill here", "-p", "50052"]
        assert calls[4]["python"][-2:] == ["--cache_spilling", "True"]

    def test_no_cache_tool(self, place):
        (place.bin / "dataset-cache").unlink()
        result = place.run(NFS, *self.ARGUMENTS, PATH="/usr/bin:/bin")
        assert (result.returncode, place.steps()) == (1, ["check", "memory"])
        assert result.stderr == "error: dataset-cache is not installed; it comes with MindSpore\n"

    def test_its_older_name(self, place):
        (place.bin / "dataset-cache").rename(place.bin / "cache_admin")
        assert place.run(NFS, *self.ARGUMENTS).returncode == 0
        assert place.steps() == [*self.START, "--stop"]

    @pytest.mark.parametrize(
        ("number", "passed_on"),
        [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)],
    )
    def test_signals_reach_the_training_and_the_server_is_stopped(self, place, number, passed_on):
        process = place.start(NFS, *self.ARGUMENTS, LAUNCH_WAIT="1")
        place.until("launch")
        process.send_signal(number)
        assert process.wait(WAIT) == 40 + passed_on
        assert place.steps() == [*self.START, str(int(passed_on)), "--stop"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_while_the_server_starts(self, place, number):
        process = place.start(NFS, *self.ARGUMENTS, CACHE="slow")
        place.until("--start")
        process.send_signal(number)
        assert process.wait(WAIT) == 128 + number
        assert place.steps() == ["check", "memory", "--start", "--generate_session", "--stop"]

    def test_dry_run_starts_nothing(self, place):
        assert place.run(NFS, *self.ARGUMENTS, DRY_RUN="1").returncode == 0
        assert place.steps() == ["check"]
        assert place.files() == place.before

    def test_in_the_background(self, place):
        result = place.run(NFS, *self.ARGUMENTS, BACKGROUND="1")
        assert (result.returncode, result.stderr) == (0, "")
        assert "running in the background: pid " in result.stdout
        place.until("--stop")
        assert place.steps() == ["check", "memory", *self.START, "--stop"]
