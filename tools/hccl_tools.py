"""Write the HCCL rank table of this machine, or check one.

python tools/hccl_tools.py --device_num "[0,8)"
python tools/hccl_tools.py --check hccl_8p_01234567_10.0.0.1.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src.engine.config import Parser
from src.engine.errors import UsageError, reports_errors
from src.engine.io import files
from src.launch import hccl, rank_table


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python tools/hccl_tools.py", description=__doc__)
    parser.add_argument("--device_num", metavar="RANGE", default="[0,8)", help='cards, "[0,8)" is 0 to 7 (default)')
    parser.add_argument("--visible_devices", metavar="LIST", help="cards behind the numbers of --device_num, 4,5,6,7")
    parser.add_argument("--server_ip", metavar="IP", help="this machine's address; default: found out")
    parser.add_argument("--hccn_conf", metavar="FILE", default=str(hccl.HCCN_CONF), help="default: %(default)s")
    parser.add_argument("--any_topology", action="store_true", help="not a server of two groups of four Ascend 910")
    parser.add_argument("--check", metavar="FILE", help="check this rank table instead of writing one")
    return parser.parse_args(argv)


def check(path: Path, any_topology: bool) -> int:
    """Print what is wrong with a table, or what it describes."""
    table = rank_table.read(path)
    for sentence in rank_table.warnings(table):
        print(f"warning: {sentence}", file=sys.stderr)
    found = rank_table.problems(table, any_topology)
    for sentence in found:
        print(f"error: {path}: {sentence}", file=sys.stderr)
    if not found:
        print(f"{path} is right: layout {table.layout}, {len(table.servers)} servers, {table.size} devices")
    return 1 if found else 0


def write(args: argparse.Namespace) -> int:
    """Find the cards' addresses and write the table into the working directory."""
    logical = hccl.device_range(args.device_num)
    cards = list(logical)
    if args.visible_devices is not None:
        shown = hccl.visible(args.visible_devices)
        if logical.stop > len(shown):
            raise UsageError(
                f"device_num is {args.device_num} and visible_devices names {len(shown)} cards; name one for each"
            )
        cards = [shown[number] for number in logical]
    devices = hccl.device_ips(cards, Path(args.hccn_conf))
    table = rank_table.one_server(args.server_ip or hccl.server_ip(), devices)
    found = rank_table.problems(table, args.any_topology)
    if found:
        raise UsageError(f"device_num is {args.device_num}: {'; '.join(found)}")
    path = Path(rank_table.file_name(table))
    files.write_text(path, rank_table.as_json(table))
    print(f"wrote {path.resolve()}")
    return 0


@reports_errors
def main(argv: list[str]) -> int:
    args = arguments(argv)
    return check(Path(args.check).expanduser(), args.any_topology) if args.check else write(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
