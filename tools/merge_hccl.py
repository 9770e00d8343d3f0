"""Merge the rank tables of several servers into one.

python tools/merge_hccl.py a.json b.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from src.engine.config import Parser
from src.engine.errors import UsageError, reports_errors
from src.engine.io import files
from src.launch import rank_table


@reports_errors
def main(argv: list[str]) -> int:
    parser = Parser(prog="python tools/merge_hccl.py", description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="FILE", help="rank tables, one per server")
    parser.add_argument("--any_topology", action="store_true", help="not servers of two groups of four Ascend 910")
    args = parser.parse_args(argv)
    table = rank_table.merged([rank_table.checked(Path(file).expanduser(), True) for file in args.tables])
    found = rank_table.problems(table, args.any_topology)
    if found:
        raise UsageError(f"the tables cannot be merged: {'; '.join(found)}")
    path = Path(rank_table.file_name(table))
    files.write_text(path, rank_table.as_json(table))
    print(f"wrote {path.resolve()}: {len(table.servers)} servers, {table.size} devices")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
