"""Compare this project with its peers on this machine's CPU: the tables of what a user would choose by.

bash scripts/benchmark.sh [--only train,segformer] [--rounds 3] [--out FOLDER]      (makes both environments)
python -m benchmarks.cpu  [--only train,segformer] [--rounds 3] [--out FOLDER]

Every contender is a process of its own; all contenders of a row take turns, round by round. Each measurement is stored
in FOLDER/results.jsonl as soon as it is known, and the same command goes on from there. It ends with FOLDER/cpu.md and
FOLDER/cpu.png: medians, ranges, and ratios to the row's best peer (above 1: faster, or less memory). Measure a changed
program in another FOLDER; the document names all revisions that its numbers are of.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks import machine, processes, tables
from benchmarks.results import Results
from benchmarks.rows import PEERS, ROWS, Contender, Row
from src.engine.config import Parser
from src.engine.errors import reports_errors
from src.engine.io import files

OUT = processes.ROOT / "build" / "benchmark"


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """The type of a flag that takes names separated by commas; the list is in the order of `known`."""

    def names(text: str) -> list[str]:
        wanted = [name.strip() for name in text.split(",")]
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [name for name in known if name in wanted]

    return names


def rows_of(names: list[str], smoke: bool) -> dict[str, Row]:
    """The wanted rows, with jobs that take no time if that is all there is."""
    if not smoke:
        return {name: ROWS[name] for name in names}
    found = {}
    for name in names:
        small = [dataclasses.replace(one, job=processes.smoke(one.job)) for one in ROWS[name].contenders]
        found[name] = dataclasses.replace(
            ROWS[name], title=f"SMOKE, no measurement: {ROWS[name].title}", contenders=tuple(small)
        )
    return found


def measure_row(name: str, row: Row, results: Results, args: argparse.Namespace, without: dict[str, dict]) -> None:
    """All rounds that are missing. Who gave no answer is added to `without`, key and reason, and not asked again."""
    for number in range(1, args.rounds + 1):
        for contender in row.contenders:
            key = contender.key
            if key in without or results.has(key, number):
                continue
            found = measured(contender, args)
            results.add(key, number, found)
            if "answer" not in found:
                without[key] = found
            value = format(found["answer"][row.metric.field], row.metric.number) if "answer" in found else found
            print(f"round {number}, {name}: {contender.label}: {value}", file=sys.stderr, flush=True)


def measured(contender: Contender, args: argparse.Namespace) -> dict:
    """What is stored: {"answer": ...}, or {"failed": why} or {"not_built": why}."""
    folder = args.out / ("smoke" if args.smoke else "files")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        processes.prepare(contender.files, folder, args.smoke)
        answer = processes.call(contender, folder)
    except processes.Failed as error:
        return {"failed": str(error)}
    return answer if "not_built" in answer else {"answer": answer}


def without_peers(row: Row) -> Row:
    """The row where the peers' environment is missing."""
    kept = tuple(contender for contender in row.contenders if contender.environment != PEERS)
    return dataclasses.replace(row, contenders=kept)


def about(results: Results, notes: list[str]) -> list[str]:
    """The lines above the tables."""
    facts = results.machine
    revisions = sorted({line.get("revision", "unknown") for line in results.lines if "answer" in line})
    return [
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}",
        f"this project's revision: {', '.join(revisions) or facts['revision']}",
        *notes,
    ]


def run(args: argparse.Namespace) -> int:
    """Measure what is missing, print each table, write the document and the picture; returns the exit status."""
    results = Results(args.out / "results.jsonl", machine.facts())
    rows, notes = rows_of(args.only, args.smoke), []
    measurable, without = rows, {}
    if not processes.PYTHONS[PEERS].exists():
        notes.append("no .venv-peers here: the peers are not measured; bash scripts/benchmark.sh makes it")
        measurable = {name: without_peers(row) for name, row in rows.items()}
    now = [] if args.tables else machine.warnings()
    print("\n".join(f"- {line}" for line in about(results, notes + now)), flush=True)
    for name, row in rows.items():
        if not args.tables:
            measure_row(name, measurable[name], results, args, without)
        print(f"\n{tables.table(row, results)}", flush=True)
    files.write_text(args.out / "cpu.md", tables.document(rows, results, about(results, notes)))
    tables.picture(args.out / "cpu.png", rows, results, about(results, [])[0])
    print(f"\nwritten to {args.out}")
    return 1 if any("failed" in found for found in without.values()) else 0


@reports_errors
def main(argv: list[str]) -> int:
    """Returns the exit status: 0, 1 where a contender failed, 2 for a wrong command line."""
    flags = Parser(prog="python -m benchmarks.cpu", description=__doc__.split("\n")[0])
    flags.add_argument("--only", type=some_of(ROWS), default=list(ROWS), help=f"some of {','.join(ROWS)}")
    flags.add_argument("--rounds", type=positive, default=3, help="how often each contender runs (default 3)")
    flags.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="results and pictures (build/benchmark)")
    flags.add_argument("--tables", action="store_true", help="measure nothing: tables and picture of what is stored")
    flags.add_argument("--smoke", action="store_true", help="tiny work, which only shows that everything runs")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the measured process ends too
    try:
        args = flags.parse_args(argv)
        args.out = args.out.expanduser().resolve()
        return run(args)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
