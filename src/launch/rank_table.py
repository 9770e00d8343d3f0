"""HCCL rank tables: read any known layout, check it, write version 1.0. No MindSpore here.

Formats: HCCL's version 1.0 ("server_list") and the older "group_list" that ModelArts writes as jobstart_hccl.json.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.engine.errors import UsageError, ZooError

MODELARTS_FILE = "jobstart_hccl.json"  # what a RANK_TABLE_FILE that is a folder holds
SINGLE_SERVER_COUNTS = (1, 2, 4, 8)
CARDS = 8  # per server of several
GROUP = 4  # cards 0-3 and 4-7 of an Ascend 910 server are on two different networks


@dataclass(frozen=True)
class Device:
    id: int
    ip: str
    rank: int


@dataclass(frozen=True)
class Server:
    id: str
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class RankTable:
    """What a rank table says, whatever its layout; `layout` is "1.0" or "group_list"."""

    servers: tuple[Server, ...]
    layout: str
    status: str
    declared_servers: int

    @property
    def size(self) -> int:
        return sum(len(server.devices) for server in self.servers)


def file_at(path: Path) -> Path:
    """The rank table that a path means: on ModelArts it is a folder that holds the file."""
    return path / MODELARTS_FILE if path.is_dir() else path


def read(path: Path) -> RankTable:
    """Parse a rank table. Raises UsageError where there is no such file, ZooError where it has no known layout."""
    path = file_at(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read rank table {path}: {error.strerror}; give an existing file") from error
    except (ValueError, RecursionError) as error:
        raise ZooError(f"rank table {path} is not JSON; make it with tools/hccl_tools.py") from error
    try:
        if "server_list" in content:
            return _version_1(content)
        return _group_list(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise ZooError(f"rank table {path} {what}; make it with tools/hccl_tools.py") from error


def _number(value: object) -> int:
    """A count or number as both layouts write it, 3 or "3"; int() alone would take 3.7, true and -1."""
    if not str(value).isdecimal():
        raise ValueError(f"{value!r} is not a whole number")
    return int(str(value))


def _version_1(content: dict) -> RankTable:
    servers = tuple(
        Server(
            str(server["server_id"]),
            tuple(
                Device(_number(device["device_id"]), str(device["device_ip"]), _number(device["rank_id"]))
                for device in server["device"]
            ),
        )
        for server in content["server_list"]
    )
    declared = _number(content.get("server_count", len(servers)))
    return RankTable(servers, "1.0", str(content.get("status", "")), declared)


def _group_list(content: dict) -> RankTable:
    """The layout without rank ids: ranks follow the order of instances and their devices."""
    servers, rank = [], 0
    for group in content["group_list"]:
        for instance in group["instance_list"]:
            devices = []
            for device in instance["devices"]:
                devices.append(Device(_number(device["device_id"]), str(device["device_ip"]), rank))
                rank += 1
            servers.append(Server(str(instance["server_id"]), tuple(devices)))
    return RankTable(tuple(servers), "group_list", str(content.get("status", "")), len(servers))


def problems(table: RankTable, any_topology: bool = False) -> list[str]:
    """Every rule the table breaks, one sentence each.

    `any_topology` leaves out the rules on how many and which cards of a server may work together, which hold for
    servers with eight Ascend 910 in two groups of four.
    """
    found = []
    if not table.size:
        return ["it names no devices"]
    if table.status != "completed":
        found.append(f"its status is '{table.status}', not 'completed'; the platform may still be writing it")
    if table.declared_servers != len(table.servers):
        found.append(f"server_count is {table.declared_servers} and server_list has {len(table.servers)} entries")
    ranks = sorted(device.rank for server in table.servers for device in server.devices)
    if ranks != list(range(table.size)):
        found.append(f"the rank ids are {_few(ranks)}; they have to be 0 to {table.size - 1}, each once")
    found += _repeated("server_id", [server.id for server in table.servers])
    found += _repeated("device_ip", [device.ip for server in table.servers for device in server.devices])
    for server in table.servers:
        found += _repeated(f"device_id on server {server.id}", [device.id for device in server.devices])
    return found if any_topology else found + _topology(table)


def warnings(table: RankTable) -> list[str]:
    """What works on many clusters but is against MindSpore's description of the file."""
    ids = [server.id for server in sorted(table.servers, key=lambda s: min((d.rank for d in s.devices), default=0))]
    if ids == sorted(ids):
        return []
    return [f"ranks follow the servers {', '.join(ids)}; MindSpore wants the alphabetical order of server_id"]


def _topology(table: RankTable) -> list[str]:
    if len(table.servers) > 1:
        return [
            f"server {server.id} has {len(server.devices)} devices; several servers need {CARDS} each"
            for server in table.servers
            if len(server.devices) != CARDS
        ]
    ids = sorted(device.id for device in table.servers[0].devices)
    if len(ids) not in SINGLE_SERVER_COUNTS:
        return [f"it names {len(ids)} devices; one server works with 1, 2, 4 or 8"]
    if len(ids) < CARDS and len({number // GROUP for number in ids}) > 1:
        return [f"devices {_few(ids)} are on two networks; 2 or 4 devices have to be all of 0-3 or all of 4-7"]
    return []


def _repeated(what: str, values: list) -> list[str]:
    return [f"{what} {value} occurs {count} times" for value, count in Counter(values).items() if count > 1]


def _few(values: list) -> str:
    return ", ".join(str(value) for value in values[:16]) + (" ..." if len(values) > 16 else "")


def checked(path: Path, any_topology: bool = False) -> RankTable:
    """Read a table and raise a UsageError that names everything wrong with it."""
    try:
        table = read(path)
    except ZooError as error:
        raise UsageError(str(error)) from error
    found = problems(table, any_topology)
    if found:
        is_new = not problems(table, any_topology=True)
        remedy = "; a newer server is used with ANY_TOPOLOGY=1 or --any_topology" if is_new else ""
        raise UsageError(f"rank table {path}: {'; '.join(found)}{remedy}")
    return table


def as_json(table: RankTable) -> str:
    """Version 1.0, all values strings, as HCCL reads it."""
    content: dict[str, Any] = {
        "version": "1.0",
        "server_count": str(len(table.servers)),
        "server_list": [
            {
                "server_id": server.id,
                "device": [
                    {"device_id": str(device.id), "device_ip": device.ip, "rank_id": str(device.rank)}
                    for device in server.devices
                ],
                "host_nic_ip": "reserve",
            }
            for server in table.servers
        ],
        "status": "completed",
    }
    return json.dumps(content, indent=4) + "\n"


def one_server(server_id: str, devices: list[tuple[int, str]]) -> RankTable:
    """A table of one server from (device id, device IP), ranks in that order."""
    made = tuple(Device(number, ip, rank) for rank, (number, ip) in enumerate(devices))
    return RankTable((Server(server_id, made),), "1.0", "completed", 1)


def merged(tables: list[RankTable]) -> RankTable:
    """One table of all servers, ordered by server_id as MindSpore wants it, ranks counted anew."""
    servers = sorted((server for table in tables for server in table.servers), key=lambda server: server.id)
    rank, renumbered = 0, []
    for server in servers:
        devices = []
        for device in sorted(server.devices, key=lambda device: device.rank):
            devices.append(Device(device.id, device.ip, rank))
            rank += 1
        renumbered.append(Server(server.id, tuple(devices)))
    return RankTable(tuple(renumbered), "1.0", "completed", len(renumbered))


def file_name(table: RankTable) -> str:
    """hccl_8p_01234567_10.0.0.1.json for one server, hccl_2s_16p.json for several."""
    if len(table.servers) > 1:
        return f"hccl_{len(table.servers)}s_{table.size}p.json"
    server = table.servers[0]
    server_id = re.sub(r"[^\w.:-]", "_", server.id)  # it may hold a slash
    return f"hccl_{table.size}p_{''.join(str(device.id) for device in server.devices)}_{server_id}.json"
