"""MindSpore's dataset cache server: start and stop it, make sessions, and run a training with one. No MindSpore here.

python src/launch/cache_server.py run [--spill FOLDER] [--session ID] [--keep] COMMAND --cache_session_id SESSION ...
python src/launch/cache_server.py start [--spill FOLDER] | session | stop | destroy ID
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError, reports_errors
from src.launch import rank as rank_process

PORT = 50052  # MindSpore's default
TOOLS = ("dataset-cache", "cache_admin")  # the second is its name up to MindSpore 2.4
FLAG, SESSION = "--cache_session_id", "SESSION"  # the word after the flag stands for the number of a session to be made


class CacheServer:
    """The server on one port, through MindSpore's command line tool for it."""

    def __init__(self, port: int, python: str):
        """`python` is the interpreter that trains: the tool lies beside it, or on PATH. Raises ZooError without one."""
        self._port = str(port)
        folder = Path(shutil.which(python) or python).parent
        found = [shutil.which(name, path=path) for path in (str(folder), None) for name in TOOLS]
        tool = next(filter(None, found), None)
        if tool is None:
            raise ZooError("dataset-cache is not installed; it comes with MindSpore")
        self._tool = tool

    def _ask(self, *arguments: str) -> tuple[bool, str]:
        """Whether the tool did what it was asked, and what it said; Ctrl-C on the terminal does not reach it."""
        ended = subprocess.run(
            [self._tool, *arguments, "-p", self._port],
            env={**os.environ, "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return ended.returncode == 0, ended.stdout.rstrip("\n")

    def start(self, spill: str) -> bool:
        """Start it; False where one runs on this port already, which is used then."""
        is_done, said = self._ask("--start", *(("-s", spill) if spill else ()))
        if is_done:
            print(f"dataset cache server started on port {self._port}, logs in /tmp/mindspore/cache/log", flush=True)
        elif "already up and running" in said:
            print(f"dataset cache server on port {self._port} is used", flush=True)
        else:
            raise ZooError(f"the dataset cache server did not start: {said}; its logs are in /tmp/mindspore/cache/log")
        return is_done

    def new_session(self) -> str:
        """The number of a new session."""
        is_done, said = self._ask("--generate_session")
        if not is_done:
            raise ZooError(f"no dataset cache session: {said}")
        number = said.rpartition(" ")[2]
        if not number.isdecimal():
            raise ZooError(f"no dataset cache session in what the server said: {said}")
        return number

    def destroy(self, session: str) -> None:
        """Give a session's memory back, as far as that is possible."""
        self._ask("--destroy_session", session)

    def stop(self) -> None:
        is_done, said = self._ask("--stop")
        if not is_done and "has been shutdown already" not in said:
            print(f"error: the dataset cache server did not stop: {said}", file=sys.stderr)


class Signals:
    """While open, remembers the last of SIGTERM, SIGINT and SIGHUP, and passes each on to the command that it runs."""

    PASSED_ON: dict[int, int] = {
        signal.SIGTERM: signal.SIGTERM,
        signal.SIGINT: signal.SIGINT,
        signal.SIGHUP: signal.SIGTERM,
    }

    def __init__(self):
        self.number = 0
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> Signals:
        # what is ignored from the start stays so: SIGHUP under nohup, SIGINT in a script's background
        numbers = [number for number in self.PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.PASSED_ON[number]
        self._tell_child()

    def _tell_child(self) -> None:
        if self._child and self.number:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(self.number)

    def run(self, command: list[str]) -> int:
        """Run a command, which gets the signals, to its end; returns its status, 128 + n after signal n."""
        prepare = rank_process.child_of(os.getpid())
        try:
            self._child = subprocess.Popen(command, start_new_session=True, preexec_fn=prepare)
        except OSError as error:
            raise ZooError(f"cannot run {command[0]}: {error.strerror}; give the command of a training") from error
        self._tell_child()  # of a signal that came meanwhile
        code = self._child.wait()
        return code if code >= 0 else 128 - code

    def ignore(self) -> None:
        """From here on: a second signal would leave the server running."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def with_session(command: list[str], session: str) -> list[str]:
    """The command with the number of its session in place of the word SESSION."""
    pairs = zip(["", *command], command)
    return [session if pair == (FLAG, SESSION) else pair[1] for pair in pairs]


def run(server: CacheServer, args: argparse.Namespace) -> int:
    """Run the command with a session of the server; what was started for it is stopped, unless it is to be kept."""
    with Signals() as signals:
        is_ours, session = server.start(args.spill), args.session
        try:
            session = session or server.new_session()
            if signals.number:
                return 128 + signals.number
            os.environ.update(MS_CACHE_HOST="127.0.0.1", MS_CACHE_PORT=str(args.port))
            return signals.run(with_session(args.command, session))
        finally:
            signals.ignore()
            if args.keep and session:
                print(
                    f"the dataset cache stays: CACHE_PORT={args.port} CACHE_SESSION={session}; "
                    f"stop it with dataset-cache --stop -p {args.port}",
                    flush=True,
                )
            elif is_ours:
                server.stop()
            elif session and not args.session:
                server.destroy(session)


def parser() -> Parser:
    made = Parser(prog="python src/launch/cache_server.py", description=__doc__)
    made.add_argument("--port", type=int, default=PORT, help="of the server (default %(default)s)")
    made.add_argument("--python", default=sys.executable, help="interpreter that MindSpore's tool lies beside")
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    running = actions.add_parser("run", help="run a command with a session, stop what was started")
    starting = actions.add_parser("start", help="start the server, or use the one that runs")
    for one in (running, starting):
        one.add_argument("--spill", default="", metavar="FOLDER", help="for what memory cannot hold")
    running.add_argument("--session", default="", metavar="ID", help="one that was kept, instead of a new one")
    running.add_argument("--keep", action="store_true", help="leave server and session for later")
    running.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    actions.add_parser("session", help="make a session and print its number")
    actions.add_parser("stop", help="stop the server")
    actions.add_parser("destroy", help="give a session's memory back").add_argument("session", metavar="ID")
    return made


@reports_errors
def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    server = CacheServer(args.port, args.python)
    if args.action == "run":
        if not args.command:
            raise UsageError("run has no command; give the one that trains")
        return run(server, args)
    if args.action == "start":
        server.start(args.spill)
    elif args.action == "session":
        print(server.new_session())
    elif args.action == "stop":
        server.stop()
    else:
        server.destroy(args.session)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
