"""Run a script on one or several devices: python -m src.launch [options] SCRIPT [its arguments].

One launcher for all of them: rank tables on Ascend, mpirun on GPU, msrun on CPU (and elsewhere with --engine msrun).
"""

from __future__ import annotations

import argparse
import json
import os

from src.engine.config import Parser
from src.engine.data.stream import usable_cores
from src.engine.environment import usable_platform
from src.engine.errors import reports_errors
from src.launch import plan as plans
from src.launch import supervise

DEFAULT = plans.Request(script="")


def parser() -> Parser:
    """Options come before the script; everything after it belongs to the script."""
    made = Parser(prog="python -m src.launch", description=__doc__)
    add = made.add_argument
    add("--platform", choices=("Ascend", "GPU", "CPU", "auto"), default=DEFAULT.platform, help="auto: what is here")
    add(
        "--engine", choices=plans.ENGINES, default="auto", help="auto: ranktable on Ascend, mpirun on GPU, msrun on CPU"
    )
    add("--device_num", type=int, default=1, metavar="N", help="ranks on this node (default 1); 0: rank table's")
    add("--devices", default="", metavar="LIST", help="cards, 0,1,2,3; as many as --device_num")
    add("--rank_table", default="", metavar="FILE", help="HCCL rank table; None for one device")
    add("--any_topology", action="store_true", help="not servers of two groups of four Ascend 910")
    add("--server_id", default="", metavar="ID", help="this server in a rank table of several: position or server_id")
    add("--nodes", type=int, default=1, metavar="N", help="msrun: number of nodes")
    add("--node_rank", type=int, default=0, metavar="I", help="msrun: number of this node")
    add("--master_addr", default=DEFAULT.master_addr, metavar="HOST", help="msrun: node 0 (default %(default)s)")
    add("--master_port", type=int, default=DEFAULT.master_port, metavar="PORT", help="msrun: default %(default)s")
    add("--log", default=DEFAULT.log, metavar="PATH", help="log of each rank, {rank} and {device} are filled in")
    add("--first_log", default="", metavar="PATH", help="log of rank 0, where it is to be another")
    add("--dry_run", action="store_true", help="print what would run, one JSON object per rank")
    add("script", help="Python script to run")
    add("arguments", nargs=argparse.REMAINDER, help="its arguments")
    return made


@reports_errors
def main(argv: list[str]) -> int:
    given = vars(parser().parse_args(argv))
    dry_run = given.pop("dry_run")
    if given["platform"] == "auto":
        given["platform"] = usable_platform()
    request = plans.Request(**{**given, "arguments": tuple(given["arguments"])})
    plan = plans.make(request, usable_cores(), is_root=os.geteuid() == 0)
    if dry_run:
        for row in plan.as_rows():
            print(json.dumps(row))
        return 0
    return supervise.run(plan)
