"""From what was asked for to what will run: the exact command, environment, log and cores of every rank of this node.

Pure: nothing is started or written here. `--dry_run` prints these plans and src/launch/rank.py executes the same ones.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from src.engine.errors import UsageError
from src.launch import hccl, rank_table

ENGINES = ("auto", "single", "ranktable", "msrun", "mpirun")
DISTRIBUTED_ENGINE = {"Ascend": "ranktable", "GPU": "mpirun", "CPU": "msrun"}
VISIBLE_VARIABLE = {"Ascend": "ASCEND_RT_VISIBLE_DEVICES", "GPU": "CUDA_VISIBLE_DEVICES"}
DEFAULT_MASTER = "127.0.0.1"
NO_TABLE = ("", "None", "none")
MAX_DEVICES = 16  # cards of one server
RANK_SCRIPT = Path(__file__).with_name("rank.py")
PLAN_FILE = "PLAN.json"  # stands for the temporary file in what --dry_run prints
FOREIGN = ("RANK_TABLE_FILE", "RANK_ID", "RANK_SIZE", "MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID")  # of an outer launcher
# seconds; the slowest server of a large job needs more than HCCL's default to compile
HCCL_DEFAULTS = {"HCCL_CONNECT_TIMEOUT": "600"}
# seconds; MindSpore's sums on CPU give up after 30 otherwise, and two ranks that compile can be further apart
CPU_DEFAULTS = {"MS_NODE_TIMEOUT": "600"}


@dataclass(frozen=True)
class Request:
    """The launcher's command line, parsed.

    `device_num` counts the ranks on this node, 0 takes all cards of the rank table; `log` may hold {rank} and {device}.
    """

    script: str
    arguments: tuple[str, ...] = ()
    platform: str = "CPU"
    engine: str = "auto"
    device_num: int = 1
    devices: str = ""
    rank_table: str = ""
    any_topology: bool = False
    server_id: str = ""
    nodes: int = 1
    node_rank: int = 0
    master_addr: str = DEFAULT_MASTER
    master_port: int = 8118
    log: str = "train/rank{rank}/log{rank}.log"
    first_log: str = ""


@dataclass(frozen=True)
class RankPlan:
    """One process: `env` is set and `unset` removed on top of the caller's environment; no `cpus` means all.

    `defaults` are set too, where the caller's environment has no value.
    """

    rank: int
    local_rank: int
    argv: tuple[str, ...]
    env: dict[str, str]
    defaults: dict[str, str]
    unset: tuple[str, ...]
    cpus: tuple[int, ...]
    log: str


@dataclass(frozen=True)
class LaunchPlan:
    """All processes of this node; `starter` is the framework's launcher with its own settings, empty for none."""

    engine: str
    world: int
    ranks: tuple[RankPlan, ...]
    starter: tuple[str, ...]

    def as_rows(self) -> list[dict]:
        """What --dry_run prints, one object per rank."""
        shared = {"engine": self.engine, "world": self.world, "starter": list(self.starter)}
        return [{**asdict(rank), **shared} for rank in self.ranks]


def make(request: Request, cores: list[int], is_root: bool = False) -> LaunchPlan:
    """Check the request and lay out the ranks. `cores` are the CPU cores this process may use. Raises UsageError."""
    if request.device_num == 0 and request.rank_table not in NO_TABLE:
        request = _as_many_as_the_table(request)
    check(request)
    engine = choose_engine(request)
    check_engine(request, engine)
    if engine == "single":
        plan = _single(request)
    elif engine == "ranktable":
        plan = _ranktable(request, cores)
    else:
        plan = _cluster(request, engine, cores, is_root)
    if len({rank.log for rank in plan.ranks}) != len(plan.ranks):
        raise UsageError(f"log is {request.log} for {len(plan.ranks)} ranks; put {{rank}} or {{device}} into it")
    return plan


def _as_many_as_the_table(request: Request) -> Request:
    """The request for all cards that the rank table names of this server."""
    server = own_server(rank_table.read(Path(request.rank_table).expanduser()), request.server_id)
    devices = ",".join(str(device.id) for device in server.devices)
    return replace(request, device_num=len(server.devices), devices=request.devices or devices)


def choose_engine(request: Request) -> str:
    if request.engine != "auto":
        return request.engine
    if request.device_num * request.nodes == 1 and not _several_servers(request):
        return "single"
    return DISTRIBUTED_ENGINE[request.platform]


def _given_table(request: Request) -> rank_table.RankTable:
    return rank_table.checked(Path(request.rank_table).expanduser(), request.any_topology)


def _table(request: Request) -> rank_table.RankTable | None:
    """The rank table that was given, checked; None without one."""
    return None if request.rank_table in NO_TABLE else _given_table(request)


def _several_servers(request: Request) -> bool:
    table = _table(request)
    return table is not None and len(table.servers) > 1


def check(request: Request) -> None:
    """The rules that hold for every engine."""
    if not Path(request.script).is_file():
        raise UsageError(f"script {request.script} is not a file; give the Python script to run")
    if not 1 <= request.device_num <= MAX_DEVICES:
        raise UsageError(f"DEVICE_NUM is {request.device_num}; it has to be 1 to {MAX_DEVICES}")
    if request.devices:
        named = hccl.visible(request.devices)
        if len(named) != request.device_num:
            raise UsageError(
                f"DEVICE_NUM is {request.device_num} and the device list {request.devices} names {len(named)}; "
                "name as many devices as DEVICE_NUM says"
            )
    if request.nodes < 1:
        raise UsageError(f"nodes is {request.nodes}; it has to be at least 1")
    if not 0 <= request.node_rank < request.nodes:
        raise UsageError(
            f"node_rank is {request.node_rank} of {request.nodes} nodes; it has to be 0 to {request.nodes - 1}"
        )
    if not 1024 <= request.master_port <= 65535:
        raise UsageError(f"master_port is {request.master_port}; it has to be 1024 to 65535")


def check_engine(request: Request, engine: str) -> None:
    """The rules of the engine that need no look at a rank table."""
    if engine == "single" and request.device_num * request.nodes != 1:
        wanted = request.device_num * request.nodes
        raise UsageError(f"engine single runs one process and {wanted} are asked for; use another engine")
    if engine == "ranktable" and request.platform != "Ascend":
        raise UsageError(f"a rank table is for Ascend and platform is {request.platform}; use --engine msrun")
    if engine == "mpirun" and request.platform == "CPU":
        raise UsageError("MindSpore has no mpirun start on CPU; use --engine msrun")
    if engine == "mpirun" and request.nodes > 1:
        raise UsageError("mpirun is for one node here; use --engine msrun on several")
    if engine == "msrun" and request.nodes > 1 and request.master_addr == DEFAULT_MASTER:
        raise UsageError(f"nodes is {request.nodes} and master_addr {DEFAULT_MASTER}; give the address of node 0")
    if engine == "ranktable" and request.nodes > 1:
        raise UsageError(
            f"nodes is {request.nodes} and a rank table names its servers itself; "
            "leave NODES out and set SERVER_ID, or use --engine msrun"
        )
    if engine == "ranktable" and request.rank_table in NO_TABLE:
        raise UsageError(
            f"RANK_TABLE_FILE is {request.rank_table or 'not given'} and DEVICE_NUM {request.device_num}; "
            "give a rank table (tools/hccl_tools.py writes one) or use --engine msrun"
        )


def _command(request: Request, world: int) -> tuple[str, ...]:
    more = ("--run_distribute", "True") if world > 1 else ()
    return (sys.executable, str(Path(request.script).resolve()), *request.arguments, *more)


def _log(request: Request, rank: int | str, device: int | str) -> str:
    name = request.first_log if rank == 0 and request.first_log else request.log
    return str(Path(name.replace("{rank}", str(rank)).replace("{device}", str(device))).absolute())


def _single(request: Request) -> LaunchPlan:
    table = _table(request)
    if table and table.size != 1:
        raise UsageError(
            f"DEVICE_NUM is 1 and rank table {request.rank_table} names {table.size} devices; give RANK_TABLE_FILE=None"
        )
    if table:
        check_devices(request, table.servers[0])
    in_table = table.servers[0].devices[0].id if table else 0
    device = hccl.visible(request.devices)[0] if request.devices else in_table
    env = {"PYTHONUNBUFFERED": "1"}
    if request.platform == "Ascend":
        env["DEVICE_ID"] = str(device)
    elif request.platform == "GPU" and request.devices:
        env |= {"CUDA_VISIBLE_DEVICES": str(device), "DEVICE_ID": "0"}
    log = _log(request, 0, device)
    rank = RankPlan(0, 0, _command(request, 1), env, {}, FOREIGN, (), log)
    return LaunchPlan("single", 1, (rank,), ())


def _ranktable(request: Request, cores: list[int]) -> LaunchPlan:
    """One process per device of this server, in the table's rank order."""
    table = _given_table(request)
    path = rank_table.file_at(Path(request.rank_table).expanduser())
    if table.layout != "1.0":
        raise UsageError(
            f"rank table {path} has the layout of ModelArts, which the ranks cannot read; "
            f"python tools/merge_hccl.py {path} writes it as version 1.0"
        )
    server = own_server(table, request.server_id)
    devices = sorted(server.devices, key=lambda device: device.rank)
    if len(devices) != request.device_num:
        raise UsageError(
            f"DEVICE_NUM is {request.device_num} and rank table {path} names {len(devices)} devices of server "
            f"{server.id}; make a table for the devices that are used"
        )
    check_devices(request, server)
    command, shares = _command(request, table.size), share_cores(cores, len(devices))
    ranks = []
    for index, device in enumerate(devices):
        env = {
            "PYTHONUNBUFFERED": "1",
            "RANK_TABLE_FILE": str(path.absolute()),
            "RANK_SIZE": str(table.size),
            "RANK_ID": str(device.rank),
            "DEVICE_ID": str(device.id),
            "DEVICE_NUM": str(len(devices)),
            "SERVER_ID": str(table.servers.index(server)),
        }
        unset = tuple(name for name in FOREIGN if name not in env)
        log = _log(request, device.rank, device.id)
        ranks.append(RankPlan(device.rank, index, command, env, HCCL_DEFAULTS, unset, shares[index], log))
    return LaunchPlan("ranktable", table.size, tuple(ranks), ())


def check_devices(request: Request, server: rank_table.Server) -> None:
    """The device list and the rank table have to name the same cards."""
    ids = sorted(device.id for device in server.devices)
    if request.devices and sorted(hccl.visible(request.devices)) != ids:
        raise UsageError(
            f"the device list is {request.devices} and rank table {request.rank_table} names "
            f"{','.join(map(str, ids))}; name the same"
        )


def own_server(table: rank_table.RankTable, server_id: str) -> rank_table.Server:
    """The table's entry for this machine: by position or address if `server_id` says so, else by own addresses."""
    if len(table.servers) == 1:
        return table.servers[0]
    by_id = {server.id: server for server in table.servers}
    if server_id in by_id:
        return by_id[server_id]
    if server_id.isdecimal() and int(server_id) < len(table.servers):
        return table.servers[int(server_id)]
    names = ", ".join(by_id)
    if server_id:
        raise UsageError(
            f"SERVER_ID is {server_id} and the rank table names the servers {names}; "
            f"give one of them, or its position 0 to {len(table.servers) - 1}"
        )
    own = [server for server in table.servers if server.id in hccl.own_addresses()]
    if len(own) != 1:
        raise UsageError(
            f"the rank table names the servers {names} and none is this machine; set SERVER_ID to its position"
        )
    return own[0]


def _cluster(request: Request, engine: str, cores: list[int], is_root: bool) -> LaunchPlan:
    """msrun or mpirun: the framework's launcher starts the ranks and tells them who they are."""
    local, world = request.device_num, request.device_num * request.nodes
    shares, command = share_cores(cores, local), _command(request, world)
    cards = hccl.visible(request.devices) if request.devices else list(range(local))
    ranks = []
    for index in range(local):
        rank = request.node_rank * local + index
        env = {"PYTHONUNBUFFERED": "1", "RANK_ID": str(rank), "RANK_SIZE": str(world), "DEVICE_ID": str(index)}
        if request.devices and request.platform in VISIBLE_VARIABLE:
            env[VISIBLE_VARIABLE[request.platform]] = ",".join(map(str, cards))
        defaults = HCCL_DEFAULTS if request.platform == "Ascend" else {}
        if request.platform == "CPU":
            defaults = {**CPU_DEFAULTS, "OMP_NUM_THREADS": str(len(shares[index]))}
        # what msrun has just set stays, but with mpirun it is an outer launcher's
        unset = ("RANK_TABLE_FILE",) if engine == "msrun" else tuple(name for name in FOREIGN if name not in env)
        log = _log(request, rank, cards[index])
        ranks.append(RankPlan(rank, index, command, env, defaults, unset, shares[index], log))
    starter = _msrun(request, world) if engine == "msrun" else _mpirun(local, is_root)
    return LaunchPlan(engine, world, tuple(ranks), (*starter, str(RANK_SCRIPT), PLAN_FILE))


def _msrun(request: Request, world: int) -> tuple[str, ...]:
    log_dir = Path(_log(request, "", "")).parent.parent / "msrun"
    return (
        "msrun",
        f"--worker_num={world}",
        f"--local_worker_num={request.device_num}",
        f"--master_addr={request.master_addr}",
        f"--master_port={request.master_port}",
        f"--node_rank={request.node_rank}",
        f"--log_dir={log_dir}",
        "--join=True",
    )


def _mpirun(local: int, is_root: bool) -> tuple[str, ...]:
    """mpirun refuses to run as root, as containers do, and to start more ranks than there are cores, unless told."""
    allow = ("--allow-run-as-root",) if is_root else ()
    return ("mpirun", "-n", str(local), *allow, "--oversubscribe", "--bind-to", "none", sys.executable)


def share_cores(cores: list[int], ranks: int) -> list[tuple[int, ...]]:
    """Neighbouring cores for each rank, as even as it goes; with fewer cores than ranks, ranks share a core."""
    if len(cores) < ranks:
        return [(cores[index % len(cores)],) for index in range(ranks)]
    bounds = [index * len(cores) // ranks for index in range(ranks + 1)]
    return [tuple(cores[first:end]) for first, end in zip(bounds, bounds[1:])]


def with_plan_file(plan: LaunchPlan, path: str) -> LaunchPlan:
    """The same plan with the name of the file that holds it in place of PLAN_FILE."""
    return replace(plan, starter=tuple(path if word == PLAN_FILE else word for word in plan.starter))
