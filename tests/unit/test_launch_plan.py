"""What would run: the plans of every documented form, every refusal, and the sharing of cores; no MindSpore."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.engine.errors import UsageError
from src.launch import hccl, plan, rank_table
from src.launch.plan import Request
from src.launch.rank_table import Device, RankTable, Server
from tests.conftest import ROOT, run_command

TRAIN = str(ROOT / "train.py")
CORES = list(range(32))


def request(**changes) -> Request:
    return replace(Request(script=TRAIN, arguments=("--dataset_path", "a b")), **changes)


def write_table(folder: Path, servers: int = 1, cards=range(8)) -> Path:
    made = []
    for index in range(servers):
        devices = [
            Device(card, f"192.168.{index}.{card}", index * len(cards) + number) for number, card in enumerate(cards)
        ]
        made.append(Server(f"10.0.0.{index + 1}", tuple(devices)))
    path = folder / "hccl config.json"
    path.write_text(rank_table.as_json(RankTable(tuple(made), "1.0", "completed", servers)))
    return path


def column(made: plan.LaunchPlan, *names: str) -> list[tuple]:
    return [tuple(rank.env.get(name) for name in names) for rank in made.ranks]


class TestSingle:
    @pytest.mark.parametrize(
        ("changes", "env"),
        [
            ({"platform": "CPU"}, {}),
            ({"platform": "GPU"}, {}),
            ({"platform": "GPU", "devices": "3"}, {"CUDA_VISIBLE_DEVICES": "3", "DEVICE_ID": "0"}),
            ({"platform": "Ascend"}, {"DEVICE_ID": "0"}),
            ({"platform": "Ascend", "devices": "5", "rank_table": "None"}, {"DEVICE_ID": "5"}),
        ],
    )
    def test_one_process_without_an_engine(self, tmp_path, monkeypatch, changes, env):
        monkeypatch.chdir(tmp_path)
        made = plan.make(request(first_log="train.log", **changes), CORES)
        (rank,) = made.ranks
        assert (made.engine, made.world, made.starter) == ("single", 1, ())
        assert rank.argv == (sys.executable, TRAIN, "--dataset_path", "a b")
        assert rank.env == {"PYTHONUNBUFFERED": "1", **env}
        assert {"RANK_TABLE_FILE", "RANK_ID", "RANK_SIZE", "MS_ROLE"} < set(rank.unset)
        assert (rank.cpus, rank.log) == ((), str(tmp_path / "train.log"))

    def test_a_table_of_one_card_says_which(self, tmp_path):
        path = str(write_table(tmp_path, cards=[6]))
        for devices in ("", "6"):
            made = plan.make(request(platform="Ascend", rank_table=path, devices=devices), CORES)
            assert (made.engine, made.ranks[0].env["DEVICE_ID"]) == ("single", "6")


class TestRankTable:
    def test_eight_cards_of_one_server(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_table(tmp_path)
        made = plan.make(
            request(platform="Ascend", device_num=8, devices="0,1,2,3,4,5,6,7", rank_table="hccl config.json"), CORES
        )
        assert (made.engine, made.world, made.starter) == ("ranktable", 8, ())
        assert column(made, "RANK_ID", "DEVICE_ID", "RANK_SIZE", "DEVICE_NUM", "SERVER_ID") == [
            (str(index), str(index), "8", "8", "0") for index in range(8)
        ]
        assert {rank.env["RANK_TABLE_FILE"] for rank in made.ranks} == {str(tmp_path / "hccl config.json")}
        assert {rank.argv[-2:] for rank in made.ranks} == {("--run_distribute", "True")}
        assert [rank.log for rank in made.ranks] == [str(tmp_path / f"train/rank{i}/log{i}.log") for i in range(8)]
        assert [core for rank in made.ranks for core in rank.cpus] == CORES
        assert {rank.unset for rank in made.ranks} == {("MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID")}

    def test_four_cards_of_the_second_group(self, tmp_path):
        path = str(write_table(tmp_path, cards=[4, 5, 6, 7]))
        made = plan.make(request(platform="Ascend", device_num=4, devices="4,5,6,7", rank_table=path), [0, 1])
        assert column(made, "RANK_ID", "DEVICE_ID") == [("0", "4"), ("1", "5"), ("2", "6"), ("3", "7")]
        assert [rank.cpus for rank in made.ranks] == [(0,), (1,), (0,), (1,)]

    def test_64_ranks_on_eight_servers(self, tmp_path):
        path = write_table(tmp_path, servers=8)
        ranks, logs = [], set()
        for server in range(8):
            for server_id in (str(server), f"10.0.0.{server + 1}"):
                made = plan.make(
                    request(platform="Ascend", device_num=8, rank_table=str(path), server_id=server_id), CORES
                )
                assert (made.engine, made.world, len(made.ranks)) == ("ranktable", 64, 8)
            assert column(made, "RANK_ID", "DEVICE_ID", "RANK_SIZE", "SERVER_ID", "RANK_TABLE_FILE") == [
                (str(8 * server + card), str(card), "64", str(server), str(path)) for card in range(8)
            ]
            ranks += [rank.rank for rank in made.ranks]
            logs |= {rank.log for rank in made.ranks}
        assert ranks == list(range(64))
        assert len(logs) == 64

    def test_ranks_follow_the_table_not_the_order_of_cards(self, tmp_path):
        path = write_table(tmp_path, cards=[3, 2, 1, 0])
        made = plan.make(request(platform="Ascend", device_num=4, devices="0,1,2,3", rank_table=str(path)), CORES)
        assert column(made, "RANK_ID", "DEVICE_ID") == [("0", "3"), ("1", "2"), ("2", "1"), ("3", "0")]

    def test_the_own_server_is_found_by_its_address(self, tmp_path, monkeypatch):
        monkeypatch.setattr(hccl, "own_addresses", lambda: {"10.0.0.2", "127.0.0.1"})
        made = plan.make(
            request(platform="Ascend", device_num=8, rank_table=str(write_table(tmp_path, servers=2))), CORES
        )
        assert [rank.rank for rank in made.ranks] == list(range(8, 16))

    def test_one_card_each_on_two_servers(self, tmp_path):
        path = write_table(tmp_path, servers=2, cards=[0])
        made = plan.make(request(platform="Ascend", rank_table=str(path), any_topology=True, server_id="1"), CORES)
        assert (made.engine, made.world, made.ranks[0].rank) == ("ranktable", 2, 1)

    def test_a_folder_as_modelarts_gives_it_means_the_file_in_it(self, tmp_path):
        write_table(tmp_path).rename(tmp_path / "jobstart_hccl.json")
        made = plan.make(request(platform="Ascend", device_num=8, rank_table=str(tmp_path)), CORES)
        assert column(made, "RANK_TABLE_FILE")[0] == (str(tmp_path / "jobstart_hccl.json"),)


class TestMpirun:
    @pytest.mark.parametrize("is_root", [False, True])
    def test_eight_gpus(self, is_root):
        made = plan.make(
            request(platform="GPU", device_num=8, devices="0, 1,2,3,4,5,6,7", first_log="train.log"), CORES, is_root
        )
        assert (made.engine, made.world) == ("mpirun", 8)
        root = ["--allow-run-as-root"] if is_root else []
        start = ["mpirun", "-n", "8", *root, "--oversubscribe", "--bind-to", "none", sys.executable]
        assert list(made.starter) == [*start, str(plan.RANK_SCRIPT), "PLAN.json"]
        assert column(made, "RANK_ID", "DEVICE_ID", "RANK_SIZE", "CUDA_VISIBLE_DEVICES") == [
            (str(index), str(index), "8", "0,1,2,3,4,5,6,7") for index in range(8)
        ]
        assert [Path(rank.log).name for rank in made.ranks] == ["train.log", *(f"log{i}.log" for i in range(1, 8))]
        assert {rank.argv[-2:] for rank in made.ranks} == {("--run_distribute", "True")}
        assert {rank.unset for rank in made.ranks} == {("RANK_TABLE_FILE", "MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID")}


class TestMsrun:
    def test_two_cpu_workers(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        made = plan.make(request(device_num=2, first_log="train.log"), [0, 1, 2])
        assert list(made.starter) == [
            "msrun",
            "--worker_num=2",
            "--local_worker_num=2",
            "--master_addr=127.0.0.1",
            "--master_port=8118",
            "--node_rank=0",
            f"--log_dir={tmp_path}/train/msrun",
            "--join=True",
            str(plan.RANK_SCRIPT),
            "PLAN.json",
        ]
        assert column(made, "RANK_ID", "RANK_SIZE", "DEVICE_ID") == [("0", "2", "0"), ("1", "2", "1")]
        assert [rank.defaults for rank in made.ranks] == [
            {"MS_NODE_TIMEOUT": "600", "OMP_NUM_THREADS": threads} for threads in ("1", "2")
        ]
        assert [rank.cpus for rank in made.ranks] == [(0,), (1, 2)]
        assert [rank.log for rank in made.ranks] == [
            str(tmp_path / "train.log"),
            str(tmp_path / "train/rank1/log1.log"),
        ]
        # msrun says these to the ranks, so they stay
        assert {rank.unset for rank in made.ranks} == {("RANK_TABLE_FILE",)}

    @pytest.mark.parametrize("node", [0, 1])
    def test_ascend_on_two_nodes(self, node):
        made = plan.make(
            request(
                platform="Ascend",
                engine="msrun",
                device_num=4,
                devices="4,5,6,7",
                rank_table="None",
                nodes=2,
                node_rank=node,
                master_addr="10.0.0.1",
                master_port=9000,
            ),
            CORES,
        )
        assert (made.engine, made.world) == ("msrun", 8)
        assert made.starter[1:6] == (
            "--worker_num=8",
            "--local_worker_num=4",
            "--master_addr=10.0.0.1",
            "--master_port=9000",
            f"--node_rank={node}",
        )
        assert column(made, "RANK_ID", "DEVICE_ID", "RANK_SIZE", "ASCEND_RT_VISIBLE_DEVICES") == [
            (str(4 * node + index), str(index), "8", "4,5,6,7") for index in range(4)
        ]
        assert {tuple(rank.defaults.items()) for rank in made.ranks} == {(("HCCL_CONNECT_TIMEOUT", "600"),)}

    def test_the_log_folder_of_msrun_lies_beside_those_of_the_ranks(self):
        made = plan.make(request(device_num=2, log="/x/rank{rank}/card{device}.log"), CORES)
        assert "--log_dir=/x/msrun" in made.starter
        assert [rank.log for rank in made.ranks] == ["/x/rank0/card0.log", "/x/rank1/card1.log"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"script": "absent.py"}, "script absent.py is not a file"),
            ({"device_num": 0}, "DEVICE_NUM is 0; it has to be 1 to 16"),
            ({"device_num": 17}, "DEVICE_NUM is 17"),
            ({"device_num": 2, "devices": "0,1,2"}, "DEVICE_NUM is 2 and the device list 0,1,2 names 3"),
            ({"device_num": 2, "devices": "0,0"}, "a card is named twice"),
            ({"device_num": 2, "devices": "0;1"}, "they have to be card numbers"),
            ({"engine": "single", "device_num": 2}, "engine single runs one process and 2 are asked for"),
            ({"engine": "single", "nodes": 3}, "engine single runs one process and 3 are asked for"),
            ({"engine": "ranktable"}, "a rank table is for Ascend and platform is CPU"),
            ({"engine": "mpirun", "device_num": 2}, "MindSpore has no mpirun start on CPU"),
            ({"platform": "GPU", "device_num": 2, "nodes": 2}, "mpirun is for one node here"),
            ({"platform": "Ascend", "device_num": 8}, "RANK_TABLE_FILE is not given and DEVICE_NUM 8"),
            ({"platform": "Ascend", "device_num": 8, "rank_table": "None"}, "RANK_TABLE_FILE is None and"),
            ({"platform": "Ascend", "device_num": 8, "nodes": 2, "rank_table": "x"}, "a rank table names its servers"),
            ({"nodes": 0}, "nodes is 0; it has to be at least 1"),
            ({"node_rank": 1}, "node_rank is 1 of 1 nodes; it has to be 0 to 0"),
            ({"nodes": 2, "node_rank": -1}, "node_rank is -1 of 2 nodes"),
            ({"nodes": 2}, "nodes is 2 and master_addr 127.0.0.1; give the address of node 0"),
            ({"master_port": 80}, "master_port is 80; it has to be 1024 to 65535"),
            ({"master_port": 65536}, "master_port is 65536"),
            ({"device_num": 2, "log": "all.log"}, "log is all.log for 2 ranks; put {rank} or {device} into it"),
            ({"platform": "Ascend", "rank_table": "absent.json"}, "cannot read rank table absent.json"),
        ],
    )
    def test_requests_that_are_wrong_by_themselves(self, changes, message):
        with pytest.raises(UsageError) as caught:
            plan.make(request(**changes), CORES)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("servers", "cards", "changes", "message"),
        [
            (1, range(8), {"device_num": 1}, "DEVICE_NUM is 1 and rank table"),
            (1, range(8), {"device_num": 4}, "DEVICE_NUM is 4 and rank table"),
            (1, [0, 1], {"device_num": 2, "devices": "2,3"}, "the device list is 2,3 and rank table"),
            (1, [0], {"device_num": 1, "devices": "3"}, "the device list is 3 and rank table"),
            (1, [3, 4], {"device_num": 2}, "are on two networks"),
            (2, range(4), {"device_num": 4}, "several servers need 8 each"),
            (2, range(8), {"device_num": 8, "server_id": "2"}, "or its position 0 to 1"),
            (2, range(8), {"device_num": 8, "server_id": "\u00b2"}, "or its position 0 to 1"),
            (2, range(8), {"device_num": 8, "server_id": "10.0.0.9"}, "names the servers 10.0.0.1, 10.0.0.2"),
            (2, range(8), {"device_num": 8}, "none is this machine; set SERVER_ID to its position"),
        ],
    )
    def test_rank_tables_that_do_not_fit(self, tmp_path, monkeypatch, servers, cards, changes, message):
        monkeypatch.setattr(hccl, "own_addresses", set)
        path = write_table(tmp_path, servers, cards)
        with pytest.raises(UsageError) as caught:
            plan.make(request(platform="Ascend", rank_table=str(path), **changes), CORES)
        assert message in str(caught.value)

    def test_the_layout_of_modelarts_has_to_be_rewritten(self, tmp_path):
        devices = [{"device_id": str(card), "device_ip": f"192.168.0.{card}"} for card in range(8)]
        groups = [{"instance_list": [{"server_id": "10.0.0.1", "devices": devices}]}]
        (tmp_path / "jobstart_hccl.json").write_text(json.dumps({"group_list": groups, "status": "completed"}))
        with pytest.raises(UsageError, match=r"tools/merge_hccl\.py .*jobstart_hccl\.json writes it as version 1\.0"):
            plan.make(request(platform="Ascend", device_num=8, rank_table=str(tmp_path)), CORES)


class TestShareCores:
    @given(st.sets(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 16))
    def test_everybody_gets_neighbouring_cores_and_none_is_idle(self, cores, ranks):
        cores = sorted(cores)
        shares = plan.share_cores(cores, ranks)
        assert len(shares) == ranks
        assert all(shares)
        if len(cores) >= ranks:
            assert [core for share in shares for core in share] == cores
            sizes = {len(share) for share in shares}
            assert max(sizes) - min(sizes) <= 1
        else:
            assert {core for share in shares for core in share} == set(cores)
            counts = [shares.count((core,)) for core in cores]
            assert max(counts) - min(counts) <= 1


class TestCommandLine:
    def test_dry_run_prints_the_plan_and_starts_nothing(self, tmp_path):
        path = write_table(tmp_path, cards=[0, 1])
        before = sorted(tmp_path.iterdir())
        options = ("--platform", "Ascend", "--device_num", "2", "--rank_table", path, "--dry_run")
        script = (TRAIN, "--dataset_path", "a b", "--dry_run")
        result = run_command("-m", "src.launch", *options, *script, PYTHONPATH=str(ROOT), cwd=tmp_path)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert (result.returncode, result.stderr) == (0, "")
        assert [(row["rank"], row["engine"], row["world"], row["env"]["DEVICE_ID"]) for row in rows] == [
            (0, "ranktable", 2, "0"),
            (1, "ranktable", 2, "1"),
        ]
        assert rows[0]["argv"][1:] == [TRAIN, "--dataset_path", "a b", "--dry_run", "--run_distribute", "True"]
        assert sorted(tmp_path.iterdir()) == before

    def test_the_environment_is_not_printed(self):
        result = run_command("-m", "src.launch", "--dry_run", TRAIN, ACCESS_TOKEN="do not tell")
        assert result.returncode == 0
        assert "do not tell" not in result.stdout + result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [[], ["--device_num", "two", TRAIN], ["--platform", "TPU", TRAIN], ["--dry", TRAIN], ["absent.py"]],
    )
    def test_wrong_usage_is_one_sentence_and_status_2(self, tmp_path, arguments):
        result = run_command("-m", "src.launch", *arguments, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert (result.returncode, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("error: ")
        assert list(tmp_path.iterdir()) == []
