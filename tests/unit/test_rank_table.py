"""HCCL rank tables: reading, every rule, writing, and the two tools as commands; no MindSpore."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.engine.errors import UsageError, ZooError
from src.launch import hccl, rank_table
from src.launch.rank_table import Device, RankTable, Server
from tests.conftest import ROOT, run_command

HCCN_CONF = "".join(
    f"address_{card}=192.168.{100 + card // 4}.{101 + card % 4}\nnetmask_{card}=255.255.255.0\n" for card in range(8)
)


def server(index: int, cards=range(8), first_rank: int | None = None) -> Server:
    first = index * len(cards) if first_rank is None else first_rank
    devices = [Device(card, f"192.168.{index}.{card}", first + number) for number, card in enumerate(cards)]
    return Server(f"10.0.0.{index + 1}", tuple(devices))


def table(*servers: Server, **changes) -> RankTable:
    return replace(RankTable(servers, "1.0", "completed", len(servers)), **changes)


def modelarts(*servers: Server, status="completed") -> str:
    """The same servers as ModelArts' jobstart_hccl.json has them."""
    instances = [
        {
            "devices": [{"device_id": str(device.id), "device_ip": device.ip} for device in one.devices],
            "pod_name": f"job-{one.id}",
            "server_id": one.id,
        }
        for one in servers
    ]
    group = {"device_count": "8", "group_name": "job", "instance_count": str(len(servers)), "instance_list": instances}
    return json.dumps({"group_count": "1", "group_list": [group], "status": status})


def saved(path, text: str):
    path.write_text(text)
    return path


class TestReading:
    def test_version_1(self, tmp_path):
        path = saved(tmp_path / "t.json", rank_table.as_json(table(server(0), server(1))))
        assert rank_table.read(path) == table(server(0), server(1))
        assert json.loads(path.read_text())["server_list"][1]["device"][7] == {
            "device_id": "7",
            "device_ip": "192.168.1.7",
            "rank_id": "15",
        }

    def test_numbers_without_quotes_and_a_missing_server_count(self, tmp_path):
        content = {
            "server_list": [{"server_id": "a", "device": [{"device_id": 3, "device_ip": "b", "rank_id": 0}]}],
            "status": "completed",
        }
        read = rank_table.read(saved(tmp_path / "t.json", json.dumps(content)))
        assert read == table(Server("a", (Device(3, "b", 0),)))

    def test_the_layout_of_modelarts_as_file_and_as_folder(self, tmp_path):
        path = saved(tmp_path / "jobstart_hccl.json", modelarts(server(1), server(0)))
        read = rank_table.read(path)
        assert read == rank_table.read(tmp_path)
        assert (read.layout, read.size, rank_table.problems(read)) == ("group_list", 16, [])
        assert [(one.id, one.devices[0].rank) for one in read.servers] == [("10.0.0.2", 0), ("10.0.0.1", 8)]

    def test_an_unfinished_table_of_modelarts_is_read_and_refused(self, tmp_path):
        path = saved(tmp_path / "t.json", modelarts(server(0), status="initializing"))
        with pytest.raises(UsageError, match="status is 'initializing', not 'completed'"):
            rank_table.checked(path)

    @pytest.mark.parametrize("name", ["absent.json", "."])
    def test_no_file_is_wrong_usage(self, tmp_path, name):
        with pytest.raises(UsageError, match="cannot read rank table .*No such file.*; give an existing file"):
            rank_table.read(tmp_path / name)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("{}", "lacks 'group_list'"),
            ("null", "is malformed"),
            ('"server_list"', "is malformed"),
            ('{"server_list": [{"server_id": "", "device": [{"device_id": "0", "device_ip": ""}]}]}', "'rank_id'"),
            ('{"server_list": [], "server_count": Infinity}', "inf is not a whole number"),
            ('{"server_list": [], "server_count": "two"}', "'two' is not a whole number"),
            (rank_table.as_json(table(server(0))).replace('"rank_id": "3"', '"rank_id": -3'), "-3 is not a whole"),
            (rank_table.as_json(table(server(0))).replace('"rank_id": "3"', '"rank_id": 3.7'), "3.7 is not a whole"),
        ],
    )  # fmt: skip
    def test_what_is_no_rank_table(self, tmp_path, text, message):
        path = saved(tmp_path / "t.json", text)
        with pytest.raises(ZooError, match=message) as caught:
            rank_table.read(path)
        assert caught.value.status == 1
        assert str(path) in str(caught.value)
        with pytest.raises(UsageError, match=message):
            rank_table.checked(path)

    def test_bytes_that_are_no_text(self, tmp_path):
        (tmp_path / "t.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ZooError, match="is not JSON"):
            rank_table.read(tmp_path / "t.json")


class TestRules:
    @pytest.mark.parametrize("cards", [[5], [0, 3], [4, 6], [0, 1, 2, 3], [7, 6, 5, 4], list(range(8))])
    def test_one_server(self, cards):
        assert rank_table.problems(table(server(0, cards))) == []

    @pytest.mark.parametrize("count", [2, 3, 8])
    def test_several_servers_of_eight(self, count):
        assert rank_table.problems(table(*(server(index) for index in range(count)))) == []

    @pytest.mark.parametrize(
        ("made", "sentences"),
        [
            (table(), ["it names no devices"]),
            (table(Server("a", ())), ["it names no devices"]),
            (
                table(server(0), status="initializing"),
                ["its status is 'initializing', not 'completed'; the platform may still be writing it"],
            ),
            (table(server(0), declared_servers=2), ["server_count is 2 and server_list has 1 entries"]),
            (
                table(server(0, [0, 1], first_rank=1)),
                ["the rank ids are 1, 2; they have to be 0 to 1, each once"],
            ),
            (
                table(server(0), server(1, first_rank=0)),
                ["the rank ids are 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7; they have to be 0 to 15, each once"],
            ),
            (
                table(*[server(0), replace(server(1), id="10.0.0.1")]),
                ["server_id 10.0.0.1 occurs 2 times"],
            ),
            (
                table(Server("a", (Device(0, "x", 0), Device(1, "x", 1)))),
                ["device_ip x occurs 2 times"],
            ),
            (
                table(Server("a", (Device(1, "x", 0), Device(1, "y", 1)))),
                ["device_id on server a 1 occurs 2 times"],
            ),
        ],
    )
    def test_what_holds_everywhere(self, made, sentences):
        assert rank_table.problems(made) == sentences
        assert rank_table.problems(made, any_topology=True) == sentences

    @pytest.mark.parametrize(
        ("made", "sentence"),
        [
            (table(server(0, [0, 1, 2])), "it names 3 devices; one server works with 1, 2, 4 or 8"),
            (table(server(0, range(16))), "it names 16 devices; one server works with 1, 2, 4 or 8"),
            (
                table(server(0, [3, 4])),
                "devices 3, 4 are on two networks; 2 or 4 devices have to be all of 0-3 or all of 4-7",
            ),
            (
                table(server(0, [0, 1, 4, 5])),
                "devices 0, 1, 4, 5 are on two networks; 2 or 4 devices have to be all of 0-3 or all of 4-7",
            ),
            (
                table(server(0, range(4)), server(1, range(8), first_rank=4)),
                "server 10.0.0.1 has 4 devices; several servers need 8 each",
            ),
        ],
    )
    def test_the_910_topology_can_be_left_out(self, made, sentence):
        assert rank_table.problems(made) == [sentence]
        assert rank_table.problems(made, any_topology=True) == []

    def test_all_that_is_wrong_is_said_at_once(self, tmp_path):
        made = table(server(0, [3, 4], first_rank=1), declared_servers=3)
        path = saved(
            tmp_path / "t.json", rank_table.as_json(made).replace('"server_count": "1"', '"server_count": "3"')
        )
        with pytest.raises(UsageError) as caught:
            rank_table.checked(path)
        assert len(str(caught.value).split("; ")) > 3

    def test_only_the_first_of_many_ranks_are_listed(self):
        sentence = rank_table.problems(table(*(server(index) for index in range(1, 9))))[0]
        assert sentence == (
            "the rank ids are 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 ...; "
            "they have to be 0 to 63, each once"
        )

    def test_a_warning_for_ranks_against_the_order_of_server_ids(self):
        assert rank_table.warnings(table(server(0), server(1))) == []
        against = table(server(0, first_rank=8), server(1, first_rank=0))
        assert rank_table.warnings(against) == [
            "ranks follow the servers 10.0.0.2, 10.0.0.1; MindSpore wants the alphabetical order of server_id"
        ]
        assert rank_table.problems(against) == []


class TestWriting:
    def test_merged_orders_servers_by_id_and_numbers_ranks_anew(self):
        one = [table(replace(server(index, first_rank=0))) for index in (2, 0, 1)]
        merged = rank_table.merged(one)
        assert merged == table(server(0), server(1), server(2))
        assert rank_table.warnings(merged) == rank_table.problems(merged) == []

    def test_merged_keeps_the_rank_order_of_a_server(self):
        merged = rank_table.merged([table(server(0, [3, 1, 0, 2]))])
        assert [device.id for device in merged.servers[0].devices] == [3, 1, 0, 2]

    def test_file_names(self):
        assert rank_table.file_name(table(server(0))) == "hccl_8p_01234567_10.0.0.1.json"
        assert rank_table.file_name(table(server(0, [4, 5]))) == "hccl_2p_45_10.0.0.1.json"
        assert rank_table.file_name(table(server(0), server(1))) == "hccl_2s_16p.json"

    def test_a_server_id_cannot_leave_the_folder(self):
        assert rank_table.file_name(table(Server("../a b", (Device(0, "x", 0),)))) == "hccl_1p_0_.._a_b.json"

    def test_one_server_numbers_ranks_in_the_order_of_cards(self):
        made = rank_table.one_server("a", [(4, "x"), (5, "y")])
        assert made == table(Server("a", (Device(4, "x", 0), Device(5, "y", 1))))


names = st.text(min_size=1, max_size=20)
valid_tables = st.lists(
    st.tuples(names, st.lists(st.tuples(st.integers(0, 15), names), min_size=1, max_size=8)), min_size=1, max_size=4
)
WORDS = "server_list server_id device device_id device_ip rank_id group_list instance_list devices status"
words = st.sampled_from(WORDS.split())
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-2, 9) | words | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


class TestAnyTable:
    @settings(max_examples=40)
    @given(valid_tables)
    def test_a_table_that_is_written_reads_back(self, tmp_path_factory, drawn):
        path = tmp_path_factory.getbasetemp() / "round_trip.json"
        rank, servers = 0, []
        for name, cards in drawn:
            devices = [Device(card, ip, rank + number) for number, (card, ip) in enumerate(cards)]
            servers.append(Server(name, tuple(devices)))
            rank += len(cards)
        made = table(*servers)
        path.write_text(rank_table.as_json(made))
        assert rank_table.read(path) == made
        assert isinstance(rank_table.problems(made), list)
        assert rank_table.merged([made]).size == made.size

    @given(json_values)
    @example({"server_list": [{"server_id": "a", "device": [{"device_id": float("inf")}]}]})
    def test_any_json_is_a_table_or_one_sentence(self, tmp_path_factory, value):
        path = tmp_path_factory.getbasetemp() / "any.json"
        path.write_text(json.dumps(value))
        try:
            read = rank_table.read(path)
        except ZooError as error:
            assert "; make it with tools/hccl_tools.py" in str(error)
        else:
            assert isinstance(rank_table.problems(read) + rank_table.warnings(read), list)

    @given(st.binary(max_size=60))
    def test_any_bytes_are_one_sentence(self, tmp_path_factory, content):
        path = tmp_path_factory.getbasetemp() / "bytes.json"
        path.write_bytes(content)
        with pytest.raises(ZooError):
            rank_table.read(path)


class TestCards:
    @pytest.mark.parametrize(
        ("text", "cards"), [("[0,8)", range(8)), (" [ 4 , 8 ) ", range(4, 8)), ("[10,12)", range(10, 12))]
    )
    def test_ranges(self, text, cards):
        assert hccl.device_range(text) == cards

    @pytest.mark.parametrize("text", ["", "8", "[0,8]", "(0,8)", "[0,0)", "[4,2)", "[0,17)", "[-1,2)", "[a,b)"])
    def test_wrong_ranges(self, text):
        with pytest.raises(UsageError, match="device_num is"):
            hccl.device_range(text)

    @pytest.mark.parametrize("text", ["", "0,", "a", "0;1", "-1", "0,0", "1.5", "\u00b2"])
    def test_wrong_lists(self, text):
        with pytest.raises(UsageError, match="devices are"):
            hccl.visible(text)

    def test_conf_file(self, tmp_path):
        path = saved(tmp_path / "hccn.conf", "# address_9=1\n" + HCCN_CONF + "address_10 = 1.2.3.4 \n")
        assert hccl.read_conf(path)[5] == "192.168.101.102"
        assert sorted(hccl.read_conf(path)) == [0, 1, 2, 3, 4, 5, 6, 7, 10]
        assert hccl.read_conf(tmp_path / "absent") == {}

    def test_a_tool_that_hangs_is_one_sentence(self, tmp_path, monkeypatch):
        stub(tmp_path / "hccn_tool", "exec sleep 60")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setattr(hccl, "TOOL_SECONDS", 0.2)
        with pytest.raises(ZooError, match="hccn_tool says nothing about card 3"):
            hccl.ask_tool(3)


def stub(path, body: str):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


class TestHcclTools:
    def run(self, folder, *arguments, **environment):
        conf = folder / "hccn.conf"
        conf.write_text(HCCN_CONF)
        options = ("--server_ip", "10.0.0.1", "--hccn_conf", conf)
        return run_command(ROOT / "tools/hccl_tools.py", *options, *arguments, cwd=folder, **environment)

    def test_eight_cards_from_the_conf_file(self, tmp_path):
        result = self.run(tmp_path, "--device_num", "[0,8)")
        path = tmp_path / "hccl_8p_01234567_10.0.0.1.json"
        assert (result.returncode, result.stdout, result.stderr) == (0, f"wrote {path}\n", "")
        written = rank_table.checked(path)
        assert [device.ip for device in written.servers[0].devices][3:5] == ["192.168.100.104", "192.168.101.101"]
        result = run_command(ROOT / "tools/hccl_tools.py", "--check", path)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"{path} is right: layout 1.0, 1 servers, 8 devices\n"

    def test_the_tool_is_asked_first_and_visible_devices_name_the_cards(self, tmp_path):
        answer = '[ "$2" != 6 ] || exit 1; echo "ipaddr:172.16.0.$2"; echo "netmask:255.255.0.0"'
        stub(tmp_path / "hccn_tool", answer)
        result = self.run(
            tmp_path, "--device_num", "[0,4)", "--visible_devices", "4,5,6,7", PATH=f"{tmp_path}:/usr/bin:/bin"
        )
        assert (result.returncode, result.stderr) == (0, "")
        devices = rank_table.checked(tmp_path / "hccl_4p_4567_10.0.0.1.json").servers[0].devices
        assert devices == (
            Device(4, "172.16.0.4", 0),
            Device(5, "172.16.0.5", 1),
            Device(6, "192.168.101.103", 2),
            Device(7, "172.16.0.7", 3),
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--device_num", "[0,3)"], "device_num is [0,3): it names 3 devices; one server works with 1, 2, 4 or 8"),
            (["--device_num", "[3,5)"], "devices 3, 4 are on two networks"),
            (["--device_num", "8"], "it has to look like"),
            (["--device_num", "[0,4)", "--visible_devices", "0,1"], "visible_devices names 2 cards; name one for each"),
            (["--visible_devices", ""], "they have to be card numbers"),
            (["--device_nu", "[0,8)"], "unrecognized arguments"),
            (["--check", "absent.json"], "cannot read rank table absent.json"),
        ],
    )
    def test_wrong_usage_is_status_2_and_writes_nothing(self, tmp_path, arguments, message):
        result = self.run(tmp_path, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["hccn.conf"]

    def test_cards_without_an_address_are_named(self, tmp_path):
        result = self.run(tmp_path, "--device_num", "[8,10)", "--any_topology")
        assert result.returncode == 1
        assert "no IP address for card 8, 9 from hccn_tool or" in result.stderr

    def test_check_names_every_problem(self, tmp_path):
        made = table(server(0, [3, 4], first_rank=1))
        path = saved(tmp_path / "bad.json", rank_table.as_json(made))
        result = run_command(ROOT / "tools/hccl_tools.py", "--check", path)
        assert (result.returncode, result.stdout) == (1, "")
        assert [line.split(": ")[0] for line in result.stderr.splitlines()] == ["error", "error"]
        saved(path, "{}")
        assert run_command(ROOT / "tools/hccl_tools.py", "--check", path).returncode == 1

    def test_check_of_a_folder_of_modelarts_with_a_warning(self, tmp_path):
        saved(tmp_path / "jobstart_hccl.json", modelarts(server(1), server(0)))
        result = run_command(ROOT / "tools/hccl_tools.py", "--check", tmp_path)
        assert result.returncode == 0
        assert result.stderr.startswith("warning: ranks follow the servers 10.0.0.2, 10.0.0.1")
        assert "layout group_list, 2 servers, 16 devices" in result.stdout


class TestMergeHccl:
    def merge(self, folder, *tables, arguments=()):
        for index, text in enumerate(tables):
            (folder / f"{index}.json").write_text(text)
        names = [f"{index}.json" for index in range(len(tables))]
        return run_command(ROOT / "tools/merge_hccl.py", *names, *arguments, cwd=folder)

    def test_two_servers(self, tmp_path):
        one = [rank_table.as_json(table(server(index, first_rank=0))) for index in (1, 0)]
        result = self.merge(tmp_path, *one)
        path = tmp_path / "hccl_2s_16p.json"
        assert (result.returncode, result.stdout) == (0, f"wrote {path}: 2 servers, 16 devices\n")
        assert rank_table.checked(path) == table(server(0), server(1))

    def test_the_table_of_modelarts_becomes_version_1(self, tmp_path):
        assert self.merge(tmp_path, modelarts(server(0))).returncode == 0
        assert rank_table.checked(tmp_path / "hccl_8p_01234567_10.0.0.1.json") == table(server(0))

    @pytest.mark.parametrize(
        ("tables", "message"),
        [
            ([rank_table.as_json(table(server(0)))] * 2, "server_id 10.0.0.1 occurs 2 times"),
            ([modelarts(server(0), status="initializing")], "its status is 'initializing'"),
            ([rank_table.as_json(table(server(n, range(4), first_rank=0))) for n in (0, 1)], "several servers need 8"),
            (["{}"], "lacks 'group_list'"),
            ([], "arguments are required"),
        ],
    )
    def test_what_cannot_be_merged_is_status_2_and_writes_nothing(self, tmp_path, tables, message):
        result = self.merge(tmp_path, *tables)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert len(list(tmp_path.iterdir())) == len(tables)

    def test_any_topology(self, tmp_path):
        half = [rank_table.as_json(table(server(n, range(4), first_rank=0))) for n in (0, 1)]
        assert self.merge(tmp_path, *half, arguments=["--any_topology"]).returncode == 0
